"""A path over a landscape of two parameters, and a network's path in planes through its own."""

from collections.abc import Mapping

import numpy as np
import torch

import playground
from playground.record.checkpoint import load_snapshot
from playground.record.reader import Run
from playground.report.drawing.style import COLORS, LAND, Sheet, legend, value_scale
from playground.report.drawing.trajectory import contours, ground, trail

from .common import Check, directions, norms, page, trajectory

GRID = 21
"""Points a side of the network's plane."""


class Path:
    """One member's way through training, at its snapshots, seen from where it ends.

    Attributes:
        points: [T, N] less the last.
        plane: the two principal directions [2, N] of those.
        share: of the squared distances that lie in the plane.
        chance: the same of a plane of two random directions.
    """

    def __init__(self, run: Run, member: int) -> None:
        at = run.snapshots
        kept = [load_snapshot(run.path, i)[1]["model"][member].double() for i in at]
        self.points = torch.stack(kept) - kept[-1]
        self.plane = torch.linalg.svd(self.points, full_matrices=False)[2][:2]
        drawn = torch.linalg.qr(directions(2, kept[-1], seed=member).T)[0].T
        self.share, self.chance = (self._within(plane) for plane in (self.plane, drawn))

    def _within(self, plane: torch.Tensor) -> float:
        return ((self.points @ plane.T).square().sum() / self.points.square().sum()).item()


def judge(runs: Mapping[str, Run]) -> tuple[list[Check], Sheet]:
    """Steep and flat differ by orders of magnitude; a plane shows a path only if it holds it."""
    run = runs["network"]
    found = [Path(run, k) for k in range(len(run.members))]
    lengths = norms(runs["valley"], "x")[:, 0]
    checks = [
        Check("valley: steepest gradient on the path over the median", "> 10",
              [lengths.max() / np.median(lengths)], low=10.0),
        Check("network: share of its path in the plane of the path's principal directions",
              "near 1", [p.share for p in found], low=0.9),
        Check("network: share of its path in a plane of two random directions", "near 0",
              [p.chance for p in found], high=0.05, role="breaks"),
    ]  # fmt: skip
    return checks, draw(runs, found[0])


def surface(run: Run, path: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """Axes and losses [GRID, GRID] of all digits in the path's plane, first direction first."""
    where = (path.points @ path.plane.T).numpy()
    low, high = where.min(axis=0), where.max(axis=0)
    reach = 0.35 * (high - low).max()
    axes = [np.linspace(a - reach, b + reach, GRID) for a, b in zip(low, high, strict=True)]
    slice_ = playground.landscape(
        run, list(path.plane), axes, at=run.snapshots[-1], metrics=[], batches=1,
        overrides=["problem.batch_size=full"],
    )  # fmt: skip
    return axes, slice_.values["objective"].numpy()


def draw(runs: Mapping[str, Run], path: Path) -> Sheet:
    """The valley and its gradient along the path; the network's plane."""
    sheet, cells = page(
        "landscape_picture", "What does a picture of the landscape show?",
        "Left and middle: gradient descent on Rosenbrock's function falls down a wall and then "
        "creeps along a flat floor. Two parameters: the picture is all there is. Right: a network "
        "of 1,210 parameters in the plane that holds most of its path; dots are updates 0, 1, 2, "
        "4, ..., the number is the share of the path inside the plane. In a plane of two random "
        "directions there would be next to nothing of it.", 3, width=14.5, body=4.0,
    )  # fmt: skip
    left = sheet.panel(cells[0], "Two parameters")
    run = runs["valley"]
    whole = trail(run.arrays)
    assert whole is not None
    land = ground(run.arrays, whole)
    assert land is not None
    contours(left, land)
    points = trajectory(run)[0]
    left.plot(*points.T, color=COLORS[1], lw=2)
    left.plot(*points[0], "o", color="white", mec=COLORS[1], ms=7)
    left.plot(1, 1, "*", ms=16, color="#FFD400", mec="black", mew=0.8)
    middle = sheet.panel(cells[1], "The gradient along the path", "update", "length")
    middle.plot(np.arange(1, len(points)), norms(run, "x")[:, 0], color=COLORS[1], lw=1.8)
    for axis in "xy":
        value_scale(middle, "log", axis=axis)
    right = sheet.panel(cells[2], "1,210 parameters, two principal directions")
    axes, loss = surface(runs["network"], path)
    levels = np.linspace(loss.min(), np.quantile(loss, 0.97), 18)
    right.contourf(*axes, loss.T, levels=levels, cmap=LAND, extend="max")
    lines = right.contour(*axes, loss.T, levels=levels[::3], colors="#6F86A6", linewidths=0.6)
    right.clabel(lines, fontsize=7, fmt="%.1f")
    where = (path.points @ path.plane.T).numpy()
    right.plot(*where.T, "o-", color=COLORS[1], ms=4.5, lw=1.6, label="from its start (ring)")
    right.plot(*where[0], "o", color="white", mec=COLORS[1], ms=7, zorder=5)
    right.text(0.97, 0.05, f"{100 * path.share:.1f} % of the path", transform=right.transAxes,
               ha="right", fontsize=10, weight="bold")  # fmt: skip
    right.grid(False)
    legend(right, loc="upper left")
    return sheet
