"""PPO: a rollout, then epochs of minibatches (Schulman et al. 2017, algorithm 1)."""

from collections.abc import Generator

import numpy as np
import torch
from torch import Tensor

from playground.domains.rl.config import PPOConfig, RLConfig
from playground.domains.rl.objectives import clipped_surrogate, joined, value_error
from playground.domains.rl.problem import PolicyGradient
from playground.game import Outcomes, Round


class PPO(PolicyGradient):
    """Proximal policy optimization with a clipped surrogate."""

    algorithm: PPOConfig

    def __init__(self, config: RLConfig, algorithm: PPOConfig) -> None:
        super().__init__(config, algorithm)
        actor, critic = self.owners
        policy = clipped_surrogate(
            self.policy, actor, entropy_coefficient=algorithm.entropy_coefficient
        )
        value = value_error(
            self.value, critic, coefficient=algorithm.value_coefficient,
            clip_value=algorithm.clip_value,
        )  # fmt: skip
        pieces = {actor: joined(policy, value)}
        self.objectives = pieces if actor == critic else {actor: policy, critic: value}

    def iteration(self, progress: float) -> Generator[Round, Outcomes, dict[str, np.ndarray]]:
        """Collect, estimate advantages, then epochs of minibatch moves."""
        rollout = self.collect(self.algorithm.num_steps)
        batch = self.batch(rollout)
        metrics = self.report(batch)
        annealed = self.algorithm.clip * (1 - progress if self.algorithm.anneals else 1)
        clip, limit = self.full(annealed), self.algorithm.target_kl
        active: Tensor | None = None
        for epoch in range(self.algorithm.epochs):
            seen = []
            for minibatch in self.minibatches(batch):
                outcomes = yield self.moves(minibatch | {"clip": clip}, active)
                seen.append(outcomes[self.owners[0]].diagnostics["approx_kl"])
                if limit is not None:
                    active = below(1.5 * limit, seen[-1], active)
            metrics[f"approx_kl/epoch_{epoch + 1}"] = torch.stack(seen).mean(0).cpu().numpy()
        self.count(rollout)
        return metrics


def below(limit: float, divergence: Tensor, active: Tensor | None) -> Tensor:
    """Members that go on: a minibatch beyond the limit is a member's last of the iteration."""
    going = divergence <= limit
    return going if active is None else active & going
