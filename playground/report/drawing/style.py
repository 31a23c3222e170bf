"""One visual style for every figure: colours, sizes, axes, headers, captions.

Figures are made through ``matplotlib.figure.Figure`` alone: no pyplot, no global state, so
that they can be drawn from threads, servers and notebooks. Colours are those of Okabe and Ito
(2008), which colour-blind readers can tell apart; a player has one colour in all figures.
"""

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
    SymmetricalLogLocator,
)

from playground.record.atomic import RecordError, write_atomic

DPI = 130

COLORS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#4D4D4D",
)  # fmt: skip
"""Blue, vermilion, green, pink, orange, sky (Okabe and Ito 2008), violet and grey (ours)."""

INK, MUTED, FAINT, ALARM = "#222222", "#666666", "#D9D9D9", "#C1121F"
TITLE, SUBTITLE, LABEL, TICK, CAPTION = 14.0, 10.0, 10.0, 9.0, 8.5
"""Type sizes in points."""

LAND = LinearSegmentedColormap.from_list("land", ["#A9BDD6", "#DCE5EF", "#F8FAFC"])
"""Low ground is blue, high ground white: paths in any of ``COLORS`` stand out."""

DIVERGING = LinearSegmentedColormap.from_list("field", ["#E8A87C", "#F7F7F7", "#8DB8D9"])
"""Two classes, or fake and real: pale orange and pale blue, white where undecided."""

HEAT = colormaps["viridis"]
NEVER = "#DCDCDC"
"""Cells that were not measured."""


def color(index: int) -> str:
    """The colour of player, run or member number ``index``."""
    return COLORS[index % len(COLORS)]


def ordered_colors(count: int) -> list[Any]:
    """Colours of values that have an order, such as learning rates, dark to light."""
    return [colormaps["viridis"](x) for x in np.linspace(0.0, 0.88, max(count, 2))[:count]]


@dataclass
class Sheet:
    """A figure with a header above and a caption below its panels.

    Sizes are inches, so that type keeps its size whatever the number of panels.
    """

    figure: Figure
    left: float
    right: float
    top: float
    bottom: float

    @classmethod
    def make(
        cls,
        title: str,
        subtitle: str = "",
        caption: str = "",
        *,
        width: float = 12.0,
        body: float = 6.0,
        margins: tuple[float, float] = (0.85, 0.35),
        head: float = 0.95,
    ) -> "Sheet":
        """A sheet of that width, with panels ``body`` high; ``head`` holds the panels' titles."""
        lines = textwrap.wrap(caption, int(width * 15.5))
        subtitles = textwrap.wrap(subtitle, int(width * 12.5))
        header = head + 0.19 * len(subtitles)
        footer = 0.72 + 0.165 * len(lines)
        height = header + body + footer
        figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
        x = 0.3 / width
        figure.text(x, 1 - 0.22 / height, title, fontsize=TITLE, weight="bold", color=INK,
                    va="top", parse_math=False)  # fmt: skip
        figure.text(x, 1 - 0.52 / height, "\n".join(subtitles), fontsize=SUBTITLE, color=MUTED,
                    va="top", linespacing=1.3, parse_math=False)  # fmt: skip
        figure.text(x, 0.13 / height, "\n".join(lines), fontsize=CAPTION, color=MUTED,
                    va="bottom", linespacing=1.3, parse_math=False)  # fmt: skip
        return cls(figure, margins[0] / width, 1 - margins[1] / width, 1 - header / height,
                   footer / height)  # fmt: skip

    def key(self, colors: Mapping[str, Any]) -> None:
        """Say at the top right what the colours are, in all panels alike."""
        handles = [Line2D([], [], color=c, linewidth=3) for c in colors.values()]
        height = float(self.figure.get_figheight())
        self.figure.legend(handles, list(colors), loc="upper right", ncols=len(colors),
                           bbox_to_anchor=(self.right, 1 - 0.12 / height), frameon=False,
                           fontsize=LABEL, handlelength=1.2, borderaxespad=0.0)  # fmt: skip

    def bar(self, colors: ScalarMappable, label: str, tall: float = 2.8) -> Any:
        """A colour bar at the right edge, at most ``tall`` inches high; the margin is 1.25."""
        width, height = (float(v) for v in self.figure.get_size_inches())
        tall = min(self.top - self.bottom, tall / height)
        place = (1 - 1.1 / width, self.top - tall, 0.16 / width, tall)
        bar = self.figure.colorbar(colors, cax=self.figure.add_axes(place))
        bar.set_label(label, fontsize=LABEL)
        bar.ax.tick_params(labelsize=TICK)
        bar.outline.set_visible(False)
        return bar

    def grid(self, rows: int, columns: int, **options: Any) -> GridSpec:
        """Cells between header and caption; options are those of ``GridSpec``."""
        return GridSpec(rows, columns, figure=self.figure, left=self.left, right=self.right,
                        top=self.top, bottom=self.bottom, **options)  # fmt: skip

    def panel(self, cell: Any, title: str = "", x: str = "", y: str = "") -> Axes:
        """Axes in a cell of the grid."""
        return dress(self.figure.add_subplot(cell), title, x, y)


def dress(ax: Axes, title: str = "", x: str = "", y: str = "") -> Axes:
    """Give axes the common look."""
    heading(ax, title)
    ax.set_xlabel(x, fontsize=LABEL, color=INK)
    ax.set_ylabel(y, fontsize=LABEL, color=INK)
    ax.tick_params(labelsize=TICK, colors=INK, length=3, color=MUTED, which="major")
    ax.tick_params(length=0, which="minor", labelsize=TICK - 1)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(MUTED)
    ax.grid(True, color=FAINT, linewidth=0.6)
    ax.set_axisbelow(True)
    return ax


