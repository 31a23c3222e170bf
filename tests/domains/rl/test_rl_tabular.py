"""Tabular environments: Gymnasium's rules, one path for single and many, the right frequencies."""

import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import playground
from playground.config import compose
from playground.domains.rl.environments.factory import Episodes, Factory
from playground.domains.rl.environments.mdp import garnet
from playground.domains.rl.environments.tabular import LIMITS, Tabulars, uniforms
from playground.domains.rl.exact.values import Exact
from playground.randomness import generators
from playground.schema import ConfigError

V = 7
IDS = [f"playground/{name}-v0" for name in LIMITS]
CASES = [*((env, {}) for env in IDS),
         ("playground/Gridworld-v0", {"slip": 0.3, "max_episode_steps": 9}),
         ("playground/RandomMDP-v0", {"features": 3, "max_episode_steps": 4})]  # fmt: skip


def vector(env, kwargs, *, native):
    assert Factory(env, kwargs).native
    made = Factory(env, kwargs, "native" if native else "sync")
    built = made.vector(generators(range(V), "environment"))
    assert isinstance(built, Tabulars if native else Episodes)
    return built, made.num_actions


@pytest.mark.parametrize("env", IDS)
def test_gymnasium_accepts_the_environment(env):
    Factory(env, {})  # registers
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*render.*")
        check_env(gymnasium.make(env).unwrapped, skip_render_check=True)


@pytest.mark.parametrize("quota", [None, np.array([1, 2, 3, 4, 5, 6, 99])])
@pytest.mark.parametrize(("env", "kwargs"), CASES)
def test_many_at_once_are_single_environments(env, kwargs, quota):
    """Against Gymnasium's own loop with its TimeLimit."""
    (fast, actions), (slow, _) = (vector(env, kwargs, native=n) for n in (True, False))
    assert np.array_equal(fast.begin(quota), slow.begin(quota))
    for row in np.random.default_rng(1).integers(actions, size=(130, V)):
        for one, other in zip(fast.advance(row), slow.advance(row), strict=True):
            assert one.dtype == other.dtype
            assert np.array_equal(one, other)


@pytest.mark.parametrize(("env", "kwargs"), CASES)
def test_state_is_exact_in_the_middle_of_episodes(env, kwargs, tmp_path):
    made, actions = vector(env, kwargs, native=True)
    made.begin(np.full(V, 40))
    rows = np.random.default_rng(2).integers(actions, size=(60, V))
    for row in rows[:25]:
        seen = made.advance(row)[0]
    torch.save(made.capture(), tmp_path / "state.pt")
    other, _ = vector(env, kwargs, native=True)
    other.begin()
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert np.array_equal(other.restore(state), seen)
    for row in rows[25:]:
        for one, two in zip(made.advance(row), other.advance(row), strict=True):
            assert np.array_equal(one, two)


def test_frequencies_are_the_models():
    """Chi-squared of every pair's successors over 200,000 steps, and of the first states."""
    count, limit = 4000, 50
    factory = Factory("playground/RandomMDP-v0", {"states": 5, "actions": 2, "seed": 4})
    model = garnet(states=5, actions=2, seed=4)
    made = factory.vector(generators(range(count), "environment"))
    state = made.begin().argmax(-1)
    first, counts = np.bincount(state, minlength=5), np.zeros((5, 2, 5))
    rng = np.random.default_rng(0)
    for _ in range(limit):
        action = rng.integers(2, size=count)
        seen, reward, _, _ = made.advance(action)
        assert np.array_equal(reward, model.reward[state, action, seen.argmax(-1)])
        np.add.at(counts, (state, action, seen.argmax(-1)), 1)
        state = seen.argmax(-1)
    assert not counts[model.transition == 0].any()
    expected = counts.sum(-1, keepdims=True) * model.transition
    some = expected > 0
    chi = ((counts - expected)[some] ** 2 / expected[some]).sum()
    degrees = some.sum() - 10
    assert abs(chi - degrees) < 4.5 * np.sqrt(2 * degrees)
    chi = ((first - count / 5) ** 2 / (count / 5)).sum()
    assert chi < 4 + 4.5 * np.sqrt(8)


def test_uniforms_are_uniform_and_unrelated():
    """Moments and lag correlations over seeds and over time of 4 million numbers."""
    seeds, t = np.meshgrid(np.arange(20_000), np.arange(200), indexing="ij")
    u = uniforms(seeds.ravel(), t.ravel()).reshape(seeds.shape)
    assert 0 <= u.min() <= u.max() < 1
    n = u.size
    for power in (1, 2, 3):
        spread = np.sqrt(1 / (2 * power + 1) - 1 / (power + 1) ** 2)
        assert abs((u**power).mean() - 1 / (power + 1)) < 4.5 * spread / np.sqrt(n)
    c = u - 0.5
    for pair in ((c[:, 1:], c[:, :-1]), (c[1:], c[:-1]), (c[1:, 1:], c[:-1, :-1])):
        assert abs((pair[0] * pair[1]).mean() * 12) < 4.5 / np.sqrt(pair[0].size)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"file": "gone.npz"}, "file=gone.npz"),
        ({"transition": np.eye(2), "reward": np.eye(2)}, r"transition: must be \[S, A, S\]"),
        ({"colour": [1]}, "colour"),
    ],
)
def test_one_line_says_what_is_wrong(kwargs, words):
    with pytest.raises(ConfigError, match=words) as caught:
        Factory("playground/FiniteMDP-v0", kwargs)
    assert str(caught.value).startswith("problem.env=playground/FiniteMDP-v0: ")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bandit", "chain", "gridworld", "random_mdp"])
def test_shipped_defaults_learn(name, tmp_path, without_figures):
    """The sampling policy closes nine tenths of the exact gap from uniform to optimal."""
    overrides = [f"problem=rl/{name}", "members=3", "probes=none", "evaluate.every=100",
                 f"run_dir={tmp_path / 'run'}"]  # fmt: skip
    run = playground.run(overrides, quiet=True)
    env = gymnasium.make(run.config["problem"]["env"])
    exact = Exact(env.unwrapped.mdp, 1.0, env.spec.max_episode_steps)
    S, A = env.unwrapped.mdp.shape
    uniform = exact.objective(torch.full((S, A), 1 / A, dtype=torch.float64)).item()
    value = torch.zeros(S, dtype=torch.float64)
    for _ in range(exact.horizon):  # Bellman's backward induction
        value = (exact.reward + exact.transition @ value).amax(-1)
    best = (exact.start @ value).item()
    reached = run.metric("return/stochastic")[1][-1].mean()
    assert reached > uniform + 0.9 * (best - uniform)


def test_keyword_arguments_reach_the_model_from_the_command_line():
    config = compose(["problem=rl/gridworld", "problem.env_kwargs={rows:3,columns:5}"])
    assert config.problem.build(config).factory.observation_size == 15
