"""An environment whose transitions name themselves: observation (episode, t), unique rewards."""

import sys

import gymnasium
import numpy as np

LIMIT = 5
"""Episodes of 1 to 8 steps end by themselves, by this limit, or by both at once."""


def draw(generator):
    """Episode number and length."""
    return generator.integers(2**18), generator.integers(1, 9)


class Trace(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0, 2**18, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        (self.episode, self.length), self.t = draw(self.np_random), 0
        return self._see(), {}

    def step(self, action):
        assert action == (self.episode + self.t) % 3
        reward = self.episode * 16 + self.t
        self.t += 1
        return self._see(), reward, self.t >= self.length, False, {}

    def _see(self):
        return np.array([self.episode, self.t], np.float32)


class Lenient(Trace):
    """Takes any action, as an environment must whose action is going to be undone."""

    def step(self, action):
        return super().step((self.episode + self.t) % 3)


class Broken(Trace):
    """Prints, and fails."""

    def step(self, action):
        sys.stdout.write("an environment may print")
        sys.stdout.flush()
        raise RuntimeError("out of paint")


def register():
    for env in (Trace, Lenient, Broken):
        name = f"toys/{env.__name__}-v0"
        if name not in gymnasium.registry:
            gymnasium.register(name, env, max_episode_steps=LIMIT)


def act(observation):
    """The action that a trace wants, from what it shows."""
    return observation.sum(axis=-1).astype(np.int64) % 3
