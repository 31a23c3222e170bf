"""A run's field after the fact, against closed forms."""

import numpy as np
import pytest
import torch
from harness import SMALL_GAN, quiet

from playground.measure import run_field, snapshot
from playground.probes.game.formulas import jacobian, path_angle, spectrum
from playground.schema import ConfigError

pytestmark = pytest.mark.usefixtures("without_figures")


def test_path_angle_of_a_quadratic_game_from_its_snapshots(tmp_path):
    """F = J z with J = ((mu, sigma), (-sigma, mu)); the cosine of -F with the way, in NumPy."""
    run = quiet(
        ["problem=landscape/quadratic_game", "problem.curvature=0.5", "problem.start=random",
         "members=2", "budget.iterations=64"], tmp_path / "run",
    )  # fmt: skip
    start, end = snapshot(run, 0), snapshot(run)
    shares = np.linspace(-0.1, 1.1, 7)
    cosine, norm = path_angle(run_field(run), start, end, shares)
    z0, z1 = (np.concatenate([p["x"], p["y"]], axis=1) for p in (start, end))
    matrix = np.array([[0.5, 1.0], [-1.0, 0.5]])
    for k, share in enumerate(shares):
        field = (z0 + share * (z1 - z0)) @ matrix.T
        way = z1 - z0
        expected = -(field * way).sum(1) / np.linalg.norm(field, axis=1)
        np.testing.assert_allclose(cosine[k], expected / np.linalg.norm(way, axis=1), atol=1e-9)
        np.testing.assert_allclose(norm[k], np.linalg.norm(field, axis=1), atol=1e-12)
    found = spectrum(jacobian(run_field(run), end))[0]
    assert found.tolist() == pytest.approx([0.5 - 1j, 0.5 + 1j])


def test_a_gan_s_field_is_the_same_at_every_call_and_of_fresh_batches(tmp_path):
    run = quiet(["problem=gan/ring", *SMALL_GAN, "budget.iterations=2"], tmp_path / "run")
    at = snapshot(run)
    one, two = run_field(run)(at), run_field(run)(at)
    for name, value in one.items():
        assert torch.equal(value, two[name])
        assert value.shape == at[name].shape
        assert value.norm() > 0


def test_a_policy_has_no_field(tmp_path):
    run = quiet(["problem=supervised/two_moons", "budget.iterations=1"], tmp_path / "run")
    with pytest.raises(ConfigError, match=r"only gan/\* and landscape/\*"):
        run_field(run)
