"""The noise of one batch's gradient, from what its independent clusters add to it.

A batch of C independent clusters (samples, or in reinforcement learning segments of an
environment's steps), cluster c with the share s_c of the weights, has the gradient

    G = sum_c a_c,   sum_c s_c = 1,   r_c = a_c - s_c G,   sum_c r_c = 0

and all that follows comes from the inner products <a_c, a_d>, for the whole player and for every
tensor:

    variance            V = C/(C - 1) sum_c |r_c|^2, of the batch's gradient: tr Cov(G)
    sample_variance     n V, of one sample's: tr S of McCandlish et al. (2018)
    norm_squared        |G|^2 - V, unbiased for |E G|^2
    snr                 norm_squared / V
    noise_scale         n V / norm_squared = tr S / |E G|^2 in samples; NaN where norm_squared <= 0
    noise_scale_low, noise_scale_high    n / (snr +- 1.96 stderr): infinite where the clusters
                        cannot tell the gradient from 0
    norm_test           sqrt(V / |G|^2): the least theta that passes (Byrd et al. 2012, eq. 3.9)
    inner_product_test  sqrt(V_par / |G|^2), V_par the variance along G
    orthogonality_test  sqrt((V - V_par) / |G|^2) (Bollapragada et al. 2018, eqs. 2.6 and 3.3)

n is the number of samples, (sum w)^2 / sum w^2 (Kish 1965) where weights differ. With equal
shares these are the textbook's; with others G is a ratio of two sums, and V its linearised
variance (Cochran 1977, eq. 6.4). Errors are the jackknife's over clusters (Efron & Stein 1981), or
over 64 groups of them where there are more: leaving some out costs no pass over parameters.

What the noise is of: drawing other clusters from where these come from. Where every run draws the
same full batch, that is the data's population.

Shape legend: M members, T tensors (the whole player first), C clusters. A cluster that a member
does not have has share 0.

Sources: McCandlish et al. (2018), appendix A.1: the two unbiased parts, with one cluster and the
batch as small and big batch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from playground.probes.noise.estimates import Measured, pairwise_cosine

LEAST = 4
"""Clusters below which nothing is said (design, section 2)."""

GROUPS = 64
"""Leavings-out of the jackknife at most (ours)."""

INTERVAL = 1.96
"""Standard errors on either side: 95 % of a normal."""


@dataclass(frozen=True, slots=True)
class _Sums:
    """Sums over the clusters that are in; [M, T], or [M, T, G] with a last axis of who is out.

    Attributes:
        count: C.
        samples: n.
        squares: sum |a_c|^2.
        shared: sum s_c <a_c, G>.
        shares: sum s_c^2.
        square: |G|^2.
        along: sum <r_c, G>^2.
    """

    count: Tensor
    samples: Tensor
    squares: Tensor
    shared: Tensor
    shares: Tensor
    square: Tensor
    along: Tensor


def _variance(s: _Sums) -> Tensor:
    spread = s.squares - 2 * s.shared + s.square * s.shares
    return (spread * s.count / (s.count - 1)).clamp_min(0.0)


def _along(s: _Sums) -> Tensor:
    """V_par."""
    return s.along / s.square * s.count / (s.count - 1)


def _norm_squared(s: _Sums) -> Tensor:
    return s.square - _variance(s)


def _noise_scale(s: _Sums) -> Tensor:
    norm = _norm_squared(s)
    return torch.where(norm > 0, s.samples * _variance(s) / norm, torch.nan)


QUANTITIES: dict[str, Callable[[_Sums], Tensor]] = {
    "variance": _variance,
    "sample_variance": lambda s: s.samples * _variance(s),
    "norm_squared": _norm_squared,
    "snr": lambda s: _norm_squared(s) / _variance(s),
    "noise_scale": _noise_scale,
    "norm_test": lambda s: (_variance(s) / s.square).sqrt(),
    "inner_product_test": lambda s: (_along(s) / s.square).sqrt(),
    "orthogonality_test": lambda s: ((_variance(s) - _along(s)).clamp_min(0.0) / s.square).sqrt(),
}


def statistics(gram: Tensor, share: Tensor, samples: Tensor) -> dict[str, Measured]:
    """The quantities above with their errors, each [M, T]; NaN below ``LEAST`` clusters.

    Args:
        gram: <a_c, a_d> [M, T, C, C], 0 for clusters that a member does not have.
        share: s_c [M, C], 0 for those.
        samples: n [M].
    """
    gram, share = gram.double(), share.double().unsqueeze(1)  # [M, 1, C]
    n = samples.double().unsqueeze(1)
    whole, left, groups = _sums(gram, share, n)
    enough = whole.count >= LEAST
    number = groups.sum(-1).double()
    found = {}
    for name, quantity in QUANTITIES.items():
        each = torch.where(groups, quantity(left), 0.0)
        mean = each.sum(-1) / number
        spread = torch.where(groups, each - mean.unsqueeze(-1), 0.0).square().sum(-1)
        stderr = ((number - 1) / number * spread).sqrt()
        value = quantity(whole)
        found[name] = Measured(
            torch.where(enough, value, torch.nan), torch.where(enough, stderr, torch.nan)
        )
    return found | _interval(found["snr"], n)


def _sums(gram: Tensor, share: Tensor, samples: Tensor) -> tuple[_Sums, _Sums, Tensor]:
    """Sums of all clusters, and of all but each group; which groups a member has [M, 1, G].

    Cluster c is in group c mod G. Without group e, whose clusters add up to a_e and s_e, the
    others' shares grow by f = 1/(1 - s_e), and G' = f (G - a_e).

    Args:
        gram: [M, T, C, C].
        share: [M, 1, C].
        samples: [M, 1].
    """
    present = (share > 0).double()
    own = gram.diagonal(dim1=-2, dim2=-1)  # |a_c|^2
    dot = gram.sum(-1)  # <a_c, G>
    square = dot.sum(-1)
    sums = _Sums(
        present.sum(-1), samples, own.sum(-1), (share * dot).sum(-1), share.square().sum(-1),
        square, (dot - share * square.unsqueeze(-1)).square().sum(-1),
    )  # fmt: skip
    cross = grouped(gram, GROUPS)  # <a_c, a_e> [M, T, C, G]
    inside = grouped(cross.mT, GROUPS).diagonal(dim1=-2, dim2=-1)  # |a_e|^2
    member = torch.arange(gram.shape[-1], device=gram.device)
    mine = member[:, None] % cross.shape[-1] == member[: cross.shape[-1]]  # [C, G]

    def of_groups(value: Tensor) -> Tensor:
        return grouped(value, GROUPS)

    taken = of_groups(share)
    f = 1 / (1 - taken)
    shorter = f.square() * (square.unsqueeze(-1) - 2 * of_groups(dot) + inside)  # |G'|^2
    mixed = (share.unsqueeze(-1) * cross).masked_fill(mine, 0.0).sum(-2)  # others' s_c <a_c, a_e>
    others = f.square().unsqueeze(-2) * (dot.unsqueeze(-1) - cross)  # <a'_c, G'>
    apart = others - (f * shorter).unsqueeze(-2) * share.unsqueeze(-1)
    apart = apart.masked_fill(mine, 0.0) * present.unsqueeze(-1)
    left = _Sums(
        sums.count.unsqueeze(-1) - of_groups(present),
        samples.unsqueeze(-1) * (1 - taken),
        f.square() * (sums.squares.unsqueeze(-1) - of_groups(own)),
        f**3 * (sums.shared.unsqueeze(-1) - of_groups(share * dot) - mixed),
        f.square() * (sums.shares.unsqueeze(-1) - of_groups(share.square())),
        shorter,
        apart.square().sum(-2),
    )
    return sums, left, taken > 0


def grouped(value: Tensor, most: int) -> Tensor:
    """Sums over the last axis [..., C] of entries c mod G, G = min(C, most): [..., G]."""
    count = value.shape[-1]
    groups = min(count, most)
    whole = count - count % groups
    found = value[..., :whole].reshape(*value.shape[:-1], -1, groups).sum(-2)
    if whole < count:
        found[..., : count - whole] += value[..., whole:]
    return found


def _interval(snr: Measured, samples: Tensor) -> dict[str, Measured]:
    """The noise scale's interval from that of its inverse, which is the better behaved."""
    nothing = torch.full_like(snr.value, torch.nan)
    found = {}
    for name, sign in (("low", 1), ("high", -1)):
        end = snr.value + sign * INTERVAL * snr.stderr
        value = torch.where(end > 0, samples / end, torch.inf)
        found[f"noise_scale_{name}"] = Measured(torch.where(end.isnan(), end, value), nothing)
    return found


