"""What the deep, convolutional and recurrent problems learn with their shipped settings."""

import math

import numpy as np
import pytest
from harness import quiet

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_figures")]

ONE = 1 / 12
"""Mean squared error of the best who remembers one of the two numbers: the other's variance."""

EXAMPLE = 0.97
"""Accuracy of scikit-learn's example *Recognizing hand-written digits* (SVC, half of the data)."""


def final(path, metric, *overrides):
    run = quiet([*overrides, "probes=none", "evaluate.every=100000"], path)
    return run.metric(metric)[1][-1]


def test_the_default_remembers_both_numbers(tmp_path):
    errors = final(tmp_path / "run", "mse", "problem=supervised/adding", "members=3")
    assert (errors < ONE).all()


def test_torch_s_own_start_fades_too_fast_to_begin(tmp_path):
    """Uniform weights on +-1/sqrt(H) have a spectral radius of 1/sqrt(3) (it learns later)."""
    errors = final(tmp_path / "run", "mse", "problem=supervised/adding", "members=3",
                   "problem.recurrent_initialisation=torch", "budget.samples=64000")  # fmt: skip
    assert (errors > ONE).all()


def test_an_identity_remembers_over_a_hundred_steps(tmp_path):
    """IRNN (Le et al. 2015); in a quarter of the default budget not yet every member does."""
    errors = final(tmp_path / "run", "mse", "problem=supervised/adding", "members=5",
                   "problem.length=100", "problem.activation=relu", "budget.samples=64000",
                   "problem.recurrent_initialisation=identity",
                   "problem.initialisation=lecun")  # fmt: skip
    assert np.median(errors) < ONE


@pytest.mark.parametrize("problem", ["digits_cnn", "digits_residual"])
def test_digits_are_read_as_well_as_by_the_example(problem, tmp_path):
    shares = final(tmp_path / "run", "accuracy", f"problem=supervised/{problem}", "members=3")
    assert shares.mean() >= EXAMPLE


@pytest.mark.parametrize("branch", ["scaled", "fixup", "rezero"])
def test_fifty_layers_train_with_blocks(branch, tmp_path):
    shares = final(tmp_path / "run", "accuracy", "problem=supervised/digits_residual",
                   "problem.depth=50", f"problem.branch={branch}", "members=2",
                   "budget.samples=32000")  # fmt: skip
    assert (shares > 0.9).all()


def test_thirty_plain_layers_train_from_he_and_not_from_glorot(tmp_path):
    """He et al. 2015, figure 3; a network that says nothing has the loss log 10."""
    losses = {
        kind: final(tmp_path / kind, "train_loss", "problem=supervised/digits_deep", "members=3",
                    "optimizer=momentum", f"problem.initialisation={kind}")
        for kind in ("he", "glorot")
    }  # fmt: skip
    assert (losses["he"] < 0.5 * math.log(10)).all()
    assert np.abs(losses["glorot"] - math.log(10)).max() < 0.01 * math.log(10)
