"""Finite MDPs as Gymnasium environments, whose transition model is known.

    playground/Bandit-v0     means
    playground/Chain-v0      states, slip, small, large
    playground/Gridworld-v0  rows, columns, goals, walls, slip
    playground/RandomMDP-v0  states, actions, branching, seed, features
    playground/FiniteMDP-v0  transition, reward, start, terminal, features; or file

``gymnasium.make(...).unwrapped.mdp`` is the model. The number that an episode draws at step t
is a hash of its seed and t, so an environment's state is (seed, t, s): many step at once
without a generator each, and a vector of them is restored without replay.

Shape legend: V environments of a vector, S states, A actions, D features.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import ArrayLike

from playground.domains.rl.environments import mdp as models
from playground.domains.rl.environments.mdp import MDP
from playground.domains.rl.environments.native import UNLIMITED
from playground.domains.rl.environments.protocol import Quota, Step, next_seed
from playground.randomness import generator_states, load_generator_states

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniforms(seeds: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Number t of the episodes with these seeds, uniform on [0, 1) [V].

    SplitMix64 with the mixed seed as its state, which may be read at any place.

    Source: Steele, Lea & Flood 2014, figure 14.
    """
    state = _mix(seeds.astype(np.uint64) * GOLDEN + GOLDEN)
    bits = _mix(state + (t.astype(np.uint64) + np.uint64(1)) * GOLDEN)
    result: np.ndarray = (bits >> np.uint64(11)) * 2.0**-53
    return result


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    result: np.ndarray = x ^ (x >> np.uint64(31))
    return result


