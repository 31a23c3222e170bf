"""Real data, drawn without end, and batches drawn ahead in blocks.

    ring, grid, random_mixture, mixture_1d    equal-weight Gaussians, by their centres
    spiral                                    a curve with noise
    digits, stacked_digits                    images, drawn with replacement (``images.py``)

Modes are sampled, not cycled, and every component has a centre of its own. (Published rings
built by ``linspace(0, 2 pi, 8)`` have 7: the first is the last.)

Shape legend: M members, B samples, K modes, D dimensions.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from playground.domains.gan.config import GanConfig
from playground.randomness import Streams, generators


class Source(Protocol):
    """A distribution of samples with D dimensions."""

    @property
    def dimension(self) -> int:
        """D."""

    def draw(self, streams: Streams, *shape: int) -> Tensor:
        """Samples [M, *shape, D], from every member's stream."""


@dataclass(frozen=True)
class Mixture:
    """Equal-weight Gaussians; one centre with sigma 0 is a point mass.

    Attributes:
        centres: [K, D].
        sigma: standard deviation of every component, per axis.
    """

    centres: Tensor
    sigma: float

    @property
    def dimension(self) -> int:
        """D, of a centre."""
        return self.centres.shape[1]

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


def random_mixture(modes: int, radius: float, seed: int) -> Tensor:
    """Centres [K, 2] spread over the square [-radius, radius]^2, in float64.

    Each is the candidate of 32 uniform ones that is farthest from those before it (Mitchell
    1991, best-candidate sampling; 32 is ours).
    """
    source = generators([seed], "gan/random_mixture")[0]
    centres = source.uniform(-radius, radius, (1, 2))
    while len(centres) < modes:
        candidates = source.uniform(-radius, radius, (32, 2))
        gaps = np.linalg.norm(candidates[:, None] - centres, axis=2).min(axis=1)
        centres = np.concatenate([centres, candidates[[gaps.argmax()]]])
    return torch.from_numpy(centres)


def line(modes: int, spacing: float) -> Tensor:
    """Centres [K, 1] around 0, in float64.

    Source: Berard et al. 2020, whose 1-D mixture has 2 modes at -2 and 2 (and sigma 1).
    """
    return spacing * (torch.arange(modes, dtype=torch.float64) - (modes - 1) / 2)[:, None]


@dataclass(frozen=True)
class Spiral:
    """A Swiss roll in the plane: x = r/b (t cos t, t sin t) + sigma n, t = pi (3/2 + 3 u).

    u is uniform on [0, 1), n normal, b = 9 pi/2 the largest t, so that the roll ends at
    distance r from 0.

    Source: the toy experiments of Gulrajani et al. 2017, where r = b/7.5 and sigma = .25/7.5.
    """

    radius: float
    sigma: float
    dtype: torch.dtype
    dimension: int = 2

    def draw(self, streams: Streams, *shape: int) -> Tensor:
        """Samples [M, *shape, 2], places along the curve first, then noise."""
        t = math.pi * (1.5 + 3 * streams.uniform(*shape, dtype=self.dtype))
        noise = streams.normal(*shape, 2, dtype=self.dtype)
        curve = torch.stack((t * t.cos(), t * t.sin()), dim=-1)
        return torch.add(curve * (self.radius / (4.5 * math.pi)), noise, alpha=self.sigma)


def source(config: GanConfig, device: torch.device, dtype: torch.dtype) -> Source:
    """The real distribution of a validated configuration, the same for all members."""
    if config.data == "spiral":
        return Spiral(config.radius, config.sigma, dtype)
    if config.image_side:
        from playground.domains.gan.images import Images

        return Images.load(config, device, dtype)
    makers: dict[str, Callable[[], Tensor]] = {
        "ring": lambda: ring(config.modes, config.radius),
        "grid": lambda: grid(config.modes, config.spacing),
        "random_mixture": lambda: random_mixture(config.modes, config.radius, config.data_seed),
        "mixture_1d": lambda: line(config.modes, config.spacing),
        "dirac": lambda: torch.zeros(1, 1),
    }
    return Mixture(makers[config.data]().to(device, dtype), config.sigma)


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
