"""Noise of one batch's gradient: textbook formulas by loops, closed forms, other weights."""

import math

import numpy as np
import pytest
import torch

from playground.probes.noise.clusters import declared
from playground.probes.noise.formulas import (
    QUANTITIES,
    agreement,
    pooled_noise_scale,
    statistics,
)

RNG = np.random.default_rng(5)


def of(gradients, share=None, samples=None):
    """The quantities {name: (value, stderr)} of clusters' mean gradients [C, N]."""
    count = len(gradients)
    share = np.full(count, 1 / count) if share is None else share
    parts = torch.from_numpy(share[:, None] * gradients)
    gram = (parts @ parts.T)[None, None]
    n = torch.tensor([count if samples is None else samples])
    found = statistics(gram, torch.from_numpy(share)[None], n)
    return {name: (m.value.item(), m.stderr.item()) for name, m in found.items()}


def textbook(g):
    """By the formulas of the papers and of Cockpit, on per-sample gradients [N, P]."""
    n, mean = len(g), g.mean(0)
    big, small = mean @ mean, np.mean([x @ x for x in g])
    trace = (small - big) / (1 - 1 / n)  # McCandlish et al. 2018, A.1: batches of 1 and n
    norm = (n * big - small) / (n - 1)
    squares = sum(x @ x for x in g)
    along = np.var([x @ mean for x in g], ddof=1)
    ortho = squares - sum((x @ mean) ** 2 for x in g) / big
    return {
        "variance": trace / n,
        "sample_variance": trace,
        "norm_squared": norm,
        "snr": norm / (trace / n),
        "noise_scale": trace / norm,
        "norm_test": math.sqrt((squares - n * big) / (n - 1) / (n * big)),
        "inner_product_test": math.sqrt(along / (n * big**2)),
        "orthogonality_test": math.sqrt(ortho / ((n - 1) * n * big)),
    }


def test_equal_weights_are_the_textbook_s_formulas():
    g = RNG.normal(size=(12, 7)) + 1.5
    expected, found = textbook(g), of(g)
    assert {*expected} == {*QUANTITIES}
    for name, value in expected.items():
        assert found[name][0] == pytest.approx(value, rel=1e-12), name


def test_errors_are_the_jackknife_s_by_a_loop():
    g = RNG.normal(size=(9, 4)) + 1.0
    left = [textbook(np.delete(g, k, axis=0)) for k in range(9)]
    for name, (_, error) in of(g).items():
        if name in QUANTITIES:
            values = np.array([one[name] for one in left])
            expected = math.sqrt(8 / 9 * np.sum((values - values.mean()) ** 2))
            assert error == pytest.approx(expected, rel=1e-9), name


def test_errors_with_other_weights_are_those_of_leaving_out_by_hand():
    g, weight = RNG.normal(size=(8, 5)) + 0.7, RNG.uniform(0.2, 2.0, size=8)
    share = weight / weight.sum()
    left = []
    for k in range(8):
        rest = np.delete(share, k)
        left.append(of(np.delete(g, k, axis=0), rest / rest.sum(), 8 * rest.sum()))
    for name, (_, error) in of(g, share).items():
        if name in QUANTITIES:
            values = np.array([one[name][0] for one in left])
            expected = math.sqrt(7 / 8 * np.sum((values - values.mean()) ** 2))
            assert error == pytest.approx(expected, rel=1e-9), name


def test_errors_of_many_clusters_are_those_of_leaving_out_64_groups():
    g, weight = RNG.normal(size=(150, 5)) + 0.7, RNG.uniform(0.2, 2.0, size=150)
    share = weight / weight.sum()
    left = []
    for k in range(64):
        out = np.arange(150) % 64 == k
        left.append(of(g[~out], share[~out] / share[~out].sum(), 150 * share[~out].sum()))
    for name, (_, error) in of(g, share).items():
        if name in QUANTITIES:
            values = np.array([one[name][0] for one in left])
            expected = math.sqrt(63 / 64 * np.sum((values - values.mean()) ** 2))
            assert error == pytest.approx(expected, rel=1e-9), name


def test_the_variance_of_a_weighted_mean_is_that_over_many_draws():
    """Of sum w g / sum w with w and g random and dependent; 5 standard errors."""
    draws, count = 4000, 60
    weight = RNG.integers(1, 4, size=(draws, count)).astype(float)
    g = weight[..., None] * 0.3 + RNG.normal(size=(draws, count, 3))
    share = weight / weight.sum(1, keepdims=True)
    mean = (share[..., None] * g).sum(1)
    parts = torch.from_numpy(share[..., None] * g)
    found = statistics(
        (parts @ parts.mT)[:, None], torch.from_numpy(share), torch.full((draws,), count)
    )["variance"].value.numpy()
    true = mean.var(axis=0, ddof=1).sum()
    error = true * math.sqrt(2 / draws) + found.std() / math.sqrt(draws)
    assert abs(found.mean() - true) < 5 * error
    assert error < 0.03 * true


