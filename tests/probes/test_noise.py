"""Statistics of gradient estimates: brute force, known distributions, coverage."""

import itertools

import pytest
import torch

from playground.parameters import Layout
from playground.probes.noise.estimates import grouped, moments, noise

LAYOUT = Layout({"a": (2, 2), "b": (3,)})
PIECES = [slice(0, 7), slice(0, 4), slice(4, 7)]


def normal(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def by_definition(x, r):
    """All quantities of one member's estimates [K, n] and reference [n], written out."""
    K, m = len(x), x.mean(0)
    trace = torch.cov(x.T).reshape(x.shape[1], -1).trace()
    cos = torch.nn.functional.cosine_similarity
    pairs = [cos(x[i], x[j], dim=0) for i, j in itertools.combinations(range(K), 2)]
    norm = m.square().sum() - trace / K
    return {
        "variance": trace,
        "norm_squared": norm,
        "snr": norm / trace,
        "cosine": torch.stack(pairs).mean(),
        "bias_squared": (m - r).square().sum() - trace / K,
        "cosine_reference": cos(x, r[None], dim=1).mean(),
        "mean_cosine": cos(m, r, dim=0),
    }


def test_every_quantity_is_its_definition_and_its_error_the_jackknife():
    x, r = normal(6, 2, 7) + normal(7, seed=1), normal(2, 7, seed=2)
    found = noise(x, LAYOUT, r)
    assert set(found) == set(by_definition(x[:, 0], r[0]))
    for member, (column, piece) in itertools.product(range(2), enumerate(PIECES)):
        own, reference = x[:, member, piece], r[member, piece]
        whole = by_definition(own, reference)
        left = [by_definition(torch.cat([own[:k], own[k + 1 :]]), reference) for k in range(6)]
        for name, measured in found.items():
            assert measured.value[member, column].item() == pytest.approx(whole[name].item())
            each = torch.stack([values[name] for values in left])
            error = (5 * each.var(unbiased=False)).sqrt()
            assert measured.stderr[member, column].item() == pytest.approx(error.item(), rel=1e-6)


def test_what_is_called_unbiased_is_and_errors_are_honest():
    """5000 repetitions as members: Gaussian estimates of known mean and covariance."""
    repeats, K = 5000, 12
    mean, scale, reference = normal(7, seed=1), normal(7, seed=2).abs() + 0.1, normal(7, seed=3)
    x = mean + scale * normal(K, repeats, 7)
    found = noise(x, LAYOUT, reference.expand(repeats, 7))
    for column, piece in enumerate(PIECES):
        truth = {
            "variance": scale[piece].square().sum(),
            "norm_squared": mean[piece].square().sum(),
            "bias_squared": (mean - reference)[piece].square().sum(),
        }
        for name, value in truth.items():
            own = found[name].value[:, column]
            assert (own.mean() - value).abs() < 4.5 * own.std() / repeats**0.5
    for name, measured in found.items():
        spread, claimed = measured.value.std(0), measured.stderr.square().mean(0).sqrt()
        assert torch.all((claimed / spread - 1).abs() < 0.25), name


def test_gaussian_noise_around_nothing_has_no_signal():
    found = noise(normal(400, 1, 7), LAYOUT)
    for name in ("cosine", "norm_squared", "snr"):
        value, error = (part[0, 0] for part in (found[name].value, found[name].stderr))
        assert value.abs() < 4.5 * error
    assert set(found) == {"variance", "norm_squared", "snr", "cosine"}


def test_equal_estimates_agree_and_a_zero_has_no_direction():
    same = normal(1, 1, 7).expand(5, 1, 7)
    found = noise(same, LAYOUT, same[0])
    for name in ("cosine", "cosine_reference", "mean_cosine"):
        assert found[name].value[0, 0].item() == pytest.approx(1)
    for name in ("variance", "bias_squared"):
        assert found[name].value[0, 0].item() == pytest.approx(0, abs=1e-12)
    assert noise(torch.zeros(5, 1, 7), LAYOUT)["cosine"].value.isnan().all()


def test_moments_and_groups():
    x = normal(7, 2, 7)
    mean, variance = moments(x)
    assert torch.allclose(mean, sum(x) / 7)
    assert torch.allclose(variance, sum((x - mean) ** 2) / 6)
    assert torch.equal(grouped(x, 3), torch.stack([x[:3].mean(0), x[3:6].mean(0)]))


def test_too_little_is_refused():
    with pytest.raises(ValueError, match="2 estimates: at least 3"):
        noise(normal(2, 1, 7), LAYOUT)
    with pytest.raises(ValueError, match="1 estimates: at least 2"):
        moments(normal(1, 1, 7))
    with pytest.raises(ValueError, match="at least 3"):
        grouped(normal(2, 1, 7), 3)
    with pytest.raises(ValueError, match="reference must be"):
        noise(normal(4, 1, 7), LAYOUT, normal(7))
