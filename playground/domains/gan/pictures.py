"""What pictures of GANs need: samples over data with the discriminator's field, or images.

Shape legend: M members, N samples, D dimensions, K members of the field.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from playground.domains.gan.config import GanConfig
from playground.domains.gan.objectives import Loss, ascent
from playground.domains.gan.penalties import Network

SHOWN, ARROWS, GRID, LINE, PICTURED, IMAGES = 1000, 200, 48, 200, 4, 64
"""For pictures (ours): samples and arrows a member, points a side of the field and on a line,
members of the field, images a member."""

MARGIN = 0.4
"""How far the field reaches beyond the data, as a share of their extent (ours)."""


@dataclass(frozen=True)
class Scene:
    """A discriminator's view of points in the plane or on the line.

    Attributes:
        discriminator: (tensors, samples) -> logits.
        loss: whose slope the arrows are.
        pack: samples that it sees at once; the field is that of equal ones.
    """

    discriminator: Network
    loss: Loss
    pack: int

    def arrays(
        self,
        critics: Sequence[Mapping[str, Tensor]],
        samples: Tensor,
        real: Tensor,
        centres: Tensor | None,
    ) -> dict[str, np.ndarray]:
        """Samples over data, logits on a grid [K, GRID, GRID] or [K, LINE], arrows at samples.

        Args:
            critics: the discriminator's tensors of K members.
            samples: [M, N, D].
            real: [n, D].
            centres: [modes, D], None where the data have none.
        """
        axes = _axes(real if centres is None or real.shape[1] == 1 else centres)
        points = torch.stack(torch.meshgrid(*axes, indexing="xy"), dim=-1).flatten(0, -2)
        shape = [len(axes[0])] * len(axes)
        repeated = points.repeat_interleave(self.pack, dim=0)
        fields = [self.discriminator(tensors, repeated).view(shape) for tensors in critics]
        count = min(ARROWS, len(real), samples.shape[1]) // self.pack * self.pack
        starts = samples[: len(critics), :count]
        arrows = [
            ascent(self.discriminator, tensors, self.loss, x, real[:count])
            for tensors, x in zip(critics, starts, strict=True)
        ]
        found = {
            "samples": samples[:, :SHOWN],
            "data": real[None, :SHOWN],
            "field": torch.stack(fields),
            "field_axes": torch.stack(axes)[None],
            "arrows": torch.stack(arrows),
            "arrow_points": starts,
        }
        if centres is not None:
            found["centres"] = centres[None]
        return {name: value.cpu().numpy() for name, value in found.items()}


def _axes(points: Tensor) -> list[Tensor]:
    """Where the field is taken along every dimension: the points' box and a margin."""
    low, high = points.amin(0), points.amax(0)
    margin = MARGIN * (high - low).amax().clamp_min(1.0) / 2
    count = LINE if points.shape[1] == 1 else GRID
    return [
        torch.linspace(float(a), float(b), count, dtype=low.dtype, device=low.device)
        for a, b in zip(low - margin, high + margin, strict=True)
    ]


def image_grids(samples: Tensor, real: Tensor, config: GanConfig) -> dict[str, np.ndarray]:
    """Images [M, IMAGES, channels, side, side] and real ones, as bytes."""
    shape = (config.image_channels, config.image_side, config.image_side)
    return {
        "images": _bytes(samples[:, :IMAGES]).reshape(len(samples), -1, *shape),
        "real_images": _bytes(real[None, :IMAGES]).reshape(1, -1, *shape),
    }


def _bytes(pixels: Tensor) -> np.ndarray:
    """Pixels in [-1, 1] as 0..255; what is not finite is 0."""
    scaled = ((pixels.clamp(-1, 1) + 1) * 127.5).round().nan_to_num(0)
    return scaled.to(torch.uint8).cpu().numpy()
