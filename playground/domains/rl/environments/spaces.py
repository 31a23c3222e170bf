"""Action spaces: what an environment takes, and how a member stores its actions.

Shape legend: V environments, K components of an action.
"""

import math
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from playground.schema import ConfigError

DISCRETE, MULTI_DISCRETE, BOX = "discrete", "multi_discrete", "box"


@dataclass(frozen=True)
class ActionSpace:
    """One environment's actions, counted from 0 or as numbers.

    Attributes:
        kind: ``discrete``, ``multi_discrete`` or ``box``.
        shape: of a stored action: () where discrete, else (K,).
        choices: number of choices of every component, (A,) where discrete; empty in a box.
        start: first action of every component.
        low, high: bounds [K] of a box, which may be infinite.
        native_shape: of an action as the environment takes it.
        dtype: of an action as the environment takes it.
    """

    kind: str
    shape: tuple[int, ...]
    choices: tuple[int, ...]
    start: np.ndarray
    low: np.ndarray
    high: np.ndarray
    native_shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def stored(self) -> type:
        """NumPy type of stored actions."""
        return np.float32 if self.kind == BOX else np.int64

    def native(self, actions: np.ndarray) -> np.ndarray:
        """Actions [V, *shape] as the environments take them [V, *native_shape].

        A box gets the action clipped to its bounds; what is stored is the unclipped one.
        """
        if self.kind == BOX:
            clipped: np.ndarray = np.clip(actions, self.low, self.high).astype(self.dtype)
            return clipped.reshape(len(actions), *self.native_shape)
        shifted: np.ndarray = (actions + self.start).astype(self.dtype)
        return shifted


def action_space(space: gymnasium.Space[Any], env: str) -> ActionSpace:
    """The action space of an environment.

    Raises:
        ConfigError: actions that no policy here can draw.
    """
    none, dtype = np.empty(0, np.float32), np.dtype(space.dtype or np.int64)
    if isinstance(space, gymnasium.spaces.Discrete):
        start = np.asarray(space.start, np.int64)
        return ActionSpace(DISCRETE, (), (int(space.n),), start, none, none, (), dtype)
    if isinstance(space, gymnasium.spaces.MultiDiscrete) and space.nvec.ndim == 1:
        start = np.asarray(space.start, np.int64)
        choices = tuple(int(n) for n in space.nvec)
        return ActionSpace(
            MULTI_DISCRETE, (len(choices),), choices, start, none, none, space.shape, dtype
        )
    if isinstance(space, gymnasium.spaces.Box) and np.issubdtype(dtype, np.floating):
        size = math.prod(space.shape)
        low, high = space.low.reshape(-1), space.high.reshape(-1)
        return ActionSpace(BOX, (size,), (), none, low, high, space.shape, dtype)
    raise ConfigError(
        f"problem.env={env}: actions must be discrete, multi-discrete or a box of floats, "
        f"not {space}"
    )
