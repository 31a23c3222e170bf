"""The critic's error on evaluation episodes, against closed forms and a hand-written loop."""

import numpy as np
import pytest

from playground.domains.rl.collector import Rollout
from playground.domains.rl.evaluation import Evaluator
from playground.domains.rl.held_out import HeldOut, value_error

GAMMA = 0.98


def zero_critic(made):
    tensors = made.problem.tensors(1)
    for name, tensor in tensors.items():
        if name.startswith("value."):
            tensor.zero_()
    return made


@pytest.mark.parametrize("vectorization", ["native", "sync"])
def test_a_critic_of_zero_errs_by_the_returns_themselves(game, vectorization):
    """CartPole pays 1 a step: G_t = (1 - gamma^(L - t)) / (1 - gamma)."""
    made = zero_critic(game("members=2", f"problem.vectorization={vectorization}",
                            "problem.evaluation_episodes=10"))  # fmt: skip
    measured = made.problem.evaluate().metrics
    evaluator = Evaluator(made.problem.factory, made.problem.context.seeds, 10)
    _, lengths = evaluator.play(made.problem.policy, made.problem.act)
    for member in range(2):
        returns = np.concatenate([
            (1 - GAMMA ** np.arange(length, 0, -1)) / (1 - GAMMA) for length in lengths[member, 1]
        ])  # fmt: skip
        assert measured["value_error"][member] == pytest.approx(
            np.sqrt(np.mean(returns**2)), rel=1e-5
        )
        assert measured["explained_variance/held_out"][member] == pytest.approx(0, abs=1e-5)


def test_against_a_loop_over_episodes_with_scaled_rewards_and_truncation(game):
    """Pendulum is always truncated: the critic's value of the last observation counts."""
    made = game("problem=rl/pendulum", "problem.normalize_rewards=true",
                "problem.normalize_observations=true", "problem.evaluation_episodes=2",
                "problem.env_kwargs={max_episode_steps: 30}").iterate()  # fmt: skip
    problem = made.problem
    held, normaliser = HeldOut(), problem.collector.normaliser
    evaluator = Evaluator(problem.factory, problem.context.seeds, 2)
    evaluator.play(problem.policy, problem.act, normaliser, None, held)
    rollout = held.rollout()
    gamma, errors, targets = problem.algorithm.gamma, [], []
    values = problem.values(rollout.observation)
    for lane in range(2):
        follow = float(values[30, 0, lane])
        for t in reversed(range(30)):
            follow = float(rollout.reward[t, 0, lane]) + gamma * follow
            targets.append(follow)
            errors.append(follow - float(values[t, 0, lane]))
    measured = value_error(rollout, values, gamma)
    assert measured["value_error"][0] == pytest.approx(
        np.sqrt(np.mean(np.square(errors))), rel=1e-4
    )
    expected = 1 - np.var(errors) / np.var(targets)
    assert measured["explained_variance/held_out"][0] == pytest.approx(expected, rel=1e-4)
    raw = -np.asarray(rollout.reward) * normaliser.gained.deviation()[0]
    assert (raw >= 0).all()  # Pendulum's cost, scaled back
    assert raw.max() <= 16.2736044


def test_steps_that_are_not_valid_do_not_count():
    shape = (3, 1, 1)
    reward = np.array([1.0, 2.0, 99.0], np.float32).reshape(shape)
    ends = np.array([False, True, False]).reshape(shape)
    valid = np.array([True, True, False]).reshape(shape)
    rollout = Rollout(np.zeros((4, 1, 1, 1)), reward, reward, ends, np.zeros_like(ends), valid)
    found = value_error(rollout, np.zeros((4, 1, 1), np.float32), 0.5)
    assert found["value_error"][0] == pytest.approx(2.0)  # both returns are 2
    assert found["explained_variance/held_out"][0] == 0


@pytest.mark.parametrize("overrides", [
    ("problem=rl/cartpole_no_velocity",),
    ("algorithm=reinforce", "algorithm.baseline=none"),
])  # fmt: skip
def test_without_a_plain_critic_nothing_is_measured(game, overrides):
    made = game(*overrides, "problem.evaluation_episodes=2")
    assert "value_error" not in made.problem.evaluate().metrics
