"""Coverage metrics on samples whose scores are known by hand."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from playground.domains.gan.data import Mixture, grid, ring
from playground.domains.gan.metrics import PERFECT as SHARES
from playground.domains.gan.metrics import count, score
from playground.randomness import Streams

SIGMA, PERFECT = 0.02, SHARES[2]
CENTRES = ring(8, 2.0)


def scores(*per_member):
    samples = torch.stack(per_member)
    return score(count(samples, CENTRES, SIGMA).numpy(), samples.shape[1])


def at(*indices, total=None):
    """Samples exactly on the given modes, the rest in the middle of the ring."""
    points = CENTRES[list(indices)]
    return torch.cat([points, torch.zeros((total or len(points)) - len(points), 2)])


def test_all_modes_one_mode_and_none():
    found, errors = scores(at(*range(8)), at(*[3] * 8), at(total=8))
    assert found["modes"].tolist() == [8, 1, 0]
    assert found["modes/any"].tolist() == [8, 1, 0]
    assert found["high_quality"].tolist() == [1, 1, 0]
    assert found["reverse_kl"] == pytest.approx([0, math.log(8), math.log(8)], abs=1e-15)
    off = [-math.log(PERFECT), -math.log(PERFECT / 8), 4.5]  # the last: all mass off modes
    assert found["reverse_kl/off_mode"] == pytest.approx(off)
    assert errors["high_quality"].tolist() == [0, 0, 0]


def test_good_coverage_by_few_samples_is_seen_by_the_off_mode_bin():
    found, _ = scores(at(*range(8), total=80))
    assert found["reverse_kl"][0] == pytest.approx(0, abs=1e-15)
    expected = 0.1 * math.log(0.1 / PERFECT) + 0.9 * math.log(0.9 / (1 - PERFECT))
    assert found["reverse_kl/off_mode"][0] == pytest.approx(expected)


def test_a_mode_counts_from_a_fifth_of_its_share():
    # 1000 samples, 8 modes: a fifth of a uniform share is 25 samples
    found, _ = scores(
        at(*[0] * 25, *[1] * 975), at(*[0] * 24, *[1] * 976), at(*[0] * 25, total=1000)
    )
    assert found["modes"].tolist() == [2, 1, 1]
    assert found["modes/any"].tolist() == [2, 2, 1]


def test_high_quality_ends_at_three_sigma():
    angle = torch.linspace(0, 2 * math.pi, 9, dtype=torch.float64)[:8]
    around = torch.stack([angle.cos(), angle.sin()], dim=1)
    inside, outside = (CENTRES + r * SIGMA * around for r in (3 - 1e-6, 3 + 1e-6))
    found, _ = scores(inside, outside)
    assert found["high_quality"].tolist() == [1, 0]


def test_divergences_are_those_of_scipy():
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 400, size=(3, 25))
    samples = 7000
    found, errors = score(counts, samples)
    bins = np.concatenate([counts, samples - counts.sum(1, keepdims=True)], axis=1) / samples
    ideal = np.append(np.full(25, stats.chi2.cdf(9, 2) / 25), stats.chi2.sf(9, 2))
    for k in range(3):
        uniform = stats.entropy(counts[k], np.ones(25))
        assert found["reverse_kl"][k] == pytest.approx(uniform)
        assert found["reverse_kl/off_mode"][k] == pytest.approx(stats.entropy(bins[k], ideal))
    draws = rng.multinomial(samples, bins[0], size=2000)
    spread, _ = score(draws[:, :25], samples)
    for name in ("high_quality", "reverse_kl", "reverse_kl/off_mode"):
        # 2000 draws know a standard deviation to 1.6 %
        assert errors[name][0] == pytest.approx(spread[name].std(), rel=0.07)


@pytest.mark.parametrize(("centres", "sigma"), [(ring(8, 2.0), 0.02), (grid(25, 2.0), 0.05)])
def test_a_perfect_sampler_scores_what_theory_says(centres, sigma):
    modes, samples, members = len(centres), 5000, 60
    drawn = Mixture(centres, sigma).draw(
        Streams(range(members), "data", torch.device("cpu")), samples
    )
    found, _ = score(count(drawn, centres, sigma).numpy(), samples)
    quality = found["high_quality"].mean()
    expected = stats.chi2.cdf(9, 2)
    assert round(expected, 4) == 0.9889
    assert abs(quality - expected) < 4 * math.sqrt(expected * (1 - expected) / (samples * members))
    assert (found["modes"] == modes).all()
    for name, freedom in (("reverse_kl", modes - 1), ("reverse_kl/off_mode", modes)):
        # 2 N KL is chi-square: mean k / 2N, variance 2k / 4N^2
        mean, error = freedom / (2 * samples), math.sqrt(freedom / 2 / members) / samples
        assert abs(found[name].mean() - mean) < 4 * error + 0.02 * mean


def test_samples_that_are_not_numbers_are_of_no_quality():
    found, _ = scores(torch.full((10, 2), float("nan"), dtype=torch.float64))
    assert found["modes"].tolist() == [0]
    assert found["high_quality"].tolist() == [0]
    assert np.isfinite([value[0] for value in found.values()]).all()


def test_a_perfect_sampler_of_a_line_is_scored_by_its_own_share():
    found = SHARES[1]
    assert found == pytest.approx(stats.chi2.cdf(9, 1), rel=1e-12)
    counts = np.array([[500, 500]])
    scores, _ = score(counts, 1000, found)
    assert scores["reverse_kl/off_mode"][0] == pytest.approx(-math.log(found), rel=1e-9)
