"""Environments small enough to solve by hand, and rollouts in NEXT_STEP form."""

import itertools

import gymnasium
import numpy as np

from playground.domains.rl.collector import Rollout

REWARDS = np.array(
    [[0.3, -0.5], [1.0, 0.2], [-0.7, 0.4], [0.1, 0.9], [-0.3, 0.6], [2.0, -1.0], [0.5, 0.0]]
)
"""Of the nodes of a binary tree of depth 3, in breadth-first order, and its two actions."""

LEAF = (2, 1)
"""This action in this node ends the episode early."""


class Tree(gymnasium.Env):
    """Action a leads from node n to node 2 n + 1 + a; three steps, or fewer by ``LEAF``."""

    observation_space = gymnasium.spaces.Box(0, 1, (7,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.node = 0
        return self._see(), {}

    def step(self, action):
        assert action in (0, 1)
        reward, last = REWARDS[self.node, action], (self.node, action) == LEAF
        self.node = 2 * self.node + 1 + int(action)
        return self._see(), reward, last or self.node > 6, False, {}

    def _see(self):
        return np.eye(7, dtype=np.float32)[min(self.node, 6)]


def paths():
    """Every way through the tree: [(node, action, reward), ...]."""
    result = {}
    for actions in itertools.product((0, 1), repeat=3):
        node, path = 0, []
        for action in actions:
            path.append((node, action, float(REWARDS[node, action])))
            if (node, action) == LEAF:
                break
            node = 2 * node + 1 + action
        result[tuple(path)] = path
    return list(result.values())


class Shifted(Tree):
    """The same with actions 5 and 6."""

    action_space = gymnasium.spaces.Discrete(2, start=5)

    def step(self, action):
        return super().step(action - 5)


class Endless(gymnasium.Env):
    """Reward 1 for ever."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1, 1), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.ones((1, 1), np.float32), {}

    def step(self, action):
        return np.ones((1, 1), np.float32), 1.0, False, False, {}


class Unbounded(Endless):
    """Actions may be any number."""

    action_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)


class Mapped(Tree):
    """Observations that are not arrays."""

    observation_space = gymnasium.spaces.Dict({"node": Tree.observation_space})


def register():
    """Register them below ``toys/``; a second call changes nothing."""
    for env, limit in ((Tree, 3), (Shifted, 3), (Endless, 8), (Unbounded, 8), (Mapped, 3)):
        name = f"toys/{env.__name__}-v0"
        if name not in gymnasium.registry:
            gymnasium.register(name, env, max_episode_steps=limit)


def random_rollout(seed, steps=40, members=2, num_envs=3, dtype=np.float64):
    """A rollout with every pattern of flags, both at once and ended before its first row too."""
    rng = np.random.default_rng(seed)
    shape = (steps, members, num_envs)
    reward = rng.normal(size=shape).astype(dtype)
    terminated, truncated = rng.random((2, *shape)) < 0.15
    both = rng.random(shape) < 0.05
    terminated, truncated = terminated | both, truncated | both
    valid = np.ones(shape, bool)
    ended = rng.random(shape[1:]) < 0.5
    for t in range(steps):
        valid[t] = ~ended
        reward[t, ended] = 0
        terminated[t, ended] = truncated[t, ended] = False
        ended = terminated[t] | truncated[t]
    observation = rng.normal(size=(steps + 1, members, num_envs, 1)).astype(np.float32)
    action = rng.integers(2, size=shape)
    rollout = Rollout(observation, action, reward, terminated, truncated, valid)
    return rollout, rng.normal(size=(steps + 1, members, num_envs)).astype(dtype)
