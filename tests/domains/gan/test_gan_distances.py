"""Distances between samples against scipy, closed forms and loops written by hand."""

import math

import numpy as np
import pytest
import torch
from scipy import linalg, spatial, stats
from sklearn.metrics.pairwise import polynomial_kernel, rbf_kernel
from sklearn.neighbors import NearestNeighbors

from playground.domains.gan import distances

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(2, 40, 3)), 0.5 + 1.3 * RNG.normal(size=(2, 40, 3))


def tensor(x):
    return torch.from_numpy(np.ascontiguousarray(x))


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_sliced_wasserstein_is_scipys_mean_over_slices(dimension):
    x, y = X[..., :dimension], Y[..., :dimension]
    along = distances.directions(dimension, 6, torch.device("cpu"))
    assert along.norm(dim=0).numpy() == pytest.approx(1)
    found = distances.sliced_wasserstein(
        distances.projections(tensor(x), along), distances.projections(tensor(y), along)
    )
    for member in range(2):
        slices = [stats.wasserstein_distance(x[member] @ a, y[member] @ a) for a in along.T.numpy()]
        assert found[member].item() == pytest.approx(np.mean(slices), rel=1e-12)


def test_w1_of_gaussians_on_the_line():
    """N(0, 1) and N(1, 4) by quantiles, against the closed form 1.166631."""
    quantile = stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000)[None, :, None]
    along = distances.directions(1, 1, torch.device("cpu"))
    x, y = (distances.projections(tensor(q), along) for q in (quantile, 1 + 2 * quantile))
    assert distances.sliced_wasserstein(x, y).item() == pytest.approx(1.166631, abs=2e-5)


def test_directions_of_the_plane_are_even():
    along = distances.directions(2, 16, torch.device("cpu")).numpy()
    gaps = np.diff(np.arctan2(along[1], along[0]))
    assert gaps == pytest.approx(np.full(15, math.pi / 16))


