"""What independent gradient estimates say of their own bias, variance and direction.

From K estimates g_k at the same point, with mean m, and optionally a reference r (the exact
gradient, or the mean of very many estimates):

    variance           tr S, S = sum_k (g_k - m)(g_k - m)^T / (K - 1)
    norm_squared       |m|^2 - tr S / K, unbiased for |E g|^2
    snr                norm_squared / variance
    cosine             mean of cos(g_i, g_j) over pairs i < j (Ilyas et al. 2020, section 3.1)
    bias_squared       |m - r|^2 - tr S / K, unbiased for |E g - r|^2; may be below 0
    cosine_reference   mean of cos(g_k, r)
    mean_cosine        cos(m, r)

Each comes for the whole player and for every tensor, with the standard error of the jackknife
over estimates (Efron & Stein 1981); what is undefined, as a cosine of 0, is NaN. All are functions
of the inner products of the estimates, so leaving one out costs K^2 and no pass over the
parameters. An estimate may be the mean of many samples: the units are those of one estimate.

Shape legend: K estimates, M members, N parameters, T tensors (the whole player first).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from playground.parameters import Layout


@dataclass(frozen=True, slots=True)
class Measured:
    """A value and its standard error, both [M, 1 + T]: the whole player, then its tensors."""

    value: Tensor
    stderr: Tensor


def moments(estimates: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [M, N] and unbiased variance of every coordinate [M, N] of estimates [K, M, N].

    Raises:
        ValueError: fewer than 2 estimates.
    """
    _check(estimates, 2)
    return estimates.mean(0), estimates.var(0)


def grouped(estimates: Tensor, size: int) -> Tensor:
    """Means of ``size`` estimates each, as if drawn with so many times the samples.

    What is left over at the end is dropped.

    Raises:
        ValueError: fewer than ``size`` estimates.
    """
    _check(estimates, size)
    count = len(estimates) // size
    return estimates[: count * size].reshape(count, size, *estimates.shape[1:]).mean(1)


def noise(
    estimates: Tensor, layout: Layout, reference: Tensor | None = None
) -> dict[str, Measured]:
    """The quantities above of estimates [K, M, N], in float64.

    Args:
        estimates: independent, at the same point.
        layout: of the last axis.
        reference: r [M, N], taken as exact; without it there are no bias and no cosine to it.

    Raises:
        ValueError: fewer than 3 estimates, from which no error can be told, or another shape.
    """
    _check(estimates, 3)
    shape = estimates.shape[1:]
    if reference is not None and reference.shape != shape:
        raise ValueError(f"reference must be {tuple(shape)}, not {tuple(reference.shape)}")
    x = estimates.double()
    gram = _per_tensor(lambda part: torch.einsum("kmn,jmn->mkj", part, part), layout, x)
    if reference is None:
        return {name: _jackknife(f, gram) for name, f in OWN.items()}
    r = reference.to(x).expand_as(x)
    dot = _per_tensor(lambda a, b: (a * b).sum(-1).T, layout, x, r)
    square = _per_tensor(lambda a: (a * a).sum(-1).T, layout, r)
    found = {name: _jackknife(f, gram) for name, f in OWN.items()}
    return found | {name: _jackknife(f, gram, dot, square) for name, f in COMPARED.items()}


def pairwise_cosine(gram: Tensor) -> Measured:
    """The quantity ``cosine`` of inner products [..., K, K]; its error needs 3 estimates."""
    return _jackknife(OWN["cosine"], gram.double())


@dataclass(frozen=True, slots=True)
class _Sums:
    """Sums over the estimates that are in, [M, 1 + T] or with a last axis of those left out.

    Attributes:
        count: how many are in.
        total: sum_ij g_i.g_j.
        diagonal: sum_i |g_i|^2.
        cosines: sum_ij cos(g_i, g_j).
        dot: sum_i g_i.r.
        dot_cosines: sum_i cos(g_i, r).
        square: |r|^2.
    """

    count: int
    total: Tensor
    diagonal: Tensor
    cosines: Tensor
    dot: Tensor
    dot_cosines: Tensor
    square: Tensor


def _variance(s: _Sums) -> Tensor:
    return (s.diagonal - s.total / s.count) / (s.count - 1)


def _norm_squared(s: _Sums) -> Tensor:
    return s.total / s.count**2 - _variance(s) / s.count


def _bias_squared(s: _Sums) -> Tensor:
    return _norm_squared(s) - 2 * s.dot / s.count + s.square


OWN: dict[str, Callable[[_Sums], Tensor]] = {
    "variance": _variance,
    "norm_squared": _norm_squared,
    "snr": lambda s: _norm_squared(s) / _variance(s),
    "cosine": lambda s: (s.cosines - s.count) / (s.count * (s.count - 1)),
}
COMPARED: dict[str, Callable[[_Sums], Tensor]] = {
    "bias_squared": _bias_squared,
    "cosine_reference": lambda s: s.dot_cosines / s.count,
    "mean_cosine": lambda s: s.dot / (s.total * s.square).sqrt(),
}


def _jackknife(
    quantity: Callable[[_Sums], Tensor],
    gram: Tensor,
    dot: Tensor | None = None,
    square: Tensor | None = None,
) -> Measured:
    """A quantity with its jackknife error.

    Args:
        quantity: of sums.
        gram: g_i.g_j [M, 1 + T, K, K], or other leading axes.
        dot: g_k.r [M, 1 + T, K].
        square: |r|^2 [M, 1 + T, K], the same for every k.
    """
    K = gram.shape[-1]
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    root = diagonal.sqrt()
    cosine = gram / (root.unsqueeze(-1) * root.unsqueeze(-2))
    dot = torch.zeros_like(diagonal) if dot is None else dot
    square = torch.ones_like(diagonal) if square is None else square
    to_reference = dot / (root * square.sqrt())

    def without(whole: Tensor, own: Tensor) -> Tensor:
        return whole.unsqueeze(-1) - own

    sums = _Sums(
        K, gram.sum((-2, -1)), diagonal.sum(-1), cosine.sum((-2, -1)), dot.sum(-1),
        to_reference.sum(-1), square[..., 0],
    )  # fmt: skip
    left = _Sums(
        K - 1,
        without(sums.total, 2 * gram.sum(-1) - diagonal),
        without(sums.diagonal, diagonal),
        without(sums.cosines, 2 * cosine.sum(-1) - 1),
        without(sums.dot, dot),
        without(sums.dot_cosines, to_reference),
        square,
    )
    each = quantity(left)
    spread = (each - each.mean(-1, keepdim=True)).square().sum(-1)
    return Measured(quantity(sums), ((K - 1) / K * spread).sqrt())


def _per_tensor(f: Callable[..., Tensor], layout: Layout, *values: Tensor) -> Tensor:
    """Results of f on every tensor's part of the last axis, stacked at axis 1 after their sum.

    f is additive over the last axis, and gives [M, ...].
    """
    parts = [f(*(v[..., piece] for v in values)) for piece in layout.slices.values()]
    stacked = torch.stack(parts, dim=1)
    return torch.cat([stacked.sum(1, keepdim=True), stacked], dim=1)


def _check(estimates: Tensor, least: int) -> None:
    if len(estimates) < least:
        raise ValueError(f"{len(estimates)} estimates: at least {least} are needed")
