"""A partially observed cart-pole: what has to be remembered is the velocity."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.classic_control import CartPoleEnv

NO_VELOCITY = "playground/CartPoleNoVelocity-v0"


class CartPoleNoVelocity(CartPoleEnv):
    """CartPole-v1, of which position and angle are seen, but neither velocity."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        space = self.observation_space
        assert isinstance(space, gymnasium.spaces.Box)
        self.observation_space = gymnasium.spaces.Box(space.low[::2], space.high[::2])

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """As CartPole-v1, two of the four entries."""
        observation, info = super().reset(**kwargs)
        return observation[::2], info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """As CartPole-v1, two of the four entries."""
        observation, *rest = super().step(action)  # type: ignore[no-untyped-call]
        return observation[::2], *rest


gymnasium.register(
    NO_VELOCITY, f"{__name__}:CartPoleNoVelocity", max_episode_steps=500, reward_threshold=475.0
)
