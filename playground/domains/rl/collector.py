"""Collecting: policies act on the host, everything that happens is stored in arrays.

Shape legend: T vector steps, M members, E environments of a member, D observation entries.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from playground.domains.rl.environments.factory import Environments
from playground.domains.rl.environments.spaces import ActionSpace
from playground.domains.rl.normalisation import Normaliser
from playground.domains.rl.policies.categorical import Actor, Noise


@dataclass
class Rollout:
    """T vector steps of M x E environments; row t holds what happened at step t.

    Attributes:
        observation: [T + 1, M, E, D]; row T is the observation after the last step.
        action: [T, M, E, *shape], as the policy drew it.
        reward: [T, M, E], scaled where rewards are normalised.
        terminated, truncated: bool [T, M, E].
        valid: bool [T, M, E], False on reset rows and where an environment rests.
        memory: of a recurrent policy before the first step [M, E, H].
    """

    observation: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    valid: np.ndarray
    memory: np.ndarray | None = None

    @property
    def done(self) -> np.ndarray:
        """Bool [T, M, E], the last step of an episode."""
        done: np.ndarray = self.terminated | self.truncated
        return done


@dataclass
class Collector:
    """Steps a vector of M x E environments and keeps count of episodes.

    Attributes:
        space: how actions are stored.
        to_environment: from stored actions [V, *shape] to what the environments get.
        normaliser: of what the policy sees and learns from; None leaves both as they are.
        memory: of a recurrent policy [M, E, H]; 0 at the first observation of an episode.
        returns: running raw return of every environment's episode [M, E].
        recent: raw returns of each member's last 100 training episodes.
        latest: of the one that ended last in the last rollout [M]; NaN where none did.
    """

    environments: Environments
    members: int
    num_envs: int
    space: ActionSpace
    to_environment: Callable[[np.ndarray], np.ndarray]
    normaliser: Normaliser | None = None
    memory: np.ndarray | None = None
    observation: np.ndarray = field(init=False)
    ended: np.ndarray = field(init=False)
    returns: np.ndarray = field(init=False)
    recent: list[list[float]] = field(init=False)
    latest: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.recent = [[] for _ in range(self.members)]
        self.latest = np.full(self.members, np.nan)
        self.begin()

    def begin(self, episodes: int | None = None) -> None:
        """Start new episodes everywhere, ``episodes`` in each environment or any number."""
        count = self.members * self.num_envs
        quota = None if episodes is None else np.full(count, episodes)
        observation = self._shape(self.environments.begin(quota))
        self.ended = np.zeros((self.members, self.num_envs), np.bool_)
        if self.normaliser is not None:
            observation = self.normaliser.observe(observation, ~self.ended)
        self.observation = observation
        self.returns = np.zeros((self.members, self.num_envs))
        if self.memory is not None:
            self.memory[:] = 0

    def collect(self, act: Actor, noise: Noise, *, until_done: bool = False) -> Rollout:
        """Step T times, T the length of the noise, or until every first episode has ended.

        Args:
            act: the policy.
            noise: of every step [T][M, E, ...].
            until_done: stop early when no environment is in its first episode any more;
                rows after that episode are not valid.
        """
        steps, shape = len(noise), (self.members, self.num_envs)
        size = self.observation.shape[-1]
        observation = np.empty((steps + 1, *shape, size), np.float32)
        action: np.ndarray = np.empty((steps, *shape, *self.space.shape), self.space.stored)
        reward = np.empty((steps, *shape), np.float32)
        terminated, truncated = np.empty((2, steps, *shape), np.bool_)
        valid = np.empty((steps, *shape), np.bool_)
        over = np.zeros(shape, np.bool_)
        observation[0] = self.observation
        advance, normaliser = self.environments.advance, self.normaliser
        memory, start = self.memory, None
        if memory is not None:
            act, start = partial(act, memory=memory), memory.copy()
        for t in range(steps):
            np.logical_not(self.ended | over, out=valid[t])
            action[t] = act(observation[t], noise[t])
            if memory is not None:
                memory *= valid[t][..., None]  # a reset row sees the end of the last episode
            stored = action[t].reshape(-1, *self.space.shape)
            seen, r, term, trunc = advance(self.to_environment(stored))
            seen = seen.reshape(*shape, size)
            reward[t], terminated[t] = r.reshape(shape), term.reshape(shape)
            truncated[t] = trunc.reshape(shape)
            self.ended = terminated[t] | truncated[t]
            if normaliser is not None:
                seen = normaliser.observe(seen, ~(self.ended | over))
            observation[t + 1] = seen
            if until_done:
                over |= self.ended
                if over.all():
                    steps = t + 1
                    break
        self.observation = observation[steps]
        rollout = Rollout(
            observation[: steps + 1], action[:steps], reward[:steps], terminated[:steps],
            truncated[:steps], valid[:steps], start,
        )  # fmt: skip
        self._count(rollout)
        if normaliser is not None:
            for row, done, counts in zip(rollout.reward, rollout.done, rollout.valid, strict=True):
                row[:] = normaliser.scale(row, done, counts)
        return rollout

    def train_return(self) -> np.ndarray:
        """Mean return of each member's last 100 training episodes [M]; NaN before the first."""
        return np.array([np.mean(r) if r else np.nan for r in self.recent])

    def _count(self, rollout: Rollout) -> None:
        """Returns of the episodes that ended in a rollout."""
        self.latest = np.full(self.members, np.nan)
        total = self.returns + np.cumsum(rollout.reward, axis=0, dtype=np.float64)
        base = np.zeros_like(self.returns)
        for t, m, e in zip(*rollout.done.nonzero(), strict=True):
            self.latest[m] = total[t, m, e] - base[m, e]
            self.recent[m].append(float(self.latest[m]))
            base[m, e] = total[t, m, e]
            del self.recent[m][:-100]
        self.returns = total[-1] - base

    def _shape(self, observation: np.ndarray) -> np.ndarray:
        return observation.reshape(self.members, self.num_envs, -1)

    def capture(self) -> dict[str, Any]:
        """Environments, running returns and recent episodes."""
        return {
            "environments": self.environments.capture(),
            "ended": self.ended.tolist(),
            "returns": self.returns.tolist(),
            "recent": [list(r) for r in self.recent],
            "normaliser": None if self.normaliser is None else self.normaliser.state(),
            "memory": None if self.memory is None else torch.from_numpy(self.memory.copy()),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what ``capture`` gave."""
        self.observation = self._shape(self.environments.restore(state["environments"]))
        if self.normaliser is not None:
            self.normaliser.load_state(state["normaliser"])
            self.observation = self.normaliser.apply(self.observation)
        self.ended = np.array(state["ended"], np.bool_)
        self.returns = np.array(state["returns"])
        self.recent = [list(r) for r in state["recent"]]
        if self.memory is not None:
            self.memory[:] = state["memory"].numpy()


def segments(rollout: Rollout) -> np.ndarray:
    """Which rows are dependent, int64 [T, M, E]: an environment's steps, cut at episode ends."""
    ended = np.cumsum(rollout.done, axis=0) - rollout.done  # episodes before the row
    environment = np.arange(rollout.reward.shape[2], dtype=np.int64)
    result: np.ndarray = ended + (environment << 32)  # whatever the rollout's length
    return result


def advantages(rollout: Rollout, values: np.ndarray, gamma: float, gae_lambda: float) -> np.ndarray:
    """Generalised advantage estimates [T, M, E] in the values' precision.

        delta_t = r_t + gamma (1 - terminated_t) V(s_{t+1}) - V(s_t)
        A_t = delta_t + gamma lambda (1 - done_t) A_{t+1}

    A truncated episode bootstraps with the value of its true last observation; the row of a
    reset is not valid and cut off by ``done`` of the row before.

    Args:
        rollout: T steps.
        values: V of every observation [T + 1, M, E].
        gamma: discount.
        gae_lambda: lambda.

    Source: Schulman et al. 2016, eqs. 11 and 16.
    """
    last = np.zeros_like(values[0])
    result = np.empty_like(values[1:])
    delta = rollout.reward + gamma * values[1:] * ~rollout.terminated - values[:-1]
    keep = values.dtype.type(gamma * gae_lambda) * ~rollout.done
    for t in range(len(result) - 1, -1, -1):
        last = delta[t] + keep[t] * last
        result[t] = last
    return result


def returns_to_go(rollout: Rollout, gamma: float) -> np.ndarray:
    """Discounted sum of rewards to the end of the episode [T, M, E], without bootstrapping."""
    last = np.zeros_like(rollout.reward[0])
    result = np.empty_like(rollout.reward)
    keep = rollout.reward.dtype.type(gamma) * ~rollout.done
    for t in range(len(result) - 1, -1, -1):
        last = rollout.reward[t] + keep[t] * last
        result[t] = last
    return result