def test_the_bandwidth_is_the_median_distance():
    found = distances.bandwidth(tensor(Y)).numpy()
    for member in range(2):
        pairs = np.sort(spatial.distance.pdist(Y[member]))
        assert found[member] == pytest.approx(pairs[(len(pairs) - 1) // 2], rel=1e-9)


def unbiased(kernel, x, y):
    """Two loops over different pairs, one over all."""
    n, m = len(x), len(y)
    xx = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    xy = sum(kernel(a, b) for a in x for b in y) / (n * m)
    return xx + yy - 2 * xy


def test_mmd_is_the_loop():
    x, y, width = X[:, :15], Y[:, :17], np.array([0.7, 2.0])
    found = distances.mmd(tensor(x), tensor(y), tensor(width)).numpy()
    for member in range(2):
        h = width[member]
        expected = unbiased(
            lambda a, b, h=h: math.exp(-((a - b) ** 2).sum() / (2 * h * h)), x[member], y[member]
        )
        assert found[member] == pytest.approx(expected, rel=1e-9, abs=1e-12)
        kernel = rbf_kernel(x[member], y[member], gamma=1 / (2 * h * h))  # sklearn's, too
        assert kernel[0, 0] == pytest.approx(
            math.exp(-((x[member][0] - y[member][0]) ** 2).sum() / (2 * h * h))
        )


def test_kernel_distance_is_the_loop_with_sklearns_kernel():
    x, y = X[:, :15], Y[:, :17]
    found = distances.kernel_distance(tensor(x), tensor(y)).numpy()
    for member in range(2):
        expected = unbiased(
            lambda a, b: polynomial_kernel(a[None], b[None], degree=3, coef0=1)[0, 0],
            x[member], y[member],
        )  # fmt: skip
        assert found[member] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("distance", ["mmd", "kernel_distance"])
def test_unbiased_distances_of_equal_distributions_are_zero_in_the_mean(distance):
    x, y = np.random.default_rng(1).normal(size=(2, 2000, 20, 2))
    args = [tensor(x), tensor(y)]
    args += [torch.full((2000,), 1.0, dtype=torch.float64)] if distance == "mmd" else []
    found = getattr(distances, distance)(*args).numpy()
    assert abs(found.mean()) < 4 * found.std() / math.sqrt(2000)
    assert found.min() < 0  # unbiased, so some are negative


def test_frechet_is_that_of_scipys_root():
    found = distances.frechet(distances.moments(tensor(X)), distances.moments(tensor(Y))).numpy()
    for member in range(2):
        c, d = np.cov(X[member].T), np.cov(Y[member].T)
        gap = X[member].mean(0) - Y[member].mean(0)
        root = linalg.sqrtm(c @ d).real
        assert found[member] == pytest.approx(gap @ gap + np.trace(c + d - 2 * root), rel=1e-9)


def test_frechet_of_commuting_gaussians():
    """Diagonal covariances: |m - m'|^2 + sum (s - s')^2."""
    mean, other = np.array([[1.0, 2.0]]), np.array([[0.0, -1.0]])
    s, t = np.array([0.5, 3.0]), np.array([2.0, 1.0])
    x = tensor(mean), tensor(np.diag(s**2)[None])
    y = tensor(other), tensor(np.diag(t**2)[None])
    assert distances.frechet(x, y).item() == pytest.approx(10 + 1.5**2 + 2**2, rel=1e-12)
    assert distances.frechet(x, x).item() == pytest.approx(0, abs=1e-12)


def test_frechet_of_singular_covariances_is_finite():
    x = tensor(X[:, :2])  # two samples in three dimensions
    assert torch.isfinite(distances.frechet(distances.moments(x), distances.moments(x))).all()


def test_radii_are_sklearns_neighbours():
    found = distances.radii(tensor(X[0]), 3).numpy()
    theirs = NearestNeighbors(n_neighbors=4).fit(X[0]).kneighbors(X[0])[0][:, 3]
    assert found == pytest.approx(theirs, rel=1e-9)


def manifold_by_hand(fake, real):
    def radius(points, i, k):
        return sorted(math.dist(points[i], points[j]) for j in range(len(points)) if j != i)[k - 1]

    real3, real5 = ([radius(real, i, k) for i in range(len(real))] for k in (3, 5))
    fake3 = [radius(fake, i, 3) for i in range(len(fake))]
    inside = [[math.dist(f, r) for r in real] for f in fake]
    n, m = len(fake), len(real)
    return {
        "precision": sum(any(inside[i][j] <= real3[j] for j in range(m)) for i in range(n)) / n,
        "recall": sum(any(inside[i][j] <= fake3[i] for i in range(n)) for j in range(m)) / m,
        "density": sum(inside[i][j] <= real5[j] for i in range(n) for j in range(m)) / (5 * n),
        "coverage": sum(any(inside[i][j] <= real5[j] for i in range(n)) for j in range(m)) / m,
    }


def test_manifold_scores_are_the_loops():
    fake, real = 1 + 1.5 * X[0][:12], Y[0][:30]
    found = distances.manifold_scores(tensor(fake), tensor(real))
    expected = manifold_by_hand(fake, real)
    assert {name: value.item() for name, value in found.items()} == pytest.approx(expected)
    assert len({*expected.values()} - {0, 1}) >= 3  # the case is not degenerate


def test_manifold_scores_of_the_same_samples_and_of_collapse():
    same = distances.manifold_scores(tensor(X[0]), tensor(X[0]))
    assert same["precision"] == same["recall"] == same["coverage"] == 1
    clusters = np.concatenate([c + 0.01 * RNG.normal(size=(50, 2)) for c in 10 * np.eye(4)[:, :2]])
    real = np.concatenate([clusters + np.array([100 * k, 0]) for k in range(2)])
    collapsed = 0.01 * RNG.normal(size=(200, 2)) + np.array([10, 0])
    found = distances.manifold_scores(tensor(collapsed), tensor(real))
    assert found["precision"] > 0.9
    assert found["recall"] < 0.2
    assert found["coverage"] < 0.2