def heading(ax: Axes, text: str, right: str = "", *, size: float = LABEL + 1) -> None:
    """A panel's title at the left, and at the right what it came to.

    Titles have a fixed height: to look for one costs a third of the time of a figure.
    """
    if text:
        ax.set_title(text, fontsize=size, color=INK, loc="left", pad=6, weight="bold", y=1.0)
    if not right:
        return
    inches = 0.0095 * size * len(text) + 0.0085 * TICK * len(right)
    if inches < ax.bbox.width / DPI:
        ax.set_title(right, fontsize=TICK, color=MUTED, loc="right", pad=6, y=1.0)
    else:
        box = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1}
        ax.annotate(right, (1, 1), (-3, -3), xycoords="axes fraction", ha="right", va="top",
                    textcoords="offset points", fontsize=TICK, color=MUTED, zorder=6,
                    bbox=box)  # fmt: skip


def bare(ax: Axes) -> Axes:
    """Axes of an image: no ticks, no grid, a thin frame."""
    ax.grid(False)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(True)
        spine.set_color(FAINT)
    return ax


def counts(ax: Axes) -> None:
    """A linear x axis of counts: whole numbers; from ten thousand on 20k, from ten million 20M."""

    def text(value: float, _position: float) -> str:
        end = max(abs(limit) for limit in ax.get_xlim())
        for unit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if end >= 10 * unit and value:
                return f"{value / unit:g}{suffix}"
        return f"{value:g}"

    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    ax.xaxis.set_major_formatter(text)


def value_scale(
    ax: Axes, kind: str, threshold: float = 1.0, axis: str = "y", *, fine: bool = False
) -> None:
    """Make an axis linear, log or symlog, with few and legible ticks.

    ``fine`` labels ticks between powers of ten too, for axes of two of them or less.
    """
    target = ax.yaxis if axis == "y" else ax.xaxis
    setter = ax.set_yscale if axis == "y" else ax.set_xscale
    if kind == "log":
        setter("log")
        target.set_major_locator(LogLocator(numticks=7))
        target.set_minor_locator(LogLocator(subs=(2, 5)) if fine else NullLocator())
        target.set_major_formatter(tick_text)
        target.set_minor_formatter(tick_text if fine else NullFormatter())
    elif kind == "symlog":
        linear = 10.0 ** np.ceil(np.log10(threshold))
        setter("symlog", linthresh=linear, linscale=1.0)
        target.set_major_locator(SymmetricalLogLocator(base=10, linthresh=linear))
        target.set_major_formatter(tick_text)
    else:
        target.set_major_locator(MaxNLocator(nbins=6))
        target.set_major_formatter(tick_text)


def tick_text(value: float, _position: float = 0.0) -> str:
    """A tick's number: 0.02, 1250, but 2e-5 and 1e6; drawn ten times faster than mathtext."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:g}"
    mantissa, exponent = f"{value:.5e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def dots(ax: Axes, points: np.ndarray, **options: Any) -> None:
    """Points [N, 2] as a scatter plot."""
    ax.scatter(points[:, 0], points[:, 1], **options)


def legend(ax: Axes, **options: Any) -> None:
    """A legend without a box, only where something has a label."""
    handles, labels = ax.get_legend_handles_labels()
    if labels:
        given: dict[str, Any] = {"loc": "best", "handlelength": 1.6, "borderaxespad": 0.3}
        box = ax.legend(handles, labels, fontsize=TICK, framealpha=0.85, **{**given, **options})
        box.get_frame().set_linewidth(0)


def note(ax: Axes, text: str) -> None:
    """Say in an empty panel why it is empty."""
    ax.grid(False)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=MUTED,
            fontsize=LABEL)  # fmt: skip


def number(value: float, digits: int = 3) -> str:
    """A number for a label: short, exponents without padding."""
    text = f"{value:.0f}" if 10**digits <= abs(value) < 1e6 else f"{value:.{digits}g}"
    if "e" in text:
        mantissa, exponent = text.split("e")
        return f"{mantissa}e{int(exponent)}"
    return text


def values_text(values: Mapping[str, Any]) -> str:
    """Options as text: ``lr 0.01, betas 0.9 0.999``; what is off or default is left out."""
    words = []
    for key, value in values.items():
        if key == "name" or value is None or value is False or value in (0, {}, [], "constant"):
            continue
        if isinstance(value, list | tuple):
            value = " ".join(_plain(item) for item in value)
        words.append(f"{key} {_plain(value)}" if value is not True else key)
    return ", ".join(words)


def _plain(value: Any) -> str:
    return number(value, 6) if isinstance(value, float) else str(value)


def members_text(members: Sequence[Mapping[str, Any]]) -> str:
    """How many members, and their seeds: ``10 members, seeds 0 to 9``."""
    seeds = sorted({int(member.get("seed", 0)) for member in members})
    count = len(members)
    words = f"{count} member{'s' if count != 1 else ''}"
    if not seeds:
        return words
    if len(seeds) == 1:
        return f"{words}, seed {seeds[0]}"
    return f"{words}, seeds {seeds[0]} to {seeds[-1]}"


def make_folder(folder: Path) -> None:
    """Make a folder where there is none.

    Raises:
        RecordError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(f"cannot make {folder}: {error.strerror or error}") from error


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG, whole or not at all.

    Raises:
        RecordError: the folder cannot be written.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white")
    write_atomic(path, buffer.getvalue())
    return path
