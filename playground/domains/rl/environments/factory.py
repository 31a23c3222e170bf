"""Makes vectors of environments of any Gymnasium id: native, in this process, or in others.

How a vector steps is a choice (``problem.vectorization``); what it gives is not: every kind
draws the same episodes and gives the same transitions, except EnvPool, which has seeds and
physics of its own, and calls an episode truncated that ends by itself at its time limit.
"""

import contextlib
import functools
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from playground.domains.rl.environments.classic import NATIVE, CartPoles
from playground.domains.rl.environments.episodes import Crew, Episodes
from playground.domains.rl.environments.pool import Pool
from playground.domains.rl.environments.protocol import Environments, Step, next_seed
from playground.domains.rl.environments.spaces import DISCRETE, action_space
from playground.domains.rl.environments.tabular import Tabular
from playground.domains.rl.environments.vectors import Adapted
from playground.domains.rl.environments.worker import Chunk, ObservationSpace, bare, quiet_mujoco
from playground.machine import processors
from playground.schema import ConfigError

__all__ = ["CartPoles", "Environments", "Episodes", "Factory", "Step", "next_seed", "time_limit"]

EXTRAS = {"gymnasium.envs.box2d": "box2d", "gymnasium.envs.mujoco": "mujoco"}
"""{module of an environment: the extra that brings its package}."""

UNFORGETTING = (
    "gymnasium.envs.box2d.bipedal_walker:BipedalWalker",
    "gymnasium.envs.box2d.car_racing:CarRacing",
)
"""Environments that keep one Box2D world for all episodes, whose contact solver remembers: the
same seed and actions give another episode in a used environment than in a new one."""


class Factory:
    """Makes vectors of one environment id, and knows its sizes.

    Attributes:
        vectorization: ``native``: in a few NumPy calls, whatever the size; ``sync``: one
            Python environment after the other; ``async``: the same in worker processes;
            ``envpool``: EnvPool's own C++ environments.
        space: what observations look like; ``observation_size`` is D.
        actions: the action space.
        limit: time limit in steps, or None.
        threshold: mean return at which the environment counts as solved, or None.
        exact: whether training environments can be saved in the middle of an episode.

    Raises:
        ConfigError: an unknown id, a package that is missing, spaces that are not supported,
            or a vectorization that the environment does not have.
    """

    def __init__(self, env: str, kwargs: dict[str, Any], vectorization: str | None = None) -> None:
        self.env, self.kwargs = env, kwargs
        self.spec = find(env)
        try:
            probe = gymnasium.make(self.spec, **kwargs)
        except Exception as error:  # environments and their packages raise many kinds
            raise ConfigError(f"problem.env={env}: {reason(error, self.spec)}") from error
        self.space = observation_space(probe.observation_space, env)
        self.actions = action_space(probe.action_space, env)
        self.limit = time_limit(probe)
        self.threshold = probe.spec.reward_threshold if probe.spec is not None else None
        self.outermost = time_limit(bare(probe)) is None
        self._model = probe.unwrapped if isinstance(probe.unwrapped, Tabular) else None
        probe.close()
        fits = env in NATIVE and set(kwargs) <= {"max_episode_steps"}
        fits = fits or self._model is not None
        self.vectorization = vectorization or ("native" if fits else "sync")
        if self.vectorization == "native" and not fits:
            raise ConfigError(
                f"problem.vectorization=native: {env} has no native vector with these arguments; "
                f"those that have: {', '.join(NATIVE)}"
            )
        if self.vectorization == "envpool":
            envpool(env)

    @property
    def native(self) -> bool:
        """Whether vectors step in a few NumPy calls, whatever their size."""
        return self.vectorization == "native"

    @property
    def exact(self) -> bool:
        """Whether training environments can be saved in the middle of an episode."""
        return self.vectorization != "envpool"

    @property
    def observation_size(self) -> int:
        """D, entries of a flattened observation."""
        return self.space.size

    @property
    def num_actions(self) -> int:
        """A, where actions are discrete."""
        if self.actions.kind != DISCRETE:
            raise ConfigError(f"problem.env={self.env}: needs discrete actions")
        return self.actions.choices[0]

    def vector(
        self,
        streams: Sequence[np.random.Generator],
        limit: int | None = None,
        exact: bool = False,
    ) -> Environments:
        """A vector with one environment per stream, by default with the usual time limit.

        Args:
            streams: of the episodes' seeds [V].
            limit: of an episode's steps.
            exact: the environments of the id itself, also where training has EnvPool's, and
                each episode from its own seed.
        """
        limit, count = limit or self.limit, len(streams)
        if self.native:
            if self._model is not None:
                return self._model.vector(streams, limit)
            return NATIVE[self.env](streams, limit)
        kwargs = self.kwargs | ({} if limit is None else {"max_episode_steps": limit})
        if self.vectorization == "envpool" and not exact:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # bounds of its spaces lose precision
                vector = envpool(self.env).make_gymnasium(
                    self.env, num_envs=count, seed=next_seed(streams[0]), **kwargs
                )
                vector.reset()
            return Adapted(vector, streams, self.actions, self.space, seeded=False)
        make = functools.partial(gymnasium.make, self.spec, disable_env_checker=True, **kwargs)
        renew = self.spec.entry_point in UNFORGETTING
        crew: Crew
        if self.vectorization == "async" and count > 1:
            crew = Pool(make, count, self.space, renew, processors())
        else:
            crew = Chunk(make, count, self.space, renew)
        return Episodes(crew, streams, self.actions, limit if self.outermost else None)


