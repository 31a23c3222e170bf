"""A sheet of small panels over iterations, each with a few labelled curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from playground.record.view import Series, View
from playground.report.drawing.curves import curve, prepare
from playground.report.drawing.style import COLORS, LABEL, Sheet, heading, legend, ordered_colors
from playground.report.drawing.text import last_iteration, subtitle

COLUMNS = 4
NAMED = 5
"""Curves of an order, such as epochs, that all have a name; of more, some in between have none."""


@dataclass
class Panel:
    """One panel: curves by label.

    Attributes:
        title: with the unit.
        curves: {label: series over iterations}.
        ordered: whether the labels have an order, as epochs do.
        linear: never on a log axis.
        limits: of the y axis.
        line: where a horizontal line stands.
        colors: {label: colour}, where labels mean something in other panels too.
        styles: {label: line style}, likewise.
    """

    title: str
    curves: Mapping[str, Series]
    ordered: bool = False
    linear: bool = False
    limits: tuple[float, float] | None = None
    line: float | None = None
    colors: Mapping[str, str] = field(default_factory=dict)
    styles: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether there is anything to show."""
        return any(self.curves.values())


def draw(view: View, title: str, panels: Sequence[Panel], caption: str) -> Figure | None:
    """The panels that have something to show; None where none has."""
    found = [panel for panel in panels if panel]
    if not found:
        return None
    columns = min(COLUMNS, len(found))
    rows = -(-len(found) // columns)
    sheet = Sheet.make(title, subtitle(view), caption, width=3.7 * max(columns, 3) + 0.6,
                       body=2.9 * rows)  # fmt: skip
    cells = sheet.grid(rows, columns, hspace=0.42, wspace=0.26)
    end = float(last_iteration(view))
    for index, panel in enumerate(found):
        last = index + columns >= len(found)
        ax = sheet.panel(cells[divmod(index, columns)], x="iteration" if last else "")
        paint(ax, panel, end)
    return sheet.figure


def paint(ax: Axes, panel: Panel, end: float) -> None:
    """Draw one panel on an axis of iterations up to ``end``."""
    heading(ax, panel.title, size=LABEL)
    known = {label: series for label, series in panel.curves.items() if series}
    log = prepare(ax, list(known.values()), end, linear=panel.linear)
    if panel.line is not None and (panel.line > 0 or not log):
        ax.axhline(panel.line, color="#999999", linewidth=0.8, zorder=1.2)
    shades = ordered_colors(len(known)) if panel.ordered else cycle(COLORS)
    for (label, series), shade in zip(known.items(), shades, strict=False):
        text = label.replace("_", " ") if _named(label, list(known), panel) else ""
        curve(ax, series, panel.colors.get(label, shade), text, log=log, width=1.4,
              individual=len(known) == 1, style=panel.styles.get(label, "-"))  # fmt: skip
    if panel.limits:
        ax.set_ylim(*panel.limits)
    if log:
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.yaxis.set_minor_locator(NullLocator())
    if len(panel.curves) > 1:  # of several, one alone must be named too
        legend(ax)


def lowest(curves: Mapping[str, Series], floor: float = -1.05) -> float:
    """Where an axis that ends at 1 begins: a little below what is known, not below ``floor``."""
    ends = [series.values[np.isfinite(series.values)].min() for series in curves.values() if series]
    return max(floor, float(min(ends, default=0.0)) - 0.05)


def _named(label: str, labels: list[str], panel: Panel) -> bool:
    if not panel.ordered or len(labels) <= NAMED:
        return True
    return labels.index(label) in np.linspace(0, len(labels) - 1, 4).astype(int)
