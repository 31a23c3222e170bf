"""Values and policy gradients of finite MDPs in closed form."""

from playground.domains.rl.exact.values import Exact

__all__ = ["Exact"]
