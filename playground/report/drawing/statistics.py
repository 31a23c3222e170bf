"""Statistics of curves over members, safe for missing and non-finite values.

NaN is "no value"; infinities, and numbers too large for any axis, count as no value.

Shape legend: T points, M members, B bins.
"""

import math
from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Binned:
    """Rows of [T, M] put together in bins along x.

    Attributes:
        x: [B], mean position of the rows of each bin.
        mean: [B, M].
        low, high: [B, M], smallest and largest value, so that no spike is lost.
        merged: whether any bin holds more than one row.
    """

    x: Array
    mean: Array
    low: Array
    high: Array
    merged: bool


LARGEST = 1e150
"""What cannot be drawn: larger numbers, whose squares overflow, and on log axes smaller ones
than its inverse (ours)."""

DIVERGED = 1e6
"""Times what is usual: from here on a value only says that a member diverged (ours)."""


def finite(values: Array) -> Array:
    """Values in float64 with NaN for what is not finite or too large to draw."""
    values = np.asarray(values, np.float64)
    return np.where(np.abs(values) < LARGEST, values, np.nan)


def logarithm(values: Array) -> Array:
    """log10 of positive values that can be drawn, else NaN."""
    values = np.asarray(values, np.float64)
    good = (values > 1 / LARGEST) & (values < LARGEST)
    return np.where(good, np.log10(np.where(good, values, 1.0)), np.nan)


def ceiling(values: Array) -> float:
    """Where divergence begins: ``DIVERGED`` times what is usual for values [T, M].

    Usual is the largest first absolute value of a member, or the lower quartile of all absolute
    values if that is larger, for what starts near 0; infinite where nothing is known.
    """
    known = finite(values)
    if not len(known):
        return np.inf
    row = np.isfinite(known).argmax(axis=0)
    first = np.abs(known[row, np.arange(known.shape[1])])
    first = first[np.isfinite(first)]
    if not first.size:
        return np.inf
    every = np.abs(known[np.isfinite(known)])
    usual = max(float(first.max()), float(np.quantile(every, 0.25)))
    return DIVERGED * usual if usual > 0 else np.inf


def diverged(values: Array) -> Array:
    """Bool [M]: members of [T, M] beyond ``ceiling``, or finite no more at the end.

    None where all are: then there is nothing to tell them apart from.
    """
    known = np.isfinite(finite(values))
    with np.errstate(invalid="ignore"):
        lost: Array = np.any(np.abs(values) > ceiling(values), axis=0)
    lost = lost | (known[0] & ~known[-1])
    return lost if not lost.all() else np.zeros(len(lost), bool)


def bin_rows(x: Array, values: Array, bins: int) -> Binned:
    """Put rows together in at most ``bins`` bins of equal width.

    Args:
        x: [T], ascending.
        values: [T, M].
        bins: rows stay as they are where T <= bins.
    """
    values = finite(values)
    if len(x) <= bins:
        return Binned(np.asarray(x, np.float64), values, values, values, merged=False)
    edges = np.linspace(x[0], x[-1], bins + 1)
    place = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, bins - 1)
    starts = np.flatnonzero(np.diff(place, prepend=-1))
    sizes = np.diff(starts, append=len(x))
    known = np.isfinite(values)
    count = np.add.reduceat(known, starts, axis=0, dtype=np.int64)
    total = np.add.reduceat(np.where(known, values, 0.0), starts, axis=0)
    return Binned(
        np.add.reduceat(np.asarray(x, np.float64), starts) / sizes,
        _divide(total, count),
        np.fmin.reduceat(values, starts, axis=0),
        np.fmax.reduceat(values, starts, axis=0),
        merged=True,
    )


def mean(values: Array) -> Array:
    """Mean over members [T] of values [T, M]; NaN where no member has one."""
    known = np.isfinite(values)
    return _divide(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1))


def deviation(values: Array) -> Array:
    """Standard deviation over members [T] with n - 1 degrees of freedom; NaN below two."""
    known = np.isfinite(values)
    away = np.where(known, values - mean(values)[..., None], 0.0)
    result: Array = np.sqrt(_divide((away**2).sum(axis=-1), known.sum(axis=-1) - 1))
    return result


def quantiles(values: Array, *shares: float) -> Array:
    """Linearly interpolated quantiles over members [len(shares), T] of values [T, M].

    The quantile of share q of n values is the order statistic at position q (n - 1), as in
    ``numpy.quantile``.
    """
    ordered = np.sort(finite(values), axis=-1)
    count = np.isfinite(ordered).sum(axis=-1)
    last = np.maximum(count - 1, 0)
    rows = []
    for share in shares:
        place = share * last
        below = np.floor(place).astype(np.int64)
        above = np.minimum(below + 1, last)
        a = np.take_along_axis(ordered, below[..., None], axis=-1)[..., 0]
        b = np.take_along_axis(ordered, above[..., None], axis=-1)[..., 0]
        rows.append(a + (place - below) * (b - a))
    return np.stack(rows)


def interval(values: Array) -> tuple[Array, Array, Array]:
    """Mean and 95 % t interval of the mean over members, each [T], of values [T, M].

        mean -+ t(.975, n - 1) s / sqrt(n)

    With fewer than two values the interval is the mean itself.
    """
    centre = mean(values)
    count = np.isfinite(values).sum(axis=-1)
    quantile = np.array([student(int(n) - 1) for n in np.ravel(count)]).reshape(np.shape(count))
    spread = np.where(count > 1, deviation(values), 0.0)
    half = quantile * spread / np.sqrt(np.maximum(count, 1))
    return centre, centre - half, centre + half


def student(degrees: int) -> float:
    """The .975 quantile of Student's t, to .2 %; 0 below one degree of freedom.

    Closed forms for 1 and 2 degrees of freedom, else the expansion around the normal's.

    Source: Abramowitz and Stegun 1964, 26.7.5.
    """
    if degrees < 1:
        return 0.0
    if degrees == 1:
        return math.tan(0.475 * math.pi)
    if degrees == 2:
        return 0.95 * math.sqrt(2 / (4 * 0.975 * 0.025))
    z = 1.959963984540054
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(sum(term / degrees**power for power, term in enumerate(terms)))


def decades(values: Array) -> float:
    """How many powers of ten positive values span."""
    logs = logarithm(values)
    logs = logs[~np.isnan(logs)]
    return float(np.ptp(logs)) if logs.size else 0.0


def scale_of(values: Array) -> tuple[str, float]:
    """Which axis shows values best: (linear, log or symlog, linear range of symlog).

    Not linear where the largest absolute value is 1000 times the median, or where everything is
    positive and the middle 98 % span more than a factor of 30 (ours).
    """
    known = finite(values).ravel()
    known = known[~np.isnan(known)]
    if not known.size:
        return "linear", 1.0
    if known.size > 200_000:
        known = known[:: known.size // 100_000]
    typical = float(np.median(np.abs(known)))
    wild = typical > 0 and float(np.abs(known).max()) > 1000 * typical
    positive = known[known > 0]
    if (known >= 0).all() and positive.size:
        low, high = np.quantile(positive, (0.01, 0.99))
        return ("log" if wild or high > 30 * low else "linear"), 1.0
    if wild:
        return "symlog", 3 * typical
    return "linear", 1.0


def _divide(total: Array, count: Array) -> Array:
    """Total over count, NaN where the count is not positive."""
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
