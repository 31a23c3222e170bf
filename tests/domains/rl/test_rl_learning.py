"""What the shipped defaults reach; thresholds are the published ones."""

import numpy as np
import pytest

from playground import run


def final_returns(tmp_path, *overrides):
    result = run(["problem=rl/cartpole", "probes=none", f"run_dir={tmp_path / 'run'}", *overrides],
                 quiet=True)  # fmt: skip
    return result.metric("return")[1][-1]


def test_ppo_learns_in_a_tenth_of_its_budget(tmp_path):
    """A uniform policy reaches 22, one that leans to a side 9."""
    returns = final_returns(tmp_path, "members=2", "budget.env_steps=10000",
                            "problem.evaluation_episodes=20")  # fmt: skip
    assert returns.min() > 75


@pytest.mark.slow
def test_ppo_solves_cartpole(tmp_path):
    """rl-zoo's settings, 100k steps: 500 published (one run); the threshold is 475."""
    returns = final_returns(tmp_path, "members=10")
    assert np.sum(returns >= 475) >= 9


@pytest.mark.slow
def test_reinforce_solves_cartpole(tmp_path):
    """500k steps; SLM-Lab publishes 483 for REINFORCE."""
    returns = final_returns(tmp_path, "algorithm=reinforce", "members=10")
    assert np.sum(returns >= 475) >= 9
