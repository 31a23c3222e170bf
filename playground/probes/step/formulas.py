"""What an optimizer made of a gradient: step length, promise kept, rates, magnitudes.

An update u took one player from x to x + u. On the same batch, with the other players where they
were, the loss along it is f(t) = L(x + t u), f(0), f(1), f'(0) = <g(x), u>, f'(1) = <g(x + u), u>:

    predicted    f'(0), what the gradient promises
    actual       f(1) - f(0)
    alpha        1/t* - 1, t* the minimum of the parabola a + b t + c t^2 nearest to the four
                 numbers: -1 is a step of length 0, 0 goes to the minimum, 1 to the same height on
                 the other side; above 1 the loss rises, below -1 the step went uphill. Descent
                 with rate eta on 1/2 l x^2 has eta l - 1
    concave      1 where the parabola has no minimum; then alpha is NaN
    too_short    1 where its curvature is lost in rounding; then alpha and concave are NaN

Source: Schneider et al. (2021), section 3.1 and appendix C. Theirs weighs the four by variances
over samples, as each end has a batch of its own, and gives -1 for a concave as for a short step;
ours has the same batch at both ends, weighs equally, and tells them apart.

Shape legend: M members, N parameters, T tensors, Q quantiles.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from playground.parameters import Layout

ROUNDING = 16
"""Roundings of the largest number below which a parabola's curvature is nothing (ours)."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

LOW, HIGH, PER_DECADE = -12, 4, 4
"""Magnitudes from 1e-12 to 1e4, four bins a decade (ours)."""

BINS = (HIGH - LOW) * PER_DECADE + 4
"""Zero, smaller, the bins, larger, not finite."""

DESIGN = ((1.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.0, 1.0, 0.0), (0.0, 1.0, 2.0))
"""f(0), f(1), f'(0), f'(1) of a + b t + c t^2 as rows of (a, b, c)."""


def step_length(
    start: Tensor, end: Tensor, slope: Tensor, slope_end: Tensor, precision: float
) -> dict[str, Tensor]:
    """``alpha``, ``concave`` and ``too_short`` [M] of f(0), f(1), f'(0), f'(1) [M].

    Args:
        start: f(0); computed in float64, as all.
        end: f(1).
        slope: f'(0).
        slope_end: f'(1).
        precision: the relative rounding of the four, ``finfo(dtype).eps``.
    """
    # f(0) is taken off, which no parabola's curvature notices: a large loss would drown it.
    four = torch.stack([torch.zeros_like(start), end - start, slope, slope_end], dim=-1).double()
    design = torch.tensor(DESIGN, dtype=torch.float64, device=four.device)
    _, b, c = (four @ torch.linalg.pinv(design).T).unbind(-1)
    size = torch.stack([start, end, slope, slope_end]).double().abs().amax(0)
    short = c.abs() <= ROUNDING * precision * size
    concave = torch.where(short, torch.nan, (c < 0).double())
    alpha = torch.where(short | (c < 0), torch.nan, -2 * c / b - 1)
    bad = ~torch.isfinite(four).all(-1)
    return {
        "alpha": torch.where(bad, torch.nan, alpha),
        "concave": torch.where(bad, torch.nan, concave),
        "too_short": torch.where(bad, torch.nan, short.double()),
    }


def quantiles(value: Tensor, without: Tensor, at: Sequence[float] = QUANTILES) -> Tensor:
    """Quantiles [Q, M] of values [M, N], each the nearest entry; NaN where one is NaN.

    Args:
        value: infinite entries count as the largest.
        without: bool [M, N], entries that are left out; NaN where all are.
        at: shares in [0, 1].
    """
    kept = value.masked_fill(without, torch.inf)  # sorted behind all others
    ordered = kept.sort(dim=1).values  # torch.quantile refuses more than 16 million
    last = (~without).sum(1) - 1
    shares = torch.tensor(at, dtype=torch.float64, device=value.device)
    places = (shares * last.clamp(min=0)[:, None]).round().long()
    found = ordered.gather(1, places).T
    return torch.where(kept.isnan().any(1) | (last < 0), torch.nan, found)


def edges() -> Tensor:
    """Edges of the bins between the first two and the last two, 10^-12, ..., 10^4."""
    steps = torch.arange((HIGH - LOW) * PER_DECADE + 1, dtype=torch.float64)
    return 10.0 ** (LOW + steps / PER_DECADE)


def magnitudes(value: Tensor, layout: Layout) -> Tensor:
    """Counts int64 [M, T, BINS] of the entries' magnitudes, by tensor.

    The bins are: zero; below 1e-12; four a decade; from 1e4 on; not finite.
    """
    members, bins = len(value), BINS
    place = torch.bucketize(value.abs().double(), edges().to(value.device), right=True) + 1
    place = torch.where(value == 0, 0, place)
    place = torch.where(torch.isfinite(value), place, bins - 1)
    tensor = torch.repeat_interleave(
        torch.arange(len(layout.sizes), device=value.device),
        torch.tensor(layout.sizes, device=value.device),
    )
    member = torch.arange(members, device=value.device)[:, None]
    cells = (member * len(layout.sizes) + tensor) * bins + place
    counts = torch.bincount(cells.flatten(), minlength=members * len(layout.sizes) * bins)
    return counts.view(members, len(layout.sizes), bins)
