"""EnvPool's rows against the physics of Gymnasium's environment."""

import gymnasium
import numpy as np
import pytest
import rl_trace

from playground.domains.rl.environments.factory import Factory
from playground.randomness import generators
from playground.schema import ConfigError

pytest.importorskip("envpool")
V = 4


def streams(first=0):
    return generators(range(first, first + V), "environment")


@pytest.fixture
def made():
    return Factory("CartPole-v1", {"max_episode_steps": 25}, "envpool")


def test_rows_follow_the_convention(made):
    """Every transition is one step of Gymnasium's cart-pole; the row after an end only resets."""
    vector, single = made.vector(streams()), gymnasium.make("CartPole-v1").unwrapped
    single.reset(seed=0)
    seen, ended, length = vector.begin(), np.zeros(V, bool), np.zeros(V, int)
    rng, ends = np.random.default_rng(0), [0, 0]
    for _ in range(300):
        actions = rng.integers(2, size=V)
        then, reward, terminated, truncated = vector.advance(actions)
        length = np.where(ended, 0, length + 1)
        for i in range(V):
            if ended[i]:
                assert (reward[i], terminated[i], truncated[i]) == (0, False, False)
                assert np.abs(then[i]).max() <= 0.05
                continue
            single.state, single.steps_beyond_terminated = seen[i].astype(float), None
            expected, gain, over, _, _ = single.step(actions[i])
            assert then[i] == pytest.approx(expected, rel=1e-4, abs=1e-5)
            assert reward[i] == gain
            assert truncated[i] == (length[i] == 25)
            assert terminated[i] == (over and not truncated[i])  # its one difference
        seen, ended = then, terminated | truncated
        ends[0] += terminated.sum()
        ends[1] += (truncated & ~terminated).sum()
    assert min(ends) > 0


def test_it_cannot_resume_exactly_and_evaluation_does_without_it(made):
    assert not made.exact
    assert not made.native
    vector, other = made.vector(streams()), made.vector(streams())
    assert np.array_equal(vector.begin(), other.begin())  # seeded by the first stream
    assert not np.array_equal(vector.begin(), made.vector(streams(9)).begin())
    vector.advance(np.zeros(V, int))
    assert (np.abs(vector.restore(vector.capture())) <= 0.05).all()
    one = made.vector(streams(), exact=True)
    two = Factory("CartPole-v1", {"max_episode_steps": 25}, "sync").vector(streams())
    assert np.array_equal(one.begin(), two.begin())


def test_continuous_actions():
    made = Factory("Pendulum-v1", {}, "envpool")
    vector = made.vector(streams())
    vector.begin()
    rows = [vector.advance(np.full((V, 1), 9, np.float32)) for _ in range(5)]
    assert rows[-1][0].shape == (V, 3)
    assert (rows[-1][1] < 0).all()


def test_an_id_that_it_does_not_have():
    rl_trace.register()
    with pytest.raises(ConfigError, match="EnvPool has no toys/Trace"):
        Factory("toys/Trace-v0", {}, "envpool")
