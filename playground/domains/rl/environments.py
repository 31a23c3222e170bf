"""Vectors of environments whose episodes start from seeds of their own.

Every episode starts with ``reset(seed=next of that environment's stream)``, so the state of
an environment is its episode seed and the actions since. Both kinds of vector follow
Gymnasium's NEXT_STEP autoreset: the step after an episode's end only resets (its action is
ignored, its reward 0), and the observation at an end is the true last one. A vector that
begins with a number of episodes for each environment lets those that have played theirs rest:
their observation and reward are 0, no flag is set, and no seed is drawn. So what an
environment draws never depends on how long its neighbours, or other members, play.

Shape legend: V environments of the vector, D observation entries.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv

from playground.randomness import generator_states, load_generator_states
from playground.schema import ConfigError

Step = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Observation [V, D], reward [V], terminated [V], truncated [V]."""


class Environments(Protocol):
    """A vector of environments with exact state; ``streams`` gives their episodes' seeds."""

    streams: list[np.random.Generator]

    def begin(self, episodes: np.ndarray | None = None) -> np.ndarray:
        """Start a new episode everywhere; observations [V, D].

        Args:
            episodes: how many episodes each environment plays before it rests [V]; None is
                any number.
        """

    def advance(self, actions: np.ndarray) -> Step:
        """One vector step with actions [V]."""

    def capture(self) -> dict[str, Any]:
        """Plain containers from which ``restore`` brings every environment back exactly."""

    def restore(self, state: dict[str, Any]) -> np.ndarray:
        """Take back what ``capture`` gave; the current observations [V, D]."""


def next_seed(stream: np.random.Generator) -> int:
    """The seed of an environment's next episode."""
    return int(stream.integers(2**31 - 1))


class Quota:
    """How many episodes each environment of a vector may still start, and which rest.

    Attributes:
        left: int64 [V], or None for any number.
        resting: bool [V].
    """

    def __init__(self, num_envs: int, episodes: np.ndarray | None = None) -> None:
        self.left = None if episodes is None else np.array(episodes, dtype=np.int64)
        self.resting = np.zeros(num_envs, np.bool_)

    def start(self, which: np.ndarray) -> np.ndarray:
        """Those of the environments ``which`` that may start an episode; the others rest."""
        if self.left is None:
            return which
        self.resting[which] = self.left[which] == 0
        which = which[~self.resting[which]]
        self.left[which] -= 1
        return which

    def capture(self) -> dict[str, Any]:
        """Plain containers for ``restored``."""
        left = None if self.left is None else self.left.tolist()
        return {"left": left, "resting": self.resting.tolist()}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> "Quota":
        """Take back what ``capture`` gave."""
        quota = cls(len(state["resting"]), state["left"])
        quota.resting = np.array(state["resting"], np.bool_)
        return quota


class CartPoles(CartPoleVectorEnv):
    """Gymnasium's vectorised CartPole, each episode from a seed of its own."""

    state: Any  # float64 [4, V]

    def __init__(self, streams: Sequence[np.random.Generator], max_episode_steps: int) -> None:
        super().__init__(num_envs=len(streams), max_episode_steps=max_episode_steps)
        self.streams = list(streams)

    def begin(self, episodes: np.ndarray | None = None) -> np.ndarray:
        """Start a new episode everywhere."""
        self.state = np.zeros((4, self.num_envs))
        self.steps = np.zeros(self.num_envs, dtype=np.int32)
        self.prev_done = np.zeros(self.num_envs, dtype=np.bool_)
        self.quota = Quota(self.num_envs, episodes)
        self._restart(np.arange(self.num_envs))
        return self._observe()

    def advance(self, actions: np.ndarray) -> Step:
        """One vector step."""
        ended = self.prev_done.nonzero()[0]
        observation, reward, terminated, truncated, _ = self.step(actions)
        if len(ended):
            self._restart(ended)
            observation[ended] = self.state[:, ended].T
        if self.quota.left is not None:
            resting = self.quota.resting
            for array in (observation, reward, terminated, truncated, self.prev_done, self.steps):
                array[resting] = 0
            self.state[:, resting] = 0
        return observation, reward, terminated, truncated

    def capture(self) -> dict[str, Any]:
        """Physics, episode lengths and streams."""
        return {
            "physics": self.state.tolist(),
            "steps": self.steps.tolist(),
            "ended": self.prev_done.tolist(),
            "quota": self.quota.capture(),
            "streams": generator_states(self.streams),
        }

    def restore(self, state: dict[str, Any]) -> np.ndarray:
        """Take back what ``capture`` gave; the current observations."""
        self.state = np.array(state["physics"])
        self.steps = np.array(state["steps"], dtype=np.int32)
        self.prev_done = np.array(state["ended"], dtype=np.bool_)
        self.quota = Quota.restored(state["quota"])
        load_generator_states(self.streams, state["streams"])
        return self._observe()

    def _observe(self) -> np.ndarray:
        observation: np.ndarray = self.state.T.astype(np.float32)
        return observation

    def _restart(self, which: np.ndarray) -> None:
        """What ``CartPoleEnv.reset(seed=...)`` draws, for the environments ``which``."""
        for i in self.quota.start(which):
            episode = np.random.Generator(np.random.PCG64(next_seed(self.streams[i])))
            self.state[:, i] = episode.uniform(low=self.low, high=self.high, size=(4,))


