"""Adam and descent on a plateau and among local minima."""

from collections.abc import Mapping
from math import log

import numpy as np

from playground.record.reader import Run
from playground.report.drawing.style import COLORS, Sheet, legend

from .common import Check, page

NEAR = 1e-2
"""Distance from the best point that counts as having reached it."""


def judge(runs: Mapping[str, Run]) -> tuple[list[Check], Sheet]:
    """Adam leaves the plateau; of local minima it leaves none."""
    loss = {name: runs[f"plateau {name}"].metric("train_loss")[1][-1] / log(10)
            for name in ("momentum", "adam")}  # fmt: skip
    reached = {name: (runs[f"rastrigin {name}"].metric("distance")[1][-1] < NEAR).astype(float)
               for name in ("sgd", "adam")}  # fmt: skip
    checks = [
        Check("plateau, momentum: training loss over that of knowing nothing", "1",
              loss["momentum"], 0.98, 1.02),
        Check("plateau, Adam: training loss over that of knowing nothing", "< 1", loss["adam"],
              high=0.8),
        Check("local minima, gradient descent: share of starts that reach the best", "< 1",
              reached["sgd"], high=0.1, role="breaks"),
        Check("local minima, Adam: share of starts that reach the best", "< 1", reached["adam"],
              high=0.1, role="breaks"),
    ]  # fmt: skip
    return checks, draw(runs)


def draw(runs: Mapping[str, Run]) -> Sheet:
    """Losses on the plateau; values where paths end."""
    sheet, cells = page(
        "remedies", "Do Adam and RMSprop address the challenges?",
        "Left: five layers of sigmoid units on digits, where the gradients of the first layers are "
        "far smaller than the last one's. Adam, which divides by their size, gets off the plateau; "
        "momentum stays. Right: Rastrigin's function, 400 starts: a different "
        "scale of the steps does not help out of a hollow. (Saddles and scales have their own "
        "parts: saddle_points, adaptive_rates.)", 2,
    )  # fmt: skip
    left = sheet.panel(cells[0], "A plateau: training loss", "iteration")
    for name, color in (("momentum", COLORS[4]), ("adam", COLORS[0])):
        x, loss = runs[f"plateau {name}"].metric("train_loss")
        left.plot(x, loss, color=color, lw=0.6, alpha=0.5)
        left.plot(x, loss.mean(axis=1), color=color, lw=2, label=name.capitalize())
    left.axhline(log(10), color="0.3", lw=0.8, ls="--")
    left.set_ylim(bottom=0)
    legend(left, loc="lower left")
    right = sheet.panel(cells[1], "Many local minima: where 400 starts end", "value at the end",
                        "share of starts that end this low")  # fmt: skip
    for name, color, label, width in (("sgd", COLORS[1], "gradient descent", 4.0),
                                      ("adam", COLORS[0], "Adam", 1.5)):  # fmt: skip
        value = np.sort(runs[f"rastrigin {name}"].metric("value")[1][-1])
        share = np.arange(1, len(value) + 1) / len(value)
        right.step(value, share, where="post", color=color, lw=width, alpha=0.75, label=label)
    right.axvline(0, color="0.3", lw=0.8, ls=":")
    right.text(0.6, 0.93, "the best", fontsize=9)
    legend(right, loc="lower right")
    return sheet
