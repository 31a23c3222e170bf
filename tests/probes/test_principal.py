"""Principal directions against NumPy's singular value decomposition, and random walks' shares."""

import math

import numpy as np
import pytest
import torch

from playground.probes.principal import MANY, principal, random_walk


def path(points=9, size=40, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(points, size, generator=draw, dtype=torch.float64).cumsum(0)


def distances(points, directions):
    """Of points from the plane through the last one, by least squares."""
    x = points - points[-1]
    left = [np.linalg.lstsq(directions.T, row, rcond=None)[0] for row in x]
    return [np.linalg.norm(row - directions.T @ own) for row, own in zip(x, left, strict=True)]


@pytest.mark.parametrize("size", [5, 40, 3000])
def test_directions_and_shares_are_those_of_the_singular_values(size):
    points = path(size=size)
    found = principal(points)
    x = points.numpy()
    _, s, v = np.linalg.svd(x - x.mean(0), full_matrices=False)
    shares = s**2 / (s**2).sum()
    assert np.allclose(found.explained, shares[: min(8, size)], atol=1e-14)
    for own, other in zip(found.directions.numpy(), v, strict=False):
        assert abs(own @ other) == pytest.approx(1, abs=1e-12)
    assert np.allclose(found.coordinates, (x - x[-1]) @ found.directions.numpy().T)
    assert np.allclose(found.outside, distances(x, found.directions.numpy()))
    assert found.outside[-1] == 0
    assert (found.coordinates[0] <= 0).all()


def test_the_plane_of_a_plane_path_holds_it():
    """Points a cos, a sin in 50 dimensions: nothing outside, shares known."""
    basis = np.linalg.qr(np.random.default_rng(1).standard_normal((50, 2)))[0]
    angle = 2 * np.pi * np.arange(12) / 12
    points = np.stack([3 * np.cos(angle), np.sin(angle)], 1) @ basis.T + 7
    found = principal(torch.from_numpy(points))
    assert np.allclose(found.explained[:2], [0.9, 0.1])
    assert found.outside.max() < 1e-12


def test_float32_paths_are_measured_in_float64():
    points = 100 + 1e-3 * path(size=500)
    exact, rounded = principal(points), principal(points.float())
    x = points.float().double()
    assert np.allclose(principal(x).explained, rounded.explained, atol=1e-14)
    assert rounded.directions.dtype == torch.float64
    assert np.allclose(exact.explained[:2], rounded.explained[:2], atol=1e-3)


def test_a_straight_path_and_one_parameter_have_one_direction():
    line = torch.arange(5.0).unsqueeze(1) * torch.tensor([3.0, 4.0, 0.0])
    for points in (line, line[:, :1]):
        found = principal(points)
        assert found.directions.shape == (1, points.shape[1])
        assert found.explained[0] == pytest.approx(1)
    assert principal(line).coordinates[:, 0].tolist() == pytest.approx([-20, -15, -10, -5, 0])


def test_points_that_do_not_differ_are_refused():
    with pytest.raises(ValueError, match="the 4 points of the path are all the same"):
        principal(torch.ones(4, 3))


@pytest.mark.parametrize("points", [4, 12, 200])
def test_a_random_walk_has_the_eigenvalues_of_the_path_graph(points):
    """Antognini & Sohl-Dickstein 2018: the Gram matrix is a path Laplacian's pseudo-inverse."""
    shares = random_walk(torch.arange(points), 10**6)
    k = np.arange(1, points)
    exact = 1 / (2 - 2 * np.cos(math.pi * k / points))
    assert np.allclose(shares, exact / exact.sum(), atol=1e-13)


def test_a_long_random_walk_has_six_over_pi_squared_k_squared():
    shares = random_walk(torch.arange(0, 4000, 2), 10**9)
    k = np.arange(1, 6)
    assert np.allclose(shares[:5], 6 / (math.pi * k) ** 2, rtol=1e-3)


@pytest.mark.parametrize("size", [2, 20, MANY - 1, MANY, 3000])
def test_random_walks_that_are_walked(size):
    """At unequal times, drawn by NumPy and seen by its SVD; 5 standard errors."""
    times = np.array([0, 1, 2, 4, 8, 16, 32, 50])
    draw, found = np.random.default_rng(3), []
    for _ in range(300):
        steps = draw.standard_normal((len(times) - 1, size)) * np.sqrt(np.diff(times))[:, None]
        x = np.vstack([np.zeros(size), steps.cumsum(0)])
        s = np.linalg.svd(x - x.mean(0), compute_uv=False)[: min(7, size)]
        found.append(s**2 / (s**2).sum())
    error = np.std(found, axis=0, ddof=1) * math.sqrt(1 / 300 + (1 / 200 if size < MANY else 0))
    away = random_walk(torch.from_numpy(times), size).numpy() - np.mean(found, axis=0)
    limit = 0.003 if size >= MANY else 0.0  # of the limit in many dimensions
    assert (np.abs(away) < 5 * error + limit + 1e-12).all()
