"""The race: all optimizers' paths on one contour, with distance and value beside.

Racers are entries of the same landscape, or the values of what varies within one. Dots on a
path are iterations 1, 10, 100, ...: they show who is ahead, which paths alone do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from playground.record.view import Group, Series, View
from playground.report.comparison.entries import Entry
from playground.report.drawing import trajectory
from playground.report.drawing.curves import curve, prepare
from playground.report.drawing.style import COLORS, TICK, Sheet, ordered_colors
from playground.report.drawing.trajectory import Trail
from playground.report.figures.landscape import FINE

SHOWN = 5
"""Members of a racer whose paths are drawn (ours); the curves have all."""

SAME = ("function", "dimension", "condition", "interaction", "curvature")
"""Keys of the problem that make it another landscape."""


@dataclass(frozen=True)
class Racer:
    """Some members of a run that race together."""

    label: str
    view: View
    group: Group
    path: Trail


def figures(pooled: Sequence[Entry]) -> dict[str, Figure]:
    """{landscape: figure} for every landscape that has at least two racers."""
    lanes: dict[tuple[str, ...], list[Racer]] = {}
    for entry in pooled:
        view = entry.first
        path = trajectory.trail(view.arrays)
        if view.domain not in ("landscape", "gan") or path is None or path.points.shape[-1] != 2:
            continue
        problem = view.config.get("problem") or {}
        key = (view.problem, *(repr(problem.get(name)) for name in SAME))
        lanes.setdefault(key, []).extend(racers(entry, path, alone=len(pooled) == 1))
    result: dict[str, Figure] = {}
    for (problem, *_), group in lanes.items():
        if len(group) > 1:
            name = problem.replace("/", "-")
            result[name if name not in result else f"{name}-{len(result)}"] = draw(group)
    return result


def racers(entry: Entry, path: Trail, *, alone: bool = False) -> list[Racer]:
    """An entry's members, by the values of what varies."""
    found = []
    for group in entry.first.groups:
        words = ["" if alone and group.label else entry.label, group.label]
        found.append(Racer(", ".join(w for w in words if w), entry.first, group, path))
    return found


def draw(group: Sequence[Racer]) -> Figure:
    """One figure of the race."""
    few = len(group) <= len(COLORS)
    colors = list(COLORS[: len(group)]) if few else ordered_colors(len(group))
    longest = max(int(racer.path.iterations[-1]) for racer in group)
    sheet = Sheet.make(
        f"The race: {group[0].view.problem}",
        f"{len(group)} racers, {longest:,} iterations",
        f"Paths of up to {SHOWN} members of each. Ring: start; small dots: iterations 1, 10, 100, "
        "...; large dot: end; star: minimiser or equilibrium. Curves: mean of the members, band: "
        "the middle 95 % of them.",
        width=14.0, body=6.6,
    )  # fmt: skip
    cells = sheet.grid(2, 2, width_ratios=(1.35, 1), hspace=0.34, wspace=0.18)
    plane(sheet.panel(cells[:, 0], x=_axis(group, 0), y=_axis(group, 1)), group, colors)
    top = sheet.panel(cells[0, 1], "distance to nearest minimiser")
    bottom = sheet.panel(cells[1, 1], "value", "iteration")
    overlay(top, group, colors, [distance(racer) for racer in group], longest)
    overlay(bottom, group, colors, [value(racer) for racer in group], longest)
    return sheet.figure


def plane(ax: Axes, group: Sequence[Racer], colors: Sequence[Any]) -> None:
    """The common ground and everybody's path."""
    points = [racer.path.points[racer.group.members[:SHOWN]] for racer in group]
    flat = Trail(np.empty(0), np.concatenate([p.reshape(1, -1, 2) for p in points], axis=1))
    grounds = [trajectory.ground(racer.view.arrays, flat) for racer in group]
    land = best_ground([g for g in grounds if g is not None], flat)
    places = trajectory.last_targets(group[0].view)
    if land is not None:
        trajectory.contours(ax, land)
        if trajectory.square_enough(land):
            ax.set_aspect("equal", anchor="NW")
    else:
        trajectory.window(ax, flat.points, places)
    trajectory.targets(ax, places)
    widths = np.linspace(3.6, 1.2, len(group))  # so that paths on one another are all seen
    for own, color, width in zip(points, colors, widths, strict=True):
        trajectory.paths(ax, own, [color], width=float(width), alpha=1.0)
        ticks = [10**k for k in range(9) if 10**k < own.shape[1] - 1]
        stops = own[0, ticks]
        stops = stops[np.isfinite(stops).all(axis=1)]
        ax.plot(*np.clip(stops, -1e12, 1e12).T, linestyle="", marker="o", markersize=4.5,
                color=color, markeredgecolor="white", markeredgewidth=0.6, zorder=5)  # fmt: skip
    handles = [Line2D([], [], color=c, linewidth=2.5, label=r.label)
               for r, c in zip(group, colors, strict=True)]  # fmt: skip
    if len(handles) > 14:
        handles = handles[:: -(-len(handles) // 14)]
    box = ax.legend(handles=handles, fontsize=TICK + 0.5, loc="best", framealpha=0.9)
    box.get_frame().set_linewidth(0)


def best_ground(grounds: Sequence[trajectory.Ground], path: Trail) -> trajectory.Ground | None:
    """Of several contours of one function, the one that shows most of the paths."""
    if not grounds:
        return None
    arrays = {
        "contour": {i: g.values[None] for i, g in enumerate(grounds)},
        "contour_axes": {i: g.axes[None] for i, g in enumerate(grounds)},
    }
    return trajectory.ground(arrays, path)


def distance(racer: Racer) -> Series:
    """Distance at every iteration, from the path."""
    places = trajectory.last_targets(racer.view)
    if places is None:
        series = racer.view.metric("distance")
    else:
        series = trajectory.distance(racer.path, places)
    return Series(series.x, series.values[:, racer.group.members])


def value(racer: Racer) -> Series:
    """The function's value at evaluations."""
    series = racer.view.metric("value")
    return Series(series.x, series.values[:, racer.group.members])


def overlay(
    ax: Axes, group: Sequence[Racer], colors: Sequence[Any], series: Sequence[Series], end: int
) -> None:
    """Everybody's curve of one quantity."""
    log = prepare(ax, series, float(end))
    for racer, one, color in zip(group, series, colors, strict=True):
        curve(ax, one, color, racer.label, log=log, individual=False, bins=FINE)


def _axis(group: Sequence[Racer], index: int) -> str:
    players = group[0].view.players
    return players[index] if len(players) > 1 else "xy"[index]
