"""What the study of gradients across domains computes, from series that were made up."""

import numpy as np
import pyarrow as pa
import pytest

from playground import study


@pytest.fixture(scope="module")
def analysis():
    return study.load_analysis(study.find("gradients_across_domains"))


def test_rows_become_a_series(analysis):
    """Rows in any order; what was not measured is NaN, or no point at all."""
    table = pa.table({
        "update": [8, 4, 4, 12], "member": [0, 1, 0, 0], "norm": [3.0, 2.0, 1.0, None],
    })  # fmt: skip
    found = analysis.collect(table, "update", "norm", 12)
    assert found.t.tolist() == [4, 8]
    assert found.values == pytest.approx(np.array([[1, 2], [3, np.nan]]), nan_ok=True)


def test_early_and_late_thirds(analysis):
    found = analysis.Series(np.arange(1, 10), np.arange(1.0, 10)[:, None], 9)
    assert found.early(1 / 3).ravel().tolist() == [1, 2, 3]
    assert found.late(1 / 3).ravel().tolist() == [7, 8, 9]
    assert analysis.fall(found) == pytest.approx([np.log10(8 / 2)])


@pytest.mark.parametrize("power", [0.0, -0.5, -0.2])
def test_slope_of_a_power_of_time(analysis, power):
    t = np.arange(32, 1000, 32)
    found = analysis.Series(t, 0.7 * (t**power)[:, None] * np.array([1, 0.5]), 1000)
    assert analysis.slope(found) == pytest.approx([power, power], abs=1e-12)


def test_slope_of_a_random_walk(analysis):
    """Distance over path of walks with 5,000 coordinates: 1/sqrt(t), the slope to about .004."""
    steps = np.random.default_rng(0).normal(size=(200, 5000, 4))
    t = np.arange(1, 201)
    distance = np.linalg.norm(steps.cumsum(axis=0), axis=1)
    path = np.linalg.norm(steps, axis=1).cumsum(axis=0)
    slopes = analysis.slope(analysis.Series(t, distance / path, 200))
    assert slopes == pytest.approx(-0.5, abs=0.02)


def test_parts_are_summed_before_they_are_divided(analysis):
    """Known gradient g and noise: batches' unbiased parts scatter, their pooled ratio does not."""
    generator = np.random.default_rng(1)
    samples = 1.0 + 3.0 * generator.normal(size=(2000, 16))  # one coordinate, 16 samples a batch
    noise = samples.var(axis=1, ddof=1) / 16
    signal = samples.mean(axis=1) ** 2 - noise
    assert analysis.snr(signal[:, None], noise[:, None]) == pytest.approx([16 / 9], rel=0.05)


def test_independent_batches_have_the_predicted_cosine(analysis):
    """s / (1 + s) for gradients of many coordinates at one point, each with its own noise."""
    generator = np.random.default_rng(2)
    mean = generator.normal(size=20000)
    one, two = mean + 2.0 * generator.normal(size=(2, 20000))
    cosine = one @ two / np.linalg.norm(one) / np.linalg.norm(two)
    s = analysis.snr(np.array([[mean @ mean]]), np.array([[4.0 * 20000]]))[0]
    assert cosine == pytest.approx(s / (1 + s), abs=0.02)


def test_bins_average_logarithms(analysis):
    found = analysis.Series(np.arange(1, 5), np.array([[1.0], [100.0], [10.0], [10.0]]), 4)
    share, values = analysis.binned(found, 2, log=True)
    assert share.tolist() == [0.25, 0.75]
    assert values.ravel() == pytest.approx([1, 10 * 10 ** (1 / 3)])


@pytest.mark.parametrize("quick", [False, True])
def test_every_domain_has_one_optimizer_and_one_cadence(analysis, quick):
    planned = analysis.runs(quick)
    assert set(planned) == set(analysis.PLAYERS)
    for name, overrides in planned.items():
        assert "optimizer=adam" in overrides
        assert not [item for item in overrides if item.startswith("optimizer.")]  # shipped rates
        plan = analysis.CONFIG["domains"][name]["full"]
        assert 12 <= plan["iterations"] / plan["every"] <= 20
