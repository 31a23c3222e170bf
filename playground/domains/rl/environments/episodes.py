"""Any Gymnasium environments, stepped in Python; their state is restored by replay.

Shape legend: V environments of the vector, D observation entries, T vector steps.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from playground.domains.rl.environments.protocol import Quota, Step, next_seed
from playground.domains.rl.environments.spaces import ActionSpace
from playground.domains.rl.environments.worker import REST, STEP
from playground.randomness import generator_states, load_generator_states


class Crew(Protocol):
    """Who steps the environments: ``worker.Chunk`` here, ``pool.Pool`` in other processes."""

    def step(self, actions: np.ndarray, seeds: np.ndarray) -> Step:
        """Step, rest or reset every environment."""

    def replay(self, seeds: np.ndarray, actions: Sequence[np.ndarray]) -> np.ndarray:
        """Play episodes again from their seeds with their actions."""


class Episodes:
    """A vector of environments, each episode from a seed of its own.

    Attributes:
        history: stored actions [V, *shape] of the last vector steps, as far back as the
            oldest episode that is still running began.
        lengths: int64 [V], actions of each environment's episode.
        seeds: int64 [V], of the episodes.
        ended: bool [V], the last step ended the episode.
    """

    history: list[np.ndarray]
    lengths: np.ndarray
    seeds: np.ndarray
    ended: np.ndarray
    quota: Quota

    def __init__(
        self,
        crew: Crew,
        streams: Sequence[np.random.Generator],
        actions: ActionSpace,
        limit: int | None,
    ) -> None:
        self.crew, self.streams = crew, list(streams)
        self.actions, self.limit = actions, limit
        self._clear(None)

    def begin(self, episodes: np.ndarray | None = None) -> np.ndarray:
        """Start a new episode everywhere."""
        self._clear(episodes)
        everything = np.arange(len(self.streams))
        todo = np.full(len(everything), REST)
        self._restart(everything, todo)
        none: np.ndarray = np.zeros((len(everything), *self.actions.shape), self.actions.stored)
        return self.crew.step(self.actions.native(none), todo)[0]

    def advance(self, actions: np.ndarray) -> Step:
        """One vector step; environments whose episode has ended reset instead."""
        todo = np.where(self.quota.resting, REST, STEP)
        self.history.append(np.array(actions, self.actions.stored))
        self.lengths += ~self.quota.resting
        ended = self.ended.nonzero()[0]
        if ended.size:
            self._restart(ended, todo)
            del self.history[: len(self.history) - self.lengths.max()]
        native = self.actions.native(np.asarray(actions, self.actions.stored))
        observation, reward, terminated, truncated = self.crew.step(native, todo)
        if self.limit is not None:
            truncated |= self.lengths >= self.limit
        self.ended = terminated | truncated
        return observation, reward, terminated, truncated

    def capture(self) -> dict[str, Any]:
        """Episode seeds, the actions since, and the streams."""
        return {
            "seeds": self.seeds.tolist(),
            "actions": [torch.from_numpy(actions) for actions in self._episodes()],
            "ended": self.ended.tolist(),
            "quota": self.quota.capture(),
            "streams": generator_states(self.streams),
        }

    def restore(self, state: dict[str, Any]) -> np.ndarray:
        """Replay every episode from its seed; the current observations."""
        self._clear(None)
        load_generator_states(self.streams, state["streams"])
        self.ended = np.array(state["ended"], np.bool_)
        self.quota = Quota.restored(state["quota"])
        self.seeds = np.array(state["seeds"], np.int64)
        episodes = [actions.numpy() for actions in state["actions"]]
        self.lengths = np.array([len(actions) for actions in episodes], np.int64)
        shape = (self.lengths.max(), len(episodes), *self.actions.shape)
        history = np.zeros(shape, self.actions.stored)
        for i, actions in enumerate(episodes):
            history[shape[0] - len(actions) :, i] = actions
        self.history = list(history)
        todo = np.where(self.quota.resting, REST, self.seeds)
        native = [self.actions.native(actions) for actions in episodes]
        return self.crew.replay(todo, native)

    def _clear(self, episodes: np.ndarray | None) -> None:
        """Nothing has been played."""
        count = len(self.streams)
        self.seeds, self.lengths = np.zeros((2, count), np.int64)
        self.history = []
        self.ended = np.zeros(count, np.bool_)
        self.quota = Quota(count, episodes)

    def _restart(self, which: np.ndarray, todo: np.ndarray) -> None:
        """Start episodes in the environments ``which``, or let them rest: write ``todo`` [V]."""
        self.lengths[which], todo[which] = 0, REST
        started = self.quota.start(which)
        self.seeds[started] = [next_seed(self.streams[i]) for i in started]
        todo[started] = self.seeds[started]

    def _episodes(self) -> list[np.ndarray]:
        """The actions [T, *shape] of every environment's episode."""
        count = len(self.streams)
        empty: np.ndarray = np.zeros((0, count, *self.actions.shape), self.actions.stored)
        history = np.stack(self.history) if self.history else empty
        longest = len(history)
        return [history[longest - n :, i].copy() for i, n in enumerate(self.lengths.tolist())]
