"""Planes for slices: directions of one's own, random ones, and those of a run's path.

Shape legend: T points of a path, N parameters of a player, D directions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from playground.probes.landscape import random_direction
from playground.probes.principal import Principal, principal, random_walk
from playground.randomness import stream_seed
from playground.record.checkpoint import load_snapshot
from playground.record.reader import Run, load
from playground.schema import ConfigError
from playground.temporary import Point, Source, Temporary

NAMES = ("principal", "random", "filter_normalised")

POINTS, LINE = 25, 101
"""Along each of two directions, and along one (ours)."""

MARGIN = 0.2
"""Of the path's extent that is shown beyond its ends (ours)."""

FEWEST = 4
"""Points of a path: three lie in a plane whatever they are."""


@dataclass(frozen=True)
class Trail:
    """One player and member over a run: iterations [T] and points [T, N]."""

    iterations: Tensor
    points: Tensor


@dataclass(frozen=True)
class Plane:
    """Where a slice lies: directions [D, N], offsets, and the path that chose them."""

    directions: Tensor
    offsets: list[Tensor]
    trail: Trail | None = None
    principal: Principal | None = None
    random_walk: Tensor | None = None


Offsets = Sequence[Sequence[float] | np.ndarray | Tensor] | None


def plane(
    source: Source,
    point: Point,
    player: str,
    directions: str | Sequence[Tensor],
    offsets: Offsets,
    points: int | None,
    seed: int,
) -> Plane:
    """Directions and offsets as asked for.

    Raises:
        ConfigError: directions that there are none of.
    """
    center = point.parameters[player]
    if points is not None and points < 2:
        raise ConfigError(f"points={points}: must be at least 2")
    if not isinstance(directions, str):
        if offsets is None:
            raise ConfigError("offsets=None: directions of one's own need offsets in their units")
        stacked = torch.stack([direction.to(center) for direction in directions])
        return Plane(stacked, _given(offsets))
    if directions == "principal":
        return _principal(source, point, player, offsets, points)
    if directions not in NAMES:
        raise ConfigError(
            f"directions={directions}: allowed are {', '.join(NAMES)}, or tensors [N]"
        )
    filtered = directions == "filter_normalised"
    found = _random(point, player, seed, filtered=filtered)
    if not found.any():
        raise ConfigError(
            f"directions={directions}: player {player} has no weights of two dimensions, "
            "or they are all 0; take random"
        )
    ends = torch.tensor([[-1.0, 1.0]] * len(found), dtype=torch.float64)
    return Plane(found, _given(offsets) if offsets is not None else _spread(ends, points))


def _given(offsets: Sequence[Sequence[float] | np.ndarray | Tensor]) -> list[Tensor]:
    return [torch.as_tensor(axis, dtype=torch.float64) for axis in offsets]


def _spread(ends: Tensor, points: int | None) -> list[Tensor]:
    """Even offsets between the ends [D, 2]; 0 is among them where they are symmetric."""
    count = points or (POINTS if len(ends) > 1 else LINE)
    return [torch.linspace(low, high, count, dtype=torch.float64) for low, high in ends.tolist()]


def _random(point: Point, player: str, seed: int, *, filtered: bool) -> Tensor:
    """Two random directions [2, N] of the parameters' norm, or of its rows'; one where N = 1."""
    layout = Temporary(point, [0]).players[player].parameters.layout
    center = point.parameters[player]
    size = float(center.double().norm()) or 1.0
    found = []
    for k in range(min(2, layout.size)):
        draw = torch.Generator().manual_seed(stream_seed(seed, f"landscape/direction/{k}"))
        like = center.cpu() if filtered else None
        found.append(random_direction(layout, draw, norm=size, like=like))
    return torch.stack(found).to(center)


def _principal(
    source: Source, point: Point, player: str, offsets: Offsets, points: int | None
) -> Plane:
    """The principal directions of the run's path to the point."""
    path = trail(source, point, player)
    try:
        found = principal(path.points)
    except ValueError as error:
        raise ConfigError(f"directions=principal player={player}: {error}") from error
    low, high = found.coordinates.amin(0), found.coordinates.amax(0)
    margin = MARGIN * (high - low)
    ends = torch.stack([low - margin, high + margin], dim=1)
    walk = random_walk(path.iterations, path.points.shape[1])
    axes = _given(offsets) if offsets is not None else _spread(ends, points)
    directions = found.directions.to(point.parameters[player])
    return Plane(directions, axes, path, found, walk)


def trail(source: Source, point: Point, player: str) -> Trail:
    """The snapshots before a point of a run, and the point.

    Raises:
        ConfigError: too few were kept.
        RecordError: one cannot be read.
    """
    if not isinstance(source, str | Path | Run):
        raise ConfigError("directions=principal: give a run, whose path they are taken from")
    run = source if isinstance(source, Run) else load(source)
    assert isinstance(run, Run)  # ``find_point`` has read it
    before = [iteration for iteration in run.snapshots if iteration < point.iteration]
    if len(before) + 1 < FEWEST:
        kept = ", ".join(map(str, [*before, point.iteration]))
        raise ConfigError(
            f"directions=principal: {run.path} kept the parameters of iterations {kept} only, and "
            f"{FEWEST} are needed; run it longer, or with checkpoint.snapshot_every="
            f"{max(1, point.iteration // 20)}"
        )
    points = [load_snapshot(run.path, i)[1][player][point.member] for i in before]
    points.append(point.parameters[player].cpu())
    return Trail(torch.tensor([*before, point.iteration]), torch.stack(points))
