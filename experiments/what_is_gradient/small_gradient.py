"""Where the gradient is small: near a minimum, near a saddle, on a plateau."""

from collections.abc import Mapping
from math import log

import numpy as np

from playground.probes.curvature.critical import SADDLE
from playground.record.reader import Run
from playground.report.drawing.style import COLORS, Sheet, legend, value_scale

from .common import Check, measured, norms, page, trajectory

SOFT = 0.1
"""The smallest curvature of the bowl."""

LAST = 50
"""Updates at the end whose mean stands for the end."""


def judge(runs: Mapping[str, Run]) -> tuple[list[Check], Sheet]:
    """A small gradient is near where everything curves up, and may be anywhere else."""
    path, lengths = trajectory(runs["valley"])[:, :-1], norms(runs["valley"], "x")
    away = np.linalg.norm(path, axis=-1).T
    saddle = norms(runs["saddle"], "x")[:, 0]
    point = trajectory(runs["saddle"])[0]
    value = point[:, 0] ** 2 - point[:, 1] ** 2
    flattest = int(saddle.argmin())
    at, kind = measured(runs["saddle"], "curvature", "kind", "x")
    nearest = int(np.abs(at - flattest).argmin())
    plateau, learning = (norms(runs[n], "model")[-LAST:].mean(axis=0)
                         for n in ("plateau", "learning"))  # fmt: skip
    loss = runs["plateau"].metric("train_loss")[1][-1] / log(10)
    checks = [
        Check("bowl: largest distance times smallest curvature over the gradient's length", "<= 1",
              (SOFT * away / lengths).max(axis=0), high=1 + 1e-5),
        Check("saddle: smallest gradient on the way over the first", "small",
              [saddle.min() / saddle[0]], high=1e-3, role="breaks"),
        Check("saddle: how far the value falls from there on", "> 1",
              [value[flattest] - value[-1]], low=1.0, role="breaks"),
        Check("saddle: share of curvature probes there that call it a saddle", "1",
              [float(kind[nearest, 0] == SADDLE)], low=1.0, role="breaks"),
        Check("sigmoid network on its plateau: loss over that of knowing nothing", "1", loss,
              0.98, 1.02, role="breaks"),
        Check("its gradient's length over that of a network that has learned", "< 1",
              plateau / learning, high=1.0, role="breaks"),
    ]  # fmt: skip
    return checks, draw(runs, saddle, value)


def draw(runs: Mapping[str, Run], saddle: np.ndarray, value: np.ndarray) -> Sheet:
    """Bowl, saddle, plateau: the gradient's length beside what is being minimised."""
    sheet, cells = page(
        "small_gradient", "Does a small gradient mean that a minimum is near?",
        "Left: in a bowl the length of the gradient bounds the distance. Middle: descent on "
        "x^2 - y^2 runs into the saddle, where the gradient all but vanishes, and then out of it: "
        "there is no minimum at all. Right: two networks of five layers on digits; the one with "
        "sigmoid units has the smaller gradient of the two, and has learned nothing (2.3 is the "
        "loss of guessing).", 3, width=14.5,
    )  # fmt: skip
    left = sheet.panel(cells[0], "A bowl", "length of the gradient", "distance to the minimum")
    path, lengths = trajectory(runs["valley"])[:, :-1], norms(runs["valley"], "x")
    for k, member in enumerate(path):
        left.plot(lengths[:, k], np.linalg.norm(member, axis=-1), color=COLORS[2], lw=1.6,
                  label="descent from a random start" if k == 0 else "")  # fmt: skip
    span = np.array([lengths.min(), lengths.max()])
    left.plot(span, span / SOFT, "--", color="0.3", lw=1, label="length / smallest curvature")
    for axis in "xy":
        value_scale(left, "log", axis=axis)
    legend(left, loc="upper left")
    middle = sheet.panel(cells[1], "A saddle", "update")
    middle.plot(saddle, color=COLORS[0], lw=1.8, label="length of the gradient")
    middle.plot(np.abs(value), color=COLORS[1], lw=1.4, ls="--",
                label="value, positive then negative")  # fmt: skip
    value_scale(middle, "log")
    legend(middle, loc="upper center")
    right = sheet.panel(cells[2], "A plateau", "length of the gradient", "loss")
    for name, color, label in (("plateau", COLORS[1], "sigmoid units"),
                               ("learning", COLORS[0], "ReLU units")):  # fmt: skip
        x, loss = runs[name].metric("train_loss")
        size = norms(runs[name], "model")
        smooth = np.array([np.exp(np.log(size[max(0, i - 10) : i + 10]).mean(axis=0)) for i in x])
        right.plot(smooth, loss, "-", color=color, lw=0.8, alpha=0.6)
        right.plot(smooth[-1], loss[-1], "o", color=color, ms=6, label=f"{label}, at the end")
        right.plot(smooth[0], loss[0], "o", color="white", mec=color, ms=6)
    right.axhline(log(10), color="0.3", lw=0.8, ls="--")
    value_scale(right, "log", axis="x", fine=True)
    legend(right, loc="center left")
    return sheet