class Tables:
    """What stepping reads: cumulative distributions, rewards and observations."""

    def __init__(self, model: MDP) -> None:
        self.reward, self.terminal = model.reward, model.terminal
        self.start = _cumulative(model.start)
        self.next = _cumulative(model.transition)
        self.observation = model.features.astype(np.float32)

    def first(self, seeds: np.ndarray) -> np.ndarray:
        """First states of the episodes with these seeds [V]."""
        return _draw(self.start, uniforms(seeds, np.zeros_like(seeds)))

    def step(
        self, state: np.ndarray, action: np.ndarray, seeds: np.ndarray, t: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Successors and rewards [V] of step t (from 1) in each episode."""
        successor = _draw(self.next[state, action], uniforms(seeds, t))
        return successor, self.reward[state, action, successor]


def _cumulative(p: np.ndarray) -> np.ndarray:
    """Upper ends of the intervals [..., S]; those after the last possible state are infinite."""
    total = np.cumsum(p, axis=-1)
    total[total >= total[..., -1:]] = np.inf  # rounding must not lead beyond the last state
    return total


def _draw(cumulative: np.ndarray, u: np.ndarray) -> np.ndarray:
    """The interval [V] in which u [V] lies."""
    result: np.ndarray = (cumulative <= u[:, None]).sum(axis=-1)
    return result


class Tabular(gymnasium.Env[np.ndarray, np.int64]):
    """A finite MDP, observed through its features."""

    def __init__(self, model: MDP) -> None:
        self.mdp = model
        low, high = (f(model.features.astype(np.float32), axis=0) for f in (np.min, np.max))
        self.observation_space = gymnasium.spaces.Box(low, high, dtype=np.float32)
        self.action_space = gymnasium.spaces.Discrete(model.shape[1])
        self.state = np.zeros(1, np.int64)

    @cached_property
    def tables(self) -> Tables:
        """What stepping reads."""
        return Tables(self.mdp)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A new episode; without a seed, its seed is drawn from the environment's generator."""
        super().reset(seed=seed)
        drawn = int(self.np_random.integers(2**31 - 1)) if seed is None else seed
        self.seeds, self.t = np.array([drawn]), np.array([0])
        self.state = self.tables.first(self.seeds)
        return self._see(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One transition."""
        self.t = self.t + 1
        self.state, reward = self.tables.step(
            self.state, np.array([int(action)]), self.seeds, self.t
        )
        return self._see(), float(reward[0]), bool(self.mdp.terminal[self.state[0]]), False, {}

    def vector(self, streams: Sequence[np.random.Generator], limit: int | None) -> "Tabulars":
        """Many of these at once."""
        return Tabulars(self.tables, streams, limit)

    def _see(self) -> np.ndarray:
        seen: np.ndarray = self.tables.observation[self.state[0]].copy()
        return seen


class Tabulars:
    """A vector of one MDP, stepped in a few NumPy calls; see ``protocol.Environments``."""

    def __init__(
        self, tables: Tables, streams: Sequence[np.random.Generator], limit: int | None
    ) -> None:
        self.tables, self.streams = tables, list(streams)
        self.limit = limit or UNLIMITED

    def begin(self, episodes: np.ndarray | None = None) -> np.ndarray:
        """Start a new episode everywhere."""
        count = len(self.streams)
        self.state, self.steps, self.seeds = np.zeros((3, count), np.int64)
        self.ended = np.zeros(count, np.bool_)
        self.quota = Quota(count, episodes)
        self._restart(np.arange(count))
        return self._observe()

    def advance(self, actions: np.ndarray) -> Step:
        """One vector step; environments whose episode has ended reset instead."""
        playing = ~(self.ended | self.quota.resting)
        steps = self.steps + playing
        state, reward = self.tables.step(self.state, actions, self.seeds, steps)
        self.state = np.where(playing, state, self.state)
        self.steps = steps
        terminated = self.tables.terminal[self.state] & playing
        truncated = (steps >= self.limit) & playing
        ended = self.ended.nonzero()[0]
        if len(ended):
            self._restart(ended)
        self.ended = terminated | truncated
        return self._observe(), np.where(playing, reward, 0.0), terminated, truncated

    def capture(self) -> dict[str, Any]:
        """States, episodes and streams."""
        return {
            "state": self.state.tolist(),
            "steps": self.steps.tolist(),
            "seeds": self.seeds.tolist(),
            "ended": self.ended.tolist(),
            "quota": self.quota.capture(),
            "streams": generator_states(self.streams),
        }

    def restore(self, state: dict[str, Any]) -> np.ndarray:
        """Take back what ``capture`` gave; the current observations."""
        self.state, self.steps, self.seeds = (
            np.array(state[name], np.int64) for name in ("state", "steps", "seeds")
        )
        self.ended = np.array(state["ended"], np.bool_)
        self.quota = Quota.restored(state["quota"])
        load_generator_states(self.streams, state["streams"])
        return self._observe()

    def _observe(self) -> np.ndarray:
        seen: np.ndarray = self.tables.observation[self.state]
        if self.quota.left is not None:
            seen[self.quota.resting] = 0
        return seen

    def _restart(self, which: np.ndarray) -> None:
        """Start episodes in the environments ``which``."""
        which = self.quota.start(which)
        if len(which):
            self.seeds[which] = [next_seed(self.streams[i]) for i in which.tolist()]
            self.state[which] = self.tables.first(self.seeds[which])
            self.steps[which] = 0


def bandit(**kwargs: Any) -> Tabular:
    """``playground/Bandit-v0``; see ``mdp.bandit``."""
    return Tabular(models.bandit(**kwargs))


def chain(**kwargs: Any) -> Tabular:
    """``playground/Chain-v0``; see ``mdp.chain``."""
    return Tabular(models.chain(**kwargs))


def gridworld(**kwargs: Any) -> Tabular:
    """``playground/Gridworld-v0``; see ``mdp.gridworld``."""
    return Tabular(models.gridworld(**kwargs))


def random_mdp(**kwargs: Any) -> Tabular:
    """``playground/RandomMDP-v0``; see ``mdp.garnet``."""
    return Tabular(models.garnet(**kwargs))


def finite_mdp(file: str | None = None, **arrays: ArrayLike) -> Tabular:
    """``playground/FiniteMDP-v0``: one's own arrays (see ``mdp.mdp``), given or in a file.

    Without either it is the chain.

    Raises:
        ValueError: arrays that are no MDP.
    """
    if file is not None:
        return Tabular(models.from_file(file))
    if not arrays:
        return Tabular(models.chain())
    return Tabular(models.mdp(**{name: np.asarray(value) for name, value in arrays.items()}))


LIMITS = {"Bandit": 1, "Chain": 50, "Gridworld": 100, "RandomMDP": 50, "FiniteMDP": 50}
"""Default time limits (ours)."""

MAKERS = {"Bandit": bandit, "Chain": chain, "Gridworld": gridworld, "RandomMDP": random_mdp,
          "FiniteMDP": finite_mdp}  # fmt: skip

for _name, _maker in MAKERS.items():
    gymnasium.register(f"playground/{_name}-v0", _maker, max_episode_steps=LIMITS[_name])
