"""A chunk of Python environments, stepped one after the other, here or in another process.

This module waits for nothing heavy (no torch), so that a worker process starts quickly. A
worker reads pickled requests from its standard input and answers on its standard output;
what environments print goes to the standard error.

Shape legend: V environments of the chunk, D observation entries.
"""

import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

Env = gymnasium.Env[Any, Any]

STEP, REST = -1, -2
"""What an environment does instead of a reset with a seed."""


@dataclass(frozen=True)
class ObservationSpace:
    """How observations become rows of numbers.

    Attributes:
        size: D.
        shape: of an array that the environment gives, None where it gives an integer.
        start: the first integer.
    """

    size: int
    shape: tuple[int, ...] | None
    start: int = 0

    def writer(self, rows: np.ndarray) -> Callable[[int, Any], None]:
        """A function that writes an observation into one of the rows [V, D], which are 0.

        Arrays are flattened; an integer sets one entry to 1.
        """
        if self.shape is None:

            def one_hot(i: int, seen: Any) -> None:
                rows[i, int(seen) - self.start] = 1

            return one_hot
        return rows.reshape(len(rows), *self.shape).__setitem__


class Chunk:
    """Environments of one kind, each told to step, to reset with a seed, or to rest.

    Args:
        make: makes an environment.
        count: V.
        space: of the observations.
        renew: make a new environment for every episode, for those whose ``reset`` does not
            forget everything.
    """

    def __init__(
        self, make: Callable[[], Env], count: int, space: ObservationSpace, renew: bool = False
    ) -> None:
        self.make, self.space, self.renew = make, space, renew
        self.envs = [bare(make()) for _ in range(count)]

    def step(
        self, actions: np.ndarray, seeds: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Observation [V, D], reward, terminated and truncated [V].

        Args:
            actions: as the environments take them [V, ...].
            seeds: int64 [V]: ``STEP``, ``REST``, or the seed of a reset.
        """
        count = len(self.envs)
        observation, reward = np.zeros((count, self.space.size), np.float32), np.zeros(count)
        terminated, truncated = np.zeros((2, count), np.bool_)
        write = self.space.writer(observation)
        chosen = actions.tolist() if actions.ndim == 1 else actions
        for i, (env, seed) in enumerate(zip(self.envs, seeds.tolist(), strict=True)):
            if seed == STEP:
                seen, reward[i], terminated[i], truncated[i], _ = env.step(chosen[i])
                write(i, seen)
            elif seed != REST:
                write(i, self._reset(i, seed))
        return observation, reward, terminated, truncated

    def replay(self, seeds: np.ndarray, actions: Sequence[np.ndarray]) -> np.ndarray:
        """Play episodes again [V, D]: each from its seed with its actions; some rest."""
        observation = np.zeros((len(self.envs), self.space.size), np.float32)
        write = self.space.writer(observation)
        for i, seed in enumerate(seeds.tolist()):
            if seed == REST:
                continue
            seen = self._reset(i, seed)
            env = self.envs[i]
            for action in actions[i].tolist() if actions[i].ndim == 1 else actions[i]:
                seen = env.step(action)[0]
            write(i, seen)
        return observation

    def _reset(self, i: int, seed: int) -> Any:
        """The first observation of an episode."""
        if self.renew:
            self.envs[i].close()
            self.envs[i] = bare(self.make())
        return self.envs[i].reset(seed=seed)[0]


def bare(env: Env) -> Env:
    """Without the layers that only check or count; the caller keeps the time limit."""
    layers = gymnasium.wrappers
    while isinstance(env, layers.TimeLimit | layers.OrderEnforcing | layers.PassiveEnvChecker):
        env = env.env
    return env


def quiet_mujoco() -> None:
    """Show what MuJoCo warns of once and on the standard error.

    By itself it writes every warning to ``MUJOCO_LOG.TXT`` in the working directory, for each
    environment anew: also that the models of Gymnasium have deprecated attributes, which no
    user can change.
    """
    try:
        import mujoco  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        return
    if mujoco.get_mju_user_warning() is not None:
        return
    shown: set[str] = set()

    def show(message: str) -> None:
        if message not in shown and "deprecated" not in message:
            sys.stderr.write(f"MuJoCo: {message}\n")
        shown.add(message)

    mujoco.set_mju_user_warning(show)


def serve() -> None:
    """Answer requests until the standard input ends."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the run, and so this process
    chunk: Chunk | None = None
    while True:
        try:
            name, arguments = pickle.load(requests)
        except EOFError:
            return
        try:
            if name == "make":
                make = pickle.loads(arguments[0])
                quiet_mujoco()
                chunk = Chunk(make, *arguments[1:])
                answer: Any = None
            else:
                answer = getattr(chunk, name)(*arguments)
            result = (True, answer)
        except Exception:
            result = (False, traceback.format_exc())
        pickle.dump(result, answers, protocol=pickle.HIGHEST_PROTOCOL)
        answers.flush()
