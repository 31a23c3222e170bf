"""Slopes of the loss along the gradient, along random directions, and in between."""

from collections.abc import Mapping

import numpy as np
import torch

from playground.record.reader import Run
from playground.report.drawing.style import COLORS, Sheet, legend, value_scale
from playground.temporary import find_point

from .common import Check, Loss, directions, page

AT, NUMBER, STEP = 8, 1000, 1e-4
"""The iteration of the network, random directions, and the step of central differences."""

LENGTHS = np.geomspace(1e-3, 30, 40)


class Slopes:
    """Slopes around one member early in training, over the length of its gradient.

    Attributes:
        random: of random directions [K].
        gradient, opposite: of the gradient and of minus the gradient.
        mixed: angles' cosines and slopes of directions in between [2, 21].
        way: distance to the trained network.
        losses: by length [L] along minus the gradient, the best of 20 random directions, and
            towards the trained network.
    """

    def __init__(self, run: Run, member: int) -> None:
        loss = Loss(run, member, at=AT, overrides=("problem.batch_size=256",), seed=member)
        size = loss.gradient.norm()
        unit = loss.gradient / size
        ways = directions(NUMBER, loss.at, seed=member)
        self.size = len(unit)
        self.random = (loss.slopes(ways, STEP) / size).numpy()
        pair = loss.slopes(torch.stack([unit, -unit]), STEP) / size
        self.gradient, self.opposite = pair.tolist()
        across = ways[0] - (ways[0] @ unit) * unit
        cosine = torch.linspace(-1, 1, 21, dtype=unit.dtype)[:, None]
        mixed = cosine * unit + (1 - cosine**2).sqrt() * across / across.norm()
        self.mixed = np.stack([cosine[:, 0], loss.slopes(mixed, STEP) / size])
        trained = find_point(run, "final", member).parameters["model"] - loss.at
        self.way = trained.norm().item()
        lengths = torch.from_numpy(LENGTHS).to(unit)[:, None]
        self.losses = {
            "minus the gradient": loss(loss.at - lengths * unit).numpy(),
            "best of 20 random directions": torch.stack(
                [loss(loss.at + lengths * w) for w in ways[:20]]).amin(0).numpy(),
            "to where training ended": loss(
                loss.at + lengths * trained / trained.norm()).numpy(),
        }  # fmt: skip
        ends = torch.stack([loss.at - self.way * unit, loss.at + trained])
        self.ends = loss(ends).numpy()


def judge(runs: Mapping[str, Run]) -> tuple[list[Check], Sheet]:
    """Nothing rises faster than the gradient's direction, on a short step; on a long one it may."""
    found = [Slopes(runs["digits"], k) for k in range(len(runs["digits"].members))]
    root = np.sqrt(found[0].size)
    checks = [
        Check("slope along the gradient over the gradient's length", "1",
              [s.gradient for s in found], 1 - 1e-5, 1 + 1e-5),
        Check("slope along minus the gradient over the gradient's length", "-1",
              [s.opposite for s in found], -1 - 1e-5, -1 + 1e-5),
        Check(f"steepest of {NUMBER} random directions over the gradient's length", "< 1",
              [np.abs(s.random).max() for s in found], high=1.0),
        Check("random directions: root mean square slope times root of the dimension", "1",
              [root * np.sqrt((s.random**2).mean()) for s in found], 0.9, 1.1),
        Check("after one step as long as the way to the trained network: loss over that network's",
              "> 1", [s.ends[0] / s.ends[1] for s in found], low=1.0, role="breaks"),
    ]  # fmt: skip
    return checks, draw(found[0])


def draw(s: Slopes) -> Sheet:
    """Slopes by angle, slopes at random, losses by the length of the step."""
    sheet, cells = page(
        "steepest_ascent", "Does the gradient point along the steepest ascent?",
        f"A network of {s.size} parameters on digits, {AT} updates after its start. Slopes are "
        "measured by moving the network a ten-thousandth to either side, and divided by the "
        f"gradient's length. Left: directions between the gradient (cosine 1) and its opposite. "
        f"Middle: {NUMBER} random directions are nearly flat, as there are {s.size} ways to go. "
        "Right: one straight step along a direction: minus the gradient is the best for short "
        "steps only.", 3, width=14.5,
    )  # fmt: skip
    left = sheet.panel(cells[0], "Slope by direction", "cosine of the angle to the gradient",
                       "slope / gradient's length")  # fmt: skip
    left.plot([-1, 1], [-1, 1], color="0.3", lw=0.8, label="theory: the cosine")
    left.plot(*s.mixed, "o", ms=5, color=COLORS[0], label="measured")
    legend(left)
    middle = sheet.panel(cells[1], "Random directions", "slope / gradient's length", "directions")
    middle.hist(s.random, bins=25, color=COLORS[7], label=f"{NUMBER} random")
    middle.axvline(s.gradient, color=COLORS[1], lw=2, label="the gradient")
    middle.axvline(s.opposite, color=COLORS[0], lw=2, label="minus the gradient")
    middle.set_xlim(-1.25, 1.25)
    legend(middle, loc="upper right", bbox_to_anchor=(0.92, 1))
    right = sheet.panel(cells[2], "One long step", "length of the step", "loss after it")
    for (name, values), k in zip(s.losses.items(), (0, 7, 2), strict=True):
        right.plot(LENGTHS, values, color=COLORS[k], lw=1.8, label=name)
    right.axvline(s.way, color=COLORS[2], lw=0.8, ls=":")
    value_scale(right, "log", axis="x")
    right.set_ylim(0, 2.2 * s.losses["minus the gradient"][0])
    legend(right, loc="upper left")
    return sheet
