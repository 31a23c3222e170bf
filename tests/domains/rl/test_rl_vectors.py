"""All kinds of vector and of autoreset give the transitions of a hand-written loop."""

import gymnasium
import numpy as np
import pytest
import rl_trace
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from playground.domains.rl.environments.factory import Factory, next_seed, observation_space
from playground.domains.rl.environments.native import Native
from playground.domains.rl.environments.spaces import action_space
from playground.domains.rl.environments.vectors import Adapted
from playground.randomness import generators
from playground.schema import ConfigError

V, STEPS = 5, 200


def streams():
    return generators(range(V), "environment")


def by_hand():
    """Transitions of single environments, as many rows as a vector has steps."""
    result = []
    for stream in streams():
        single = gymnasium.make("toys/Trace-v0")
        seen, _ = single.reset(seed=next_seed(stream))
        done = False
        for _ in range(STEPS):
            if done:
                seen, _ = single.reset(seed=next_seed(stream))
                done = False
                continue
            action = int(rl_trace.act(seen))
            then, reward, terminated, truncated, _ = single.step(action)
            result.append((*seen, action, reward, *then, terminated, truncated))
            seen, done = then, terminated or truncated
    return sorted(tuple(map(float, row)) for row in result)


def transitions(vector):
    """Those of a vector's valid rows."""
    result = []
    seen, ended = vector.begin().copy(), np.zeros(V, bool)
    for _ in range(STEPS):
        action = rl_trace.act(seen)
        then, reward, terminated, truncated = vector.advance(action)
        for i in (~ended).nonzero()[0]:
            row = (*seen[i], action[i], reward[i], *then[i], terminated[i], truncated[i])
            result.append(tuple(map(float, row)))
        for column in (reward, terminated, truncated):
            assert not column[ended].any()
        assert (then[ended, 1] == 0).all()  # a reset row shows a first observation
        seen, ended = then.copy(), terminated | truncated
    return sorted(result)


class Traces(Native):
    """Traces as a native vector: episode, time, length."""

    variables, size = 3, 2

    def draw(self, episode):
        number, length = rl_trace.draw(episode)
        return number, 0, length

    def physics(self, actions):
        reward = self.state[0] * 16 + self.state[1]
        self.state[1] += 1
        return reward, self.state[1] >= self.state[2]

    def observe(self, state):
        return state[:2].T


class Seeded(gymnasium.Wrapper):
    """Every episode from the next seed of a stream."""

    def __init__(self, env, stream):
        super().__init__(env)
        self.stream = stream

    def reset(self, *, seed=None, options=None):
        return self.env.reset(seed=next_seed(self.stream))


def adapted(mode, name="Lenient", own=None):
    """Gymnasium's vector, with our seeds, or with seeds of its own."""

    def make(i):
        made = gymnasium.make(f"toys/{name}-v0")
        return made if own is None else Seeded(made, own[i])

    vector = SyncVectorEnv([lambda i=i: make(i) for i in range(V)], autoreset_mode=mode)
    single = gymnasium.make("toys/Trace-v0")
    return Adapted(vector, streams(), action_space(single.action_space, ""),
                   observation_space(single.observation_space, ""), seeded=own is None)  # fmt: skip


KINDS = {
    "sync": lambda: Factory("toys/Trace-v0", {}, "sync").vector(streams()),
    "async": lambda: Factory("toys/Trace-v0", {}, "async").vector(streams()),
    "native": lambda: Traces(streams(), rl_trace.LIMIT),
    "next step": lambda: adapted(AutoresetMode.NEXT_STEP),
    "same step": lambda: adapted(AutoresetMode.SAME_STEP),
    "disabled": lambda: adapted(AutoresetMode.DISABLED),
    "next step, own seeds": lambda: adapted(AutoresetMode.NEXT_STEP, "Trace", streams()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_transitions_are_those_of_a_hand_written_loop(kind):
    rl_trace.register()
    expected = by_hand()
    found = transitions(KINDS[kind]())
    assert found == expected
    terminated, truncated = np.array(found)[:, -2:].astype(bool).T
    assert (terminated & truncated).any()
    assert (terminated & ~truncated).any()
    assert (truncated & ~terminated).any()
    assert len({row[3] for row in found}) == len(found)  # every transition is another one


@pytest.mark.parametrize("kind", [k for k in KINDS if "own" not in k])
def test_environments_rest_after_their_episodes(kind):
    rl_trace.register()
    vector, quota = KINDS[kind](), np.array([1, 2, 3, 4, 5])
    seen, ended, played = vector.begin(quota), np.zeros(V, bool), np.zeros(V, int)
    for _ in range(80):
        resting = (played == quota) & (ended | ~seen.any(axis=1))
        seen, reward, terminated, truncated = vector.advance(rl_trace.act(seen))
        for column in (seen, reward, terminated, truncated):
            assert not column[resting].any()
        ended = terminated | truncated
        played += ended
    assert np.array_equal(played, quota)
    for stream, fresh, count in zip(vector.streams, streams(), quota, strict=True):
        for _ in range(count):
            next_seed(fresh)
        assert next_seed(stream) == next_seed(fresh)  # no seed was drawn while resting


def test_what_cannot_be_adapted():
    rl_trace.register()
    with pytest.raises(ConfigError, match="must be NEXT_STEP"):
        adapted(AutoresetMode.DISABLED, own=streams())
    silent = adapted(AutoresetMode.DISABLED).vector
    del silent.metadata["autoreset_mode"]
    with pytest.raises(ConfigError, match="autoreset_mode"):
        Adapted(silent, streams(), None, None)
    counted = adapted(AutoresetMode.NEXT_STEP, "Trace", streams())
    with pytest.raises(ValueError, match="cannot count"):
        counted.begin(np.ones(V, int))


def test_an_adapted_vector_goes_on_with_new_episodes():
    rl_trace.register()
    vector, other = adapted(AutoresetMode.DISABLED), adapted(AutoresetMode.DISABLED)
    seen = vector.begin()
    for _ in range(20):
        seen = vector.advance(rl_trace.act(seen))[0]
    other.begin()
    first = other.restore(vector.capture())
    expected = [rl_trace.draw(np.random.default_rng(next_seed(s)))[0] for s in vector.streams]
    assert first[:, 0].tolist() == expected
    assert not first[:, 1].any()
