"""Two coordinates whose gradients differ ten-thousandfold, under three optimizers."""

from collections.abc import Mapping

import numpy as np

from playground.record.reader import Run
from playground.report.drawing.style import COLORS, Sheet, legend, value_scale

from .common import Check, measured, page, trajectory

NAMES = {"sgd": "gradient descent", "rmsprop": "RMSprop", "adam": "Adam"}
CONDITION = 1e4


def apart(run: Run) -> float:
    """Largest difference between the two coordinates on the way, which start alike."""
    path = trajectory(run)[0]
    return float(np.abs(path[:, 0] - path[:, 1]).max())


def spread(run: Run) -> np.ndarray:
    """The larger of both coordinates' rates over the smaller [T]."""
    high, low = (measured(run, "step", f"effective_rate/q{q}", "x")[1][:, 0] for q in ("95", "05"))
    return high / low


def judge(runs: Mapping[str, Run]) -> tuple[list[Check], Sheet]:
    """Adam and RMSprop move both alike; descent moves only the steep one."""
    checks = [
        Check("gradient descent: way that the flat coordinate has gone, of 1", "0",
              [1 - trajectory(runs["sgd"])[0, -1, 0]], high=0.1),
    ]  # fmt: skip
    for name in ("rmsprop", "adam"):
        checks += [
            Check(f"{NAMES[name]}: largest difference between the two coordinates", "0",
                  [apart(runs[name])], high=1e-6),
            Check(f"{NAMES[name]}: rate of the flat coordinate over that of the steep one",
                  "10,000", spread(runs[name]), 0.999 * CONDITION, 1.001 * CONDITION),
        ]  # fmt: skip
    return checks, draw(runs)


def draw(runs: Mapping[str, Run]) -> Sheet:
    """Both coordinates over time, a panel an optimizer."""
    sheet, cells = page(
        "adaptive_rates", "Do Adam and RMSprop adapt their rates?",
        "A valley that is 10,000 times as steep across as along, from (1, 1). Gradient descent has "
        "one rate for both, which the steep coordinate limits. Adam and RMSprop divide each "
        "coordinate's step by the size of its own past gradients: the flat one gets 10,000 times "
        "the rate, and both coordinates move exactly alike, as if the valley were round. (That "
        "is so because it lies along the axes.)", 3, width=14.5, body=3.4,
    )  # fmt: skip
    for cell, (name, label) in zip(cells, NAMES.items(), strict=True):
        ax = sheet.panel(cell, label, "update", "distance from the bottom" if name == "sgd" else "")
        path = np.abs(trajectory(runs[name])[0])
        ax.plot(path[:, 1], color=COLORS[1], lw=3.5, alpha=0.55, label="steep coordinate")
        ax.plot(path[:, 0], color=COLORS[0], lw=1.3, label="flat coordinate")
        value_scale(ax, "log")
        ax.set_ylim(1e-9, 3)
        if name == "sgd":
            legend(ax, loc="center right")
    return sheet
