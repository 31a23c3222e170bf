"""``figures/magnitudes.png``: how large the entries of gradient, update and parameters are.

A row a player, a column a tap. Each column of cells is one measurement, each cell the share of
all entries in a quarter of a decade, averaged over members. Exact zeros have a row of their own
below, what is not finite one above, red. The line is the median entry.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from playground.record.view import Array, View
from playground.report.drawing.style import ALARM, HEAT, MUTED, TICK, Sheet, counts
from playground.report.drawing.text import subtitle, title

LOW, PER_DECADE = -12, 4
"""Where the recorded bins begin, and how many a decade has; see ``probes/step/formulas.py``."""

TAPS = ("gradient", "preconditioned", "update", "parameters")
RARE = 1e-3
"""Share of the entries of a panel below which a bin does not widen the axis (ours)."""

COLUMNS, GAP = 160, 2
"""Columns of cells at most, and the bins between the decades and the two other rows (ours)."""


@dataclass(frozen=True)
class Shares:
    """What one panel shows.

    Attributes:
        x: [T], iterations.
        shares: [T, BINS] of zeros, smaller, the bins, larger, not finite.
    """

    x: Array
    shares: Array

    def median(self) -> Array:
        """log10 of the median finite entry [T], NaN where that is zero or there is none."""
        finite = self.shares[:, :-1]
        below = np.cumsum(finite, axis=1)
        half = below[:, -1:] / 2
        place = (below < half).sum(axis=1)
        inside = (half[:, 0] > 0) & (place > 1) & (place < finite.shape[1] - 1)
        place = np.where(inside, place, 2)
        rows = np.arange(len(finite))
        part = (half[:, 0] - below[rows, place - 1]) / np.maximum(finite[rows, place], 1e-300)
        return np.where(inside, LOW + (place - 2 + part) / PER_DECADE, np.nan)


def figure(view: View) -> Figure | None:
    """Draw the picture; None where no magnitudes were recorded."""
    found = {(player, tap): shares(view, player, tap) for player in view.players for tap in TAPS}
    known = {key: value for key, value in found.items() if value is not None}
    if not known:
        return None
    players = [p for p in view.players if any(player == p for player, _ in known)]
    taps = [tap for tap in TAPS if any(tap == other for _, other in known)]
    sheet = Sheet.make(
        f"Sizes of entries: {title(view)}", subtitle(view), caption(view),
        width=3.7 * max(len(taps), 3) + 1.4, body=3.3 * len(players), margins=(0.85, 1.25),
    )  # fmt: skip
    cells = sheet.grid(len(players), len(taps), hspace=0.34, wspace=0.14)
    low, high = span(list(known.values()))
    scale = PowerNorm(0.5, 0.0, max(float(s.shares[:, 1:-1].max()) for s in known.values()) or 1.0)
    for (player, tap), value in known.items():
        row, column = players.index(player), taps.index(tap)
        name = f"{player}: {tap}" if len(view.players) > 1 else tap
        ax = sheet.panel(cells[row, column], name, "iteration" if row == len(players) - 1 else "")
        paint(ax, value, scale, low, high)
        if column:
            ax.tick_params(labelleft=False)
    sheet.bar(ScalarMappable(scale, HEAT), "share of entries")
    return sheet.figure


def shares(view: View, player: str, tap: str) -> Shares | None:
    """Shares of a tap's entries over time; None where they were not recorded."""
    recorded = view.arrays.get(f"magnitudes_{tap}_{player}")
    if not recorded:
        return None
    x = np.array(sorted(recorded))
    counted = np.stack([recorded[k].sum(axis=-2) for k in x.tolist()]).astype(np.float64)
    each = (counted / np.maximum(counted.sum(axis=-1, keepdims=True), 1)).mean(axis=1)
    parts = np.array_split(np.arange(len(x)), min(len(x), COLUMNS))
    return Shares(x[[part[0] for part in parts]], np.stack([each[part].mean(0) for part in parts]))


def span(panels: Sequence[Shares]) -> tuple[int, int]:
    """First and last recorded bin, of the logarithmic ones, that a panel has a share in."""
    used = np.any([(panel.shares[:, 1:-1] > RARE).any(axis=0) for panel in panels], axis=0)
    places = np.flatnonzero(used)
    if not len(places):
        places = np.array([-LOW * PER_DECADE])
    count, least = len(used), 2 * PER_DECADE
    high = min(count, max(int(places[-1]) + 1, int(places[0]) + least))
    return max(0, min(int(places[0]), high - least)), high


def paint(ax: Axes, panel: Shares, scale: PowerNorm, low: int, high: int) -> None:
    """Cells of one tap; the axis is log10 of the magnitude, from bin ``low`` to ``high``."""
    edges = borders(panel.x)
    bottom, top = (LOW + (place - 1) / PER_DECADE for place in (low, high))
    step = 1 / PER_DECADE
    logs = panel.shares[:, 1:-1][:, low:high].T
    zero = bottom - GAP * step
    ax.grid(False)
    for rows, values in (
        (np.linspace(bottom, top, high - low + 1), logs),
        (np.array([zero - 2 * step, zero]), panel.shares[None, :, 0]),
    ):
        ax.pcolormesh(edges, rows, np.ma.masked_equal(values, 0.0), cmap=HEAT, norm=scale)
    broken = panel.shares[:, -1] > 0
    above = top + GAP * step
    if broken.any():
        for start, end in zip(edges[:-1][broken], edges[1:][broken], strict=True):
            ax.fill_between([start, end], above, above + 2 * step, color=ALARM, linewidth=0)
        ax.text(edges[-1], above + step, "not finite ", color=ALARM, fontsize=TICK, ha="right",
                va="center")  # fmt: skip
    middle = (edges[:-1] + edges[1:]) / 2
    marker = "o" if len(panel.x) == 1 else ""
    for color, width in (("white", 2.6), ("black", 1.2)):
        ax.plot(middle, panel.median(), color=color, linewidth=width, marker=marker, ms=2 * width)
    if high == len(panel.shares[0]) - 2:
        ax.text(edges[0], top, " and larger", color=MUTED, fontsize=TICK, va="bottom")
    if low == 0:
        ax.text(edges[0], bottom, " and smaller", color=MUTED, fontsize=TICK, va="top")
    decades = np.arange(np.ceil(bottom), np.floor(top) + 1)
    every = max(1, -(-len(decades) // 7))
    ax.set_yticks([zero - step, *decades[::every]],
                  ["0", *(f"1e{int(d)}" for d in decades[::every])])  # fmt: skip
    ax.set_ylim(zero - 2 * step, above + 2 * step if broken.any() else top)
    ax.set_xlim(edges[0], edges[-1])
    times(ax, panel.x)


def times(ax: Axes, x: Array) -> None:
    """Ticks of an axis of iterations, the one there is where there is one."""
    if len(x) == 1:
        ax.set_xticks(x)
    else:
        counts(ax)


def borders(x: Array) -> Array:
    """Edges [T + 1] of cells around points in time."""
    if len(x) == 1:
        return np.array([x[0] - 0.5, x[0] + 0.5])
    middle = (x[:-1] + x[1:]) / 2
    return np.concatenate([[x[0] - (middle[0] - x[0])], middle, [x[-1] + (x[-1] - middle[-1])]])


def caption(view: View) -> str:
    """What cells and the line are."""
    members = len(view.members)
    words = "Share of all entries by magnitude, in quarters of a decade"
    words += f", mean of {members} members" if members > 1 else ""
    return words + "; white: none. Row 0: exact zeros. Line: the median entry."
