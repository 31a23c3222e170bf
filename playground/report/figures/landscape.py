"""``figures/landscape.png``: where members went on an analytic landscape, and how fast.

Two dimensions: contours, every member's path, and at its end the last gradient, momentum and
update of one member as arrows, so that one sees where each would lead. Two players: paths in
the (x, y) plane. More dimensions: the curves alone.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from playground.record.view import Array, Series, View
from playground.report.drawing import trajectory
from playground.report.drawing.curves import curve, marks, prepare, spread_text
from playground.report.drawing.style import (
    COLORS,
    INK,
    LABEL,
    TICK,
    Sheet,
    color,
    heading,
    number,
    ordered_colors,
)
from playground.report.drawing.text import last_iteration, metric_text, result_text, subtitle, title
from playground.report.drawing.trajectory import Trail
from playground.report.figures.overview import grouped

ARROWS = {
    "gradient": ("minus gradient", -1.0, "#111111", 1.0),
    "momentum": ("minus momentum", -1.0, "#C1121F", 0.78),
    "update": ("update", 1.0, "#8A2BE2", 0.56),
}
"""{array: (name, sign, colour, drawn length)}: different lengths keep all of them visible."""

FINE = 600
"""Points along x of curves without noise (ours)."""

LENGTH = 0.17
"""Of the longest arrow, as a share of the panel's width (ours)."""


def figure(view: View) -> Figure | None:
    """Draw the picture; None while nothing was recorded."""
    path = trajectory.trail(view.arrays)
    curves = series(view, path)
    if path is None and not curves:
        return None
    flat = path is not None and path.points.shape[-1] == 2
    sheet = Sheet.make(title(view), subtitle(view), _caption(view, path if flat else None),
                       body=6.2 if flat else 4.2, width=13.0 if flat else 12.0)  # fmt: skip
    count = max(len(curves), 1)
    if path is not None and flat:
        cells = sheet.grid(count, 2, width_ratios=(1.3, 1), hspace=0.36, wspace=0.2)
        plane(sheet.panel(cells[:, 0]), view, path)
        places = [cells[row, 1] for row in range(count)]
    else:
        cells = sheet.grid(1, count, wspace=0.2)
        places = [cells[0, column] for column in range(count)]
    for (name, found), place in zip(curves.items(), places, strict=False):
        last = name == list(curves)[-1] or not flat
        _metric(sheet.panel(place, x="iteration" if last else ""), view, name, found)
    return sheet.figure


def series(view: View, path: Trail | None) -> dict[str, Series]:
    """What is drawn over iterations: distance and value, or in games both players' points.

    The distance is taken from the path where there is one: it has every iteration.
    """
    found = {name: view.metric(name) for name in ("distance", "value")}
    places = trajectory.last_targets(view)
    if path is not None and places is not None:
        found["distance"] = trajectory.distance(path, places)
        if len(view.players) == 2 and path.points.shape[-1] == 2:
            del found["value"]
            for index, player in enumerate(view.players):
                found[player] = Series(path.iterations, path.points[..., index].T)
    return {name: value for name, value in found.items() if value}


def shades(view: View, path: Trail) -> list[Any]:
    """A colour a member.

    By value where something varies, by member while there are few, and by the minimiser where
    the member ended if there are several.
    """
    members = len(view.members)
    if len(view.groups) > 1:
        order = sorted(view.groups, key=lambda g: tuple(g.values.values()))
        result: list[Any] = [INK] * members
        for group, shade in zip(order, ordered_colors(len(order)), strict=True):
            for member in group.members:
                result[member] = shade
        return result
    if members <= len(COLORS):
        return list(COLORS[:members])
    places = trajectory.last_targets(view)
    if places is None:
        return [COLORS[0]] * members
    return [color(int(index)) for index in trajectory.basins(path, places)]


