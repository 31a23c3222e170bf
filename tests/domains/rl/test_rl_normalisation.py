"""Running statistics against sums over all rows, a hand loop, and Gymnasium's wrappers."""

import gymnasium
import numpy as np
import pytest
import torch

from playground.domains.rl.normalisation import EPSILON, PRIOR, Normaliser

M, E, D, T = 3, 4, 5, 60
GAMMA = 0.9


def rows(seed=0):
    """Observations far from 0, of very different scales; flags that leave some steps empty."""
    rng = np.random.default_rng(seed)
    scale = 10.0 ** np.arange(D)
    observation = (rng.normal(size=(T, M, E, D)) * scale + 100 * scale).astype(np.float32)
    valid = rng.random((T, M, E)) < 0.7
    valid[::5, 1] = False
    return observation, valid


def moments(values):
    """Mean and variance of all rows [n, D] and the prior, from plain sums."""
    count = PRIOR + len(values)
    mean = values.sum(axis=0) / count
    square = PRIOR * (1 + mean**2) + ((values - mean) ** 2).sum(axis=0)
    return mean, square / count


def normaliser(**kwargs):
    made = {"observations": True, "rewards": True, **kwargs}
    return Normaliser(M, E, D, GAMMA, **made)


def test_observations_have_the_moments_of_all_valid_rows():
    own = normaliser()
    observation, valid = rows()
    for t in range(T):
        seen = own.observe(observation[t], valid[t])
        for m in range(M):
            chosen = observation[: t + 1, m][valid[: t + 1, m]].astype(np.float64)
            mean, variance = moments(chosen)
            expected = np.clip((observation[t, m] - mean) / np.sqrt(variance + EPSILON), -10, 10)
            assert seen[m] == pytest.approx(expected, rel=1e-5, abs=1e-5)
            assert own.seen.mean[m] == pytest.approx(mean, rel=1e-10)
            assert own.seen.squares[m] / own.seen.count[m] == pytest.approx(variance, rel=1e-8)
    assert seen.dtype == np.float32
    assert own.seen.count == pytest.approx(valid.sum(axis=(0, 2)) + PRIOR)
    numpy_mean = observation[:, 0][valid[:, 0]].astype(np.float64)  # the prior does not matter
    assert own.seen.mean[0] == pytest.approx(numpy_mean.mean(axis=0), rel=1e-5)


def test_clipping_and_frozen_statistics():
    own = normaliser(clip_observations=2.0)
    observation, valid = rows()
    for t in range(T):
        own.observe(observation[t], valid[t])
    before = own.state()
    far = np.broadcast_to(observation[0] * 1e6, (7, M, E, D)).swapaxes(0, 1)
    result = own.apply(far)
    assert result.shape == (M, 7, E, D)
    assert np.abs(result).max() == 2
    single = own.apply(observation[0])
    assert np.array_equal(own.apply(observation[0][:, :1])[:, 0], single[:, 0])
    assert own.state() == before


def test_rewards_are_scaled_by_the_deviation_of_the_discounted_return():
    """A loop over members, environments and steps that keeps every return."""
    own, rng = normaliser(), np.random.default_rng(1)
    reward = (rng.normal(3, 20, size=(T, M, E))).astype(np.float32)
    done, ended = rng.random((T, M, E)) < 0.2, np.zeros((M, E), bool)
    returns, kept = np.zeros((M, E)), [[] for _ in range(M)]
    for t in range(T):
        valid = ~ended
        reward[t, ended] = 0
        done[t, ended] = False
        scaled = own.scale(reward[t], done[t], valid)
        for m in range(M):
            for e in valid[m].nonzero()[0]:
                returns[m, e] = GAMMA * returns[m, e] + reward[t, m, e]
                kept[m].append(returns[m, e])
                if done[t, m, e]:
                    returns[m, e] = 0
            _, variance = moments(np.array(kept[m])[:, None])
            expected = np.clip(reward[t, m] / np.sqrt(variance + EPSILON), -10, 10)
            assert scaled[m] == pytest.approx(expected, rel=1e-5)
        assert not scaled[ended].any()
        ended = done[t].copy()
    assert (scaled * np.sign(reward[-1]) >= 0).all()  # no mean is subtracted


class Random(gymnasium.Env):
    """Random observations and rewards; episodes end by termination."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (D,), np.float64)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self):
        self.rng = np.random.default_rng(3)

    def reset(self, *, seed=None, options=None):
        return self.rng.normal(2, 3, D), {}

    def step(self, action):
        over = bool(self.rng.random() < 0.1)
        return self.rng.normal(2, 3, D), self.rng.normal(1, 4), over, False, {}


def test_gymnasiums_wrappers_agree_within_an_episode():
    """Not at its end: theirs takes in the last observation, and its last reward without G."""
    wrapped = gymnasium.wrappers.NormalizeObservation(
        gymnasium.wrappers.NormalizeReward(Random(), gamma=GAMMA)
    )
    plain = Random()
    own = Normaliser(1, 1, D, GAMMA, observations=True, rewards=True)
    yes, no = np.ones((1, 1), bool), np.zeros((1, 1), bool)
    theirs, raw = wrapped.reset()[0], plain.reset()[0]
    assert own.observe(raw[None, None], yes)[0, 0] == pytest.approx(theirs)
    steps = 0
    while True:
        theirs, scaled, over, _, _ = wrapped.step(0)
        raw, reward, _, _, _ = plain.step(0)
        ours = own.scale(np.array([[reward]]), np.array([[over]]), yes)
        if over:
            break
        assert ours[0, 0] == pytest.approx(np.clip(scaled, -10, 10))
        assert own.observe(raw[None, None], yes)[0, 0] == pytest.approx(theirs)
        steps += 1
    assert steps > 2
    before = own.state()
    assert own.scale(np.zeros((1, 1)), no, no) == [[0]]  # the reset row
    assert own.state() == before


def test_members_are_those_of_their_single_runs():
    together = normaliser()
    single = Normaliser(1, E, D, GAMMA, observations=True, rewards=True)
    observation, valid = rows()
    reward, done = observation[..., 0] - 100, np.zeros((M, E), bool)
    for t in range(T):
        several = together.observe(observation[t], valid[t])
        assert np.array_equal(several[1:2], single.observe(observation[t, 1:2], valid[t, 1:2]))
        several = together.scale(reward[t], done, valid[t])
        one = single.scale(reward[t, 1:2], done[1:2], valid[t, 1:2])
        assert np.array_equal(several[1:2], one)


def test_state_is_exact(tmp_path):
    own, other = normaliser(), normaliser()
    observation, valid = rows()
    done = ~valid
    for t in range(30):
        own.observe(observation[t], valid[t])
        own.scale(observation[t, ..., 1], done[t], valid[t])
    torch.save(own.state(), tmp_path / "state.pt")
    other.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert np.array_equal(own.apply(observation[0]), other.apply(observation[0]))
    for t in range(30, T):
        pair = [n.observe(observation[t], valid[t]) for n in (own, other)]
        assert np.array_equal(*pair)
        pair = [n.scale(observation[t, ..., 1], done[t], valid[t]) for n in (own, other)]
        assert np.array_equal(*pair)
    assert own.state() == other.state()


def test_what_is_off_changes_nothing():
    own = normaliser(observations=False, rewards=False)
    observation, valid = rows()
    seen, reward = observation[0], observation[0, ..., 0]
    assert own.observe(seen, valid[0]) is seen
    assert own.apply(seen) is seen
    assert own.scale(reward, valid[0], valid[0]) is reward
    assert own.state() == normaliser().state()
