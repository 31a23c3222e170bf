import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, make_moons
from sklearn.model_selection import train_test_split

from playground.domains.supervised.data import (
    Sampler,
    adding,
    chebyshev,
    digits,
    linear_regression,
    moons,
    two_moons,
    variances,
)
from playground.randomness import Streams


def sampler(samples, size, *, replacement=False, seeds=(0, 1, 2)):
    streams = Streams(seeds, "data", torch.device("cpu"))
    return Sampler(streams, samples, size, replacement=replacement)


def draws(source, count):
    """Indices [M, count, B] of the next batches."""
    return torch.stack([source.draw().view(source.members, -1) for _ in range(count)], dim=1)


@pytest.mark.parametrize("split_seed", [0, 3])
def test_digits_are_split_by_scikit_learn(split_seed):
    data = digits(split_seed)
    images, labels = load_digits(return_X_y=True)
    rows = np.arange(len(labels))
    train, test = train_test_split(rows, test_size=0.2, stratify=labels, random_state=split_seed)
    assert np.array_equal(data.train[0] * 16, images[train])
    assert np.array_equal(data.test[0] * 16, images[test])
    assert np.array_equal(data.train[1], labels[train])
    assert np.array_equal(data.test[1], labels[test])
    assert (len(train), len(test)) == (1437, 360)
    assert (data.train[0].min(), data.train[0].max()) == (0.0, 1.0)


@pytest.mark.parametrize("size", [100, 101])
def test_moons_are_those_of_scikit_learn(size):
    points, labels = moons(size)
    expected, classes = make_moons(size, shuffle=False, noise=None)
    assert points == pytest.approx(expected, abs=1e-12)
    assert np.array_equal(labels, classes)


@pytest.mark.parametrize("degree", [1, 3, 6, 11])
def test_chebyshev_is_numpys_polynomial(degree):
    data = chebyshev((20, 33), degree)
    for (x, y), size in ((data.train, 20), (data.test, 33)):
        assert x.shape == (size, 1)
        assert (x[0, 0], x[-1, 0]) == (-1.0, 1.0)
        assert np.ptp(np.diff(x[:, 0])) < 1e-15 * size
        expected = np.polynomial.chebyshev.chebval(x[:, 0], [0] * degree + [1])
        assert y == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("length", [2, 9, 10])
def test_sums_of_one_marked_number_in_either_half(length):
    data = adding((5000, 7), length, seed=1)
    rows, targets = data.train[0].reshape(5000, length, 2), data.train[1]
    values, marks = rows[..., 0], rows[..., 1]
    assert {*np.unique(marks)} <= {0.0, 1.0}
    half = length // 2
    assert (marks[:, :half].sum(axis=1) == 1).all()
    assert (marks[:, half:].sum(axis=1) == 1).all()
    assert targets == pytest.approx([v[m == 1].sum() for v, m in zip(values, marks, strict=True)])
    for part in (marks[:, :half], marks[:, half:]):  # every place as likely
        expected = 5000 / part.shape[1]
        assert (np.abs(part.sum(axis=0) - expected) < 4.5 * np.sqrt(expected)).all()
    assert (values.min(), values.max()) == pytest.approx((0, 1), abs=1e-3)
    errors = (targets - 1) ** 2  # whoever says 1
    assert abs(errors.mean() - 1 / 6) < 4.5 * errors.std() / np.sqrt(5000)
    assert data.test[0].shape == (7, 2 * length)


def test_noise_of_moons():
    data = two_moons((4000, 2), 0.3, seed=2)
    noise = data.train[0] - moons(4000)[0]
    assert abs((noise**2).mean() / 0.09 - 1) < 4 * np.sqrt(2 / noise.size)
    assert abs(noise.mean()) < 4 * 0.3 / np.sqrt(noise.size)
    assert not np.array_equal(data.train[0][:2], data.test[0])


