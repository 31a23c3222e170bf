"""Slices of a scalar function of the parameters: x + a d, or x + a d1 + b d2.

Pure functions: the caller evaluates points, in whatever batches it likes. A random direction
with a given norm has a normal distribution before it is scaled (Ilyas et al. 2020, section 4);
filter normalisation gives it every output row's norm in the parameters (Li et al. 2018,
section 4), biases excluded.

Shape legend: N parameters, D directions (1 or 2), A and B offsets along them, P points.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from playground.parameters import Layout

Values = dict[str, tuple[Tensor, Tensor]]
"""{quantity: values [P] and their standard errors [P], NaN where none is known}."""


@dataclass(frozen=True)
class Path:
    """A path of T points over a slice, and the function where it really went.

    Attributes:
        iterations: [T].
        coordinates: along the slice's directions, [T, D].
        outside: distance of each point from the slice, [T], L2.
        explained: share of the path's variance along each principal direction, [K].
        random_walk: the same of a random walk seen at the same iterations, [K].
        values, stderr: {quantity: [T]} at the points themselves.
        projected, projected_stderr: {quantity: [T]} where the slice shows them.
    """

    iterations: Tensor
    coordinates: Tensor
    outside: Tensor
    explained: Tensor
    random_walk: Tensor
    values: dict[str, Tensor]
    stderr: dict[str, Tensor]
    projected: dict[str, Tensor]
    projected_stderr: dict[str, Tensor]


@dataclass(frozen=True)
class Slice:
    """A function on a line or a grid.

    Attributes:
        center: x [N].
        directions: [D, N].
        offsets: one tensor per direction, [A] and [B].
        values, stderr: {quantity: [A] or [A, B]}.
        path: of the run through the slice, where it was asked for.
    """

    center: Tensor
    directions: Tensor
    offsets: tuple[Tensor, ...]
    values: dict[str, Tensor]
    stderr: dict[str, Tensor]
    path: Path | None = None


def points(center: Tensor, directions: Tensor, offsets: Sequence[Tensor]) -> Tensor:
    """Points x + sum_d offset_d direction_d [P, N], the last direction fastest."""
    grid = torch.cartesian_prod(*offsets).reshape(-1, len(offsets)).to(center)
    return center + grid @ directions


def slices(
    function: Callable[[Tensor], Values],
    center: Tensor,
    directions: Tensor,
    offsets: Sequence[Tensor],
    at_once: int = 64,
) -> Slice:
    """Evaluate a function on a line or a grid.

    Args:
        function: of points [P, N], at most ``at_once`` of them.
        center: [N].
        directions: [D, N].
        offsets: one tensor per direction, in units of the direction.
        at_once: points of a call.

    Raises:
        ValueError: shapes that do not fit.
    """
    if directions.ndim != 2 or directions.shape[1:] != center.shape:
        raise ValueError(f"directions must be [D, {len(center)}], not {tuple(directions.shape)}")
    if len(offsets) != len(directions) or not 1 <= len(offsets) <= 2:
        raise ValueError(f"{len(directions)} directions with {len(offsets)} axes: one or two each")
    shape = [len(axis) for axis in offsets]
    flat = evaluated(function, points(center, directions, offsets), at_once)
    values, stderr = ({name: value.reshape(shape) for name, value in part.items()} for part in flat)
    return Slice(center, directions, tuple(offsets), values, stderr)


def evaluated(
    function: Callable[[Tensor], Values], where: Tensor, at_once: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Values and errors {quantity: [P]} of a function at points [P, N], ``at_once`` a call."""
    pieces = [function(where[i : i + at_once]) for i in range(0, len(where), at_once)]
    values, stderr = (
        {name: torch.cat([piece[name][part] for piece in pieces]) for name in pieces[0]}
        for part in range(2)
    )
    return values, stderr


def random_direction(
    layout: Layout,
    generator: torch.Generator,
    *,
    norm: float = 1.0,
    like: Tensor | None = None,
) -> Tensor:
    """A direction [N] in float64.

    Args:
        layout: of the parameters.
        generator: draws it.
        norm: its length; not used under filter normalisation.
        like: parameters [N] whose rows' norms it gets, with 0 for tensors of fewer than two
            dimensions; None scales the whole to ``norm``.
    """
    drawn = torch.randn(layout.size, generator=generator, dtype=torch.float64)
    if like is None:
        return drawn.mul(norm / drawn.norm().item())
    parts, rows = layout.views(drawn), layout.views(like.to(drawn))
    return torch.cat([_like_rows(parts[name], rows[name]).reshape(-1) for name in layout.names])


def _like_rows(direction: Tensor, parameters: Tensor) -> Tensor:
    """Rows of a direction with the norms of the parameters' rows; 0 for vectors."""
    if direction.ndim < 2:
        return torch.zeros_like(direction)
    flat, own = direction.flatten(1), parameters.flatten(1)
    factor = torch.linalg.vector_norm(own, dim=1) / torch.linalg.vector_norm(flat, dim=1)
    return flat.mul(factor.unsqueeze(1)).view_as(direction)
