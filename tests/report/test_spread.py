import math

import numpy as np
import pytest
from scipy import stats

from playground.report.drawing import statistics as spread


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_bins_keep_the_spike_of_a_single_update():
    values = np.ones((100_000, 3))
    values[54_321, 1] = 77.0
    binned = spread.bin_rows(np.arange(100_000), values, 160)
    assert binned.merged
    assert len(binned.x) == 160
    assert binned.high.max() == 77.0
    where, member = np.unravel_index(binned.high.argmax(), binned.high.shape)
    assert member == 1
    assert abs(binned.x[where] - 54_321) < 100_000 / 160
    assert binned.low.max() == 1.0


def test_bins_hand_computed():
    x = np.array([0.0, 1.0, 2.0, 9.0, 10.0])
    values = np.array([[1.0], [3.0], [np.nan], [np.inf], [8.0]])
    binned = spread.bin_rows(x, values, 2)
    assert binned.x.tolist() == [1.0, 9.5]
    assert binned.mean[:, 0].tolist() == [2.0, 8.0]
    assert binned.low[:, 0].tolist() == [1.0, 8.0]
    assert binned.high[:, 0].tolist() == [3.0, 8.0]


def test_empty_bins_are_left_out_and_bins_without_values_are_nan():
    x = np.array([0.0, 1.0, 50.0, 51.0, 100.0])
    values = np.array([[1.0], [1.0], [np.nan], [np.nan], [2.0]])
    binned = spread.bin_rows(x, values, 4)
    assert binned.x.tolist() == [0.5, 50.5, 100.0]
    assert np.array_equal(binned.mean[:, 0], [1.0, np.nan, 2.0], equal_nan=True)


def test_few_rows_stay_as_they_are():
    values = random(7, 2)
    binned = spread.bin_rows(np.arange(7), values, 7)
    assert not binned.merged
    assert np.array_equal(binned.mean, values)


def test_mean_and_deviation_ignore_what_is_missing():
    values = np.array([[1.0, 3.0, np.nan], [np.nan, np.nan, np.nan], [5.0, np.nan, np.nan]])
    assert np.array_equal(spread.mean(values), [2.0, np.nan, 5.0], equal_nan=True)
    assert np.array_equal(spread.deviation(values), [math.sqrt(2), np.nan, np.nan], equal_nan=True)


@pytest.mark.parametrize("members", [1, 2, 11, 40])
def test_quantiles_equal_numpy(members):
    values = random(6, members)
    values[1, : members // 2] = np.nan
    low, high = spread.quantiles(values, 0.025, 0.975)
    assert np.allclose(low, np.nanquantile(values, 0.025, axis=1), rtol=1e-12)
    assert np.allclose(high, np.nanquantile(values, 0.975, axis=1), rtol=1e-12)


def test_band_of_a_known_distribution():
    values = np.arange(1001.0)[None].repeat(2, axis=0)
    low, high = spread.quantiles(values, 0.025, 0.975)
    assert low.tolist() == [25.0, 25.0]
    assert high.tolist() == [975.0, 975.0]


def test_quantiles_without_any_value():
    assert np.isnan(spread.quantiles(np.full((2, 3), np.nan), 0.5)).all()


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 9, 29, 100, 5000])
def test_student_equals_scipy(degrees):
    assert spread.student(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=2e-3)


def test_interval_equals_scipy():
    values = random(4, 10)
    centre, low, high = spread.interval(values)
    known = stats.t.interval(0.95, 9, loc=values.mean(1), scale=stats.sem(values, axis=1))
    assert np.allclose(centre, values.mean(axis=1))
    assert np.allclose(low, known[0], rtol=1e-4)
    assert np.allclose(high, known[1], rtol=1e-4)


def test_interval_of_one_value_is_the_value():
    assert [float(v) for v in spread.interval(np.array([3.0]))] == [3.0, 3.0, 3.0]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1.0, 2.0, 3.0], "linear"),
        ([1e-6, 1e-3, 1.0], "log"),
        ([-1.0, 0.5, 1.0], "linear"),
        ([-1e-3, 1e-3, 2e-3, 50.0], "symlog"),
        ([0.0, 0.0, 0.0], "linear"),
        ([0.0, 0.0, 0.0, 1e-4, 1.0], "log"),
        ([np.nan, np.inf], "linear"),
        ([], "linear"),
    ],
)
def test_scale_of(values, kind):
    assert spread.scale_of(np.array(values))[0] == kind


def test_what_cannot_be_drawn_is_missing():
    values = spread.finite(np.array([1.0, np.inf, -np.inf, np.nan, 1e250, -1e250]))
    assert np.array_equal(values, [1.0, *[np.nan] * 5], equal_nan=True)
    logs = spread.logarithm(np.array([100.0, 0.0, -1.0, np.inf, np.nan, 1e-250]))
    assert np.array_equal(logs, [2.0, *[np.nan] * 5], equal_nan=True)


def test_ceiling_is_relative_to_the_first_finite_value_of_any_member():
    values = np.array([[np.nan, 2.0], [-3.0, 1e30]])
    assert spread.ceiling(values) == 3e6
    assert spread.ceiling(np.array([[1e-9], [4.0], [4.0], [4.0], [4.0]])) == 4e6  # starts near 0
    assert spread.ceiling(np.zeros((3, 2))) == np.inf
    assert spread.ceiling(np.full((2, 2), np.nan)) == np.inf
    assert spread.ceiling(np.empty((0, 2))) == np.inf


def test_members_that_leave_are_told_apart_unless_all_do():
    values = np.array([[1.0, 1.0, 1.0], [2.0, 1e7, np.inf], [1.0, 1.0, np.nan]])
    assert spread.diverged(values).tolist() == [False, True, True]
    assert spread.diverged(np.array([[1.0, 1.0], [1e300, 1e300]])).tolist() == [False, False]
    assert spread.diverged(np.array([[1.0], [np.nan]])).tolist() == [False]
    assert spread.diverged(np.array([[1.0, 1.0], [np.nan, 1.0]])).tolist() == [True, False]


def test_decades():
    assert spread.decades(np.array([0.01, np.nan, 10.0, -5.0])) == pytest.approx(3.0)
