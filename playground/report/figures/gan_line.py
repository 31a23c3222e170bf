"""GANs on the line: histograms of samples and data with the discriminator above them."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from playground.record.view import Array, View
from playground.report.drawing.style import COLORS, INK, LABEL, TICK, Sheet, heading
from playground.report.drawing.text import subtitle, title

BINS = 60
"""Of the histograms (ours)."""


def figure(view: View, panels: list[tuple[str, int, int, str]], caption: str) -> Figure:
    """Draw panels of (heading, iteration, member, scores)."""
    sheet = Sheet.make(title(view), subtitle(view), caption, width=13.0, body=2.6,
                       margins=(0.6, 0.7))  # fmt: skip
    sheet.bottom += 0.035  # two lines of scores
    cells = sheet.grid(1, len(panels), wspace=0.42)
    for index, (head, iteration, member, scores) in enumerate(panels):
        ax = sheet.panel(cells[0, index])
        heading(ax, head)
        paint(ax, view, iteration, member, last=index == len(panels) - 1)
        ax.set_xlabel(scores, fontsize=TICK, color=INK, labelpad=6)
    handles, labels = sheet.figure.axes[0].get_legend_handles_labels()
    height = float(sheet.figure.get_figheight())
    sheet.figure.legend(handles, labels, loc="upper right", ncols=2, frameon=False, fontsize=LABEL,
                        bbox_to_anchor=(sheet.right, 1 - 0.12 / height))  # fmt: skip
    return sheet.figure


def paint(ax: Axes, view: View, iteration: int, member: int, *, last: bool) -> None:
    """Histograms at the left axis, logits at the right one."""

    def read(name: str) -> Array | None:
        known = view.arrays.get(name, {})
        if iteration not in known:
            return None
        array = known[iteration]
        place = 0 if len(array) == 1 else member
        return np.asarray(array[place], np.float64) if place < len(array) else None

    axes, field = read("field_axes"), read("field")
    samples, data = read("samples"), read("data")
    if axes is None or samples is None:
        return
    bins = np.linspace(float(axes[0][0]), float(axes[0][-1]), BINS).tolist()
    ax.set_axisbelow(True)
    if data is not None:
        ax.hist(data[:, 0], bins, density=True, color="#5A5A5A", alpha=0.35, label="data")
    ax.hist(samples[:, 0], bins, density=True, histtype="step", color="#B3123C", linewidth=1.6,
            label="generator's samples")  # fmt: skip
    ax.set_xlim(bins[0], bins[-1])
    if field is None:
        return
    other = ax.twinx()
    other.plot(axes[0], field, color=COLORS[0], linewidth=1.4)
    other.axhline(0, color=COLORS[0], linewidth=0.6, alpha=0.5)
    other.tick_params(labelsize=TICK, colors=COLORS[0])
    other.spines[["top", "left"]].set_visible(False)
    if last:
        other.set_ylabel("D(x), logit", color=COLORS[0], fontsize=TICK)
