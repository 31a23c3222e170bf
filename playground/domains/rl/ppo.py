"""PPO: a rollout, then epochs of minibatches (Schulman et al. 2017, algorithm 1)."""

from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from playground.domains.rl.config import PPOConfig, RLConfig
from playground.domains.rl.objectives import log_probability, ppo
from playground.domains.rl.problem import PolicyGradient
from playground.domains.rl.rollout import Rollout, advantages
from playground.game import Batch, Context, Move, Outcomes, Player, Round
from playground.randomness import Streams


class PPO(PolicyGradient):
    """Proximal policy optimization; one player ``agent`` holds policy and value."""

    algorithm: PPOConfig

    def __init__(self, config: RLConfig, algorithm: PPOConfig) -> None:
        super().__init__(config, algorithm)
        self.objective = ppo(
            self.policy, self.value,
            value_coefficient=algorithm.value_coefficient,
            entropy_coefficient=algorithm.entropy_coefficient,
            clip_value=algorithm.clip_value,
        )  # fmt: skip

    def setup(self, context: Context) -> dict[str, Player]:
        """As every policy gradient, with a stream that shuffles minibatches."""
        self.shuffle = Streams(context.seeds, "shuffle", context.device)
        return super().setup(context)

    def iteration(self, progress: float) -> Generator[Round, Outcomes, dict[str, np.ndarray]]:
        """Collect, estimate advantages, then epochs of minibatch moves."""
        rollout = self.collector.collect(self.act, self.draw(self.algorithm.num_steps))
        values = self.values(rollout.observation)
        batch = self.batch(rollout, values)
        clip = self.algorithm.clip * (1 - progress if self.algorithm.anneals else 1)
        clips = torch.full((self.context.members,), clip, **self._like())
        for _ in range(self.algorithm.epochs):
            for minibatch in self.minibatches(batch):
                yield (Move("agent", self.objective, minibatch | {"clip": clips}),)
        self.counters["env_steps"] += rollout.valid[:, 0].size
        self.counters["samples"] += rollout.valid.sum(axis=(0, 2))
        return {
            "train/return": self.collector.train_return(),
            "explained_variance": explained_variance(rollout, values, batch),
        }

    def batch(self, rollout: Rollout, values: np.ndarray) -> Batch:
        """All rows of a rollout [M, T E, ...], with log-probabilities of the acting policy."""
        advantage = advantages(rollout, values, self.algorithm.gamma, self.algorithm.gae_lambda)
        arrays = {
            "observation": rollout.observation[:-1],
            "action": rollout.action,
            "advantage": advantage,
            "target": advantage + values[:-1],
            "value": values[:-1],
            "weight": rollout.valid.astype(np.float32),
        }
        batch = {
            name: self.tensor(np.moveaxis(array, 1, 0)).flatten(1, 2)
            for name, array in arrays.items()
        }
        with torch.no_grad():
            if self.context.members == 1:
                single = {name: view[0] for name, view in self.tensors(0).items()}
                logits = self.policy(single, batch["observation"][0])[None]
            else:
                logits = torch.func.vmap(self.policy)(self.tensors(0), batch["observation"])
            batch["log_prob"] = log_probability(logits, batch["action"])[0]
        return batch

    def minibatches(self, batch: Batch) -> Iterator[Batch]:
        """One epoch: every row once, shuffled per member; advantages normalised per minibatch."""
        members, rows = batch["action"].shape
        size = self.algorithm.batch_size
        order = self.shuffle.permutation(rows)
        order += torch.arange(members, device=order.device)[:, None] * rows
        index = order.view(members, rows // size, size).transpose(0, 1).reshape(-1)
        shuffled = {
            name: value.flatten(0, 1)
            .index_select(0, index)
            .view(rows // size, members, size, *value.shape[2:])
            for name, value in batch.items()
        }
        if self.algorithm.normalize_advantage:
            shuffled["advantage"] = normalize(shuffled["advantage"], shuffled["weight"])
        for pieces in zip(*shuffled.values(), strict=True):
            yield dict(zip(shuffled, pieces, strict=True))

    def state(self) -> dict[str, Any]:
        """As every policy gradient, with the shuffling streams."""
        return super().state() | {"shuffle": self.shuffle.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` gave."""
        super().load_state(state)
        self.shuffle.load_state(state["shuffle"])

    def _like(self) -> dict[str, Any]:
        return {"dtype": self.context.dtype, "device": self.context.device}


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


def explained_variance(rollout: Rollout, values: np.ndarray, batch: Batch) -> np.ndarray:
    """1 - Var(target - V) / Var(target) over valid rows [M]; 0 where the targets are constant."""
    target = batch["target"].cpu().numpy()
    value = np.moveaxis(values[:-1], 1, 0).reshape(target.shape)
    valid = np.moveaxis(rollout.valid, 1, 0).reshape(target.shape)
    result = np.zeros(len(target))
    for k, (t, v, ok) in enumerate(zip(target, value, valid, strict=True)):
        spread = t[ok].var()
        result[k] = 1 - (t[ok] - v[ok]).var() / spread if spread > 0 else 0.0
    return result
