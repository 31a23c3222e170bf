"""Steps in the metric of a move's divergence: natural gradient and trust region.

With F the Hessian of the mean divergence at the present parameters (Fisher's matrix where it is
the KL of a policy), delta the radius and d the solution of (F + damping) d = g by conjugate
gradients:

    natural gradient   direction sqrt(2 delta / (d^T (F + damping) d)) d
    trust region       the same times the first of shrink^0, shrink^1, ... at which
                       divergence <= delta and the objective falls; 0 where none is

The direction is multiplied by minus the learning rate, as every optimizer's; 1 is the published
step. All members step at once, each with a line search of its own.

Shape legend: M members, N parameters of a player.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from playground.optim.transforms import At, Geometry, Hyper, State, cast

Product = Callable[[Tensor], Tensor]
"""A symmetric positive matrix [N, N] of every member times vectors [M, N]."""

RESIDUAL = 1e-10
"""Squared residual at which conjugate gradients end (that of TRPO's authors' code)."""


def conjugate_gradients(product: Product, target: Tensor, iterations: int) -> Tensor:
    """Solve A x = b for every member [M, N], from x = 0.

    Members whose squared residual is below 1e-10 stay where they are.

    Source: Hestenes and Stiefel 1952; truncated as in Schulman et al. 2015, appendix C.
    """
    solution = torch.zeros_like(target)
    residual, direction = target.clone(), target.clone()
    square = _dot(residual, residual)
    for _ in range(iterations):
        going = square > RESIDUAL
        mapped = product(direction)
        curvature = _dot(direction, mapped)
        step = torch.where(going, square / torch.where(going, curvature, 1.0), 0.0)
        solution = solution + step * direction
        residual = residual - step * mapped
        following = _dot(residual, residual)
        ratio = torch.where(going, following / torch.where(going, square, 1.0), 0.0)
        direction, square = residual + ratio * direction, following
    return solution


class NaturalGradient:
    """The natural gradient, scaled so that the divergence is delta to second order.

    Args:
        radius: delta, a float or [M, 1].
        damping: added to the diagonal of F.
        iterations: of conjugate gradients.

    Attributes:
        report: what the last call did, {name: [M]}.

    Source: Kakade 2001, eq. 4; scaling: Rajeswaran et al. 2017, eq. 5 and Peters and Schaal
    2008; line search: Schulman et al. 2015, appendix C.
    """

    def __init__(self, radius: Hyper, damping: Hyper, iterations: int) -> None:
        self._radius, self._damping, self._iterations = radius, damping, iterations
        self._backtracks = 0
        self._shrink: Hyper = 1.0
        self.report: dict[str, Tensor] = {}

    def search(self, backtracks: int, shrink: Hyper) -> None:
        """Make it a trust region: a line search of so many steps, with that factor between."""
        self._backtracks, self._shrink = backtracks, shrink

    def init(self, like: Tensor) -> State:
        """No state."""
        self._radius, self._damping = cast(self._radius, like), cast(self._damping, like)
        self._shrink = cast(self._shrink, like)
        return {}

    def __call__(self, value: Tensor, state: State, at: At) -> Tensor:
        """The direction, a fresh tensor."""
        geometry = at.geometry
        assert geometry is not None, "the engine gives it to whoever asks"

        def damped(vector: Tensor) -> Tensor:
            return geometry.product(vector) + self._damping * vector

        direction = conjugate_gradients(damped, value, self._iterations)
        curvature = _dot(direction, damped(direction))
        positive = curvature > 0
        scale = (2 * self._radius / torch.where(positive, curvature, 1.0)).sqrt()
        step = torch.where(positive, scale, 0.0) * direction
        self.report = {"natural/scale": torch.where(positive, scale, 0.0).squeeze(1)}
        return self._search(step, geometry, at) if self._backtracks else step

    def _search(self, step: Tensor, geometry: Geometry, at: At) -> Tensor:
        """The largest shrunk step inside the region that improves the objective."""
        before, _ = geometry.evaluate(at.parameters)
        rate = cast(at.learning_rate, step)
        factor = torch.zeros_like(before)
        gain, reached = torch.zeros_like(before), torch.zeros_like(before)
        open_ = torch.ones_like(before, dtype=torch.bool)
        limit = _flat(self._radius)
        for trial in range(self._backtracks):
            size = self._shrink**trial
            objective, divergence = geometry.evaluate(at.parameters - rate * size * step)
            good = open_ & (divergence <= limit) & (objective < before)
            factor = torch.where(good, _flat(size), factor)
            gain = torch.where(good, before - objective, gain)
            reached = torch.where(good, divergence, reached)
            open_ = open_ & ~good
            if step.device.type == "cpu" and not bool(open_.any()):
                break
        self.report |= {
            "trust_region/accepted": (~open_).to(step.dtype), "trust_region/fraction": factor,
            "trust_region/improvement": gain, "trust_region/divergence": reached,
        }  # fmt: skip
        return factor.unsqueeze(1) * step


def _flat(hyper: Hyper) -> Hyper:
    """[M, 1] as [M]."""
    return hyper.squeeze(1) if isinstance(hyper, Tensor) else hyper


def _dot(left: Tensor, right: Tensor) -> Tensor:
    """Inner products [M, 1]."""
    return (left * right).sum(1, keepdim=True)
