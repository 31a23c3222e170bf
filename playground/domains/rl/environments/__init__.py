"""Vectors of environments: native, in this process, in workers, EnvPool's; finite MDPs."""
