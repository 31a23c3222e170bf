"""Objectives of supervised learning and the closed forms of linear regression.

    cross_entropy  -log softmax(f(x))_y, per sample; gradient by the logits: p - onehot(y)
    squared_error  1/2 (f(x) - y)^2, per sample

Linear regression, x ~ N(0, S), y = w*.x + noise of variance s^2, e = w - w*, one sample:

    excess risk    1/2 e.S e
    gradient       mean S e, covariance (e.S e + s^2) S + S e (S e)^T   (Gaussian fourth moments)

Shape legend: B samples of a batch, D inputs, K classes.
"""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from playground.domains.supervised.networks import Network
from playground.game import Batch, Objective, Params, Terms


def classify(net: Network) -> Objective:
    """Cross-entropy of a classifier; diagnostic ``train/accuracy`` of the batch.

    The batch holds ``input`` [B, D] and ``target`` [B] (classes, int64).
    """

    def objective(params: Params, batch: Batch) -> tuple[Terms, Terms]:
        logits, target = net(params["model"], batch["input"]), batch["target"]
        terms = {"cross_entropy": F.cross_entropy(logits, target, reduction="none")}
        right = (logits.detach().argmax(dim=-1) == target).to(logits.dtype)
        return terms, {"train/accuracy": right}

    return objective


def regress(net: Network) -> Objective:
    """Half the squared error of a network with one output.

    The batch holds ``input`` [B, D] and ``target`` [B].
    """

    def objective(params: Params, batch: Batch) -> tuple[Terms, Terms]:
        residual = net(params["model"], batch["input"]).squeeze(-1) - batch["target"]
        return {"squared_error": 0.5 * residual**2}, {}

    return objective


def excess_risk(weight: Tensor, optimum: Tensor, spectrum: Tensor) -> Tensor:
    """1/2 e.S e of linear regression: weight [..., D] to [...]."""
    return 0.5 * (spectrum * (weight - optimum) ** 2).sum(-1)


def population_gradient(weight: Tensor, optimum: Tensor, spectrum: Tensor) -> Tensor:
    """S e, the gradient of the risk of linear regression [..., D]."""
    return spectrum * (weight - optimum)


def gradient_covariance(weight: Tensor, optimum: Tensor, spectrum: Tensor, noise: float) -> Tensor:
    """Covariance of one fresh sample's gradient [D, D]: (e.S e + s^2) S + S e (S e)^T."""
    mean = population_gradient(weight, optimum, spectrum)
    scale = (mean * (weight - optimum)).sum() + noise**2
    return scale * torch.diag(spectrum) + torch.outer(mean, mean)