def test_regression_has_the_covariance_and_the_noise_that_it_says():
    spectrum, size = variances(3, 16.0), 50_000
    assert spectrum == pytest.approx([1 / 16, 1 / 4, 1])
    (x, y), _ = (data := linear_regression((size, 10), spectrum, 0.4, seed=1)).train, data.test
    scale = np.sqrt(np.outer(spectrum, spectrum))
    stderr = scale * np.sqrt((1 + np.eye(3)) / size)
    assert (np.abs(x.T @ x / size - np.diag(spectrum)) < 4 * stderr).all()
    residual = y - x.sum(axis=1)
    assert abs((residual**2).mean() / 0.16 - 1) < 4 * np.sqrt(2 / size)


def test_the_seed_of_the_data_changes_the_data():
    first, again, other = (two_moons((20, 5), 0.1, seed).train[0] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(("samples", "size"), [(20, 5), (23, 5), (7, 7), (10, 9), (5, 1)])
def test_every_epoch_uses_every_sample_once(samples, size):
    """The sequence of draws is cut into epochs of N; batches keep their size throughout."""
    indices = draws(sampler(samples, size), 4 * samples)
    epochs = indices.reshape(3, 4 * size, samples)
    everything = torch.arange(samples).expand_as(epochs)
    assert torch.equal(epochs.sort(dim=-1).values, everything)
    assert not torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[:, 0], epochs[:, 1]) or samples == 1


@pytest.mark.parametrize("replacement", [False, True])
def test_a_member_draws_what_its_single_run_draws(replacement):
    together = draws(sampler(23, 5, replacement=replacement, seeds=(4, 5, 6)), 12)
    alone = draws(sampler(23, 5, replacement=replacement, seeds=(5,)), 12)
    assert torch.equal(together[1:2], alone)


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("before", [0, 1, 4, 5, 9, 14])
def test_state_resumes_exactly(replacement, before):
    source = sampler(23, 5, replacement=replacement)
    draws(source, before) if before else None
    state = source.state()
    other = sampler(23, 5, replacement=replacement, seeds=(7, 8, 9))
    other.load_state(state)
    assert torch.equal(draws(source, 15), draws(other, 15))


def test_replacement_draws_uniformly_and_independently():
    """Counts of single indices and of pairs within a batch: chi-square within 4.5 sigma."""
    indices = draws(sampler(6, 4, replacement=True), 3000)
    counts = np.bincount(indices.flatten().numpy(), minlength=6)
    pairs = np.bincount((indices[..., 0] * 6 + indices[..., 1]).flatten().numpy(), minlength=36)
    for table in (counts, pairs):
        mean = table.sum() / len(table)
        chi = ((table - mean) ** 2 / mean).sum()
        freedom = len(table) - 1
        assert abs(chi - freedom) < 4.5 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("size", [1, 8, 30])
@pytest.mark.parametrize("replacement", [False, True])
def test_covariance_of_minibatch_gradients(replacement, size):
    """Cov = Sigma / B, times (N - B) / (N - 1) without replacement; z below 4.5 entry by entry."""
    samples, count = 40, 20_000
    source = np.random.default_rng(0)
    x, y = source.standard_normal((samples, 2)), source.standard_normal(samples)
    gradients = (x @ np.array([0.5, -1.0]) - y)[:, None] * x
    mean = gradients.mean(axis=0)
    sigma = (gradients - mean).T @ (gradients - mean) / samples
    # One batch a member, at the start of its epoch: these are independent of each other.
    first = sampler(samples, size, replacement=replacement, seeds=range(count)).draw()
    batches = gradients[first.view(count, size).numpy()].mean(axis=1) - mean
    expected = sigma / size * (1 if replacement else (samples - size) / (samples - 1))
    products = batches[:, :, None] * batches[:, None, :]
    stderr = products.std(axis=0) / np.sqrt(count)
    assert (np.abs(products.mean(axis=0) - expected) < 4.5 * stderr).all()
    assert (np.abs(batches.mean(axis=0)) < 4.5 * np.sqrt(np.diag(expected) / count)).all()
