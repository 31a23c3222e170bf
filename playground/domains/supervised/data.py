"""Data sets and the batches drawn from them. A set lives on the device once, for all members.

    linear_regression  x ~ N(0, S), y = w*.x + noise N(0, sigma^2)          synthetic
    two_moons          two interleaved half circles with noise              synthetic
    digits             1797 images 8x8 of ten digits, inputs scaled by 1/16 to [0, 1]
                       (Alpaydin & Kaynak 1998, UCI; shipped with scikit-learn)
    chebyshev          y = T_k(x), x evenly spaced on [-1, 1]; nothing is random
                       (the task of github.com/rfangit/edge-of-stability-browser)
    adding             y = sum of the two marked among T values, uniform on [0, 1], one marked in
                       either half (Hochreiter & Schmidhuber 1997, task 4, as Le et al. 2015 and
                       Arjovsky et al. 2016 have it)                        synthetic

Whoever says 1 to ``adding`` errs by 1/6 in mean square, the variance of the sum of two uniform
numbers (Arjovsky et al. say .167; the .1767 of Le et al. is not that variance).

Shape legend: M members, N training samples, T test samples, D inputs, B samples of a batch.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from playground.domains.supervised.config import SupervisedConfig
from playground.randomness import Streams, generators


@dataclass(frozen=True)
class Data:
    """A training and a test set in float64; targets are classes (int64) or values.

    Attributes:
        train: inputs [N, D] and targets [N].
        test: inputs [T, D] and targets [T].
        classes: number of classes; 0 for regression.
        truth: regression: w* [D] and the diagonal of S [D].
    """

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    classes: int = 0
    truth: tuple[np.ndarray, np.ndarray] | None = None


def load(config: SupervisedConfig) -> Data:
    """The data set of a validated configuration; the same for every member and every seed."""
    seed = config.split_seed
    if config.data == "digits":
        return digits(seed)
    sizes = (config.samples or 0, config.test_samples or 0)
    if config.data == "chebyshev":
        return chebyshev(sizes, config.degree or 1)
    if config.data == "adding":
        return adding(sizes, config.length or 2, seed)
    if config.data == "two_moons":
        return two_moons(sizes, config.noise or 0.0, seed)
    spectrum = variances(config.dimension or 1, config.condition or 1.0)
    return linear_regression(sizes, spectrum, config.noise or 0.0, seed)


def variances(dimension: int, condition: float) -> np.ndarray:
    """Diagonal of S [D]: log-spaced from 1/condition to 1, as in ``landscape/quadratic``."""
    exponents = np.linspace(-1, 0, dimension) if dimension > 1 else np.zeros(1)
    result: np.ndarray = condition**exponents
    return result


def linear_regression(
    sizes: tuple[int, int], spectrum: np.ndarray, noise: float, seed: int
) -> Data:
    """Inputs N(0, diag(spectrum)), targets w*.x + N(0, noise^2), w* = (1, ..., 1) (ours).

    Args:
        sizes: (N, T).
        spectrum: [D].
        noise: standard deviation of the targets.
        seed: of the data.
    """
    optimum = np.ones(len(spectrum))
    source = generators([seed], "supervised/linear_regression")[0]
    parts = []
    for size in sizes:
        x = source.standard_normal((size, len(spectrum))) * np.sqrt(spectrum)
        parts.append((x, x @ optimum + noise * source.standard_normal(size)))
    return Data(parts[0], parts[1], truth=(optimum, spectrum))


def two_moons(sizes: tuple[int, int], noise: float, seed: int) -> Data:
    """Points on two half circles plus N(0, noise^2) in each coordinate; arguments as above."""
    source = generators([seed], "supervised/two_moons")[0]
    parts = []
    for size in sizes:
        points, labels = moons(size)
        parts.append((points + noise * source.standard_normal(points.shape), labels))
    return Data(parts[0], parts[1], classes=2)


def moons(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Evenly spaced points [size, 2] and their classes [size], as scikit-learn's ``make_moons``.

    Half circles (cos t, sin t) of class 0 and (1 - cos t, 1/2 - sin t) of class 1, t in [0, pi].
    """
    upper = np.linspace(0, math.pi, size // 2)
    lower = np.linspace(0, math.pi, size - size // 2)
    points = np.concatenate(
        [
            np.stack([np.cos(upper), np.sin(upper)], axis=1),
            np.stack([1 - np.cos(lower), 0.5 - np.sin(lower)], axis=1),
        ]
    )
    return points, np.repeat([0, 1], [len(upper), len(lower)])


def chebyshev(sizes: tuple[int, int], degree: int) -> Data:
    """T_k(x) = cos(k arccos x) at N and at T evenly spaced points of [-1, 1], ends included.

    Args:
        sizes: (N, T).
        degree: k.
    """
    parts = []
    for size in sizes:
        x = np.linspace(-1, 1, size)
        parts.append((x[:, None], np.cos(degree * np.arccos(x))))
    return Data(parts[0], parts[1])


def adding(sizes: tuple[int, int], length: int, seed: int) -> Data:
    """Sequences as rows: value and marker of step 1, of step 2, and so on, [N, 2 T].

    Args:
        sizes: (N, T) of the sets.
        length: T, steps of a sequence.
        seed: of the data.
    """
    source = generators([seed], "supervised/adding")[0]
    parts = []
    for size in sizes:
        rows = np.zeros((size, length, 2))
        rows[..., 0] = source.random((size, length))
        half, each = length // 2, np.arange(size)
        for low, high in ((0, half), (half, length)):
            rows[each, source.integers(low, high, size), 1] = 1
        parts.append((rows.reshape(size, -1), (rows[..., 0] * rows[..., 1]).sum(axis=1)))
    return Data(parts[0], parts[1])


def digits(split_seed: int) -> Data:
    """scikit-learn's digits, stratified 80/20 by its ``train_test_split``; inputs / 16."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        images / 16.0, labels, test_size=0.2, stratify=labels, random_state=split_seed
    )
    return Data((train_x, train_y), (test_x, test_y), classes=10)


class Sampler:
    """Indices of batches [M * B], member after member, from one stream per member.

    Without replacement a member walks through one permutation of the training set after the
    other. Batches keep their size: what an epoch leaves over is carried into the first batch
    of the next, so every sample is used exactly once in every N draws; only a batch across
    that border may hold a sample twice. With replacement all draws are independent.
    Either way a whole epoch is drawn at once, and a batch is one entry of a list.
    """

    def __init__(self, streams: Streams, samples: int, size: int, *, replacement: bool) -> None:
        self.streams, self.samples, self.size = streams, samples, size
        self.replacement = replacement
        self.members = len(streams.state())
        self._position = 0
        self._blocks: list[Tensor] = []
        self._tail = torch.empty((self.members, 0), dtype=torch.int64, device=streams.device)

    def draw(self) -> Tensor:
        """Indices of the next batch of every member [M * B]."""
        if self._position == len(self._blocks):
            self._refill()
        block = self._blocks[self._position]
        self._position += 1
        return block

    def state(self) -> dict[str, Any]:
        """Streams, what is drawn but not used, and what is left over."""
        rest = self._blocks[self._position :]
        empty = torch.empty((0, self.members * self.size), dtype=torch.int64)
        return {
            "streams": self.streams.state(),
            "blocks": torch.stack(rest).cpu() if rest else empty,
            "tail": self._tail.cpu(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` gave."""
        self.streams.load_state(state["streams"])
        self._blocks = list(state["blocks"].to(self.streams.device).unbind())
        self._tail = state["tail"].to(self.streams.device)
        self._position = 0

    def _refill(self) -> None:
        """Draw an epoch: as many batches as fit, the rest kept for the next."""
        if self.replacement:
            count = max(1, self.samples // self.size)
            order = self.streams.integers(self.samples, count * self.size)
        else:
            order = torch.cat([self._tail, self.streams.permutation(self.samples)], dim=1)
            count = order.shape[1] // self.size
            self._tail = order[:, count * self.size :].clone()
        used = order[:, : count * self.size].view(self.members, count, self.size)
        self._blocks = list(used.transpose(0, 1).reshape(count, -1).unbind())
        self._position = 0
