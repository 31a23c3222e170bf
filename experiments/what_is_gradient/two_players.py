"""Two players that each descend: the bilinear game, and a small GAN."""

from collections.abc import Mapping

import numpy as np

from playground.record.reader import Run
from playground.report.drawing.style import COLORS, Sheet, bare, legend, value_scale

from .common import Check, measured, page, trajectory

RATE = 0.1


def exponent(run: Run) -> np.ndarray:
    """Growth of the logarithm of the distance from the equilibrium an iteration [M]."""
    away = np.linalg.norm(trajectory(run), axis=-1)
    return np.log(away[:, -1] / away[:, 0]) / (away.shape[1] - 1)


def judge(runs: Mapping[str, Run]) -> tuple[list[Check], Sheet]:
    """The ring is learned; each player descends, both spiral out; a look ahead brings them in."""
    down = [measured(runs["descent"], "step", "predicted_change", player)[1] for player in "xy"]
    apart = runs["ring"].metric("sliced_wasserstein")[1]
    checks = [
        Check("GAN: distance of generated from real samples, at the end over the start", "< 1",
              apart[-1] / apart[0], high=0.5),
        Check("bilinear game: largest change that a player's own step promises its own loss",
              "< 0", np.max(down, axis=(0, 1)), high=0.0),
        Check("bilinear game, plain descent: growth of the distance an iteration",
              f"{0.5 * np.log1p(RATE**2):.6f}", exponent(runs["descent"]),
              0.5 * np.log1p(RATE**2) - 1e-6, 0.5 * np.log1p(RATE**2) + 1e-6, role="breaks"),
        Check("bilinear game, extragradient: growth of the distance an iteration", "< 0",
              exponent(runs["extragradient"]), high=0.0),
    ]  # fmt: skip
    return checks, draw(runs)


def draw(runs: Mapping[str, Run]) -> Sheet:
    """The game's paths, distances, and what the generator makes."""
    sheet, cells = page(
        "two_players", "What if two players follow their gradients?",
        "Left: player x lowers x y, player y lowers - x y; arrows are both players' steepest "
        "descents together. They turn in circles around the equilibrium (cross), and steps along "
        "them spiral out; a method that looks one step ahead (extragradient) spirals in. Middle: "
        "the distance from the equilibrium, theory dashed. Right: a GAN, with a penalty that damps "
        "the rotation, learns a ring of eight clusters.", 3, width=14.5, body=3.8,
    )  # fmt: skip
    left = sheet.panel(cells[0], "x y against - x y", "x", "y")
    axis = np.linspace(-6, 6, 13)
    x, y = np.meshgrid(axis, axis)
    left.quiver(x, y, -y, x, color="0.72", width=0.004, zorder=1)
    middle = sheet.panel(cells[1], "Distance from the equilibrium", "iteration")
    for name, color, label in (("descent", COLORS[1], "gradient descent"),
                               ("extragradient", COLORS[0], "extragradient")):  # fmt: skip
        points = trajectory(runs[name])
        left.plot(*points[0].T, color=color, lw=1.5, label=label)
        left.plot(*points[0, 0], "o", color="white", mec=color, ms=7, zorder=4)
        away = np.linalg.norm(points, axis=-1)
        middle.plot(away.T, color=color, lw=0.5, alpha=0.4)
        middle.plot(np.exp(np.log(away).mean(axis=0)), color=color, lw=2, label=label)
    mean = np.exp(np.log(np.linalg.norm(trajectory(runs["descent"])[:, 0], axis=-1)).mean())
    t = np.arange(trajectory(runs["descent"]).shape[1])
    middle.plot(t, mean * (1 + RATE**2) ** (t / 2), "--", color="0.2", lw=1)
    left.plot(0, 0, "x", color="black", ms=8, mew=2)
    left.set(xlim=(-6.3, 6.3), ylim=(-6.3, 6.3))
    left.set_aspect("equal")
    left.grid(False)
    value_scale(middle, "log")
    legend(left, loc="upper left")
    legend(middle)
    samples(sheet, cells[2], runs["ring"])
    return sheet


def samples(sheet: Sheet, cell: object, run: Run) -> None:
    """Real samples and the generator's, at the end."""
    ax = sheet.panel(cell, "A GAN's samples at the end")
    for name, color, label in (("data", "0.6", "real"), ("samples", COLORS[2], "generated")):
        points = run.arrays[name][max(run.arrays[name])][0]
        ax.plot(*points[:500].T, ".", ms=4, color=color, alpha=0.6, label=label, zorder=2)
    ax.set_aspect("equal")
    ax.set(xlim=(-3.1, 3.1), ylim=(-3.1, 3.1))
    bare(ax)
    legend(ax, loc="upper right", markerscale=2)
