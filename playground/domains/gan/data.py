"""Real data: mixtures of Gaussians, drawn without end, and batches drawn ahead in blocks.

Modes are sampled, not cycled, and every component has a centre of its own. (Published rings
built by ``linspace(0, 2 pi, 8)`` have 7: the first is the last.)

Shape legend: M members, B samples, K modes, D dimensions.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from playground.randomness import Streams


@dataclass(frozen=True)
class Mixture:
    """Equal-weight Gaussians; one centre with sigma 0 is a point mass.

    Attributes:
        centres: [K, D].
        sigma: standard deviation of every component, per axis.
    """

    centres: Tensor
    sigma: float

    def draw(self, streams: Streams, *shape: int) -> Tensor:
        """Samples [M, *shape, D], components first, then noise, from every member's stream."""
        modes, dimension = self.centres.shape
        component = streams.integers(modes, *shape)
        noise = streams.normal(*shape, dimension, dtype=self.centres.dtype)
        return torch.add(self.centres[component], noise, alpha=self.sigma)


def ring(modes: int, radius: float) -> Tensor:
    """Centres [K, 2] at angles 2 pi k / K, in float64.

    Source: Metz et al. 2017 (unrolled GANs), 8 modes, radius 2, sigma .02.
    """
    angle = 2 * math.pi * torch.arange(modes, dtype=torch.float64) / modes
    return radius * torch.stack((angle.cos(), angle.sin()), dim=1)


def grid(modes: int, spacing: float) -> Tensor:
    """Centres [K, 2] of a square grid around 0, in float64.

    Source: Srivastava et al. 2017 (VEEGAN), 25 modes, spacing 2, sigma .05.
    """
    side = math.isqrt(modes)
    axis = spacing * (torch.arange(side, dtype=torch.float64) - (side - 1) / 2)
    return torch.cartesian_prod(axis, axis)


BLOCK, MOST = 2**17, 256
"""Numbers of one member drawn at a time, and the most batches (ours): half a megabyte."""


class Ahead:
    """Batches of one kind from per-member streams, a block of them drawn at a time.

    The block's size depends on the batch alone, never on the number of members, so that a
    member draws what its single run draws.

    Args:
        streams: read by ``draw`` only.
        draw: count -> [M, count, B, ...].
        numbers: of one batch of one member.
    """

    def __init__(self, streams: Streams, draw: Callable[[int], Tensor], numbers: int) -> None:
        self._streams, self._draw = streams, draw
        self._count = min(MOST, max(1, BLOCK // numbers))
        self._before = streams.state()
        self._block: tuple[Tensor, ...] = ()
        self._used = 0

    def next(self) -> Tensor:
        """The next batch [M, B, ...]."""
        if self._used == len(self._block):
            self._before = self._streams.state()
            self._block = self._draw(self._count).unbind(1)
            self._used = 0
        self._used += 1
        return self._block[self._used - 1]

    def state(self) -> dict[str, Any]:
        """The streams before the current block, and how much of it was used."""
        return {"streams": self._before, "used": self._used}

    def load_state(self, state: dict[str, Any]) -> None:
        """Draw the block again and go to where ``state`` was."""
        self._streams.load_state(state["streams"])
        self._before, self._used = state["streams"], int(state["used"])
        self._block = self._draw(self._count).unbind(1) if self._used else ()
