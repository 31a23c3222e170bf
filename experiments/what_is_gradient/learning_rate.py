"""How fast descent is, by the learning rate, from starts whose gradients differ 10,000-fold."""

from collections.abc import Mapping

import numpy as np

from playground.record.reader import Run
from playground.report.drawing.style import COLORS, Sheet, legend, value_scale

from .common import Check, measured, norms, page, rates, trajectory

NAMES = {"small": "1", "middle": "100", "large": "10,000"}


def growth(run: Run) -> np.ndarray:
    """Change of the logarithm of the distance an update, over the later half [M]."""
    away = np.linalg.norm(trajectory(run), axis=-1)
    half = away.shape[1] // 2
    return np.log(away[:, -1] / away[:, half]) / (away.shape[1] - 1 - half)


def limits(run: Run) -> np.ndarray:
    """The largest stable rate told by two gradients, at both ends of the last measured step [M].

    A step of length alpha = rate x curvature - 1 (see ``playground.probes.step.formulas``).
    """
    alpha = measured(run, "step", "alpha", "x")[1][-1]
    return 2 * rates(run) / (1 + alpha)


def judge(runs: Mapping[str, Run]) -> tuple[list[Check], Sheet]:
    """The gradient's length changes nothing; its change over a step tells the limit."""
    grown = {name: growth(run) for name, run in runs.items()}
    first = {name: norms(run, "x")[0] for name, run in runs.items()}
    eta = rates(runs["middle"])
    steep = np.abs(eta - 1) > 0.85  # where the steepest direction is the last to die
    told = limits(runs["middle"])[steep]
    checks = [
        Check("gradients at the start, largest over smallest", "10,000",
              first["large"] / first["small"], 9999, 10001, role="breaks"),
        Check("largest difference that this makes to the speed, per update", "0",
              [np.ptp(list(grown.values()), axis=0).max()], high=1e-9, role="breaks"),
        Check("largest stable rate as two gradients tell it", "2", told, 1.96, 2.04),
        Check("below it the distance shrinks: largest growth per update", "< 0",
              [grown["middle"][eta < 2].max()], high=0.0),
        Check("above it the distance grows: smallest growth per update", "> 0",
              [grown["middle"][eta > 2].min()], low=0.0),
    ]  # fmt: skip
    return checks, draw(runs, grown)


def draw(runs: Mapping[str, Run], grown: Mapping[str, np.ndarray]) -> Sheet:
    """Distances from three starts, speeds on top of each other, the limit as it is told."""
    sheet, cells = page(
        "learning_rate", "Does the gradient tell the learning rate?",
        "A bowl with curvatures 1 and 0.1, whose limit is 2 over the larger. Left and middle: "
        "from starts whose gradients are 1, 100 and 10,000 times as long, the same rates are just "
        "as fast and stop working at the same place. Right: how much the gradient changes over a "
        "step tells the curvature along it, and so the limit, once the step is along the steepest "
        "curve.", 3, width=14.5,
    )  # fmt: skip
    eta = rates(runs["middle"])
    left = sheet.panel(cells[0], "Three starts, rate 1.8 and 2.05", "update", "distance")
    middle = sheet.panel(cells[1], "Speed by rate", "learning rate", "growth per update")
    right = sheet.panel(cells[2], "The limit that two gradients tell", "learning rate",
                        "2 / measured curvature")  # fmt: skip
    exact = np.linspace(0.2, 2.15, 200)
    worst = np.maximum(np.abs(1 - exact), np.abs(1 - 0.1 * exact))
    middle.plot(exact, np.log(worst), color="0.3", lw=0.8, label="theory")
    for k, (name, times) in enumerate(NAMES.items()):
        away = np.linalg.norm(trajectory(runs[name]), axis=-1)
        for rate, style in ((1.8, "-"), (2.05, "--")):
            line = away[int(np.abs(eta - rate).argmin())]
            left.plot(line, style, color=COLORS[k], lw=1.6,
                      label=f"gradient x {times}" if style == "-" else "")  # fmt: skip
        middle.plot(eta, grown[name], "o", ms=11 - 3.5 * k, color=COLORS[k],
                    label=f"gradient x {times}")  # fmt: skip
        right.plot(eta, limits(runs[name]), "o", ms=11 - 3.5 * k, color=COLORS[k])
    middle.axhline(0, color="0.6", lw=0.8)
    right.axhline(2, color="0.3", lw=0.8, ls="--")
    value_scale(left, "log")
    value_scale(right, "log", fine=True)
    right.text(0.3, 12, "2 / 0.1: the last steps go along the soft direction", fontsize=8.5)
    right.text(1.85, 2.15, "2 / 1: along the steep one", fontsize=8.5, ha="right")
    legend(left, loc="lower left")
    legend(middle, loc="lower left")
    return sheet
