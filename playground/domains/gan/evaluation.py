"""How good a generator's samples are, and what a perfect sampler would score in its place.

Points (mixtures, the spiral): coverage of modes by ``metrics.py``, and two-sample distances to
fresh real samples. Images: Frechet and kernel distance, precision and recall, density and
coverage in the features of a small classifier, and the classes found.

Every score has a ``/perfect`` twin: for points, real samples, as many as are taken of a
generator; for images, those held out. ``frechet/floor`` is that of two halves of the training
images. Distances are means over blocks of the samples, with standard errors; a block has as
many samples as the perfect sampler's, so that both have the same bias.

Shape legend: M members, N samples, D dimensions, F features.
"""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from playground.domains.gan import distances
from playground.domains.gan.config import GanConfig
from playground.domains.gan.data import Mixture, Source
from playground.domains.gan.images import CLASSES, Classifier, Images
from playground.domains.gan.metrics import PERFECT, Scores, count, score
from playground.game import Context
from playground.randomness import Streams

BLOCKS = 4
"""Parts that a distance's standard error is taken from (ours)."""

DIRECTIONS, KERNEL_SAMPLES, HELD_SAMPLES = 16, 500, 360
"""Of sliced Wasserstein; samples of a block, at most, of kernels and of images (ours)."""

SHOWN = 1000
"""Real samples kept for pictures (ours)."""


class Judge(Protocol):
    """Scores samples of every member.

    Attributes:
        shown: real samples [n, D] for pictures.
    """

    shown: Tensor

    def scores(self, samples: Tensor, *, full: bool) -> tuple[Scores, Scores]:
        """Metrics and standard errors, each [M], of samples [M, N, D].

        Args:
            samples: of every member.
            full: also what takes long.
        """

    def perfect(self) -> Scores:
        """{metric/perfect: [M]}, and other scores that do not depend on a generator."""


def judge(source: Source, config: GanConfig, context: Context) -> Judge:
    """The judge of a distribution."""
    if isinstance(source, Images):
        return ImageJudge(source, config, context)
    return PointJudge(source, config, context)


class PointJudge:
    """Coverage of a mixture's modes, and distances to real samples."""

    def __init__(self, source: Source, config: GanConfig, context: Context) -> None:
        self.size = config.evaluation_samples
        self.mixture = source if isinstance(source, Mixture) else None
        device = context.device
        self.along = distances.directions(source.dimension, DIRECTIONS, device)
        reference, real = (
            source.draw(Streams(context.seeds, f"evaluation/{name}", device), self.size)
            for name in ("reference", "real")
        )
        self.shown = real[0, :SHOWN]
        kept = self._blocks(reference)
        self.projected = distances.projections(kept, self.along)
        self.kernel = kept[:, :KERNEL_SAMPLES].contiguous()
        self.width = distances.bandwidth(self.kernel)
        self._perfect = {f"{k}/perfect": v for k, v in self.scores(real, full=True)[0].items()}

    def perfect(self) -> Scores:
        """What real samples score, as many as are taken of a generator."""
        return self._perfect

    def scores(self, samples: Tensor, *, full: bool) -> tuple[Scores, Scores]:
        """Coverage; if ``full``, sliced Wasserstein and MMD^2."""
        metrics, errors = self._coverage(samples)
        if full:
            parts = self._blocks(samples)
            found = {
                "sliced_wasserstein": distances.sliced_wasserstein(
                    distances.projections(parts, self.along), self.projected
                ),
                "mmd": distances.mmd(parts[:, :KERNEL_SAMPLES], self.kernel, self.width),
            }
            _add(found, metrics, errors)
        return metrics, errors

    def _blocks(self, samples: Tensor) -> Tensor:
        """Samples [M, N, D] as [M * BLOCKS, N / BLOCKS, D], what is left over dropped."""
        size = samples.shape[1] // BLOCKS
        return samples[:, : BLOCKS * size].reshape(-1, size, samples.shape[2])

    def _coverage(self, samples: Tensor) -> tuple[Scores, Scores]:
        if self.mixture is None:
            return {}, {}
        counts = count(samples, self.mixture.centres, self.mixture.sigma).cpu().numpy()
        return score(counts, samples.shape[1], PERFECT[self.mixture.dimension])


