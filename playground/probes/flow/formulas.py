"""Flow through a network: how signals grow or fade from layer to layer, and units that are dead.

Layer l maps x to z = W x + b, and the next one sees phi(z); delta = dL/dz.

    forward, backward     mean squares of z and of delta over samples and units
    theory                what both are for random weights of the same mean square: ``propagation``
    inactive              phi' is at most 1 % of its largest: ReLU below 0, tanh beyond 3
    silent                a unit inactive on more than 99 % of the samples: dead where phi goes to 0
                          there (ReLU, GELU, SiLU, softplus, Mish), saturated where it is bounded
                          (tanh, sigmoid, ELU, SELU, softsign); leaky and linear ones are neither
    dormant               score s = E|h| / mean over the layer's units of E|h| at most tau

At 1/2 n w^2 = 1 a ReLU network keeps its signal (He), at n w^2 = 1 a linear one does (LeCun), with
torch's default, w^2 = 1 / (3 n), each ReLU layer keeps a sixth.

Functions of tensors, for anyone's loop; ``flow_probe`` measures them in a run.

Shape legend: M members, R rows (samples, or places of a convolution), U units, L layers.

Sources: He et al. (2015), equations 8-10 and 14; Glorot and Bengio (2010), section 4.2.1; other
activations: Poole et al. (2016), Schoenholz et al. (2017). A unit active on less than 1 % of the
inputs: rule DeadRelu of SageMaker Debugger; dormant: Sokar et al. (2023), definition 3.1.
"""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from playground.nets import ACTIVATIONS

FLAT = 0.01
"""Share of an activation's largest slope up to which it is inactive (ours)."""

ACTIVE = 0.01
"""Share of samples on which a unit must be active (SageMaker Debugger's DeadRelu)."""

DYING = ("relu", "gelu", "silu", "softplus", "mish")
BOUNDED = ("tanh", "sigmoid", "elu", "selu", "softsign")
"""Activations whose silent units are dead, and saturated."""

HOMOGENEOUS = ("relu", "leaky_relu", "linear")
"""phi(a z) = a phi(z) for a > 0."""

REACH, POINTS = 8.0, 4000
"""Of the normal distribution's quadrature: even, so that kinks at 0 weigh what they should."""

AT_ONCE = 256
"""Integrals at once (ours)."""


def matches(output: Tensor, following: Tensor) -> list[str]:
    """Activations that make a later layer's input of a layer's output, in ``ACTIVATIONS``' order.

    Several where numbers cannot tell (ReLU and linear with nothing below 0).

    Args:
        output: z [M, ...].
        following: [M, ...], as many numbers in the same order.
    """
    if output.shape[0] != following.shape[0] or output.numel() != following.numel():
        return []
    source, target = output.flatten(1), following.flatten(1)
    return [
        name
        for name, (function, _, _) in ACTIVATIONS.items()
        if bool(agree(function(source), target).all())
    ]


def agree(value: Tensor, target: Tensor) -> Tensor:
    """Where two are equal up to what kernels differ in the last bits, or both are no numbers."""
    allowed = 16 * torch.finfo(target.dtype).eps * target.abs()
    return ((value - target).abs() <= allowed) | (~value.isfinite() & ~target.isfinite())


def mean_square(value: Tensor) -> tuple[Tensor, Tensor]:
    """Over rows and units of [M, R, U], float64 [M], with the standard error over rows."""
    rows = value.double().square().mean(dim=2)
    return rows.mean(dim=1), rows.std(dim=1) / rows.shape[1] ** 0.5


def slope_of(activation: str, z: Tensor) -> Tensor:
    """phi'(z)."""
    leaf = z.detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(ACTIVATIONS[activation][0](leaf).sum(), leaf)
    return slope


@cache
def largest_slope(activation: str) -> float:
    """The largest phi'."""
    return float(slope_of(activation, torch.linspace(-20, 20, 40001).double()).max())


def inactive(activation: str, z: Tensor) -> Tensor:
    """Bool, shaped like z."""
    return slope_of(activation, z).abs() <= FLAT * largest_slope(activation)


def silent(activation: str, z: Tensor) -> Tensor:
    """Share [M] of units of z [M, R, U] that are inactive on more than 99 % of the rows."""
    active = 1.0 - inactive(activation, z).double().mean(dim=1)
    return (active < ACTIVE).double().mean(dim=1)


def dormant(activation: str, z: Tensor, threshold: float) -> Tensor:
    """Share [M] of units of z [M, R, U] whose score is at most a threshold."""
    size = ACTIVATIONS[activation][0](z).double().abs().mean(dim=1)
    mean = size.mean(dim=1, keepdim=True)
    return (size <= threshold * mean).double().mean(dim=1)


def transmitted(activation: str, square: Tensor) -> tuple[Tensor, Tensor]:
    """E phi(q^1/2 Z)^2 and E phi'(q^1/2 Z)^2 for Z standard normal and q of any shape."""
    q = square.double()
    if activation in HOMOGENEOUS:
        value, slope = _integrals(activation, torch.ones(1, dtype=q.dtype, device=q.device))
        return q * value, torch.where(q.isnan(), q, slope.expand(q.shape))
    pieces = [_integrals(activation, part) for part in torch.split(q.flatten(), AT_ONCE)]
    value, slope = (torch.cat(both).view(q.shape) for both in zip(*pieces, strict=True))
    return value, slope


def _integrals(activation: str, square: Tensor) -> tuple[Tensor, Tensor]:
    """``transmitted`` for q [K] by a sum over a grid of Z."""
    grid = torch.linspace(-REACH, REACH, POINTS, dtype=torch.float64, device=square.device)
    weight = torch.exp(-0.5 * grid.square())
    weight = weight / weight.sum()
    z = square.sqrt()[:, None] * grid
    value, slope = ACTIVATIONS[activation][0](z), slope_of(activation, z)
    return (weight * value.square()).sum(dim=1), (weight * slope.square()).sum(dim=1)


def trend(values: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Slope [M] of log values [M] over 0, 1, ..., L - 1 by least squares, and its standard error.

    NaN where a value is 0; the error is NaN below 3 layers.
    """
    logs = torch.stack(list(values)).double().log()
    logs = torch.where(torch.isfinite(logs), logs, torch.nan)
    place = torch.arange(len(logs), dtype=torch.float64, device=logs.device)
    place = (place - place.mean())[:, None]
    spread = place.square().sum()
    slope = (place * logs).sum(dim=0) / spread
    rest = logs - logs.mean(dim=0) - slope * place
    free = len(logs) - 2
    error = (rest.square().sum(dim=0) / free / spread).sqrt() if free else slope * torch.nan
    return slope, error


def singular(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Largest singular value and condition number [M] of weights [M, ...], kernels as matrices.

    The condition number is infinite where the weight has no full rank, up to rounding.
    """
    matrix = weight.detach().flatten(2).double()
    good = torch.isfinite(matrix).flatten(1).all(dim=1)
    values = torch.linalg.svdvals(torch.where(good[:, None, None], matrix, 0.0))
    high, low = values[:, 0], values[:, -1]
    rounding = max(matrix.shape[1:]) * torch.finfo(weight.dtype).eps  # numpy's matrix_rank
    condition = torch.where(low > rounding * high, high / low, torch.inf)
    return tuple(v.masked_fill(~good, torch.nan) for v in (high, condition))  # type: ignore[return-value]
