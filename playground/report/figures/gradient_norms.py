"""``figures/gradient_norms.png``: gradient norms of every tensor over training.

One panel a player, a row a tensor in the order of the manifest (input to output), colour the
logarithm of the norm, averaged over members and over the updates of a cell. Three things are
told apart from any number: cells where nothing was measured (grey), exact zeros (black) and
non-finite values (red, hatched where some members are still finite).
"""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter

from playground.record.view import Array, View
from playground.report.drawing.style import ALARM, HEAT, NEVER, TICK, Sheet, counts, tick_text
from playground.report.drawing.text import subtitle, title

COLUMNS = 160
"""Cells along the updates, at most (ours)."""

ROW, LABELS = 0.26, 48
"""Height of a row in inches, and the number of rows that have labels of their own (ours)."""

ZERO = "#000000"


@dataclass(frozen=True)
class Cells:
    """One player's heat map.

    Attributes:
        norm: [tensors, columns], geometric mean of positive norms, NaN where there is none.
        zero: bool, every finite norm of the cell is 0.
        broken: share of the cell's measurements that are not finite.
        measured: bool, there is a measurement.
        edges: [columns + 1], updates.
    """

    norm: Array
    zero: Array
    broken: Array
    measured: Array
    edges: Array


def cells(view: View, player: str, columns: int = COLUMNS) -> Cells | None:
    """Put a player's per-tensor norms into cells; None where nothing was measured."""
    table = view.gradients
    tensors = view.manifest.get("tensors", {}).get(player) or [
        name for name in table.names("tensor") if name
    ]
    rows = np.flatnonzero(table.where(player=player, tap="gradient") & ~table.where(tensor=""))
    if not len(rows):
        return None
    every = max(1, int((view.config.get("probes") or {}).get("every", 1) or 1))
    update, norm = table["update"][rows], table["norm"][rows].astype(np.float64)
    bad = ~np.isfinite(norm) | (np.nan_to_num(table["nonfinite"][rows]) > 0)
    windows = int(update.max()) // every + 1
    width = every * -(-windows // columns)  # whole windows, so that no cell misses its measurement
    first = int(width == 1)  # updates count from 1: there would be nothing in a cell 0
    count = (int(update.max()) - first) // width + 1
    place = np.full(len(rows), -1)
    for index, tensor in enumerate(tensors):
        place[table.where(tensor=tensor)[rows]] = index
    known = place >= 0
    flat, norm, bad = (place * count + (update - first) // width)[known], norm[known], bad[known]
    shape, size = (len(tensors), count), len(tensors) * count
    good = ~bad & (norm > 0)

    def total(weights: Array) -> Array:
        return np.bincount(flat, weights, size).reshape(shape)

    positive, measured = total(good), total(np.ones(len(flat)))
    logs = total(np.log10(np.where(good, norm, 1.0)))
    with np.errstate(invalid="ignore", divide="ignore"):
        return Cells(
            norm=np.where(positive > 0, 10 ** (logs / np.maximum(positive, 1)), np.nan),
            zero=(total(~bad & (norm == 0)) > 0) & (positive == 0),
            broken=np.where(measured > 0, total(bad) / np.maximum(measured, 1), 0.0),
            measured=measured > 0,
            edges=first + np.arange(count + 1) * width,
        )


def figure(view: View) -> Figure | None:
    """Draw the heat map; None where no tensor was measured."""
    if not len(view.gradients):
        return None
    found = {player: cells(view, player) for player in view.players}
    panels = {player: c for player, c in found.items() if c is not None}
    if not panels:
        return None
    heights = [min(max(len(c.norm) * ROW, 0.8), 8.0) for c in panels.values()]
    gap = 0.75
    names = [name for p in panels for name in view.manifest.get("tensors", {}).get(p, [])]
    margin = 0.5 + 0.078 * max((len(name) for name in names), default=8)
    sheet = Sheet.make(
        f"Gradient norms by tensor: {title(view)}", subtitle(view), _caption(view),
        body=sum(heights) + gap * (len(heights) - 1), margins=(margin, 1.35),
    )  # fmt: skip
    grid = sheet.grid(
        len(panels), 1, height_ratios=heights, hspace=gap * len(heights) / sum(heights)
    )
    known = np.concatenate([c.norm[np.isfinite(c.norm)] for c in panels.values()])
    scale = LogNorm(*limits(known))
    for index, (player, content) in enumerate(panels.items()):
        name = player if len(view.players) > 1 else ""
        ax = sheet.panel(grid[index, 0], name, "update" if index == len(panels) - 1 else "")
        paint(ax, content, scale)
        label(ax, view.manifest.get("tensors", {}).get(player) or view.gradients.names("tensor"))
    _key(sheet, scale, list(panels.values()))
    return sheet.figure


def limits(known: Array) -> tuple[float, float]:
    """Colour limits: the middle 99 % of the norms, at least a factor of 10 apart."""
    if not known.size:
        return 1e-1, 1.0
    low, high = (float(10**value) for value in np.quantile(np.log10(known), (0.005, 0.995)))
    if high < 10 * low:
        middle = (low * high) ** 0.5
        low, high = middle / 10**0.5, middle * 10**0.5
    return low, high


def paint(ax: Axes, content: Cells, scale: LogNorm) -> None:
    """Colours of all cells as one image."""
    ax.grid(False)
    colors = HEAT(scale(np.ma.masked_invalid(content.norm)))[..., :3]
    colors[~content.measured] = to_rgb(NEVER)
    colors[content.zero] = to_rgb(ZERO)
    colors[content.broken == 1] = to_rgb(ALARM)
    rows, (start, end) = len(content.norm), content.edges[[0, -1]]
    ax.imshow(colors, aspect="auto", interpolation="nearest", extent=(start, end, rows, 0))
    some = np.argwhere((content.broken > 0) & (content.broken < 1))
    if len(some):
        middle = (content.edges[:-1] + content.edges[1:]) / 2
        ax.plot(middle[some[:, 1]], some[:, 0] + 0.5, linestyle="", marker=".", markersize=3.5,
                color=ALARM)  # fmt: skip
    for row in range(1, rows):
        ax.axhline(row, color="white", linewidth=0.8)
    counts(ax)


def label(ax: Axes, tensors: list[str]) -> None:
    """Tensor names beside their rows; every k-th where there are too many."""
    names = [name for name in tensors if name]
    step = -(-len(names) // LABELS)
    ax.set_yticks(np.arange(0, len(names), step) + 0.5, names[::step], fontsize=TICK)
    ax.tick_params(axis="y", length=0)


def _key(sheet: Sheet, scale: LogNorm, panels: list[Cells]) -> None:
    """The colour bar, and what the other colours mean where they occur."""
    figure = sheet.figure
    bar = sheet.bar(ScalarMappable(scale, HEAT), "L2 norm of the gradient", 3.2)
    bar.ax.yaxis.set_major_formatter(tick_text)
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    meaning = {
        "not measured": (NEVER, any(not c.measured.all() for c in panels)),
        "exactly zero": (ZERO, any(c.zero.any() for c in panels)),
        "not finite": (ALARM, any((c.broken > 0).any() for c in panels)),
    }
    shown = {name: color for name, (color, present) in meaning.items() if present}
    if shown:
        height = float(figure.get_figheight())
        figure.legend([Patch(color=c) for c in shown.values()], list(shown), ncols=len(shown),
                      loc="upper right", bbox_to_anchor=(sheet.right, 1 - 0.12 / height),
                      fontsize=TICK, frameon=False, borderaxespad=0.0)  # fmt: skip


def _caption(view: View) -> str:
    """What a cell holds."""
    members = len(view.members)
    every = int((view.config.get("probes") or {}).get("every", 1) or 1)
    words = "Colour: geometric mean"
    words += f" over {members} members and" if members > 1 else " over"
    words += " the measured updates of a cell"
    words += f" (one update in {every})" if every > 1 else ""
    words += "; rows from input (top) to output."
    return words + (" Red dots: some members are not finite." if members > 1 else "")
