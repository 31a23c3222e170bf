"""Native vectors against Gymnasium's environments, step by step."""

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv

from playground.domains.rl.environments.classic import NATIVE, CartPoles
from playground.domains.rl.environments.factory import Episodes, Factory
from playground.randomness import generators
from playground.schema import ConfigError

V = 4


def streams():
    return generators(range(V), "environment")


def controller(env, space):
    """Actions of a policy that reaches every part of an environment: goals, walls, clipping."""
    rng = np.random.default_rng(5)

    def act(seen, t):
        wild = (t // 100) % 4 == 1  # now at random, mostly pumping energy
        speed = seen[:, -1]
        push = np.where(wild, rng.normal(size=V) * 1.5, 3 * np.sign(speed))
        if env == "CartPole-v1":
            push = seen[:, 2] + seen[:, 3] + 0.3 * rng.normal(size=V)
        if space.kind == "box":
            return push[:, None].astype(np.float32)
        return np.digitize(push, np.arange(space.choices[0] - 1) - (space.choices[0] - 2) / 2)

    return act


@pytest.mark.parametrize("env", NATIVE)
def test_every_step_is_gymnasiums(env):
    """From Gymnasium's own state at every step, so that nothing adds up: 4 x 1,000 steps.

    Bit for bit on machines where NumPy computes a cosine alone as in an array.
    """
    vector = Factory(env, {}).vector(streams())
    act, seen = controller(env, Factory(env, {}).actions), vector.begin()
    single = gymnasium.make(env).unwrapped
    flags = 0
    for t in range(1000):
        actions = act(seen, t)
        before, fresh, ended = vector.state.copy(), vector.steps == 0, vector.ended
        seen, reward, terminated, _ = vector.advance(actions)
        native = Factory(env, {}).actions.native(actions) if t == 0 else clip(single, actions)
        for i in (~ended).nonzero()[0]:
            single.reset(seed=0)
            kind = np.float64
            if env == "MountainCarContinuous-v0" and not fresh[i]:
                kind = np.float32
            single.state = before[:, i].astype(kind)
            expected, gain, over, _, _ = single.step(native[i])
            assert seen[i] == pytest.approx(expected, rel=1e-6, abs=1e-6)
            assert reward[i] == pytest.approx(gain, rel=1e-12, abs=1e-12)
            assert terminated[i] == over
            flags += over
    assert flags > 0 or env == "Pendulum-v1"


def clip(single, actions):
    space = single.action_space
    return np.clip(actions, space.low, space.high) if actions.dtype == np.float32 else actions


@pytest.mark.parametrize("env", NATIVE)
def test_episodes_are_gymnasiums(env):
    """Whole episodes with their resets and limits, also after rounding has had time to grow."""
    made = Factory(env, {"max_episode_steps": 90}, "sync")
    native = Factory(env, {"max_episode_steps": 90})
    assert isinstance(native.vector(streams()), NATIVE[env])
    pair = native.vector(streams()), made.vector(streams())
    assert isinstance(pair[1], Episodes)
    act, (seen, _) = controller(env, made.actions), [vector.begin() for vector in pair]
    for t in range(400):
        actions = act(seen, t)
        rows = [vector.advance(actions) for vector in pair]
        seen = rows[0][0]
        assert rows[0][0] == pytest.approx(rows[1][0], rel=1e-5, abs=1e-5)
        assert rows[0][1] == pytest.approx(rows[1][1], rel=1e-6, abs=1e-6)
        assert np.array_equal(rows[0][2], rows[1][2])
        assert np.array_equal(rows[0][3], rows[1][3])


def test_cart_poles_are_those_of_gymnasiums_vector():
    ours, theirs = CartPoles(streams(), 500), CartPoleVectorEnv(V)
    ours.begin()
    theirs.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(2000):
        theirs.state, theirs.steps = ours.state.copy(), ours.steps.astype(np.int32)
        theirs.prev_done = np.zeros(V, bool)
        actions, ended = rng.integers(2, size=V), ours.ended
        for a, b in zip(ours.advance(actions), theirs.step(actions)[:4], strict=True):
            assert np.array_equal(a[~ended], b[~ended])


@pytest.mark.parametrize("env", NATIVE)
def test_without_a_limit_nothing_truncates(env):
    made = Factory(env, {"max_episode_steps": -1})
    assert made.limit is None
    vector = made.vector(streams())
    act, seen = controller(env, made.actions), vector.begin()
    for t in range(1100):
        seen, _, _, truncated = vector.advance(act(seen, t))
        assert not truncated.any()


def test_native_is_refused_where_there_is_none():
    with pytest.raises(ConfigError, match="FrozenLake-v1 has no native vector"):
        Factory("FrozenLake-v1", {}, "native")
