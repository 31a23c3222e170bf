"""Natural policy gradient and TRPO: one step of the policy in the metric of its divergence.

The step itself is the optimizer's (``natural_gradient`` or ``trust_region``), which reads the
move's divergence; here is what both have in common: the surrogate on a whole rollout, then
minibatch regression of the critic.
"""

from collections.abc import Generator

import numpy as np

from playground.domains.rl.batches import minibatches, normalize
from playground.domains.rl.config import RLConfig, TRPOConfig
from playground.domains.rl.objectives import divergence, surrogate, value_error
from playground.domains.rl.problem import PolicyGradient
from playground.game import Move, Outcomes, Round


class TRPO(PolicyGradient):
    """The policy's step (Kakade 2001; Schulman et al. 2015), then the critic's epochs."""

    algorithm: TRPOConfig

    def __init__(self, config: RLConfig, algorithm: TRPOConfig) -> None:
        super().__init__(config, algorithm)
        self.surrogate = surrogate(self.policy, "policy")
        self.divergence = divergence(self.policy, "policy")
        self.error = value_error(self.value, "value", coefficient=1.0)  # SB3's critic loss

    def iteration(self, progress: float) -> Generator[Round, Outcomes, dict[str, np.ndarray]]:
        """Collect, one step of the policy on all rows, epochs of the critic."""
        rollout = self.collect(self.algorithm.num_steps)
        batch = self.batch(rollout, old=True)
        metrics = self.report(batch)
        if self.algorithm.normalize_advantage:
            batch["advantage"] = normalize(batch["advantage"], batch["weight"])
        yield (Move("policy", self.surrogate, batch, divergence=self.divergence),)
        rows = {name: batch[name] for name in ("observation", "target", "weight", "cluster")}
        for _ in range(self.algorithm.value_epochs):
            for minibatch in minibatches(
                rows, self.shuffle, self.algorithm.batch_size, length=self.length
            ):
                yield (Move("value", self.error, minibatch),)
        self.count(rollout)
        return metrics
