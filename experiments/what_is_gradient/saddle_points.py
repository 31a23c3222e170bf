"""How long four optimizers stay at a saddle, by how near to its ridge they start."""

from collections.abc import Mapping
from math import log

import numpy as np

from playground.record.reader import Run
from playground.report.drawing.style import COLORS, Sheet, legend, value_scale

from .common import Check, page, trajectory

NAMES = {"sgd": ("gradient descent", 1), "momentum": ("momentum", 4), "rmsprop": ("RMSprop", 2),
         "adam": ("Adam", 0)}  # fmt: skip


def escapes(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Distance from the ridge at the start, and updates until it is 1 [M]; NaN is never."""
    off = np.abs(trajectory(run)[..., 1])
    out = off > 1
    return off[:, 0], np.where(out.any(axis=1), out.argmax(axis=1).astype(float), np.nan)


def per_decade(run: Run) -> float:
    """Updates that it takes longer from a tenth of the distance, by least squares."""
    start, updates = escapes(run)
    return float(-np.polyfit(np.log10(start), updates, 1)[0])


def judge(runs: Mapping[str, Run]) -> tuple[list[Check], Sheet]:
    """Descent multiplies what it has; Adam and RMSprop do not care how little it is."""
    rate = runs["sgd"].config["optimizer"]["lr"]
    theory = log(10) / np.log1p(2 * rate)
    slow = escapes(runs["sgd"])[1]
    checks = [
        Check("gradient descent: updates more for every tenfold nearer start", f"{theory:.4g}",
              [per_decade(runs["sgd"])], 0.98 * theory, 1.02 * theory),
        *(
            Check(f"{label}: updates more for every tenfold nearer start", "0",
                  [per_decade(runs[name])], -5, 5)
            for name, (label, _) in NAMES.items() if name in ("rmsprop", "adam")
        ),
        *(
            Check(f"gradient descent's updates over those of {NAMES[name][0]}, from the same start",
                  "> 1", slow / escapes(runs[name])[1], low=1.0)
            for name in ("momentum", "rmsprop", "adam")
        ),
    ]  # fmt: skip
    return checks, draw(runs, rate)


def draw(runs: Mapping[str, Run], rate: float) -> Sheet:
    """Paths past the saddle, and times by start."""
    sheet, cells = page(
        "saddle_points", "Do saddle points hold up training?",
        "x^2 - y^2: a valley along x that breaks off to both sides. Left: paths from one start, "
        "a thousandth beside the ridge. Right: updates until a path has left, against how near "
        "the ridge it began, a dot a start. Plain descent multiplies its distance from the ridge "
        "by the same number every update, so that every zero after the point costs as long; Adam "
        "and RMSprop divide by how small the gradient has been and leave at once.", 2,
    )  # fmt: skip
    left = sheet.panel(cells[0], "Paths", "x, down into the saddle", "y, out of it")
    axis = np.linspace(-0.1, 1.15, 60), np.linspace(-0.15, 1.1, 60)
    left.contourf(*axis, axis[0] ** 2 - axis[1][:, None] ** 2, levels=16, cmap="Greys", alpha=0.35)
    right = sheet.panel(cells[1], "Updates until it has left", "first distance from the ridge")
    for name, (label, color) in NAMES.items():
        path = trajectory(runs[name])[3]
        side = np.sign(path[0, 1])
        left.plot(path[:, 0], side * path[:, 1], ".-", ms=3, lw=1, color=COLORS[color], label=label)
        right.plot(*escapes(runs[name]), "o", ms=3.5, mew=0, alpha=0.7, color=COLORS[color],
                   label=label)  # fmt: skip
    start = np.geomspace(*np.quantile(escapes(runs["sgd"])[0], [0, 1]), 50)
    right.plot(start, -np.log(start) / np.log1p(2 * rate), color="0.2", lw=0.9, label="theory")
    left.set(xlim=(-0.1, 1.15), ylim=(-0.15, 1.1))
    left.grid(False)
    value_scale(right, "log", axis="x")
    right.set_ylim(0, 440)
    legend(left, loc="upper right")
    legend(right, loc="upper right", ncols=2)
    return sheet
