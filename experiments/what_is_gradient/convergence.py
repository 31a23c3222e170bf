"""Where gradient descent ends from 400 starts, with one valley and with many."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection

from playground.record.reader import Run
from playground.report.drawing.style import LAND, Sheet, bare
from playground.report.drawing.trajectory import ground, trail

from .common import Check, page

NEAR = 1e-2
"""Distance from the best point that counts as having reached it."""


def judge(runs: Mapping[str, Run]) -> tuple[list[Check], Sheet]:
    """One valley: all starts reach the optimum. Many: each reaches its own."""
    one, many = ((runs[name].metric("distance")[1][-1] < NEAR) for name in ("one", "many"))
    checks = [
        Check("one valley: share of starts that reach the best point", "1", one, low=0.999),
        Check("many valleys: share of starts that reach the best point", "< 1", many, high=0.1,
              role="breaks"),
        Check("many valleys: value where they end, the best is 0", "> 0",
              runs["many"].metric("value")[1][-1], low=1.0, role="breaks"),
    ]  # fmt: skip
    return checks, draw(runs)


def draw(runs: Mapping[str, Run]) -> Sheet:
    """Starts, coloured by where they end, over the landscape; the values they end at."""
    sheet, cells = page(
        "convergence", "Does gradient descent converge to the optimum?",
        "Every dot is a start, its line leads to where descent from it ends, its colour is the "
        "value there; the star is the best point. Left: a bowl, with curvatures 0.1 and 1. Middle: "
        "Rastrigin's function, a bowl with waves: descent slides into the nearest hollow, so that "
        "only the starts around the star find it. Right: where the waves leave them.", 3,
        width=14.5, body=3.8,
    )  # fmt: skip
    for cell, name, title in zip(cells, ("one", "many"), ("One valley", "Many valleys"),
                                 strict=False):  # fmt: skip
        shown = plane(sheet.panel(cell, title), runs[name])
    bar = sheet.figure.colorbar(shown, cax=shown.axes.inset_axes((1.02, 0, 0.03, 1)))
    bar.set_label("value at the end", fontsize=9)
    bar.outline.set_visible(False)
    ax = sheet.panel(cells[2], "Many valleys: starts by where they end", "value at the end")
    value = runs["many"].metric("value")[1][-1]
    best = int((value < NEAR).sum())
    _, _, bars = ax.hist(value, bins=np.arange(-0.5, value.max() + 1), color="#7A5195")
    bars[0].set_color("#FFD400")
    ax.text(0.97, 0.95, f"{best} of {len(value)} starts reach\nthe best point (yellow)",
            transform=ax.transAxes, ha="right", va="top", fontsize=9.5)  # fmt: skip
    return sheet


def plane(ax: Axes, run: Run) -> PathCollection:
    """Starts and straight lines to where they end, coloured by the value there."""
    path = trail(run.arrays)
    assert path is not None
    land = ground(run.arrays, path)
    assert land is not None
    ax.contourf(*land.axes, land.values, levels=14, cmap=LAND)
    start, end = path.points[:, 0], path.points[:, -1]
    value = run.metric("value")[1][-1]
    ax.add_collection(LineCollection(np.stack([start, end], axis=1), colors="0.35", linewidths=0.6,
                                     alpha=0.7))  # fmt: skip
    shown = ax.scatter(start[:, 0], start[:, 1], c=value, s=20, cmap="plasma", vmin=0, vmax=40,
                       edgecolors="white", linewidths=0.4, zorder=4)  # fmt: skip
    ax.plot(0, 0, "*", ms=16, color="#FFD400", mec="black", mew=0.8, zorder=5)
    ax.set_aspect("equal")
    ax.set(xlim=(-3.3, 5.3), ylim=(-3.3, 5.3))
    bare(ax)
    return shown
