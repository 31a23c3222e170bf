"""Curves over members: thin lines up to ten members, mean and 95 % band beyond.

Long series are put in bins first; the mean is drawn, and from the smallest to the largest
value of each bin a pale envelope, so that a spike of one update in a million is still seen.
On log axes everything is done in logarithms (geometric means); what is not positive is left out.
Members that diverge are thin lines that leave the panel.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator
from matplotlib.transforms import blended_transform_factory

from playground.record.view import Series, View
from playground.report.drawing.statistics import (
    LARGEST,
    Binned,
    bin_rows,
    ceiling,
    decades,
    diverged,
    finite,
    logarithm,
    mean,
    quantiles,
    scale_of,
)
from playground.report.drawing.style import ALARM, CAPTION, MUTED, counts, value_scale

BINS = 160
"""At most so many points along x: about three pixels each in a panel (ours)."""
LINES, LEAVING = 10, 40
"""Up to so many members have lines of their own, and of those that diverge (ours)."""

BAND = "Thin lines: members; thick: their mean, geometric on log axes; final: mean ± std"
WIDE_BAND = (
    "Line: mean of the members, geometric on log axes; band: the middle 95 %; final: mean ± std"
)


def spread_text(members: int) -> str:
    """What the curves of that many members show, for captions."""
    if members == 1:
        return ""
    return BAND if members <= LINES else WIDE_BAND


def curve(
    ax: Axes,
    series: Series,
    color: Any,
    label: str = "",
    *,
    log: bool = False,
    bins: int = BINS,
    width: float = 1.8,
    style: str = "-",
    individual: bool = True,
) -> None:
    """Draw one quantity with its spread over members.

    Args:
        ax: axes; their scale is set by ``prepare``.
        series: x [T] and values [T, M].
        color: of everything.
        label: for the legend.
        log: whether the axis is logarithmic.
        bins: at most so many points along x.
        width: of the thick line.
        style: of the thick line.
        individual: draw members' own lines where there are few.
    """
    if not series or (log and not (series.values > 0).any()):
        return
    lost = diverged(series.values)
    if lost.any():
        _leave(ax, Series(series.x, series.values[:, lost]), color, log=log, bins=bins)
        series = Series(series.x, series.values[:, ~lost])
    binned, centre, low, high = summary(series, log=log, bins=bins)
    x, members = binned.x, series.values.shape[1]
    marker = "o" if len(x) == 1 else ""
    few = members <= LINES and individual
    if binned.merged:
        _envelope(ax, binned, color, log=log, few=few)
    if few and members > 1:
        lines = _power(binned.mean, log=log)
        ax.plot(x, lines, color=color, linewidth=0.8, alpha=0.45, zorder=2, marker=marker)
    elif members > 1:
        ax.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0, zorder=1.8)
    ax.plot(x, centre, color=color, linewidth=width, linestyle=style, label=label, zorder=3,
            marker=marker, solid_joinstyle="round")  # fmt: skip


def _leave(ax: Axes, series: Series, color: Any, *, log: bool, bins: int) -> None:
    """Thin lines of members that diverge: no part of the mean, which they would become."""
    binned = summary(series, log=log, bins=bins)[0]
    ax.plot(binned.x, _power(binned.mean[:, :LEAVING], log=log), color=color, linewidth=0.7,
            alpha=0.4, zorder=2)  # fmt: skip


def _envelope(ax: Axes, binned: Binned, color: Any, *, log: bool, few: bool) -> None:
    """Smallest to largest value of every bin: a member at a time while there are few."""
    low, high = binned.low, binned.high
    top = np.fmax.reduce(high, axis=1, keepdims=True)
    if not few:
        low, high = np.fmin.reduce(low, axis=1, keepdims=True), top
    for floor, edge in zip(_power(low, log=log).T, _power(high, log=log).T, strict=True):
        ax.fill_between(binned.x, floor, edge, color=color, alpha=0.13, linewidth=0, zorder=1.5)
    ax.plot(binned.x, _power(top, log=log), color=color, linewidth=0.5, alpha=0.5, zorder=1.6)


def summary(
    series: Series, *, log: bool = False, bins: int = BINS
) -> tuple[Binned, np.ndarray, np.ndarray, np.ndarray]:
    """The bins (log10 of the values if ``log``), mean and the middle 95 % of members, each [B]."""
    values = logarithm(series.values) if log else series.values
    binned = bin_rows(series.x, values, bins)
    low, high = quantiles(binned.mean, 0.025, 0.975)
    return (
        binned,
        _power(mean(binned.mean), log=log),
        _power(low, log=log),
        _power(high, log=log),
    )


def prepare(
    ax: Axes, series: Sequence[Series], x_end: float | None = None, *, linear: bool = False
) -> bool:
    """Choose the axes' scales from everything that will be drawn; whether y is logarithmic."""
    known = [finite(s.values).ravel() for s in series if s and not linear]
    kind, threshold = scale_of(np.concatenate(known)) if known else ("linear", 1.0)
    value_scale(ax, kind, threshold, fine=kind == "log" and decades(np.concatenate(known)) < 2.2)
    if known:
        _keep_in_view(ax, np.concatenate(known), max(ceiling(s.values) for s in series if s), kind)
    counts(ax)
    if x_end:
        ax.set_xlim(-0.01 * x_end, 1.01 * x_end)
    return kind == "log"