class Episodes:
    """Any Gymnasium environments, stepped one after the other; state is restored by replay."""

    def __init__(
        self,
        make: Callable[[], gymnasium.Env[Any, Any]],
        streams: Sequence[np.random.Generator],
        observation_size: int,
        first_action: int = 0,
    ) -> None:
        self.envs = [make() for _ in streams]
        self.streams = list(streams)
        self.size, self.first_action = observation_size, first_action
        self.seeds = [0] * len(self.envs)
        self.actions: list[list[int]] = [[] for _ in self.envs]
        self.ended = np.zeros(len(self.envs), dtype=np.bool_)

    def begin(self, episodes: np.ndarray | None = None) -> np.ndarray:
        """Start a new episode everywhere."""
        self.ended[:] = False
        self.quota = Quota(len(self.envs), episodes)
        observation = np.zeros((len(self.envs), self.size), np.float32)
        self._restart(np.arange(len(self.envs)), observation)
        return observation

    def advance(self, actions: np.ndarray) -> Step:
        """One vector step; environments whose episode has ended reset instead."""
        count = len(self.envs)
        observation = np.zeros((count, self.size), np.float32)
        reward = np.zeros(count)
        terminated = np.zeros(count, np.bool_)
        truncated = np.zeros(count, np.bool_)
        chosen = actions.tolist()
        for i in (~(self.ended | self.quota.resting)).nonzero()[0].tolist():
            seen, reward[i], terminated[i], truncated[i] = self._step(i, chosen[i])
            observation[i] = np.asarray(seen).reshape(-1)
            self.actions[i].append(chosen[i])
        self._restart(self.ended.nonzero()[0], observation)
        self.ended = terminated | truncated
        return observation, reward, terminated, truncated

    def capture(self) -> dict[str, Any]:
        """Episode seeds, the actions since, and the streams."""
        return {
            "seeds": list(self.seeds),
            "actions": [list(actions) for actions in self.actions],
            "ended": self.ended.tolist(),
            "quota": self.quota.capture(),
            "streams": generator_states(self.streams),
        }

    def restore(self, state: dict[str, Any]) -> np.ndarray:
        """Replay every episode from its seed; the current observations."""
        load_generator_states(self.streams, state["streams"])
        self.ended = np.array(state["ended"], dtype=np.bool_)
        self.quota = Quota.restored(state["quota"])
        self.seeds = list(state["seeds"])
        self.actions = [list(actions) for actions in state["actions"]]
        observation = np.zeros((len(self.envs), self.size), np.float32)
        for i in (~self.quota.resting).nonzero()[0].tolist():
            seen, _ = self.envs[i].reset(seed=self.seeds[i])
            for action in self.actions[i]:
                seen = self._step(i, action)[0]
            observation[i] = np.asarray(seen).reshape(-1)
        return observation

    def _step(self, i: int, action: int) -> tuple[Any, float, bool, bool]:
        """One step of one environment with an action counted from 0."""
        seen, reward, terminated, truncated, _ = self.envs[i].step(action + self.first_action)
        return seen, float(reward), terminated, truncated

    def _restart(self, which: np.ndarray, observation: np.ndarray) -> None:
        """Start episodes in the environments ``which``; write their first observations."""
        for i in self.quota.start(which).tolist():
            self.seeds[i] = next_seed(self.streams[i])
            self.actions[i] = []
            seen, _ = self.envs[i].reset(seed=self.seeds[i])
            observation[i] = np.asarray(seen).reshape(-1)


class Factory:
    """Makes vectors of one environment id, and knows its sizes.

    Attributes:
        observation_size: D, entries of a flattened observation.
        num_actions: A.
        limit: time limit in steps, or None.
        threshold: mean return at which the environment counts as solved, or None.

        native: whether vectors step in a few NumPy calls, whatever their size.

    Raises:
        ConfigError: an unknown id, continuous actions, or observations that are not arrays.
    """

    def __init__(self, env: str, kwargs: dict[str, Any]) -> None:
        from playground.domains.rl import tabular  # noqa: F401  registers; it needs this module

        self.env, self.kwargs = env, kwargs
        try:
            probe = gymnasium.make(env, **kwargs)
        except Exception as error:  # environments and their packages raise many kinds
            line = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigError(f"problem.env={env}: {line}") from error
        space, actions = probe.observation_space, probe.action_space
        if not isinstance(actions, gymnasium.spaces.Discrete):
            raise ConfigError(f"problem.env={env}: needs discrete actions, not {actions}")
        if not isinstance(space, gymnasium.spaces.Box):
            raise ConfigError(f"problem.env={env}: needs array observations, not {space}")
        self.observation_size = int(np.prod(space.shape))
        self.num_actions, self.first_action = int(actions.n), int(actions.start)
        self.limit = time_limit(probe)
        self.threshold = probe.spec.reward_threshold if probe.spec is not None else None
        self._batched = getattr(probe.unwrapped, "vector", None)
        self.native = bool(self.limit) and (
            (env == "CartPole-v1" and set(kwargs) <= {"max_episode_steps"})
            or self._batched is not None
        )
        probe.close()

    def vector(
        self, streams: Sequence[np.random.Generator], limit: int | None = None
    ) -> Environments:
        """A vector with one environment per stream, by default with the usual time limit."""
        limit = limit or self.limit
        if self.native:
            assert limit is not None
            return (self._batched or CartPoles)(streams, limit)
        kwargs = self.kwargs | ({} if limit is None else {"max_episode_steps": limit})

        def make() -> gymnasium.Env[Any, Any]:
            return gymnasium.make(self.env, disable_env_checker=True, **kwargs)

        return Episodes(make, streams, self.observation_size, self.first_action)


def time_limit(env: gymnasium.Env[Any, Any]) -> int | None:
    """The steps after which an environment is truncated, None where nothing truncates it."""
    layer: Any = env
    while isinstance(layer, gymnasium.Wrapper):
        if isinstance(layer, gymnasium.wrappers.TimeLimit):
            return int(layer._max_episode_steps)
        layer = layer.env
    return None
