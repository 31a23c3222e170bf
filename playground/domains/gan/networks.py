"""The players' networks: multi-layer or convolutional, squashed, packed, spectrally normalised.

``pack`` = m: the discriminator sees m samples at once, joined in their dimensions (images: in
their channels), and says one logit of them (PacGAN, Lin et al. 2018, section 3).

``spectral_norm``: every weight W of the discriminator, as a matrix [out, in], is divided by an
estimate u.(W v) of its largest singular value (Miyato et al. 2018, eq. 8 and algorithm 1). The
vectors are constants of an objective: they travel in the batch, under ``spectral/``, and
``advance`` makes one step of the power iteration a round, on the weights before it. The weights
in records and checkpoints are the raw ones.

Shape legend: M members, B samples, D dimensions of a sample.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from playground.domains.gan.config import GanConfig
from playground.domains.gan.objectives import Point
from playground.domains.gan.penalties import Network
from playground.nets import MLP, Stack, dcgan_discriminator, dcgan_generator
from playground.randomness import stream_seed

Plain: TypeAlias = MLP | Stack

STARTED = 15
"""Power iterations before the first update, as ``torch.nn.utils.parametrizations``."""

EPS = 1e-12
"""Least norm that a vector is divided by, as there."""


def networks(config: GanConfig) -> tuple[Network, Network, dict[str, Plain]]:
    """Generator and discriminator as objectives call them, and {player: the plain network}."""
    dimension = config.dimension
    if config.data == "dirac":
        line = MLP((1, 1), bias=False)
        return Point(), line, {"discriminator": line}
    initial = config.initialisation
    make: Plain
    judge: Plain
    if config.network == "conv":
        channels, side, width = config.image_channels, config.image_side, config.channels
        make = dcgan_generator(
            config.latent, channels, side, width, config.generator_activation, initial
        )
        judge = dcgan_discriminator(
            config.pack * channels, side, width, config.discriminator_activation, initial
        )
    else:
        hidden, seen = config.generator_widths, config.discriminator_widths
        sizes = (config.latent, *hidden, dimension)
        make = MLP(sizes, config.generator_activation, initial)
        sizes = (config.pack * dimension, *seen, 1)
        judge = MLP(sizes, config.discriminator_activation, initial)
    generator: Network = Squashed(make) if config.image_side else make
    discriminator: Network = Spectral(judge) if config.spectral_norm else judge
    if config.pack > 1:
        discriminator = Packed(discriminator, config.pack)
    return generator, discriminator, {"generator": make, "discriminator": judge}


def module_of(config: GanConfig, player: str, plain: Plain) -> Callable[[], nn.Module] | None:
    """What hands a trained player over; None where its weights alone are not the network."""
    if player == "generator" and config.image_side:
        return lambda: nn.Sequential(*plain.module(), nn.Tanh())
    if player == "discriminator" and config.spectral_norm:
        return None
    return plain.module


@dataclass(frozen=True)
class Squashed:
    """Outputs through tanh, for images scaled to [-1, 1] (Radford et al. 2016)."""

    network: Network

    def __call__(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Map [B, L] to [B, D]."""
        return torch.tanh(self.network(tensors, x))


@dataclass(frozen=True)
class Packed:
    """Samples joined, ``size`` at a time."""

    network: Network
    size: int

    def __call__(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Map [B, D] to [B/m, 1]."""
        return self.network(tensors, x.reshape(x.shape[0] // self.size, -1))


@dataclass(frozen=True)
class Spectral:
    """A network whose weights W are W / (u.(W v)), with u and v among its tensors."""

    network: Network

    def __call__(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Map [B, D] to [B, 1]."""
        divided = dict(tensors)
        for name in weights(tensors):
            matrix = tensors[name].flatten(1)
            u, v = tensors[f"spectral/u/{name}"], tensors[f"spectral/v/{name}"]
            divided[name] = tensors[name] / torch.dot(u, torch.mv(matrix, v))
        return self.network(divided, x)


def weights(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the weights, biases and vectors left out."""
    return [name for name in tensors if name.endswith(".weight") and "/" not in name]


def singular_vectors(views: Mapping[str, Tensor], seeds: tuple[int, ...]) -> dict[str, Tensor]:
    """Vectors u [M, out] and v [M, in] of every weight, ``STARTED`` steps on."""
    vectors = {}
    for name in weights(views):
        matrix = views[name].flatten(2)
        for side, width in (("u", matrix.shape[1]), ("v", matrix.shape[2])):
            key = f"spectral/{side}/{name}"
            drawn = torch.empty((len(seeds), width), dtype=torch.float64)
            for row, seed in zip(drawn, seeds, strict=True):
                generator = torch.Generator().manual_seed(stream_seed(seed, f"init/{key}"))
                row.normal_(generator=generator)
            vectors[key] = F.normalize(drawn.to(matrix), dim=-1, eps=EPS)
    for _ in range(STARTED):
        vectors = advance(views, vectors)
    return vectors


def advance(views: Mapping[str, Tensor], vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One step of the power iteration: u <- W v / |W v|, then v <- W'u / |W'u|."""
    result = {}
    for name in weights(views):
        matrix, v = views[name].flatten(2), vectors[f"spectral/v/{name}"]
        u = F.normalize(torch.matmul(matrix, v[..., None])[..., 0], dim=-1, eps=EPS)
        back = torch.matmul(matrix.transpose(1, 2), u[..., None])[..., 0]
        result[f"spectral/u/{name}"] = u
        result[f"spectral/v/{name}"] = F.normalize(back, dim=-1, eps=EPS)
    return result
