"""Supervised learning as a one-player game: one iteration is one batch and one update."""

import math
from collections.abc import Generator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from playground.domains.supervised.config import SupervisedConfig
from playground.domains.supervised.data import Data, Sampler, load
from playground.domains.supervised.networks import module_of, network
from playground.domains.supervised.objectives import classify, excess_risk, regress
from playground.game import Context, Evaluation, Move, Outcomes, Player, Problem, Round
from playground.parameters import Parameters
from playground.randomness import Streams

GRID = 81
"""Points a side of the grid on which decision probabilities are drawn (ours)."""

MISREAD = 16
"""Misread digits kept per member (ours)."""

CHUNK = 32
"""Members evaluated at once, which bounds the memory of an evaluation (ours)."""


class SupervisedProblem(Problem):
    """Player ``model`` fits a data set that all members share."""

    main_metric = "accuracy"
    higher_is_better = True

    def __init__(self, config: SupervisedConfig) -> None:
        self.config = config
        self.name = config.name
        self.counters = {}
        if config.data == "linear_regression":
            self.main_metric, self.higher_is_better = "value", False
        if config.data == "chebyshev":
            self.main_metric, self.higher_is_better = "test_loss", False
        if config.data == "adding":
            self.main_metric, self.higher_is_better = "mse", False

    def setup(self, context: Context) -> dict[str, Player]:
        """Put the data on the device once and draw every member's network."""
        config, device = self.config, context.device
        self.context = context
        self.data = load(config)
        self.train = self._on_device(self.data.train)
        self.test = self._on_device(self.data.test)
        self.net = network(config, self.train[0].shape[1], self.data.classes or 1)
        self.objective = classify(self.net) if self.data.classes else regress(self.net)
        parameters = Parameters.build(
            lambda k: self.net.init(context.seeds[k], "model"),
            context.members, device, context.dtype,
        )  # fmt: skip
        self.player = Player("model", parameters, module_of(self.net))
        self.sampler: Sampler | None = None
        if config.batch_size != "full":
            streams = Streams(context.seeds, "data", device)
            self.sampler = Sampler(
                streams, len(self.train[0]), config.batch(), replacement=config.replacement
            )
        self.full = {
            name: tensor.expand(context.members, *tensor.shape)
            for name, tensor in zip(("input", "target"), self.train, strict=True)
        }
        self.counters = {"samples": np.zeros(context.members, np.int64)}
        return {"model": self.player}

    def iteration(self, progress: float) -> Generator[Round, Outcomes, dict[str, np.ndarray]]:
        """One batch, one update."""
        batch = self.full if self.sampler is None else self._gather(self.sampler.draw())
        yield (Move("model", self.objective, batch),)
        self.counters["samples"] += batch["target"].shape[1]
        return {}

    def whole(self, player: str) -> Move:
        """All of the training set."""
        return Move(player, self.objective, self.full)

    def evaluate(self) -> Evaluation:
        """Measure every member on the whole test and training set; nothing is random.

        Of ``adding``, whose training set is nearly a stream, as many samples as the test set has.
        """
        with torch.no_grad():
            seen = len(self.test[0]) if self.config.data == "adding" else None
            test, train = self._outputs(self.test[0]), self._outputs(self.train[0][:seen])
            if self.data.classes:
                return self._evaluate_classes(test, train)
            test, train = test.squeeze(-1), train.squeeze(-1)
            if self.config.data == "adding":
                return self._evaluate_sums(test, train)
            if self.data.truth is None:
                return self._evaluate_curve(test, train)
            return self._evaluate_regression(test, train)

    def state(self) -> dict[str, Any]:
        """The data streams and the part of an epoch that is still to come."""
        return {} if self.sampler is None else {"sampler": self.sampler.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` gave."""
        if self.sampler is not None:
            self.sampler.load_state(state["sampler"])

    def _on_device(self, part: tuple[np.ndarray, np.ndarray]) -> tuple[Tensor, Tensor]:
        """Inputs in the run's dtype, targets as classes (int64) or in the run's dtype."""
        device, dtype = self.context.device, self.context.dtype
        inputs = torch.as_tensor(part[0]).to(device, dtype)
        kind = torch.int64 if self.data.classes else dtype
        return inputs.contiguous(), torch.as_tensor(part[1]).to(device, kind)

    def _gather(self, index: Tensor) -> dict[str, Tensor]:
        """Rows of the training set [M, B, ...] by index [M * B]."""
        inputs, targets = self.train
        members = self.context.members
        return {
            "input": inputs.index_select(0, index).view(members, -1, inputs.shape[1]),
            "target": targets.index_select(0, index).view(members, -1),
        }

    def _outputs(self, inputs: Tensor) -> Tensor:
        """The network's outputs [M, T, K] for shared inputs [T, D]."""
        forward = torch.func.vmap(self.net, in_dims=(0, None), chunk_size=CHUNK)
        outputs: Tensor = forward(self.player.parameters.views, inputs)
        return outputs

    def _evaluate_classes(self, test: Tensor, train: Tensor) -> Evaluation:
        """Accuracies and losses; standard errors over the test set."""
        labels = self.test[1]
        losses, train_losses = _cross_entropy(test, labels), _cross_entropy(train, self.train[1])
        predictions = test.argmax(dim=-1)
        right = (predictions == labels).double()
        metrics = {
            "accuracy": right.mean(dim=1),
            "test_loss": losses.mean(dim=1),
            "train_accuracy": (train.argmax(dim=-1) == self.train[1]).double().mean(dim=1),
            "train_loss": train_losses.mean(dim=1),
        }
        size = labels.shape[0]
        stderr = {
            "accuracy": (metrics["accuracy"] * (1 - metrics["accuracy"]) / size).sqrt(),
            "test_loss": losses.std(dim=1) / math.sqrt(size),
        }
        if self.config.data == "digits":
            arrays = _confusion(predictions, labels, self.data.classes)
            arrays |= _misread(self.data, predictions, losses)
        else:
            arrays = self._boundary()
        return Evaluation(_numpy(metrics), _numpy(stderr), arrays)

    def _evaluate_regression(self, test: Tensor, train: Tensor) -> Evaluation:
        """Excess risk and distance to w*, both exact; losses on both sets."""
        weight = self.player.parameters.values.double()
        assert self.data.truth is not None
        optimum, spectrum = (torch.as_tensor(a).to(weight.device) for a in self.data.truth)
        losses = 0.5 * (test - self.test[1]).double() ** 2
        metrics = {
            "value": excess_risk(weight, optimum, spectrum),
            "distance": (weight - optimum).norm(dim=1),
            "test_loss": losses.mean(dim=1),
            "train_loss": 0.5 * ((train - self.train[1]).double() ** 2).mean(dim=1),
        }
        stderr = {"test_loss": losses.std(dim=1) / math.sqrt(losses.shape[1])}
        arrays = {
            "weights": weight.cpu().numpy(),
            "true_weights": self.data.truth[0][None],
            "predictions": test.cpu().numpy(),
            "observations": self.test[1].cpu().numpy()[None],
        }
        return Evaluation(_numpy(metrics), _numpy(stderr), arrays)

    def _evaluate_curve(self, test: Tensor, train: Tensor) -> Evaluation:
        """Losses on both sets, which are grids: nothing is sampled, so no standard errors."""
        metrics = {
            "test_loss": 0.5 * ((test - self.test[1]).double() ** 2).mean(dim=1),
            "train_loss": 0.5 * ((train - self.train[1]).double() ** 2).mean(dim=1),
        }
        (points, labels), (inputs, targets) = self.data.train, self.data.test
        arrays = {
            "curve": test.cpu().numpy(),
            "curve_target": np.stack([inputs[:, 0], targets])[None],
            "curve_points": np.stack([points[:, 0], labels])[None],
        }
        return Evaluation(_numpy(metrics), {}, arrays)

    def _evaluate_sums(self, test: Tensor, train: Tensor) -> Evaluation:
        """Mean squared error, 1/6 for whoever says 1, with the losses that are half of it."""
        errors = (test - self.test[1]).double() ** 2
        known = (train - self.train[1][: train.shape[1]]).double() ** 2
        root = math.sqrt(errors.shape[1])
        metrics = {
            "mse": errors.mean(dim=1),
            "test_loss": 0.5 * errors.mean(dim=1),
            "train_loss": 0.5 * known.mean(dim=1),
        }
        stderr = {"mse": errors.std(dim=1) / root, "test_loss": 0.5 * errors.std(dim=1) / root}
        arrays = {
            "predictions": test.cpu().numpy(),
            "observations": self.test[1].cpu().numpy()[None],
        }
        return Evaluation(_numpy(metrics), _numpy(stderr), arrays)

    def _boundary(self) -> dict[str, np.ndarray]:
        """Probability of class 1 on a grid over the training points, and the points."""
        points, labels = self.data.train
        low, high = points.min(0) - 0.3, points.max(0) + 0.3
        axes = [np.linspace(a, b, GRID) for a, b in zip(low, high, strict=True)]
        grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
        inputs = torch.as_tensor(grid).to(self.context.device, self.context.dtype)
        probability = self._outputs(inputs).softmax(dim=-1)[..., 1]
        return {
            "boundary_axes": np.stack(axes)[None],
            "boundary": probability.reshape(-1, GRID, GRID).to(torch.float16).cpu().numpy(),
            "points": points[None],
            "labels": labels[None],
        }


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Losses [M, T] of logits [M, T, K] in float64."""
    expanded = labels.expand(logits.shape[:2])
    return F.cross_entropy(logits.double().transpose(1, 2), expanded, reduction="none")


def _confusion(predictions: Tensor, labels: Tensor, classes: int) -> dict[str, np.ndarray]:
    """Counts [M, K, K] of test samples by true class (row) and predicted class (column)."""
    members = predictions.shape[0]
    offset = torch.arange(members, device=labels.device)[:, None] * classes**2
    cells = offset + labels * classes + predictions
    counts = torch.bincount(cells.flatten(), minlength=members * classes**2)
    return {"confusion": counts.view(members, classes, classes).cpu().numpy().astype(np.int32)}


def _misread(data: Data, predictions: Tensor, losses: Tensor) -> dict[str, np.ndarray]:
    """The misread test digits of greatest loss [M, 16]; -1 and blank where there are fewer."""
    inputs, labels = data.test
    predicted = predictions.cpu().numpy()
    score = np.where(predicted == labels, -1.0, losses.cpu().numpy())
    index = np.argsort(-score, axis=1, kind="stable")[:, :MISREAD]
    wrong = np.take_along_axis(predicted != labels, index, axis=1)
    images = np.where(wrong[..., None], np.rint(inputs[index] * 16), 0).astype(np.uint8)
    return {
        "misread_indices": np.where(wrong, index, -1),
        "misread_labels": np.where(wrong, labels[index], -1),
        "misread_predictions": np.where(wrong, np.take_along_axis(predicted, index, axis=1), -1),
        "misread_images": images.reshape(*index.shape, 8, 8),
    }


def _numpy(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
