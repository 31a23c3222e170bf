"""Curvature: the Hessian's ends, spectrum and trace, critical points, the stability line."""
