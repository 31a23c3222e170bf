"""A partially observed cart-pole: what has to be remembered is the velocity."""

from typing import Any

import gymnasium
import numpy as np

NO_VELOCITY = "playground/CartPoleNoVelocity-v0"


class CartPoleNoVelocity(gymnasium.ObservationWrapper[np.ndarray, Any, np.ndarray]):
    """CartPole-v1, of which position and angle are seen, but neither velocity."""

    def __init__(self, **kwargs: Any) -> None:
        inner = gymnasium.make("CartPole-v1", disable_env_checker=True, **kwargs)
        super().__init__(inner.unwrapped)
        space = self.env.observation_space
        assert isinstance(space, gymnasium.spaces.Box)
        self.observation_space = gymnasium.spaces.Box(space.low[::2], space.high[::2])

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """Two of the four entries."""
        return observation[::2]


gymnasium.register(
    NO_VELOCITY, f"{__name__}:CartPoleNoVelocity", max_episode_steps=500, reward_threshold=475.0
)
