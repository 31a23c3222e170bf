"""Every component of the engine's gradient against a central difference, in four domains."""

from collections.abc import Mapping

import numpy as np
import torch

from playground.record.reader import Run
from playground.report.drawing.style import COLORS, Sheet, legend, value_scale

from .common import Check, Loss, directions, page

PLAYERS = {"landscape": ("x",), "supervised": ("model",), "gan": ("generator", "discriminator"),
           "rl": ("agent",)}  # fmt: skip
STEP = 1e-5
"""Near eps^(1/3), where the two errors of a central difference balance in float64."""

STEPS = 10.0 ** np.arange(0, -13, -1)


def differences(run: Run, player: str, member: int) -> tuple[np.ndarray, np.ndarray]:
    """Partial derivatives by central differences, one by one, and the engine's gradient [N]."""
    loss = Loss(run, member, player, seed=member)
    numeric = loss.slopes(torch.eye(len(loss.at), dtype=loss.at.dtype), STEP)
    return numeric.numpy(), loss.gradient.numpy()


def error(numeric: np.ndarray, gradient: np.ndarray) -> float:
    """Largest difference of any component over the largest component."""
    return float(np.abs(numeric - gradient).max() / np.abs(gradient).max())


def by_step(run: Run, dtype: str) -> np.ndarray:
    """The same error of slopes along 20 random directions, by the step h [H]."""
    loss = Loss(run, 0, overrides=(f"dtype={dtype}",))
    ways = directions(20, loss.at, seed=0)
    exact = (ways @ loss.gradient).numpy()
    return np.array([error(loss.slopes(ways, float(h)).numpy(), exact) for h in STEPS])


def judge(runs: Mapping[str, Run]) -> tuple[list[Check], Sheet]:
    """One check a player: no component differs."""
    found = {
        player: [differences(run, player, k) for k in range(len(run.members))]
        for domain, run in runs.items()
        for player in PLAYERS[domain]
    }
    checks = [
        Check(f"{player}, {len(pairs[0][0])} parameters: largest error of any partial derivative",
              "0", [error(*pair) for pair in pairs], high=1e-7)
        for player, pairs in found.items()
    ]  # fmt: skip
    curves = {dtype: by_step(runs["supervised"], dtype) for dtype in ("float64", "float32")}
    return checks, draw(found, curves)


def draw(
    found: Mapping[str, list[tuple[np.ndarray, np.ndarray]]], curves: Mapping[str, np.ndarray]
) -> Sheet:
    """Numeric against exact; the error by the step."""
    sheet, cells = page(
        "partial_derivatives", "Is the gradient the vector of partial derivatives?",
        "Left: every dot is one parameter. Across: its entry in the gradient that the engine takes "
        "(by automatic differentiation); up: how much the loss changes when only this parameter is "
        "moved a little, (L(+h) - L(-h)) / 2h with h = 1e-5. Right: a difference is only as good "
        "as its step: too long a step sees the curve, too short a step sees rounding.", 2,
    )  # fmt: skip
    left = sheet.panel(cells[0], "One parameter at a time", "entry of the gradient",
                       "measured partial derivative")  # fmt: skip
    for k, (player, pairs) in enumerate(found.items()):
        numeric, gradient = pairs[0]
        left.plot(gradient, numeric, "o", ms=3.5, alpha=0.6, mew=0, color=COLORS[k],
                  label=f"{player} ({len(gradient)})")  # fmt: skip
    span = [min(left.get_xlim()[0], left.get_ylim()[0]), max(left.get_xlim()[1], 0)]
    left.plot(span, span, color="0.3", lw=0.8, zorder=1)
    value_scale(left, "symlog", 0.01)
    value_scale(left, "symlog", 0.01, axis="x")
    legend(left, loc="upper left")
    right = sheet.panel(cells[1], "How short a step?", "step h", "relative error")
    for (dtype, values), color in zip(curves.items(), COLORS, strict=False):
        right.plot(STEPS, np.maximum(values, 1e-16), "o-", ms=4, color=color, label=dtype)
    slope = curves["float64"][2] * (STEPS[:5] / STEPS[2]) ** 2
    right.plot(STEPS[:5], slope, "--", color="0.3", lw=0.9, label="h squared")
    value_scale(right, "log")
    value_scale(right, "log", axis="x")
    legend(right)
    return sheet