def _keep_in_view(ax: Axes, known: np.ndarray, top: float, kind: str) -> None:
    """Let the curves of diverging members leave the panel, so that the others stay legible."""
    known = known[~np.isnan(known)]
    if not np.abs(known).max(initial=0.0) > top:
        return
    if kind == "log":
        inside = known[(known > 1 / LARGEST) & (known <= top)]
        ax.set_ylim(float(inside.min(initial=top)) / 3, top)
    else:
        ax.set_ylim(-top if known.min() < 0 else 0.0, top)


def threshold_line(ax: Axes, value: float, label: str) -> None:
    """A dashed line with its name at the left end, on the side that has room."""
    ax.axhline(value, color=MUTED, linewidth=1.1, linestyle=(0, (5, 3)), zorder=2.5)
    ax.autoscale_view()
    low, high = ax.get_ylim()
    if ax.get_yscale() == "log" and high > 200 * low:  # the line may have made a short axis long
        ax.yaxis.set_minor_locator(NullLocator())
    height = ax.transAxes.inverted().transform(ax.transData.transform((0.0, value)))[1]
    side = 1 if height < 0.88 else -1
    where = blended_transform_factory(ax.transAxes, ax.transData)
    ax.annotate(label, (0.0, value), xycoords=where, xytext=(5, 3 * side),
                textcoords="offset points", ha="left", va="bottom" if side > 0 else "top",
                fontsize=CAPTION, color=MUTED, zorder=4)  # fmt: skip


def marks(ax: Axes, view: View) -> None:
    """On an axis of iterations: red where members met non-finite values, dashed where it forked."""
    fork = (view.manifest.get("fork") or {}).get("from")
    if fork:
        ax.axvline(fork, color=MUTED, linewidth=1.0, linestyle="--", zorder=1.4)
    events = [e for e in view.events if e["kind"] in ("nonfinite", "frozen")]
    if not events:
        return
    x = np.unique([float(e["iteration"]) for e in events])
    for place in x[:8]:
        ax.axvline(place, color=ALARM, linewidth=0.8, linestyle=(0, (1, 2)), alpha=0.7, zorder=1.4)
    where = blended_transform_factory(ax.transData, ax.transAxes)
    ax.plot(x, np.full(len(x), 0.0), linestyle="", marker="^", markersize=7, color=ALARM,
            transform=where, clip_on=False, zorder=5)  # fmt: skip


def _power(values: np.ndarray, *, log: bool) -> np.ndarray:
    return 10.0**values if log else values
