"""Vectors of Gymnasium's classic-control environments in a few NumPy calls.

Each takes the operations of Gymnasium's environment in their order and precision, so that
rewards and observations are equal to the last bit wherever ``numpy.cos`` of an array is that
of its entries (tests compare every step). A cart-pole is compared with Gymnasium's own vector.

Shape legend: V environments of the vector, D observation entries, S state variables.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from playground.domains.rl.environments.protocol import Quota, Step, next_seed
from playground.randomness import generator_states, load_generator_states

UNLIMITED = 2**62


class Native(ABC):
    """A vector of one kind of environment; a subclass has its physics.

    Attributes:
        variables: S.
        size: D.
        drawn: precision of a first state.
        state: float64 [S, V].
        steps: int64 [V], steps since the episode began.
        ended: bool [V], the last step ended the episode.
    """

    variables: ClassVar[int]
    size: ClassVar[int]
    drawn: ClassVar[type] = np.float64
    state: np.ndarray
    steps: np.ndarray
    ended: np.ndarray

    def __init__(self, streams: Sequence[np.random.Generator], limit: int | None) -> None:
        self.streams = list(streams)
        self.limit = limit or UNLIMITED

    @abstractmethod
    def draw(self, episode: np.random.Generator) -> Any:
        """A first state [S], from the episode's generator as ``reset(seed=...)`` has it."""

    @abstractmethod
    def physics(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Move ``state`` one step on; reward [V] and terminated [V]."""

    @abstractmethod
    def observe(self, state: np.ndarray) -> np.ndarray:
        """Observations [n, D] of states [S, n]."""

    def begin(self, episodes: np.ndarray | None = None) -> np.ndarray:
        """Start a new episode everywhere."""
        count = len(self.streams)
        self.state = np.zeros((self.variables, count))
        self.steps = np.zeros(count, np.int64)
        self.ended = np.zeros(count, np.bool_)
        self.quota = Quota(count, episodes)
        self.seen = np.zeros((count, self.size), np.float32)
        self._restart(np.arange(count), self.seen)
        return self.seen

    def advance(self, actions: np.ndarray) -> Step:
        """One vector step."""
        before = self.ended
        reward, terminated = self.physics(actions)
        self.steps += 1
        truncated = self.steps >= self.limit
        observation = self.observe(self.state).astype(np.float32)
        ended = before.nonzero()[0]
        if ended.size:
            for array in (observation, reward, terminated, truncated, self.steps):
                array[ended] = 0
            self._restart(ended, observation)
        if self.quota.left is not None:
            resting = self.quota.resting
            for array in (observation, reward, terminated, truncated, self.steps):
                array[resting] = 0
            self.state[:, resting] = 0
        self.ended = terminated | truncated
        self.seen = observation
        return observation, reward, terminated, truncated

    def capture(self) -> dict[str, Any]:
        """Physics, episode lengths, observations and streams."""
        return {
            "physics": self.state.tolist(),
            "steps": self.steps.tolist(),
            "ended": self.ended.tolist(),
            "seen": self.seen.tolist(),
            "quota": self.quota.capture(),
            "streams": generator_states(self.streams),
        }

    def restore(self, state: dict[str, Any]) -> np.ndarray:
        """Take back what ``capture`` gave; the current observations."""
        self.state = np.array(state["physics"])
        self.steps = np.array(state["steps"], np.int64)
        self.ended = np.array(state["ended"], np.bool_)
        self.seen = np.array(state["seen"], np.float32)
        self.quota = Quota.restored(state["quota"])
        load_generator_states(self.streams, state["streams"])
        return self.seen

    def _restart(self, which: np.ndarray, observation: np.ndarray) -> None:
        """Start episodes in the environments ``which``; write their first observations."""
        started = self.quota.start(which)
        if not started.size:
            return
        seeds = [next_seed(self.streams[i]) for i in started]
        episodes = [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]
        drawn = [self.draw(episode) for episode in episodes]
        first: np.ndarray = np.array(drawn, self.drawn).T
        self.state[:, started] = first
        observation[started] = self.observe(first)
