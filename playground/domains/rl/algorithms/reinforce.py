"""REINFORCE on complete episodes, with or without a baseline (Williams 1992)."""

from collections.abc import Generator

import numpy as np

from playground.domains.rl.collector import Rollout, returns_to_go, segments
from playground.domains.rl.config import ReinforceConfig, RLConfig
from playground.domains.rl.objectives import reinforce, value_error
from playground.domains.rl.problem import PolicyGradient
from playground.game import Batch, Move, Outcomes, Round
from playground.schema import ConfigError


class Reinforce(PolicyGradient):
    """One episode in every environment, one policy update, then updates of the baseline."""

    algorithm: ReinforceConfig

    def __init__(self, config: RLConfig, algorithm: ReinforceConfig) -> None:
        super().__init__(config, algorithm)
        if self.factory.limit is None:
            raise ConfigError(f"problem.env={config.env}: reinforce needs a time limit")
        self.limit = self.factory.limit
        self.policy_objective = reinforce(self.policy)
        self.value_objective = value_error(self.value, "value", coefficient=0.5)

    def iteration(self, progress: float) -> Generator[Round, Outcomes, dict[str, np.ndarray]]:
        """Episodes, the policy's move against the old baseline, the baseline's moves."""
        self.collector.begin(episodes=1)
        rollout = self.collect(self.limit, until_done=True)
        mask = rollout.valid.astype(np.float32)
        target = returns_to_go(rollout, self.algorithm.gamma)
        yield (Move("policy", self.policy_objective, self.episodes(rollout, target, mask)),)
        if self.algorithm.baseline == "learned":
            arrays = {
                "observation": rollout.observation[:-1], "target": target, "weight": mask,
                "cluster": segments(rollout),
            }  # fmt: skip
            rows = {name: self.rows(array) for name, array in arrays.items()}
            for _ in range(self.algorithm.value_updates):
                yield (Move("value", self.value_objective, rows),)
        lengths = mask.sum(axis=0)
        self.counters["env_steps"] += lengths.max(axis=1).astype(np.int64) * self.config.num_envs
        self.counters["samples"] += mask.sum(axis=(0, 2)).astype(np.int64)
        return self.training_returns()

    def episodes(self, rollout: Rollout, target: np.ndarray, mask: np.ndarray) -> Batch:
        """One row an episode [M, E, T, ...]; advantages are 0 past its end."""
        advantage = target - self.baseline(rollout, target, mask)
        if self.algorithm.discount_weight:
            steps = np.arange(len(target), dtype=np.float32)[:, None, None]
            advantage = advantage * np.float32(self.algorithm.gamma) ** steps
        arrays = {
            "observation": rollout.observation[:-1],
            "action": rollout.action,
            "advantage": advantage * mask,
            "mask": mask,
        }
        return {name: self.tensor(np.moveaxis(a, 0, 2)) for name, a in arrays.items()}

    def baseline(self, rollout: Rollout, target: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """What is subtracted from the return-to-go [T, M, E]."""
        if self.algorithm.baseline == "learned":
            return self.values(rollout.observation[:-1])
        if self.algorithm.baseline == "mean":
            return mean_of_others(target, mask)
        return np.zeros_like(target)


def mean_of_others(target: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The mean return-to-go at the same step of the member's other living episodes [T, M, E].

    Leaving the episode itself out keeps the estimate unbiased; 0 where no other lives.
    """
    total = (target * mask).sum(-1, keepdims=True) - target * mask
    count = mask.sum(-1, keepdims=True) - mask
    return np.asarray(total / np.maximum(count, 1))
