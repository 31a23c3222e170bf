"""Length of the gradient against the distance to the minimum, on three landscapes."""

from collections.abc import Mapping

import numpy as np

from playground.record.reader import Run
from playground.report.drawing.style import COLORS, Sheet, value_scale

from .common import Check, norms, page

NAMES = {"round": "A round bowl", "narrow": "A narrow valley", "hills": "Hills and four hollows"}


def points(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Distance to the nearest minimum and length of the gradient at the start [M]."""
    return run.metric("distance")[1][0], norms(run, "x")[0]


def wrong(distance: np.ndarray, norm: np.ndarray) -> np.ndarray:
    """Of each point the share of all pairs in which the larger gradient is the nearer one's."""
    sign = np.sign(distance[:, None] - distance) * np.sign(norm[:, None] - norm)
    return (sign < 0).sum(axis=1) / (len(norm) - 1)


def judge(runs: Mapping[str, Run]) -> tuple[list[Check], Sheet]:
    """Which of two points has further to go? The gradient's length knows in a round bowl."""
    found = {name: points(run) for name, run in runs.items()}
    words = "pairs of points whose larger gradient is the nearer one's"
    checks = [
        Check(f"round bowl: {words}", "0", wrong(*found["round"]), high=0.001),
        Check(f"narrow valley, curvatures 1 and 0.001: {words}", "> 0", wrong(*found["narrow"]),
              low=0.1, role="breaks"),
        Check(f"hills and four hollows: {words}", "> 0", wrong(*found["hills"]), low=0.25,
              role="breaks"),
    ]  # fmt: skip
    return checks, draw(found)


def draw(found: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Sheet:
    """A scatter plot a landscape."""
    sheet, cells = page(
        "large_gradient", "Does a large gradient mean that there is far to go?",
        "Every dot is a random point. In the round bowl (curvature 1 in both directions) length "
        "and distance are the same number. In the valley a point far along its floor has a small "
        "gradient, one near but up its wall a large one. On Himmelblau's function, with hilltops "
        "where the gradient is 0 as in the hollows, one may as well toss a coin. The percentage: "
        "pairs of points that the gradient puts in the wrong order.", 3, width=14.5,
    )  # fmt: skip
    for cell, (name, title), color in zip(cells, NAMES.items(), (2, 0, 1), strict=True):
        distance, norm = found[name]
        ax = sheet.panel(cell, title, "distance to the nearest minimum", "length of the gradient")
        ax.plot(distance, norm, "o", ms=4, alpha=0.55, mew=0, color=COLORS[color])
        ax.set_xlim(left=0)
        if name == "hills":
            value_scale(ax, "log", fine=True)
        share = 100 * wrong(distance, norm).mean()
        ax.text(0.97, 0.05, f"{share:.0f} % in the wrong order", transform=ax.transAxes,
                ha="right", fontsize=10, weight="bold",
                bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0})  # fmt: skip
    return sheet