class ImageJudge:
    """Distances in a classifier's features, and the classes found."""

    def __init__(self, source: Images, config: GanConfig, context: Context) -> None:
        self.source, self.members, self.size = source, context.members, config.evaluation_samples
        self.classifier = Classifier.train(config.image_side, config.data_seed, context.device)
        self.channels = source.channels
        self.block = max(2, min(HELD_SAMPLES, config.evaluation_samples // BLOCKS))
        streams = Streams((0,), "evaluation/reference", context.device)  # shared by all members
        size = len(source.train)
        train = source.train if self.channels == 1 else source.draw(streams, size)[0]
        order = streams.permutation(size)[0]
        self.reference = self._features(train[order])[0]
        self.moments = distances.moments(self.reference[None])
        self.shown = train[order][:SHOWN]
        self._perfect = self._score_perfect(streams)

    def perfect(self) -> Scores:
        """Scores of held-out images, the floor of halves, and the classifier's accuracy."""
        return self._perfect

    def scores(self, samples: Tensor, *, full: bool) -> tuple[Scores, Scores]:
        """Frechet distance and classes; if ``full``, the rest."""
        features, classes = self._features(samples)
        metrics, errors = self._classes(classes)
        blocks = min(BLOCKS, features.shape[1] // self.block)
        parts = features[:, : blocks * self.block].reshape(-1, self.block, features.shape[2])
        found = {"frechet": distances.frechet(distances.moments(parts), self.moments)}
        if full:
            real = self.reference[:KERNEL_SAMPLES].expand(len(parts), -1, -1)
            found["kernel_distance"] = distances.kernel_distance(parts, real)
            each = [
                distances.manifold_scores(part, self.reference[:HELD_SAMPLES]) for part in parts
            ]
            found |= {name: torch.stack([one[name] for one in each]) for name in each[0]}
        _add(found, metrics, errors, blocks)
        return metrics, errors

    def _score_perfect(self, streams: Streams) -> Scores:
        # one block, or as many stacked images as are taken of a generator: the same bias
        size = self.block if self.channels == 1 else self.size
        held = self.source.draw_held(streams, size)
        metrics, _ = self.scores(held, full=True)
        half = len(self.reference) // 2
        halves = [
            distances.moments(part[None])
            for part in (self.reference[:half], self.reference[half : 2 * half])
        ]
        floor = distances.frechet(halves[0], halves[1]).cpu().numpy()
        found = {f"{name}/perfect": value for name, value in metrics.items()}
        found |= {
            "frechet/floor": floor,
            "classifier/accuracy": np.array([self.classifier.accuracy]),
        }
        return {name: np.repeat(value, self.members) for name, value in found.items()}

    def _features(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Features [..., N, C F] and classes [..., N] in 0 .. 10^C - 1 of samples [..., N, C D]."""
        parts = samples.reshape(*samples.shape[:-1], self.channels, -1)
        features = self.classifier.features(parts)
        digit = self.classifier.classify(features)  # [..., N, C]
        place = CLASSES ** torch.arange(self.channels, device=digit.device)
        return features.flatten(-2), (digit * place).sum(dim=-1)

    def _classes(self, classes: Tensor) -> tuple[Scores, Scores]:
        """``modes`` and ``reverse_kl`` of class histograms, every sample counted."""
        total = CLASSES**self.channels
        offset = total * torch.arange(len(classes), device=classes.device)[:, None]
        counts = torch.bincount((classes + offset).flatten(), minlength=total * len(classes))
        scores, errors = score(counts.view(-1, total).cpu().numpy(), classes.shape[1])
        names = ("modes", "modes/any", "reverse_kl")
        return {n: scores[n] for n in names}, {"reverse_kl": errors["reverse_kl"]}


def _add(found: dict[str, Tensor], metrics: Scores, errors: Scores, blocks: int = BLOCKS) -> None:
    """Put means over blocks, and their standard errors, of values [M * blocks] into scores."""
    for name, values in found.items():
        table = values.view(-1, blocks).cpu().numpy()
        metrics[name] = table.mean(axis=1)
        if blocks > 1:
            errors[name] = table.std(axis=1, ddof=1) / np.sqrt(blocks)
