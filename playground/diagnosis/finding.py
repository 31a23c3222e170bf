"""What a rule is, what it finds, and when a condition counts as held.

A rule reads a run's records and says for which members its condition holds, since when, how
clearly, and what would refute it. Most look at a quantity's points one after the other: the
condition *holds* at a point when it is met by at least 80 % of the last 16 points (ours: 128
updates at tier 0's default cadence), so one odd minibatch is no finding.

Shape legend: T points in time, M members.
"""

from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass

import numpy as np

from playground.record.view import Array, Series, View

WINDOW, SHARE = 16, 0.8
"""Points that a condition is judged on, and how many of them must meet it (ours)."""


@dataclass(frozen=True)
class Finding:
    """One rule's verdict on one member.

    Attributes:
        rule: its name.
        member: index.
        player, tensor: empty where it concerns the run, or the whole player.
        iteration: when the rule could first say so.
        began: where the evidence begins, at most a window earlier.
        value, threshold: what was measured, and what it was compared with.
        confidence: share of the points since then that meet the condition, in [0, 1].
        evidence: the numbers in words.
    """

    rule: str
    member: int
    iteration: float
    value: float
    threshold: float
    confidence: float
    evidence: str
    player: str = ""
    tensor: str = ""
    _: KW_ONLY
    began: float


@dataclass(frozen=True)
class Rule:
    """A named rule.

    Attributes:
        name: as in ``vanishing_gradient``.
        says: what it means, to a student.
        source: of the criterion, and of the threshold.
        refuted: what would show it wrong.
        remedy: what one would try.
        find: the findings in a run.
        domains: where it applies; empty is everywhere.
    """

    name: str
    says: str
    source: str
    refuted: str
    remedy: str
    find: Callable[[View], Iterable[Finding]]
    domains: tuple[str, ...] = ()


@dataclass(frozen=True)
class Held:
    """Where a condition holds until the end, of each member.

    Attributes:
        now: bool [M], whether it holds at the last point.
        since: x of the first point of the stretch that lasts until the end [M].
        began: x of the first point of that point's window [M].
        confidence: share of the points of that stretch that meet the condition [M].
    """

    now: Array
    since: Array
    began: Array
    confidence: Array

    @property
    def members(self) -> list[int]:
        """Those of whom it holds."""
        return np.flatnonzero(self.now).tolist()


def held(met: Array, x: Array, window: int = WINDOW, share: float = SHARE) -> Held:
    """Where a condition [T, M] holds until the last point; fewer points than a window are none."""
    counts = counted(met, window)
    if not len(counts):
        return nowhere(met)
    holds: Array = counts >= share * window
    broken = ~holds[::-1]
    length = np.where(broken.any(axis=0), broken.argmax(axis=0), len(counts))  # until the end
    start = np.minimum(len(counts) - length, len(counts) - 1)
    later = np.arange(len(met))[:, None] >= start
    confidence = (met & later).sum(axis=0) / later.sum(axis=0)
    return Held(holds[-1], x[start + window - 1], x[start], confidence)


def ever(met: Array, x: Array, window: int = WINDOW, share: float = SHARE) -> Held:
    """As ``held``, but at any time: for faults whose traces fade.

    A step that is too long, for one, makes parameters large enough to hide it.
    """
    counts = counted(met, window)
    if not len(counts):
        return nowhere(met)
    holds: Array = counts >= share * window
    start = holds.argmax(axis=0)
    seen = np.take_along_axis(counts, start[None], 0)[0] / window
    return Held(np.asarray(holds.any(axis=0)), x[start + window - 1], x[start], seen)


def counted(met: Array, window: int) -> Array:
    """How many points of each window meet a condition [T - window + 1, M]; empty if too few."""
    if len(met) < window:
        return np.empty((0, met.shape[1]))
    sums = np.cumsum(np.concatenate([np.zeros((1, met.shape[1])), met]), axis=0)
    result: Array = sums[window:] - sums[:-window]
    return result


def nowhere(met: Array) -> Held:
    """Of a condition that cannot be judged."""
    none = np.zeros(met.shape[1])
    return Held(none.astype(bool), none, none, none)


def trailing(series: Series, window: int = WINDOW) -> Array:
    """Medians of the last ``window`` points of every member [M]; NaN without points."""
    if not len(series.values):
        return np.full(series.values.shape[1], np.nan)
    return median(series.values[-window:])


def leading(series: Series, window: int = WINDOW) -> Array:
    """Medians of the first ``window`` points of every member [M]."""
    if not len(series.values):
        return np.full(series.values.shape[1], np.nan)
    return median(series.values[:window])


def median(values: Array) -> Array:
    """Medians over points of what is finite [M]; NaN where nothing is."""
    known = np.where(np.isfinite(values), values, np.nan)
    result = np.full(values.shape[1], np.nan)
    some = np.isfinite(known).any(axis=0)
    if some.any():
        result[some] = np.nanmedian(known[:, some], axis=0)
    return result


def largest(values: Array) -> Array:
    """Largest of what is finite [M]; minus infinity where nothing is."""
    result: Array = np.where(np.isfinite(values), values, -np.inf).max(axis=0, initial=-np.inf)
    return result


def rolling(values: Array, window: int) -> Array:
    """Medians of the ``window`` points before each point [T, M], from the first full window on.

    Points before that are NaN.
    """
    result = np.full(values.shape, np.nan)
    if len(values) > window:
        views = np.lib.stride_tricks.sliding_window_view(values[:-1], window, axis=0)
        result[window:] = np.median(views, axis=-1)
    return result


def findings(
    rule: str,
    where: Held,
    value: Array,
    threshold: float,
    evidence: Callable[[int], str],
    player: str = "",
    tensor: str = "",
) -> list[Finding]:
    """One finding for every member of whom a condition holds."""
    return [
        Finding(rule, k, float(where.since[k]), float(value[k]), threshold,
                float(where.confidence[k]), evidence(k), player, tensor,
                began=float(where.began[k]))
        for k in where.members
    ]  # fmt: skip
