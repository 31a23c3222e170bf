import numpy as np
import pytest
import torch
from rl_toys import random_rollout
from scipy import stats

from playground.domains.rl.collector import Collector, advantages, returns_to_go, segments
from playground.domains.rl.environments.factory import Factory
from playground.domains.rl.policies.categorical import Categorical, host_forward
from playground.nets import MLP
from playground.randomness import generators

CASES = [(gamma, lam) for gamma in (0.0, 0.9, 1.0) for lam in (0.0, 0.7, 1.0)]


def episode_ends(rollout, t, m, e):
    """Index of the last step of the episode (or of the rollout) that row t belongs to."""
    done = rollout.done[t:, m, e].nonzero()[0]
    return t + int(done[0]) if len(done) else len(rollout.reward) - 1


def bootstrap(rollout, values, t, m, e):
    """Value of the observation after step t; none after a termination, truncated or not."""
    return 0.0 if rollout.terminated[t, m, e] else float(values[t + 1, m, e])


def double_sum(rollout, values, gamma, lam, t, m, e):
    total = 0.0
    for k in range(t, episode_ends(rollout, t, m, e) + 1):
        delta = float(rollout.reward[k, m, e]) - float(values[k, m, e])
        delta += gamma * bootstrap(rollout, values, k, m, e)
        total += (gamma * lam) ** (k - t) * delta
    return total


def mixture(rollout, values, gamma, lam, t, m, e):
    """(1 - lambda) sum_n lambda^(n-1) A^(n), the rest of the weight on the longest."""
    last = episode_ends(rollout, t, m, e)
    total, collected = 0.0, 0.0
    for n in range(1, last - t + 2):
        collected += gamma ** (n - 1) * float(rollout.reward[t + n - 1, m, e])
        ahead = gamma**n * bootstrap(rollout, values, t + n - 1, m, e)
        weight = lam ** (n - 1) * (1 if t + n - 1 == last else 1 - lam)
        total += weight * (collected + ahead - float(values[t, m, e]))
    return total


def test_segments_are_an_environment_s_steps_to_the_same_end():
    rollout, _ = random_rollout(seed=1, dtype=np.float64)
    cluster = segments(rollout)
    steps, members, num_envs = cluster.shape
    for m in range(members):
        ends = {(t, e): (e, episode_ends(rollout, t, m, e)) for t in range(steps)
                for e in range(num_envs)}  # fmt: skip
        pairs = {(ends[t, e], int(cluster[t, m, e])) for t, e in ends}
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) > num_envs


@pytest.mark.parametrize(("gamma", "lam"), CASES)
@pytest.mark.parametrize("oracle", [double_sum, mixture])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 1e-5)])
def test_advantages_are_the_sums_of_the_paper(gamma, lam, oracle, dtype, tolerance):
    rollout, values = random_rollout(seed=1, dtype=dtype)
    assert (rollout.terminated & rollout.truncated).any()
    assert not rollout.valid[0].all()
    result = advantages(rollout, values, gamma, lam)
    assert result.dtype == dtype
    for t, m, e in np.argwhere(rollout.valid):
        expected = oracle(rollout, values, gamma, lam, t, m, e)
        assert result[t, m, e] == pytest.approx(expected, rel=tolerance, abs=tolerance)


def test_rows_of_a_reset_change_no_other_advantage():
    rollout, values = random_rollout(seed=2)
    first = advantages(rollout, values, 0.97, 0.9)
    values[:-1][~rollout.valid] += 1e3
    # the value of the observation at an end is the bootstrap of a truncation and nothing else
    cut = rollout.truncated & ~rollout.terminated
    changed = np.abs(advantages(rollout, values, 0.97, 0.9) - first) > 1e-9
    reach = np.zeros_like(cut[0])
    for t in range(len(cut) - 1, -1, -1):
        # the last truncation of the rollout bootstraps from row T, which was not changed
        reach = np.where(rollout.done[t], cut[t] & (t < len(cut) - 1), reach)
        assert np.array_equal(changed[t][rollout.valid[t]], reach[rollout.valid[t]])


@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_returns_to_go_are_direct_sums(gamma):
    rollout, _ = random_rollout(seed=3)
    result = returns_to_go(rollout, gamma)
    for t, m, e in np.argwhere(rollout.valid):
        rewards = rollout.reward[t : episode_ends(rollout, t, m, e) + 1, m, e]
        expected = sum(gamma**k * r for k, r in enumerate(rewards))
        assert result[t, m, e] == pytest.approx(expected, rel=1e-12, abs=1e-12)


def gumbel(streams, steps, num_envs, choices):
    return Categorical(MLP((1, choices)), [choices], single=True).noise(streams, steps, num_envs)


