import numpy as np
import pytest
from scipy import stats

from playground.report.comparison.aggregate import interquartile_mean, stratified_bootstrap


@pytest.mark.parametrize("count", [1, 2, 4, 5, 10, 33])
def test_interquartile_mean_is_scipys_trimmed_mean(count):
    values = np.random.default_rng(count).normal(size=(3, count))
    assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25, axis=-1))


def test_the_interval_is_scipys_for_one_task():
    values = np.random.default_rng(0).gamma(2.0, size=12)
    value, low, high = stratified_bootstrap([values], resamples=40_000)
    expected = stats.bootstrap(
        (values,), lambda x, axis: stats.trim_mean(x, 0.25, axis=axis), n_resamples=40_000,
        method="percentile", rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    assert value == pytest.approx(stats.trim_mean(values, 0.25))
    width = high - low
    assert low == pytest.approx(expected.low, abs=0.03 * width)
    assert high == pytest.approx(expected.high, abs=0.03 * width)


def test_runs_are_drawn_inside_their_task():
    """Two tasks far apart: a draw across tasks would move the mean by about a half."""
    tasks = [np.zeros(8), np.ones(8)]
    value, low, high = stratified_bootstrap(tasks, lambda x: x.mean(axis=-1), resamples=2000)
    assert (value, low, high) == (0.5, 0.5, 0.5)


def test_the_mean_s_interval_has_the_standard_error_of_the_theory():
    values = np.random.default_rng(3).normal(size=200)
    _, low, high = stratified_bootstrap([values], lambda x: x.mean(axis=-1), resamples=20_000)
    error = values.std() / np.sqrt(200)
    assert (high - low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.04)


@pytest.mark.parametrize("bad", [np.array([]), np.array([1.0, np.nan]), np.ones((2, 2))])
def test_what_has_no_interval_is_refused(bad):
    with pytest.raises(ValueError, match="finite"):
        stratified_bootstrap([bad])
