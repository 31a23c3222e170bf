"""Finite MDPs: published values, and arrays that are refused."""

import numpy as np
import pytest
import torch

from playground.domains.rl.environments.mdp import bandit, chain, from_file, garnet, gridworld, mdp
from playground.domains.rl.exact.values import Exact

P = np.full((3, 2, 3), 1 / 3)
R = np.zeros((3, 2))


def test_the_random_policy_in_the_gridworld_has_the_published_values():
    """Sutton & Barto 2018, figure 4.1, undiscounted."""
    value = Exact(gridworld(), gamma=1.0).value(torch.full((16, 4), 0.25, dtype=torch.float64))
    expected = [[0, -14, -20, -22], [-14, -18, -20, -20], [-20, -20, -18, -14], [-22, -20, -14, 0]]
    assert value.view(4, 4).numpy() == pytest.approx(np.array(expected, float), abs=1e-10)


def test_the_best_policy_of_the_chain_earns_the_published_return():
    """Strens 2000, table 1: 3677 in 1000 steps, once the start is forgotten."""
    always_on = torch.tensor([[1.0, 0.0]] * 5, dtype=torch.float64)
    late, later = (Exact(chain(), 1.0, H).objective(always_on) for H in (1000, 2000))
    assert round((later - late).item()) == 3677


def test_the_bandit_is_one_bernoulli_decision():
    model = bandit([0.25, 0.75])
    policy = torch.tensor([[0.2, 0.8]] * 3, dtype=torch.float64)
    assert Exact(model, 0.9).objective(policy).item() == pytest.approx(0.2 * 0.25 + 0.8 * 0.75)
    assert model.terminal.tolist() == [False, True, True]


def test_walls_goals_and_slips():
    model = gridworld(rows=2, columns=3, goals=[2], walls=[1], slip=0.4)
    right = 1
    assert model.transition[0, right].tolist() == pytest.approx([0.9, 0, 0, 0.1, 0, 0])
    assert model.start.tolist() == pytest.approx([0.25, 0, 0, 0.25, 0.25, 0.25])
    assert model.terminal.nonzero()[0].tolist() == [2]


def test_a_garnet_has_its_branching_and_its_seed():
    model = garnet(states=12, actions=2, branching=4, seed=3, features=5)
    assert ((model.transition > 0).sum(-1) == 4).all()
    assert model.features.shape == (12, 5)
    assert np.array_equal(model.transition, garnet(12, 2, 4, 3, 5).transition)
    assert not np.array_equal(model.transition, garnet(12, 2, 4, 4, 5).transition)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"transition": P[0]}, r"transition: must be \[S, A, S\], not \[2, 3\]"),
        ({"transition": 0.9 * P}, r"transition\[0, 0\]: .* sum to 1, not to 0.9"),
        ({"transition": P * [1, -1, 3]}, r"transition\[0, 0\]"),
        ({"transition": P * np.nan}, r"transition\[0, 0\]"),
        ({"reward": R[:2]}, r"reward: must be \[3, 2\] or \[3, 2, 3\], not \[2, 2\]"),
        ({"reward": R + np.inf}, "reward: must be finite"),
        ({"start": [1, 0]}, r"start: must be \[3\]"),
        ({"start": [1, 1, 0]}, "start: .* not to 2"),
        ({"start": [1, 0, 0], "terminal": [True, False, False]}, "start: a terminal state"),
        ({"terminal": [True] * 3}, "terminal: .* not all true"),
        ({"features": np.eye(2)}, r"features: must be \[3, D\]"),
    ],
)
def test_arrays_that_are_no_mdp(arrays, words):
    with pytest.raises(ValueError, match=words):
        mdp(**{"transition": P, "reward": R, **arrays})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: bandit([0.5, 1.5]), "means"),
        (lambda: chain(states=1), "states=1"),
        (lambda: chain(slip=2), "slip=2"),
        (lambda: gridworld(goals=[99]), "goals: cells are 0 to 15"),
        (lambda: gridworld(rows=1, columns=2), "no cell is left"),
        (lambda: garnet(states=2), "branching=3: must be at most states=2"),
    ],
)
def test_sizes_that_do_not_fit(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_file_is_read_as_its_arrays(tmp_path):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(3, 2))
    np.savez(tmp_path / "a.npz", transition=P, reward=R, features=features)
    read = from_file(tmp_path / "a.npz")
    assert np.array_equal(read.features, features)
    assert np.array_equal(read.transition, P)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"transition": P}, "array reward is missing"),
        ({"transition": P, "reward": R, "color": R}, "array color is none of transition, reward"),
        ({"transition": P, "reward": R[0]}, "reward: must be"),
        ({"transition": np.array([{}]), "reward": R}, "allow_pickle"),
    ],
)
def test_files_that_are_refused(arrays, words, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=words):
        from_file(tmp_path / "a.npz")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"file=.*gone.npz: .*No such file"):
        from_file(tmp_path / "gone.npz")