def plane(ax: Axes, view: View, path: Trail) -> None:
    """Contours or the players' plane, paths, minimisers and arrows."""
    two = len(view.players) > 1
    ax.set_xlabel(view.players[0] if two else "x", fontsize=LABEL)
    ax.set_ylabel(view.players[1] if two else "y", fontsize=LABEL)
    places = trajectory.last_targets(view)
    land = trajectory.ground(view.arrays, path)
    if land is not None:
        trajectory.contours(ax, land)
        if trajectory.square_enough(land):
            ax.set_aspect("equal", anchor="NW")
    else:
        trajectory.window(ax, path.points, places)
    trajectory.targets(ax, places)
    trajectory.paths(ax, path.points, shades(view, path))
    handles = arrows(ax, view, path)
    if handles:
        ax.legend(handles=handles, fontsize=TICK, loc="lower left", framealpha=0.9,
                  title=f"last of member {focus(path)}, L2 norms", title_fontsize=TICK,
                  alignment="left").get_frame().set_linewidth(0)  # fmt: skip


def focus(path: Trail) -> int:
    """The first member that is still finite; 0 if none is."""
    alive = np.isfinite(path.points[:, -2:]).all(axis=(1, 2))
    return int(alive.argmax())


def arrows(ax: Axes, view: View, path: Trail) -> list[Line2D]:
    """The last gradient, momentum and update of one member; legend entries with their norms.

    They start where the last update started. Every arrow has a length of its own that says
    nothing of its norm, which is in the legend.
    """
    member = focus(path)
    origin = path.points[member, max(path.points.shape[1] - 2, 0)]
    span = np.array([np.ptp(ax.get_xlim()), np.ptp(ax.get_ylim())])
    handles = []
    for key, (name, sign, shade, length) in ARROWS.items():
        vector = last_vector(view, key, member)
        if vector is None or vector.shape != (2,) or not np.isfinite(vector).all():
            continue
        size = float(np.linalg.norm(vector))
        label = f"{name} {number(size)}"
        handles.append(Line2D([], [], color=shade, linewidth=2, label=label))
        if size == 0 or not np.isfinite(origin).all():
            continue
        direction = sign * vector / size
        tip = origin + direction * LENGTH * length * _reach(direction, span)
        ax.annotate("", xy=tip, xytext=origin, zorder=7, annotation_clip=False, arrowprops={
            "arrowstyle": "-|>,head_width=0.28,head_length=0.5", "color": shade,
            "linewidth": 1.0 + 1.6 * (1.3 - length), "shrinkA": 0, "shrinkB": 0})  # fmt: skip
    return handles


def last_vector(view: View, key: str, member: int) -> Array | None:
    """The array ``<key>.<player>`` of one member at its last iteration, all players' together."""
    pieces = []
    for player in view.players:
        known = view.arrays.get(f"{key}.{player}")
        if not known:
            return None
        pieces.append(np.asarray(known[max(known)][member], np.float64).ravel())
    return np.concatenate(pieces) if pieces else None


def _reach(direction: Array, span: Array) -> float:
    """Length in data units of a unit step across the panel in this direction."""
    return 1.0 / float(np.linalg.norm(direction / span))


def _metric(ax: Axes, view: View, name: str, found: Series) -> None:
    """One quantity over iterations."""
    heading(ax, metric_text(view, name), f"final {result_text(found.last())}")
    log = prepare(ax, [found], float(last_iteration(view)))
    if len(view.groups) > 1:
        grouped(ax, view, found, log=log, labels=name == view.main_metric, bins=FINE)
    else:
        shade = color(view.players.index(name)) if name in view.players else INK
        curve(ax, found, shade, log=log, bins=FINE)
    marks(ax, view)


def _caption(view: View, path: Trail | None) -> str:
    """What paths, arrows and curves are."""
    members = len(view.members)
    words = []
    if path is not None:
        words.append("Rings: starts; dots: ends; stars: minimisers or equilibrium.")
        if members > len(COLORS) and len(view.groups) == 1:
            shown = min(members, trajectory.PATHS)
            words.append(f"Paths of {shown} of {members} members")
            places = trajectory.last_targets(view)
            several = places is not None and len(places) > 1
            words[-1] += ", coloured by the minimiser where they ended." if several else "."
        if any(name.startswith("gradient.") for name in view.arrays):
            words.append("Arrows show directions; the legend has their norms.")
    if members > 1:
        words.append(f"Curves: {spread_text(members)[0].lower()}{spread_text(members)[1:]}.")
    return " ".join(words)
