"""Paths of players on a plane: used by landscapes, two-player games and the Dirac-GAN.

Shape legend: M members, T points in time, n coordinates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from playground.record.view import Array, Series, View
from playground.report.drawing.style import INK, LAND, dots

PATHS, POINTS = 200, 400_000
"""Drawn at most: members' paths, and points of all paths together (ours)."""

LEVELS = 24


@dataclass(frozen=True)
class Trail:
    """Where members were: iterations [T] and points [M, T, n]."""

    iterations: Array
    points: Array


@dataclass(frozen=True)
class Ground:
    """A function on a grid: axes [2, G] and values [G, G], rows along y."""

    axes: Array
    values: Array


def trail(arrays: Mapping[str, Mapping[int, Array]]) -> Trail | None:
    """Put together the chunks of ``trajectory``; each starts where the one before ended."""
    chunks = arrays.get("trajectory")
    if not chunks:
        return None
    times: list[Array] = []
    points: list[Array] = []
    for iteration, chunk in chunks.items():
        piece = chunk if not times else chunk[:, 1:]
        times.append(np.arange(iteration - piece.shape[1] + 1, iteration + 1))
        points.append(piece)
    return Trail(np.concatenate(times), np.concatenate(points, axis=1))


def ground(arrays: Mapping[str, Mapping[int, Array]], path: Trail) -> Ground | None:
    """The contour that shows most of the paths; the smallest of those that show the same."""
    values, axes = arrays.get("contour"), arrays.get("contour_axes")
    if not values or not axes:
        return None
    points = path.points.reshape(-1, path.points.shape[-1])
    points = points[:: max(1, len(points) // 20_000)]

    def merit(iteration: int) -> tuple[float, float]:
        low, high = axes[iteration][0].min(axis=1), axes[iteration][0].max(axis=1)
        inside = ((points >= low) & (points <= high)).all(axis=1)
        return float(np.round(inside.mean(), 3)), -float(np.prod(high - low))

    best = max((i for i in values if i in axes), key=merit)
    return Ground(axes[best][0], values[best][0])


def contours(ax: Axes, land: Ground) -> None:
    """Filled contours at levels that enclose growing shares of the area."""
    known = land.values[np.isfinite(land.values)]
    shares = np.linspace(0, 1, LEVELS + 1)
    low, high = float(known.min()), float(known.max())
    power = 2.2 if low >= -1e-3 * abs(high) else 1.0  # basins need levels near their bottom
    levels = np.unique(np.quantile(known, shares**power))
    ranks = np.linspace(0, 1, len(levels) - 1)
    ax.contourf(*land.axes, land.values, levels=levels, colors=LAND(ranks), extend="both")
    ax.contour(*land.axes, land.values, levels=levels[3:-1], colors="#6F86A6", linewidths=0.5,
               alpha=0.55)  # fmt: skip
    ax.set_xlim(*land.axes[0][[0, -1]])
    ax.set_ylim(*land.axes[1][[0, -1]])
    ax.grid(False)


def paths(
    ax: Axes, points: Array, colors: Sequence[Any], *, width: float = 1.3, alpha: float = 0.9
) -> None:
    """Paths [M, T, 2] with a ring at the start and a dot at the end of each.

    A path ends where it is no longer finite. Of many members an even choice is drawn.
    """
    finite = np.isfinite(points).all(axis=-1)
    ends = np.where(finite.all(axis=1), points.shape[1], finite.argmin(axis=1))
    chosen = np.unique(np.linspace(0, len(points) - 1, min(len(points), PATHS)).astype(int))
    stride = max(1, len(chosen) * points.shape[1] // POINTS)
    lines = [
        np.concatenate([points[k, : ends[k] : stride], points[k, ends[k] - 1 : ends[k]]])
        for k in chosen.tolist()
        if ends[k] > 0
    ]
    shades = [colors[k % len(colors)] for k in chosen.tolist() if ends[k] > 0]
    few = max(0.15, alpha * min(1.0, (12 / max(len(chosen), 1)) ** 0.5))
    clip = np.clip
    low, high = -1e12, 1e12  # far points would overflow the renderer
    ax.add_collection(
        LineCollection(
            [clip(line, low, high) for line in lines],
            colors=shades,
            linewidths=width,
            alpha=few,
            zorder=3,
            capstyle="round",
        )
    )
    alive = np.flatnonzero(ends > 0)
    size = 34 if len(alive) <= 12 else 14
    every = [colors[k % len(colors)] for k in alive.tolist()]
    first, last = points[alive, 0], points[alive, ends[alive] - 1]
    dots(ax, clip(first, low, high), s=size, facecolors="white", edgecolors=every,
               linewidths=1.2, zorder=4)  # fmt: skip
    dots(ax, clip(last, low, high), s=size, c=every, edgecolors="white", linewidths=0.8,
               zorder=5)  # fmt: skip


def distance(path: Trail, places: Array) -> Series:
    """Distance to the nearest target at every iteration."""
    return Series(path.iterations, _away(path.points, places).min(axis=-1).T)


def basins(path: Trail, places: Array) -> Array:
    """Which target every member ended nearest to [M]; 0 where it ended nowhere."""
    away = _away(path.points[:, -1], places)
    nearest: Array = np.where(np.isfinite(away), away, np.inf).argmin(axis=-1)
    return nearest


def _away(points: Array, places: Array) -> Array:
    """Distances [..., K] of points [..., n] from targets [K, n], one target at a time."""
    with np.errstate(over="ignore", invalid="ignore"):
        away = [np.linalg.norm(points - place, axis=-1) for place in places]
    result: Array = np.stack(away, axis=-1)
    return result


def targets(ax: Axes, places: Array | None) -> None:
    """Stars at the minimisers, or at the equilibrium."""
    if places is not None and places.shape[-1] == 2:
        dots(ax, places, marker="*", s=280, c="#F2C14E", edgecolors=INK, linewidths=0.9,
                   zorder=4.5)  # fmt: skip


def last_targets(view: View) -> Array | None:
    """The array ``targets`` [K, n]."""
    known = view.arrays.get("targets")
    result: Array | None = known[max(known)][0] if known else None
    return result


def window(ax: Axes, points: Array, places: Array | None, share: float = 0.999) -> None:
    """Limits that hold the paths and the targets, with equal scales on both axes."""
    flat = points.reshape(-1, 2)
    flat = flat[np.isfinite(flat).all(axis=1)]
    if not len(flat):
        return
    low, high = np.quantile(flat, 1 - share, axis=0), np.quantile(flat, share, axis=0)
    if places is not None:
        low, high = np.minimum(low, places.min(axis=0)), np.maximum(high, places.max(axis=0))
    half = 0.55 * max(float((high - low).max()), 1e-12)
    middle = (low + high) / 2
    ax.set_xlim(middle[0] - half, middle[0] + half)
    ax.set_ylim(middle[1] - half, middle[1] + half)
    ax.set_aspect("equal")


def square_enough(land: Ground) -> bool:
    """Whether equal scales leave a legible picture."""
    width, height = np.ptp(land.axes[0]), np.ptp(land.axes[1])
    return bool(1 / 1.3 <= width / height <= 1.3)
