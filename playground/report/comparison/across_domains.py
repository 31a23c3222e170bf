"""The cross-domain figure: the same quantities of runs of different domains on one page.

One column a run, one row a quantity, each row on one scale: an agent, a generator, a
classifier and a point on a landscape are all optimised by updates, and these are their
updates. x is the share of the run's iterations.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from playground.record.view import Series
from playground.report.comparison.entries import Entry
from playground.report.drawing.curves import curve, prepare, threshold_line
from playground.report.drawing.statistics import DIVERGED, finite, scale_of
from playground.report.drawing.style import (
    COLORS,
    INK,
    LABEL,
    MUTED,
    TICK,
    Sheet,
    color,
    legend,
    value_scale,
)
from playground.report.drawing.text import is_linear, result_text, title
from playground.report.figures.overview import reference

COLUMNS, BINS = 6, 90
"""Runs on one page, and points along x (ours)."""

ROWS = {
    "norm": ("gradient norm\n/ its first value", "gradient"),
    "ratio": ("update norm\n/ parameter norm", "update"),
    "cosine_previous": ("cosine with the\nprevious gradient", "gradient"),
    "alignment": ("alignment of update\nand minus gradient", "update"),
}
"""{quantity: (what the row is called, tap)}."""


def figure(pooled: Sequence[Entry]) -> Figure | None:
    """Draw the page for the first entry of every problem; None where nothing was measured."""
    chosen = choose(pooled)
    found = {
        quantity: [[relative(entry, player, quantity, tap) for player in entry.first.players]
                   for entry in chosen]
        for quantity, (_, tap) in ROWS.items()
    }  # fmt: skip
    rows = {q: f for q, f in found.items() if any(series for one in f for series in one)}
    if not rows:
        return None
    count = len(chosen)
    sheet = Sheet.make(
        "One engine, one probe: the same quantities in every domain",
        "Each column is a run, each row a quantity on one scale; x is the share of the run.",
        "Line: mean of the members; band: the middle 95 % of them (log axes: of the logarithms). "
        "The first row is each run's own main metric.",
        width=2.95 * count + 1.4, body=1.85 * (1 + len(rows)), margins=(1.2, 0.3), head=1.25,
    )  # fmt: skip
    cells = sheet.grid(1 + len(rows), count, hspace=0.24, wspace=0.2,
                       height_ratios=[1.15, *[1.0] * len(rows)])  # fmt: skip
    for column, entry in enumerate(chosen):
        _metric(sheet.panel(cells[0, column]), entry, first=column == 0)
    for row, (quantity, values) in enumerate(rows.items()):
        last = row == len(rows) - 1
        limits = _row_scale(quantity, [series for one in values for series in one])
        for column, (entry, players) in enumerate(zip(chosen, values, strict=True)):
            ax = sheet.panel(cells[1 + row, column], x="share of the run" if last else "")
            _quantity(ax, entry, players, quantity, limits)
            ax.tick_params(labelbottom=last, labelleft=column == 0)
            if column == 0:
                ax.set_ylabel(ROWS[quantity][0], fontsize=LABEL + 1)
    return sheet.figure


def choose(pooled: Sequence[Entry]) -> list[Entry]:
    """The first entry of every problem, at most ``COLUMNS``."""
    first: dict[str, Entry] = {}
    for entry in pooled:
        first.setdefault(entry.first.problem, entry)
    return list(first.values())[:COLUMNS]


def relative(entry: Entry, player: str, quantity: str, tap: str) -> Series:
    """A quantity over the share of the run; norms are relative to the member's first."""
    series = entry.gradient(player, quantity, tap)
    if not len(series.x):
        return series
    values = finite(series.values)
    if quantity == "norm":
        values = values / first_positive(values)
    return Series(series.x / series.x[-1], values)


def first_positive(values: np.ndarray) -> np.ndarray:
    """The first finite positive value of every member [M]; NaN where there is none."""
    good = np.isfinite(values) & (values > 0)
    row = good.argmax(axis=0)
    found = values[row, np.arange(values.shape[1])]
    return np.where(good.any(axis=0), found, np.nan)


def _row_scale(quantity: str, series: Sequence[Series]) -> tuple[str, float, float]:
    """Scale and limits that all panels of a row share."""
    if quantity in ("cosine_previous", "alignment"):
        return "linear", -1.08, 1.08
    known = np.concatenate([finite(s.values).ravel() for s in series if s])
    known = known[known > 0]
    if not known.size:
        return "linear", 0.0, 1.0
    kind = scale_of(known)[0]
    low, high = (float(v) for v in np.quantile(known, (0.002, 0.998)))
    high = min(high, DIVERGED)
    low = max(low, 1e-10 * high)  # rounding errors of converged runs would take the whole axis
    return ("log", low / 2, high * 2) if kind == "log" else ("linear", 0.0, 1.1 * high)


def _metric(ax: Axes, entry: Entry, *, first: bool) -> None:
    """The run's main metric, with what was run above it."""
    view = entry.first
    series = entry.metric(view.main_metric)
    ax.set_title(title(view), loc="left", fontsize=LABEL + 2.5, weight="bold", pad=20, y=1.0)
    optimizer = (view.config.get("optimizer") or {}).get("name", "")
    name = view.main_metric.replace("_", " ")
    ax.annotate(f"{name} {result_text(series.last())}, {optimizer}", (0, 1), (0, 6),
                xycoords="axes fraction", textcoords="offset points", fontsize=TICK, color=MUTED,
                annotation_clip=False)  # fmt: skip
    if not series:
        return
    moved = Series(series.x / max(series.x[-1], 1), series.values)
    log = prepare(ax, [moved], linear=is_linear(view.main_metric))
    curve(ax, moved, INK, log=log, individual=len(entry.members) <= len(COLORS))
    line = reference(view)
    if line is not None:
        threshold_line(ax, *line)
    _unit(ax)
    ax.tick_params(labelbottom=False)
    if first:
        ax.set_ylabel("main metric", fontsize=LABEL + 1)


def _quantity(
    ax: Axes,
    entry: Entry,
    players: Sequence[Series],
    quantity: str,
    limits: tuple[str, float, float],
) -> None:
    """One quantity of one run, a colour a player."""
    kind, low, high = limits
    value_scale(ax, kind)
    names = entry.first.players
    for index, (player, series) in enumerate(zip(names, players, strict=True)):
        label = player if len(names) > 1 and quantity == next(iter(ROWS)) else ""
        curve(ax, series, color(index), label, log=kind == "log", bins=BINS, individual=False)
    if quantity in ("cosine_previous", "alignment"):
        ax.axhline(0, color="#999999", linewidth=0.8, zorder=1.2)
    ax.set_ylim(low, high)
    _unit(ax)
    legend(ax, loc="lower left")


def _unit(ax: Axes) -> None:
    ticks: list[Any] = [0, 0.25, 0.5, 0.75, 1]
    ax.set_xticks(ticks, ["0", "¼", "½", "¾", "1"])
    ax.set_xlim(-0.02, 1.02)
