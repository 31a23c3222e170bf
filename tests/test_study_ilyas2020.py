"""The study of Ilyas et al. 2020: its estimates, baselines and returns against other channels."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import playground
from playground import study
from playground.config import compose
from playground.domains.rl.environments.mdp import garnet
from playground.domains.rl.exact.values import Exact, softmax_policy
from playground.temporary import Temporary, find_point

ROOT = Path(playground.__file__).resolve().parent.parent
TRPO = ["problem.widths=[8]", "problem.num_envs=1", "problem.evaluation_episodes=2",
        "algorithm=trpo", "algorithm.gamma=0.99", "algorithm.gae_lambda=0.95", "members=2",
        "dtype=float64", "probes=none"]  # fmt: skip
PENDULUM = ["problem=rl/pendulum", "problem.gsde=false", "problem.gsde_steps=null",
            "algorithm.num_steps=300", "algorithm.batch_size=100", *TRPO]  # fmt: skip


@pytest.fixture(scope="module")
def analysis():
    return study.load_analysis(study.find("ilyas2020"))


@pytest.fixture
def found(analysis):
    return analysis.Drawn(PENDULUM, "final", 1, 4)


def test_learned_values_give_the_estimates_that_training_would_see(found):
    expected = playground.gradient_estimates(PENDULUM, member=1, seed=1, estimates=4)
    torch.testing.assert_close(found.gradients("learned"), expected.values["policy"])


def test_without_values_the_advantage_is_the_discounted_return(found):
    rollout = found.rollout
    for name in ("returns", "none"):
        advantage = found.advantage(name)
        for k in range(4):
            total = 0.0
            for t in reversed(range(300)):  # Pendulum ends at 200, where row 200 resets
                total = rollout.reward[t, k, 0] + (0 if rollout.done[t, k, 0] else 0.99 * total)
                assert advantage[t, k, 0] == pytest.approx(total, rel=1e-4)
    centred, plain = found.gradients("returns"), found.gradients("none")
    assert torch.isfinite(centred).all()
    assert not torch.allclose(plain / plain.norm(), centred / centred.norm(), atol=1e-2)


def test_better_values_are_judged_on_rollouts_that_they_have_not_seen(found):
    found.fit(40)
    before = found.values["true"].copy()
    found.rollout.reward[:, 2:] += 1.0
    found.fit(40)
    assert np.array_equal(found.values["true"][:, 2:], before[:, 2:])
    assert not np.allclose(found.values["true"][:, :2], before[:, :2], rtol=1e-3)


def test_regression_finds_a_line(analysis):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4096, 1, generator=generator, dtype=torch.float64)
    slope, offset = (torch.zeros(1, dtype=torch.float64, requires_grad=True) for _ in range(2))
    analysis.regress(lambda z: z * slope + offset, [slope, offset], x, 0.3 * x[:, 0] - 0.2, 400)
    assert slope.item() == pytest.approx(0.3, abs=1e-3)
    assert offset.item() == pytest.approx(-0.2, abs=1e-3)


def test_returns_are_the_exact_ones(analysis):
    """The sampling policy's, on a random MDP, at two points."""
    keys = ["problem=rl/random_mdp", "problem.env_kwargs={states:4,actions:2,max_episode_steps:6}",
            "algorithm.num_steps=60", "algorithm.batch_size=60", *TRPO]  # fmt: skip
    theta = find_point(keys, member=1).parameters["policy"]
    where = torch.stack([theta, theta + 0.5])  # which prefers some actions
    drawn, lengths = analysis.returns(keys, "final", 1, where, 2000)
    assert (lengths == 6).all()
    config, model = compose(keys), garnet(states=4, actions=2)
    layout = Temporary(find_point(keys), [0]).players["policy"].parameters.layout
    network = config.problem.build(config).policy.network
    policy, exact = softmax_policy(network, layout, model.features), Exact(model, 1.0, 6)
    for own, point in zip(drawn, where, strict=True):
        truth = exact.objective(policy(point).exp()).item()
        assert abs(own.mean() - truth) < 4.5 * own.std(ddof=1) / np.sqrt(len(own))


def test_references_and_cosines_of_signal_in_noise(analysis):
    """g = t + n has E cos(g_i, g_j) -> s / (s + 1), s = size |t|^2 / E|n|^2, in high dimension."""
    dimension, signal = 40_000, 0.25
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(40, dimension, generator=generator, dtype=torch.float64)
    drawn = drawn / dimension**0.5
    drawn[:, 0] += signal**0.5
    layout = type("Layout", (), {"slices": {"all": slice(None)}})()
    for pairs, value in analysis.cosines(drawn, layout).items():
        s = signal * pairs / 2048
        assert value == pytest.approx(s / (1 + s), abs=0.02)
    reference = analysis.references(drawn, layout)
    assert reference[2048] == pytest.approx((0.2 * 5 / 6) ** 0.5, abs=0.02)
    assert reference[20 * 2048] == pytest.approx(5 / 6, abs=0.02)


@pytest.mark.slow
def test_the_quick_study_judges_every_claim(here):
    """A minute on an idle core. Its claims need late training, so a quick run may fail some."""
    pytest.importorskip("mujoco")
    result = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "scripts" / "reproduce.py"), "ilyas2020",
         "--quick", "--out", "out"],
        cwd=here, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert result.returncode in (0, 1), result.stderr
    claims = json.loads((here / "out" / "claims.json").read_text())["claims"]
    assert len(claims) == 18
    measured = {claim["claim"]: claim for claim in claims}
    for name in ("surrogate's gain", "return's relative gain"):  # at the start nothing is subtle
        assert measured[f"iteration 0: {name} of one update"]["low"] > 0
    assert (here / "out" / "ilyas2020.png").stat().st_size > 20_000