def test_members_have_as_many_clusters_as_they_have():
    g = RNG.normal(size=(10, 3)) + 1
    share = np.zeros((3, 10))
    share[0], share[1, :6], share[2, :3] = 0.1, 1 / 6, 1 / 3
    parts = torch.from_numpy(share[..., None] * g)
    n = torch.tensor([10.0, 6.0, 3.0])
    found = statistics((parts @ parts.mT)[:, None], torch.from_numpy(share), n)
    for member, count in enumerate((10, 6)):
        for name, (value, error) in of(g[:count]).items():
            assert found[name].value[member, 0].item() == pytest.approx(value, nan_ok=True)
            assert found[name].stderr[member, 0].item() == pytest.approx(error, nan_ok=True)
    assert all(m.value[2].isnan().all() and m.stderr[2].isnan().all() for m in found.values())


def test_the_interval_holds_the_noise_scale_and_is_open_where_the_gradient_may_be_zero():
    clear = of(RNG.normal(size=(50, 4)) + 3)
    assert clear["noise_scale_low"][0] < clear["noise_scale"][0] < clear["noise_scale_high"][0]
    noise = RNG.normal(size=(50, 4))
    lost = of(noise - noise.mean(0) + 1e-3)
    assert math.isnan(lost["noise_scale"][0])
    assert lost["noise_scale_high"][0] == math.inf
    assert lost["norm_squared"][0] < 0


def regression(count, d, sigma, e, draws):
    """Clusters' gradients of 1/2 (x.w - y)^2 at w* + e, for batches [draws, count, d]."""
    x = RNG.normal(size=(draws, count, d))
    return (x @ e + sigma * RNG.normal(size=(draws, count)))[..., None] * x


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_linear_regression_s_noise_scale_is_the_closed_form(scale):
    """G = e, tr S = (d + 1)|e|^2 + d sigma^2, so that B = d + 1 + d sigma^2/(2 (L - L*))."""
    d, sigma, draws, count = 6, 0.5, 3000, 32
    e = scale * np.array([1.0, -0.5, 0.3, 0.0, 0.2, -0.1])
    g = torch.from_numpy(regression(count, d, sigma, e, draws)) / count
    share = torch.full((draws, count), 1 / count)
    found = statistics((g @ g.mT)[:, None], share, torch.full((draws,), count))
    square, trace = e @ e, (d + 1) * e @ e + d * sigma**2
    for name, value in (("norm_squared", square), ("sample_variance", trace)):
        each = found[name].value.numpy()
        assert abs(each.mean() - value) < 5 * each.std() / math.sqrt(draws), name
    pooled = pooled_noise_scale(found["sample_variance"].value, found["norm_squared"].value)
    expected = d + 1 + d * sigma**2 / square
    assert abs(pooled.value.item() - expected) < 5 * pooled.stderr.item()
    assert pooled.stderr.item() < 0.1 * expected


def test_the_interval_holds_the_closed_form_as_often_as_it_says():
    """95 % within what a normal approximation and 2000 draws leave open."""
    d, sigma, e = 6, 0.5, np.array([1.0, -0.5, 0.3, 0.0, 0.2, -0.1])
    g = torch.from_numpy(regression(128, d, sigma, e, 2000)) / 128
    found = statistics(
        (g @ g.mT)[:, None], torch.full((2000, 128), 1 / 128), torch.full((2000,), 128)
    )
    expected = d + 1 + d * sigma**2 / (e @ e)
    low, high = (found[f"noise_scale_{end}"].value for end in ("low", "high"))
    assert 0.92 < ((low <= expected) & (expected <= high)).double().mean().item() < 0.98


def test_cosines_between_parts_of_the_batch_by_a_loop():
    g = RNG.normal(size=(11, 6)) + 0.5
    gram = torch.from_numpy(g @ g.T)[None]
    found = agreement(gram, torch.tensor([11]))
    assert list(found) == ["cosine/2", "cosine/4", "cosine/8"]
    for parts in (2, 4, 8):
        means = [g[k::parts].mean(0) for k in range(parts)]
        cosines = [
            a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            for i, a in enumerate(means)
            for b in means[:i]
        ]
        assert found[f"cosine/{parts}"].value.item() == pytest.approx(np.mean(cosines))
    few = agreement(gram.expand(2, -1, -1), torch.tensor([11, 5]))
    assert few["cosine/8"].value.isnan().tolist() == [False, True]
    assert few["cosine/4"].value.isnan().tolist() == [False, False]


def test_clusters_from_declared_integers():
    cluster = torch.tensor([[7, 7, 100, 100, 3], [3, 3, 3, 7, 8]])
    weight = torch.tensor([[1.0, 1.0, 0.0, 0.0, 1.0], [1.0, 2.0, 1.0, 0.0, 4.0]])
    found = declared(cluster, weight, weight)
    assert found.counts.tolist() == [2, 2]
    assert found.index.tolist() == [[1, 1, 2, 2, 0], [0, 0, 0, 2, 1]]
    assert found.share.tolist() == [[1 / 3, 2 / 3], [0.5, 0.5]]
    assert found.samples.tolist() == [3.0, 64 / 22]
    alone = declared(None, None, weight)
    assert alone.index.tolist() == [[0, 1, 2, 3, 4]] * 2
    grouped = alone.grouped(2)
    assert grouped.index.tolist() == [[0, 1, 0, 1, 0]] * 2
    assert torch.allclose(grouped.share, torch.tensor([[0.6, 0.4]], dtype=torch.float64))


def test_pooling_wants_three():
    with pytest.raises(ValueError, match="at least 3"):
        pooled_noise_scale(torch.ones(2), torch.ones(2))