def test_gumbel_max_samples_the_softmax():
    logits = np.array([0.0, 1.0, -2.0, 0.5], np.float32)
    noise = gumbel(generators([0, 1], "action"), 500, 100, 4)
    chance = np.exp(logits) / np.exp(logits).sum()
    for member in range(2):
        counts = np.bincount((logits + noise[:, member]).argmax(-1).reshape(-1), minlength=4)
        assert stats.chisquare(counts, chance * counts.sum()).pvalue > 1e-3
    pairs = (logits + noise).argmax(-1).reshape(500, -1)
    table = np.histogram2d(pairs[:-1].reshape(-1), pairs[1:].reshape(-1), bins=4)[0]
    assert stats.chi2_contingency(table).pvalue > 1e-3  # steps are independent


def test_noise_belongs_to_the_member():
    together, alone = (gumbel(generators(s, "action"), 7, 3, 2) for s in ([4, 5], [5]))
    assert np.array_equal(together[:, 1], alone[:, 0])


def test_noise_is_finite_where_an_exponential_is_0():
    class Zeros:
        def standard_exponential(self, shape, dtype):
            return np.zeros(shape, dtype)

    assert np.isfinite(gumbel([Zeros()], 2, 3, 4)).all()


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("activation", ["tanh", "relu", "linear", "gelu"])
def test_actor_module_and_network_agree(members, activation):
    network = MLP((4, 16, 8, 3), activation, "torch", prefix="policy.")
    own = [network.init(k, "agent") for k in range(members)]
    tensors = {n: torch.stack([t[n] for t in own]).float() for n in own[0]}
    act = Categorical(network, [3], single=True).actor(tensors)
    forward = host_forward(network, tensors)
    observation = np.random.default_rng(0).normal(size=(members, 5, 4)).astype(np.float32)
    noise = np.random.default_rng(1).gumbel(size=(members, 5, 3)).astype(np.float32)
    for _ in range(2):
        features, logits = forward(observation, None)
        assert logits.shape == (members, 5, 3)
        assert np.array_equal(act(observation, None), logits.argmax(-1))
        assert np.array_equal(act(observation, noise), (logits + noise).argmax(-1))
        for k in range(members):
            module = network.module()
            module.load_state_dict({n[7:]: t[k] for n, t in tensors.items()})
            x = torch.tensor(observation[k])
            assert logits[k] == pytest.approx(module(x).detach().numpy(), abs=1e-5)
            assert features[k] == pytest.approx(module[:-1](x).detach().numpy(), abs=1e-5)
            mine = network({n: t[k] for n, t in tensors.items()}, x)
            assert torch.allclose(mine, module(x), atol=1e-6)
        for tensor in tensors.values():
            tensor.mul_(1.5)  # read anew at the next call


def collector(limit=12):
    streams = generators(range(6), "environment")
    factory = Factory("CartPole-v1", {"max_episode_steps": limit})
    return Collector(factory.vector(streams), 2, 3, factory.actions, lambda actions: actions)


def act(observation, noise):
    """What the largest noise says."""
    return noise.argmax(-1)


def test_two_rollouts_are_one_cut_in_two():
    noise = gumbel(generators([0, 1], "action"), 60, 3, 2)
    whole = collector()

    one = whole.collect(act, noise)
    for cut in range(1, 60):
        halves = collector()
        two = [halves.collect(act, noise[:cut]), halves.collect(act, noise[cut:])]
        for name in ("action", "reward", "terminated", "truncated", "valid"):
            joined = np.concatenate([getattr(part, name) for part in two])
            assert np.array_equal(joined, getattr(one, name))
        assert np.array_equal(two[0].observation[-1], two[1].observation[0])
        assert np.array_equal(two[1].observation, one.observation[cut:])
        assert halves.recent == whole.recent
    assert not one.valid.all()


def test_returns_of_training_episodes():
    noise = gumbel(generators([0, 1], "action"), 300, 3, 2)
    source = collector(limit=500)

    rollouts = [source.collect(act, noise[:130]), source.collect(act, noise[130:])]
    done = np.concatenate([r.done for r in rollouts])
    valid = np.concatenate([r.valid for r in rollouts])
    for member in range(2):
        expected = []
        for t, e in np.argwhere(done[:, member]):
            before = done[:t, member, e].nonzero()[0]
            start = before[-1] + 1 if len(before) else 0
            expected.append(float(valid[start : t + 1, member, e].sum()))  # a reward of 1 a step
        assert source.recent[member] == expected[-100:]
        assert source.train_return()[member] == pytest.approx(np.mean(expected[-100:]))
        assert source.latest[member] == expected[-1]
    source.collect(act, noise[:1])
    ended = source.ended.any(axis=1)
    assert not ended.all()
    assert np.isnan(source.latest[~ended]).all()
