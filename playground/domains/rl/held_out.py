"""How well the critic predicts returns that it was not trained on.

An evaluation's first steps of the sampling policy, whose returns the critic estimates, are kept
as a rollout. With G the discounted return-to-go (of a truncated episode with the critic's value
of what follows, as its targets have it) and V the critic, over all valid steps of a member:

    value_error                    sqrt(mean (G - V)^2), in units of the critic's return: scaled
                                   where rewards are normalised
    explained_variance/held_out    1 - Var(G - V) / Var(G); 0 where returns are constant

Shape legend: T steps, M members, L lanes, D observation entries.
"""

import numpy as np

from playground.domains.rl.collector import Rollout, advantages

LANES, STEPS = 10, 1000
"""Lanes of a member and steps that are kept (ours)."""


class HeldOut:
    """Keeps the first steps of an evaluation's first sampling lanes."""

    def __init__(self) -> None:
        self._seen: list[np.ndarray] = []
        self._steps: list[tuple[np.ndarray, ...]] = []

    def see(self, observation: np.ndarray) -> None:
        """What the policy acts on [M, L, D]; once more after the last step."""
        if len(self._seen) <= STEPS:
            self._seen.append(observation[:, :LANES].copy())

    def step(
        self, reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, valid: np.ndarray
    ) -> None:
        """What a step gave, each [M, L]; rewards as the critic learns them."""
        if len(self._steps) < STEPS:
            parts = (reward, terminated, truncated, valid)
            self._steps.append(tuple(part[:, :LANES].copy() for part in parts))

    def rollout(self) -> Rollout:
        """All of it."""
        reward, *flags = (np.stack(part) for part in zip(*self._steps, strict=True))
        observation = np.stack(self._seen)
        nothing = np.empty((*reward.shape, 0), np.float32)
        return Rollout(observation, nothing, reward.astype(np.float32), *flags)


def value_error(rollout: Rollout, values: np.ndarray, gamma: float) -> dict[str, np.ndarray]:
    """The metrics above [M] of V of every observation [T + 1, M, L]."""
    error = advantages(rollout, values, gamma, gae_lambda=1.0).astype(np.float64)
    target = error + values[:-1]
    kept = np.where(rollout.valid, 1.0, np.nan)
    spread = np.nanvar(target * kept, axis=(0, 2))
    unexplained = np.nanvar(error * kept, axis=(0, 2))
    constant = spread <= 1e-12 * np.nanmean((target * kept) ** 2, axis=(0, 2))
    return {
        "value_error": np.sqrt(np.nanmean((error * kept) ** 2, axis=(0, 2))),
        "explained_variance/held_out": np.where(
            constant, 0.0, 1 - unexplained / np.where(constant, 1.0, spread)
        ),
    }
