"""From rollouts to batches: rows, minibatches, normalised advantages.

Shape legend: T vector steps, M members, E environments of a member, B rows of a minibatch.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from playground.game import Batch
from playground.randomness import Streams


def minibatches(
    batch: Batch, streams: Streams, size: int, *, length: int = 1, normalized: bool = False
) -> Iterator[Batch]:
    """One epoch: every row once, shuffled per member [M, B, ...]; ``size`` divides the rows.

    Args:
        batch: of a rollout.
        streams: of the order.
        size: rows of a minibatch.
        length: rows that stay together, one after the other: the steps of a sequence. What has
            one row a sequence goes with them.
        normalized: normalise the advantages of every minibatch by themselves.
    """
    members, rows = batch["weight"].shape
    units, count = rows // length, rows // size
    order = streams.permutation(units)
    order += torch.arange(members, device=order.device)[:, None] * units
    index = order.view(members, count, size // length).transpose(0, 1).reshape(-1)
    shuffled = {
        name: value.reshape(members * units, -1, *value.shape[2:])
        .index_select(0, index)
        .view(count, members, -1, *value.shape[2:])
        for name, value in batch.items()
    }
    if normalized:
        shuffled["advantage"] = normalize(shuffled["advantage"], shuffled["weight"])
    for pieces in zip(*shuffled.values(), strict=True):
        yield dict(zip(shuffled, pieces, strict=True))


def normalize(value: Tensor, weight: Tensor) -> Tensor:
    """(x - mean) / (std + 1e-8) over the last axis, of rows with weight; std is unbiased (SB3).

    Rows without weight give 0; so does the only one with weight.
    """
    total = weight.sum(-1, keepdim=True)
    mean = (value * weight).sum(-1, keepdim=True) / total.clamp_min(1)
    centered = (value - mean) * weight
    variance = centered.square().sum(-1, keepdim=True) / (total - 1).clamp_min(1)
    deviation = variance.sqrt()
    return centered / (deviation + 1e-8)


def moments(value: Tensor, weight: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Mean and unbiased standard deviation over the last axis, of rows with weight, each [M]."""
    total = weight.sum(-1)
    mean = (value * weight).sum(-1) / total.clamp_min(1)
    squares = ((value - mean[:, None]).square() * weight).sum(-1)
    deviation = (squares / (total - 1).clamp_min(1)).sqrt()
    return mean.cpu().numpy(), deviation.cpu().numpy()


def explained_variance(batch: Batch) -> np.ndarray:
    """1 - Var(target - V) / Var(target) over rows with weight [M]; 0 where targets are constant.

    V is that of the critic before the update, the targets are A + V.
    """
    target, value, weight = (batch[name].double() for name in ("target", "value", "weight"))
    spread, error = moments(target, weight)[1] ** 2, moments(target - value, weight)[1] ** 2
    result: np.ndarray = np.where(spread > 0, 1 - error / np.where(spread > 0, spread, 1), 0.0)
    return result