def agreement(gram: Tensor, counts: Tensor) -> dict[str, Measured]:
    """The mean cosine between independent gradients of a k-th of the batch, ``cosine/<k>``, [M].

    k = 2, 4, 8, ... as far as some member has so many clusters; cluster c is in part c mod k.
    NaN where a member has fewer.

    Args:
        gram: of the whole player [M, C, C], those that a member has first.
        counts: of a member's clusters [M].

    Source: Ilyas et al. (2020), section 3.1.
    """
    found: dict[str, Measured] = {}
    clusters = gram.shape[-1]
    parts = 2 ** (clusters.bit_length() - 1)  # the most that some member has
    gram = grouped(grouped(gram, parts).mT, parts)
    while parts > 1:
        cosine = pairwise_cosine(gram)
        enough = (counts >= parts) & (counts >= LEAST)
        found[f"cosine/{parts}"] = Measured(
            torch.where(enough, cosine.value, torch.nan),
            torch.where(enough, cosine.stderr, torch.nan),
        )
        parts //= 2
        gram = grouped(grouped(gram, parts).mT, parts)
    return dict(reversed(found.items()))


def pooled_noise_scale(sample_variance: Tensor, norm_squared: Tensor) -> Measured:
    """The noise scale of K measurements [K, ...] together: the ratio of means, and its error.

    Means of unbiased parts are unbiased; a mean of ratios is not. The error is the jackknife's
    over measurements, which must be independent.

    Source: McCandlish et al. (2018), appendix A.1.

    Raises:
        ValueError: fewer than 3 measurements.
    """
    count = len(norm_squared)
    if count < 3:
        raise ValueError(f"{count} measurements: at least 3 are needed")
    trace, square = sample_variance.double(), norm_squared.double()
    each = (trace.sum(0) - trace) / (square.sum(0) - square)
    spread = (each - each.mean(0)).square().sum(0)
    return Measured(trace.sum(0) / square.sum(0), ((count - 1) / count * spread).sqrt())
