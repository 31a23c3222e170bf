"""How weights are drawn, each way with its source.

A weight has shape [out, in, *kernel], n = in prod(kernel) and m = out prod(kernel), as
``torch.nn.init`` counts them. Names without ``_uniform`` or ``_normal`` keep what is usual.

    torch               uniform on +-1/sqrt(n), the default of ``nn.Linear`` and ``nn.Conv2d``
    lecun               normal, variance 1/n (LeCun et al. 1998, section 4.6; for selu Klambauer
                        et al. 2017); lecun_uniform: the same variance
    glorot              uniform, variance 2/(n + m) (Glorot & Bengio 2010, eq. 16), also called
                        Xavier; glorot_normal: the same variance
    he                  normal, variance 2/n (He et al. 2015, eq. 10), also called Kaiming;
                        he_uniform: the same variance
    he_fan_out          normal, variance 2/m (eq. 14); he_fan_out_uniform
    orthogonal          orthonormal rows or columns times a gain (Saxe et al. 2014, section 3)
    sparse              15 weights of a unit standard normal, the others 0 (Martens 2010, section
                        5; all where a unit has fewer)
    normal              deviation 0.01 whatever the size (Krizhevsky et al. 2012, section 5)
    truncated_normal    deviation 0.02, cut off at two, whatever the size (Devlin et al. 2019,
                        ``initializer_range`` of their code)
    identity            1 on the diagonal, else 0 (Le et al. 2015, section 3)
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Size = Callable[[float, float], float]
"""(n, m) -> a deviation or a bound."""

DEVIATIONS: dict[str, Size] = {
    "he": lambda n, m: math.sqrt(2 / n),
    "lecun": lambda n, m: math.sqrt(1 / n),
    "he_fan_out": lambda n, m: math.sqrt(2 / m),
    "glorot_normal": lambda n, m: math.sqrt(2 / (n + m)),
    "normal": lambda n, m: 0.01,
}
BOUNDS: dict[str, Size] = {
    "torch": lambda n, m: 1 / math.sqrt(n),
    "glorot": lambda n, m: math.sqrt(6 / (n + m)),
    "he_uniform": lambda n, m: math.sqrt(6 / n),
    "lecun_uniform": lambda n, m: math.sqrt(3 / n),
    "he_fan_out_uniform": lambda n, m: math.sqrt(6 / m),
}

INITIALISATIONS = ("torch", "he", "glorot", "lecun", "orthogonal", "he_uniform", "he_fan_out",
                   "he_fan_out_uniform", "glorot_normal", "lecun_uniform", "sparse", "normal",
                   "truncated_normal", "identity")  # fmt: skip

CONNECTIONS = 15
"""Weights of a unit that are not 0 under ``sparse`` (Martens 2010)."""


def initial_weight(
    kind: str, shape: Sequence[int], gain: float, generator: torch.Generator
) -> Tensor:
    """One weight [out, in, *kernel] in float64; ``gain`` is orthogonal's factor.

    Raises:
        ValueError: no such initialisation.
    """
    field = math.prod(shape[2:])
    n, m = shape[1] * field, shape[0] * field
    weight = torch.empty(tuple(shape), dtype=torch.float64)
    if kind in DEVIATIONS:
        return weight.normal_(0, DEVIATIONS[kind](n, m), generator=generator)
    if kind in BOUNDS:
        bound = BOUNDS[kind](n, m)
        return weight.uniform_(-bound, bound, generator=generator)
    if kind == "orthogonal":
        return nn.init.orthogonal_(weight, gain, generator=generator)
    if kind == "sparse":
        order = torch.rand((shape[0], n), generator=generator, dtype=torch.float64).argsort(dim=1)
        weight.normal_(generator=generator)
        return weight * (order < CONNECTIONS).view(weight.shape)
    if kind == "truncated_normal":
        return nn.init.trunc_normal_(weight, 0.0, 0.02, -0.04, 0.04, generator=generator)
    if kind == "identity":
        return nn.init.eye_(weight) if weight.ndim == 2 else nn.init.dirac_(weight)
    raise ValueError(f"initialisation={kind}: allowed are {', '.join(INITIALISATIONS)}")


def initial_bias(
    kind: str, shape: Sequence[int], generator: torch.Generator | None = None
) -> Tensor:
    """The bias [out] of a weight [out, in, *kernel]: 0, under ``torch`` drawn like its weight."""
    bias = torch.zeros(shape[0], dtype=torch.float64)
    if kind == "torch":
        bound = BOUNDS["torch"](shape[1] * math.prod(shape[2:]), 0)
        bias.uniform_(-bound, bound, generator=generator)
    return bias
