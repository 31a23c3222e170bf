"""Running normalisation of observations and rewards, one set of statistics for each member.

A member's environments share its statistics, as in VecNormalize of Stable-Baselines3 (a
wrapper around each environment has statistics of its own); members never do. Statistics and
sums are float64.

Shape legend: M members, E environments of a member, D observation entries.
"""

from typing import Any

import numpy as np

PRIOR = 1e-4
"""Weight of a prior observation of mean 0 and variance 1 (Stable-Baselines3, Gymnasium)."""

EPSILON = 1e-8
"""Added to a variance before its root (Stable-Baselines3, Gymnasium)."""


class RunningMoments:
    """Mean and variance of all rows so far, for each member.

        d = mean_b - mean;  n = count + n_b
        mean <- mean + d n_b / n
        squares <- squares + squares_b + d^2 count n_b / n;  variance = squares / n

    with n_b rows of mean mean_b and summed squared deviations squares_b in the new batch.

    Attributes:
        count: [M].
        mean: [M, D].
        squares: sum of squared deviations from the mean [M, D].

    Source: Chan, Golub and LeVeque 1979, eq. 2.1.
    """

    def __init__(self, members: int, size: int) -> None:
        self.count = np.full(members, PRIOR)
        self.mean = np.zeros((members, size))
        self.squares = np.full((members, size), PRIOR)

    def update(self, rows: np.ndarray, valid: np.ndarray) -> None:
        """Take in rows [M, E, D], those that are valid [M, E]."""
        number = valid.sum(axis=1)
        if number.all():
            self._merge(rows, valid, number)
        else:
            some = number > 0
            part = RunningMoments(0, 0)
            part.count, part.mean = self.count[some], self.mean[some]
            part.squares = self.squares[some]
            part._merge(rows[some], valid[some], number[some])
            self.count[some], self.mean[some] = part.count, part.mean
            self.squares[some] = part.squares

    def deviation(self) -> np.ndarray:
        """sqrt(variance + 1e-8) [M, D]."""
        result: np.ndarray = np.sqrt(self.squares / self.count[:, None] + EPSILON)
        return result

    def _merge(self, rows: np.ndarray, valid: np.ndarray, number: np.ndarray) -> None:
        """``update``, where every member has a valid row."""
        own = number[:, None]
        if number.sum() == valid.size:
            mean = rows.sum(axis=1, dtype=np.float64) / own
            deviation = rows - mean[:, None]
        else:
            mask = valid[..., None]
            mean = np.where(mask, rows, 0).sum(axis=1, dtype=np.float64) / own
            deviation = np.where(mask, rows - mean[:, None], 0)
        squares = np.einsum("med,med->md", deviation, deviation)
        total = self.count[:, None] + own
        difference = mean - self.mean
        self.mean = self.mean + difference * (own / total)
        correction = difference * difference * (self.count[:, None] * own / total)
        self.squares = self.squares + squares + correction
        self.count = total[:, 0]


class Normaliser:
    """Normalises what a policy sees and what an algorithm learns from; never what is reported.

        o' = clip((o - mean) / sqrt(variance + 1e-8), -c, c)
        r' = clip(r / sqrt(variance of G + 1e-8), -c, c),  G_t = gamma G_{t-1} + r_t

    G is kept for each environment and starts at 0 with every episode, whether the one before
    was terminated or truncated. The mean of a reward is not subtracted.

    Args:
        members: M.
        num_envs: E.
        observation_size: D.
        gamma: the algorithm's discount.
        observations: normalise observations; otherwise they come back as they are.
        rewards: normalise rewards; otherwise they come back as they are.
        clip_observations: c of observations.
        clip_rewards: c of rewards.

    Source: VecNormalize of Stable-Baselines3, its constants included; the scale of rewards is
    code-level optimisation 2 of Engstrom et al. 2020.
    """

    def __init__(
        self,
        members: int,
        num_envs: int,
        observation_size: int,
        gamma: float,
        observations: bool,
        rewards: bool,
        clip_observations: float = 10.0,
        clip_rewards: float = 10.0,
    ) -> None:
        self.gamma, self.observations, self.rewards = gamma, observations, rewards
        self.clip_observations, self.clip_rewards = clip_observations, clip_rewards
        self.seen = RunningMoments(members, observation_size)
        self.gained = RunningMoments(members, 1)
        self.returns = np.zeros((members, num_envs))
        self._deviation = self.seen.deviation()

    def observe(self, observation: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Take in observations [M, E, D] and normalise them.

        Args:
            observation: as the environments gave them.
            valid: bool [M, E], from which of them a transition starts; the others (last
                observations of an episode, resting environments) are normalised only.
        """
        if not self.observations:
            return observation
        self.seen.update(observation, valid)
        self._deviation = self.seen.deviation()
        return self.apply(observation)

    def apply(self, observation: np.ndarray) -> np.ndarray:
        """Normalise observations [M, ..., D]; nothing is taken in."""
        if not self.observations:
            return observation
        shape = (len(self._deviation), *(1,) * (observation.ndim - 2), -1)
        result = observation - self.seen.mean.reshape(shape)
        result /= self._deviation.reshape(shape)
        np.clip(result, -self.clip_observations, self.clip_observations, out=result)
        normalised: np.ndarray = result.astype(observation.dtype)
        return normalised

    def scale(self, reward: np.ndarray, done: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Take in rewards [M, E] and scale them.

        Args:
            reward: as the environments gave them.
            done: bool [M, E], terminated or truncated by this step.
            valid: bool [M, E], False on reset rows and where an environment rests.
        """
        if not self.rewards:
            return reward
        self.returns = np.where(valid, self.gamma * self.returns + reward, self.returns)
        self.gained.update(self.returns[..., None], valid)
        self.returns[done] = 0
        return self.scaled(reward)

    def scaled(self, reward: np.ndarray) -> np.ndarray:
        """Scale rewards [M, E]; nothing is taken in."""
        if not self.rewards:
            return reward
        result: np.ndarray = reward / self.gained.deviation()
        np.clip(result, -self.clip_rewards, self.clip_rewards, out=result)
        return result.astype(reward.dtype)

    def state(self) -> dict[str, Any]:
        """Plain containers for ``load_state``."""
        parts = {"seen": self.seen, "gained": self.gained}
        state: dict[str, Any] = {
            name: {key: value.tolist() for key, value in vars(part).items()}
            for name, part in parts.items()
        }
        return {**state, "returns": self.returns.tolist()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` gave."""
        for name, part in (("seen", self.seen), ("gained", self.gained)):
            for key, value in state[name].items():
                setattr(part, key, np.array(value))
        self.returns = np.array(state["returns"])
        self._deviation = self.seen.deviation()

    def adopt(self, state: dict[str, Any], member: int) -> None:
        """Give every member the statistics of one member of what ``state`` gave."""
        for name, part in (("seen", self.seen), ("gained", self.gained)):
            for key, value in state[name].items():
                own = np.array(value)[member]
                setattr(part, key, np.repeat(own[None], len(part.count), axis=0))
        self._deviation = self.seen.deviation()
