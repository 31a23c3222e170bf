"""Episodes of a policy as pictures: what evaluation plays, in an environment that renders.

The first episode has the seed, and so the return, of the first episode of an evaluation.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import gymnasium
import numpy as np

from playground.domains.rl.environments.factory import Factory, reason
from playground.domains.rl.environments.protocol import next_seed
from playground.domains.rl.environments.worker import Env
from playground.domains.rl.evaluation import AHEAD, LIMIT
from playground.domains.rl.problem import PolicyGradient
from playground.randomness import generators
from playground.schema import ConfigError


@dataclass(frozen=True)
class Frame:
    """A picture and where it stands.

    Attributes:
        pixels: uint8 [height, width, 3].
        episode: from 0.
        step: from 0, the picture after ``reset``.
        total: raw return so far.
    """

    pixels: np.ndarray
    episode: int
    step: int
    total: float


def renderer(factory: Factory) -> Env:
    """The environment with pictures.

    Raises:
        ConfigError: it has none, or lacks a package for them.
    """
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pictures need no window
    try:
        env = gymnasium.make(
            factory.spec, disable_env_checker=True,
            **{**factory.kwargs, "render_mode": "rgb_array"},
        )  # fmt: skip
        env.reset(seed=0)
        picture = env.render()
    except Exception as error:  # environments and their packages raise many kinds
        raise ConfigError(f"{factory.env}: no video: {reason(error, factory.spec)}") from error
    if not isinstance(picture, np.ndarray) or picture.ndim != 3:
        raise ConfigError(f"{factory.env}: no video: it renders none")
    return env


def film(problem: PolicyGradient, episodes: int, *, sample: bool = False) -> Iterator[Frame]:
    """Every frame of some episodes of a problem's first member.

    Args:
        problem: set up, with the parameters to film.
        episodes: how many.
        sample: draw actions from the policy instead of taking its mode.
    """
    factory, seed = problem.factory, problem.context.seeds[:1]
    env = renderer(factory)
    stream = generators(seed, "evaluation")[0]
    try:
        for episode in range(episodes):
            yield from _episode(problem, env, episode, next_seed(stream), sample=sample)
    finally:
        env.close()


def _episode(
    problem: PolicyGradient, env: Env, episode: int, seed: int, *, sample: bool
) -> Iterator[Frame]:
    factory, policy, normaliser = problem.factory, problem.policy, problem.collector.normaliser
    noise = generators(problem.context.seeds[:1], f"evaluation/film/{episode}")
    memory, total, step, over = problem.blank(1), 0.0, 0, False
    row = np.zeros((1, factory.observation_size), np.float32)
    write = factory.space.writer(row)
    seen, _ = env.reset(seed=seed)
    while True:
        yield Frame(np.asarray(env.render()), episode, step, total)
        if over or step >= LIMIT:
            return
        if sample and step % AHEAD == 0:
            ahead = policy.noise(noise, AHEAD, 1)
        row[:] = 0
        write(0, seen)
        observed = row[None] if normaliser is None else normaliser.apply(row[None])
        drawn = ahead[step % AHEAD] if sample else None
        act = problem.act
        action = act(observed, drawn) if memory is None else act(observed, drawn, memory)
        stored = policy.environment(action.reshape(-1, *factory.actions.shape))
        native = factory.actions.native(stored)[0]
        seen, reward, terminated, truncated, _ = env.step(native)
        total, step, over = total + float(reward), step + 1, terminated or truncated
