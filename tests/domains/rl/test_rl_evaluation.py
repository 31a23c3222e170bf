import gymnasium
import numpy as np
import pytest
import torch

from playground.domains.rl.environments.factory import next_seed
from playground.domains.rl.evaluation import LANES
from playground.randomness import generators

SHORT = "+problem.env_kwargs.max_episode_steps=40"


def opinionated(made, scale=1.0):
    """Heads that are not near 0, so that episodes differ."""
    own = torch.Generator().manual_seed(1)
    for player in made.players.values():
        values = player.parameters.values
        values.copy_(scale * torch.randn(values.shape[1], generator=own))
    return made


def by_hand(made, episodes, member=0, env="CartPole-v1", **kwargs):
    """Greedy returns and lengths of single environments, one after the other, in any order."""
    (stream,) = generators([made.problem.context.seeds[member]], "evaluation")
    tensors = made.players["agent"].parameters.member(member)
    result = []
    for _ in range(episodes):
        single = gymnasium.make(env, **kwargs)
        seen, _ = single.reset(seed=next_seed(stream))
        total, length, done = 0.0, 0, False
        while not done:
            logits = made.problem.policy.network(tensors, torch.tensor(seen))
            seen, reward, terminated, truncated, _ = single.step(int(logits.argmax()))
            total, length, done = total + reward, length + 1, terminated or truncated
        result.append((total, length))
    return sorted(result)


@pytest.mark.parametrize(
    ("env", "limit", "episodes"),
    [("CartPole-v1", 500, 30), ("CartPole-v1", 12, 7), ("Acrobot-v1", 100, 2 * LANES + 5)],
)
def test_returns_are_those_of_single_environments(game, env, limit, episodes):
    keys = [f"problem.env={env}", f"+problem.env_kwargs.max_episode_steps={limit}"]
    made = opinionated(game(*keys, f"problem.evaluation_episodes={episodes}", "members=2"))
    result = made.problem.evaluate()
    returns = result.arrays["returns"]
    assert returns.shape == (2, episodes)
    for member in range(2):
        expected = by_hand(made, episodes, member, env, max_episode_steps=limit)
        assert np.sort(returns[member]).tolist() == [total for total, _ in expected]
        mean = np.mean([length for _, length in expected])
        assert result.metrics["episode_length"][member] == pytest.approx(mean)
        assert result.metrics["return"][member] == pytest.approx(returns[member].mean())
        error = returns[member].std(ddof=1) / np.sqrt(episodes)
        assert result.stderr["return"][member] == pytest.approx(error)
    assert result.arrays["threshold"] == [gymnasium.spec(env).reward_threshold]


@pytest.mark.parametrize("env", ["CartPole-v1", "Acrobot-v1"])
def test_a_policy_without_doubt_samples_what_is_best(game, env):
    made = opinionated(game(f"problem.env={env}", SHORT, "problem.evaluation_episodes=25"), 1e3)
    metrics = made.problem.evaluate().metrics
    assert metrics["return"] == metrics["return/stochastic"]


def test_a_policy_in_doubt_samples(game):
    """Uniform actions last 22.17 +- 0.15 steps (6,000 episodes of single environments)."""
    made = game("problem.evaluation_episodes=1000")
    made.values().zero_()
    result = made.problem.evaluate()
    mean, error = result.metrics["return/stochastic"], result.stderr["return/stochastic"]
    assert abs(mean[0] - 22.17) < 4.5 * np.hypot(error[0], 0.15)
    assert result.metrics["return"][0] < 11  # always the same side


@pytest.mark.parametrize("algorithm", ["ppo", "reinforce"])
@pytest.mark.parametrize("env", ["CartPole-v1", "MountainCar-v0"])
def test_evaluation_changes_nothing(game, env, algorithm):
    keys = [f"problem.env={env}", f"algorithm={algorithm}", SHORT, "members=2",
            "problem.evaluation_episodes=23"]  # fmt: skip
    often, never = game(*keys), game(*keys)
    for _ in range(3):
        results = [often.problem.evaluate() for _ in range(2)]
        for name, value in results[0].metrics.items():
            assert np.array_equal(value, results[1].metrics[name])
        assert np.array_equal(*(r.arrays["returns"] for r in results))
        often.iterate()
    never.iterate(3)
    for name in often.players:
        assert torch.equal(often.values(name), never.values(name))


@pytest.mark.parametrize("env", ["CartPole-v1", "MountainCar-v0"])
def test_a_member_is_evaluated_as_its_single_run(game, env):
    keys = [f"problem.env={env}", SHORT, "problem.evaluation_episodes=25"]
    together, alone = game(*keys, "seed=3", "members=3"), game(*keys, "seed=5")
    several, single = (opinionated(g).problem.evaluate() for g in (together, alone))
    for name, value in single.metrics.items():
        assert several.metrics[name][2] == pytest.approx(value[0])


def test_without_a_time_limit_evaluation_ends(game, monkeypatch):
    monkeypatch.setattr("playground.domains.rl.evaluation.LIMIT", 30)
    made = game("problem.env=toys/Endless-v0", "+problem.env_kwargs.max_episode_steps=-1")
    assert made.problem.evaluate().metrics["return"] == [30.0]