def find(env: str) -> gymnasium.envs.registration.EnvSpec:
    """What is registered under an id, which may name a module to import: ``module:Env-v0``.

    Raises:
        ConfigError: nothing is.
    """
    module, colon, name = env.rpartition(":")
    try:
        if colon:
            if os.getcwd() not in sys.path:
                sys.path.append(os.getcwd())  # where a command is given, modules lie beside it
            importlib.import_module(module)
        spec = gymnasium.spec(name)
    except Exception as error:  # a module of somebody's raises any kind
        raise ConfigError(f"problem.env={env}: {reason(error, None)}") from error
    if str(spec.entry_point).startswith("gymnasium.envs.mujoco"):
        quiet_mujoco()
    if str(spec.entry_point).startswith("gymnasium.envs.box2d"):
        with warnings.catch_warnings(), contextlib.suppress(ImportError):
            warnings.simplefilter("ignore")  # its import crashes where warnings are errors
            importlib.import_module("Box2D")
    return spec


def reason(error: Exception, spec: gymnasium.envs.registration.EnvSpec | None) -> str:
    """One line on why an environment cannot be made."""
    missing = isinstance(error, ImportError | gymnasium.error.DependencyNotInstalled)
    for module, extra in EXTRAS.items():
        if missing and spec is not None and str(spec.entry_point).startswith(module):
            return f'needs a package that is missing: pip install "gradient-playground[{extra}]"'
    return (str(error).splitlines() or [type(error).__name__])[0]


def observation_space(space: gymnasium.Space[Any], env: str) -> ObservationSpace:
    """How an environment's observations become rows of numbers.

    Raises:
        ConfigError: observations that are neither arrays nor one integer.
    """
    if isinstance(space, gymnasium.spaces.Box):
        return ObservationSpace(int(np.prod(space.shape)), space.shape)
    if isinstance(space, gymnasium.spaces.Discrete):
        return ObservationSpace(int(space.n), None, int(space.start))
    raise ConfigError(
        f"problem.env={env}: observations must be an array (Box) or one integer (Discrete), "
        f"not {space}"
    )


def envpool(env: str) -> Any:
    """The EnvPool package, which has this environment.

    Raises:
        ConfigError: it is missing, or does not.
    """
    try:
        import envpool as package  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise ConfigError(
            "problem.vectorization=envpool: needs a package that is missing: "
            'pip install "gradient-playground[envpool]"'
        ) from error
    if env not in package.list_all_envs():
        raise ConfigError(f"problem.vectorization=envpool: EnvPool has no {env}")
    return package


def time_limit(env: gymnasium.Env[Any, Any]) -> int | None:
    """The steps after which an environment is truncated, None where nothing truncates it."""
    layer: Any = env
    while isinstance(layer, gymnasium.Wrapper):
        if isinstance(layer, gymnasium.wrappers.TimeLimit):
            return int(layer._max_episode_steps)
        layer = layer.env
    return None
