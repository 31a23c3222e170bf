"""Advantage actor-critic, synchronous (Mnih et al. 2016, algorithm S3)."""

from collections.abc import Generator

import numpy as np

from playground.domains.rl.batches import normalize
from playground.domains.rl.config import A2CConfig, RLConfig
from playground.domains.rl.objectives import joined, score, value_error
from playground.domains.rl.problem import PolicyGradient
from playground.game import Outcomes, Round


class A2C(PolicyGradient):
    """One update on every short rollout; advantages of n steps where lambda is 1."""

    algorithm: A2CConfig

    def __init__(self, config: RLConfig, algorithm: A2CConfig) -> None:
        super().__init__(config, algorithm)
        actor, critic = self.owners
        policy = score(self.policy, actor, entropy_coefficient=algorithm.entropy_coefficient)
        value = value_error(self.value, critic, coefficient=algorithm.value_coefficient)
        pieces = {actor: joined(policy, value)}
        self.objectives = pieces if actor == critic else {actor: policy, critic: value}

    def iteration(self, progress: float) -> Generator[Round, Outcomes, dict[str, np.ndarray]]:
        """Collect, estimate advantages, one update."""
        rollout = self.collect(self.algorithm.num_steps)
        batch = self.batch(rollout)
        metrics = self.report(batch)
        if self.algorithm.normalize_advantage:
            batch["advantage"] = normalize(batch["advantage"], batch["weight"])
        yield self.moves(batch)
        self.count(rollout)
        return metrics
