"""The parameter store: one contiguous [M, N] tensor per player, named tensors are views.

Gradient and update are values of the same layout, so clipping is one norm over dim 1, a
cosine is one dot product and a checkpoint is one tensor.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Names and shapes of a player's tensors, in storage order."""

    shapes: Mapping[str, tuple[int, ...]]

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Number of elements of each tensor."""
        return tuple(prod(shape) for shape in self.shapes.values())

    @cached_property
    def size(self) -> int:
        """N, the number of parameters of one member."""
        return sum(self.sizes)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Tensor names in storage order."""
        return tuple(self.shapes)

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where each tensor lies in the last axis."""
        result, start = {}, 0
        for name, size in zip(self.names, self.sizes, strict=True):
            result[name] = slice(start, start + size)
            start += size
        return result

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Named views [..., *shape] of a flat tensor [..., N]; differentiable."""
        lead = flat.shape[:-1]
        pieces = torch.split(flat, list(self.sizes), dim=-1)
        return {
            name: piece.view(lead + shape)
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }


class Parameters:
    """The values of one player for all members.

    Attributes:
        values: [M, N], written by the engine only.
        layout: names and shapes of the tensors.
    """

    def __init__(self, layout: Layout, values: Tensor) -> None:
        if values.ndim != 2 or values.shape[1] != layout.size:
            raise ValueError(f"values must be [M, {layout.size}], got {tuple(values.shape)}")
        self.layout = layout
        self.values = values.contiguous()

    @classmethod
    def build(
        cls,
        initialise: Callable[[int], Mapping[str, Tensor]],
        members: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> "Parameters":
        """Stack ``initialise(member) -> {tensor: value}`` over members."""
        first = initialise(0)
        layout = Layout({name: tuple(value.shape) for name, value in first.items()})
        values = torch.empty((members, layout.size), dtype=dtype)
        for member in range(members):
            tensors = first if member == 0 else initialise(member)
            values[member] = torch.cat([tensors[name].reshape(-1) for name in layout.names])
        return cls(layout, values.to(device))

    @cached_property
    def views(self) -> dict[str, Tensor]:
        """{tensor: [M, *shape]}, sharing memory with ``values``."""
        return self.layout.views(self.values)

    @cached_property
    def only(self) -> dict[str, Tensor]:
        """{tensor: [*shape]} of the first member, for runs that have one."""
        return self.layout.views(self.values[0])

    def member(self, index: int) -> dict[str, Tensor]:
        """{tensor: value} of one member, sharing memory with ``values``."""
        return {name: view[index] for name, view in self.views.items()}
