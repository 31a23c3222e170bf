"""PPO with an adaptive penalty on the divergence (Schulman et al. 2017, section 4)."""

from collections.abc import Generator
from typing import Any

import numpy as np
from torch import Tensor

from playground.domains.rl.config import PPOKLConfig, RLConfig
from playground.domains.rl.objectives import joined, surrogate, value_error
from playground.domains.rl.problem import PolicyGradient
from playground.game import Batch, Context, Outcomes, Player, Round


class PPOKL(PolicyGradient):
    """Proximal policy optimization whose penalty follows the divergence of every iteration.

        beta <- 2 beta where KL > 1.5 d, beta / 2 where KL < d / 1.5

    KL is that between the policies before and after the iteration, in closed form, averaged
    over its rows; every member has a beta of its own.
    """

    algorithm: PPOKLConfig

    def __init__(self, config: RLConfig, algorithm: PPOKLConfig) -> None:
        super().__init__(config, algorithm)
        actor, critic = self.owners
        policy = surrogate(
            self.policy, actor, entropy_coefficient=algorithm.entropy_coefficient, penalized=True
        )
        value = value_error(self.value, critic, coefficient=algorithm.value_coefficient)
        pieces = {actor: joined(policy, value)}
        self.objectives = pieces if actor == critic else {actor: policy, critic: value}

    def setup(self, context: Context) -> dict[str, Player]:
        """As every policy gradient, with each member's beta."""
        players = super().setup(context)
        self.beta = self.full(self.algorithm.beta)
        return players

    def iteration(self, progress: float) -> Generator[Round, Outcomes, dict[str, np.ndarray]]:
        """Collect, estimate advantages, epochs of minibatch moves, then adapt beta."""
        rollout = self.collect(self.algorithm.num_steps)
        batch = self.batch(rollout, old=True)
        metrics = self.report(batch)
        for _ in range(self.algorithm.epochs):
            for minibatch in self.minibatches(batch):
                yield self.moves(minibatch | {"beta": self.beta})
        divergence = self.divergence(batch)
        metrics |= {"kl/iteration": divergence.cpu().numpy(), "beta": self.beta.cpu().numpy()}
        self.beta = adapted(self.beta, divergence, self.algorithm.target_kl)
        self.count(rollout)
        return metrics

    def divergence(self, batch: Batch) -> Tensor:
        """Mean KL(old || present) over the rows of a rollout [M]."""
        new = self.statistics(batch["observation"])
        old = {name: batch[f"old_{name}"] for name in new}
        kl, weight = self.policy.divergence(old, new), batch["weight"]
        return (kl * weight).sum(-1) / weight.sum(-1).clamp_min(1)

    def state(self) -> dict[str, Any]:
        """As every policy gradient, with beta."""
        return super().state() | {"beta": self.beta}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` gave."""
        super().load_state(state)
        self.beta = state["beta"].to(self.context.device)


def adapted(beta: Tensor, divergence: Tensor, target: float) -> Tensor:
    """Beta doubled beyond 1.5 times the target, halved below two thirds of it."""
    factor = 1.0 + (divergence > 1.5 * target).to(beta) - 0.5 * (divergence < target / 1.5).to(beta)
    return beta * factor
