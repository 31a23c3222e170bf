"""The study's own arithmetic, without its runs."""

import numpy as np
import pyarrow as pa
import pytest

from playground import study
from playground.config import compose


@pytest.fixture(scope="module")
def analysis():
    return study.load_analysis(study.find("gradients_across_domains"))


@pytest.mark.parametrize("quick", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_every_run_is_a_valid_command(analysis, quick):
    domains = {name: compose(own).problem.name for name, own in analysis.runs(quick).items()}
    assert [name.split("/")[0] for name in domains.values()] == [
        "rl", "gan", "supervised", "landscape"
    ]  # fmt: skip


def test_claims_name_runs_and_estimators(analysis):
    for what, whose, published, low, high in analysis.CONFIG["claims"]:
        assert whose.split("/")[0] in analysis.CONFIG["runs"]
        assert what in analysis.estimates.__doc__
        assert published
        assert low is None or high is None or low < high


def test_rows_become_means_by_iteration_and_member(analysis):
    """Two updates in an iteration, one of them without a value, and a member that stops."""
    table = pa.table({
        "iteration": [1, 1, 1, 1, 4, 4], "member": [0, 0, 1, 1, 0, 1],
        "value": [1.0, 3.0, 5.0, None, 7.0, float("inf")],
    })  # fmt: skip
    at, value = analysis.pivot(table, "value", 2)
    assert at.tolist() == [1, 4]
    np.testing.assert_array_equal(value, [[2.0, 5.0], [7.0, np.nan]])


def test_the_share_of_noise_is_of_two_means_and_needs_no_signal(analysis):
    """Noise 1 throughout; the signal is 3 and then 0, its estimates of either sign."""
    at = np.arange(1, 1001)
    sign = np.where(at % 2, 5.0, -5.0)
    signal = np.where(at <= 500, 3.0, 0.0) + sign
    early, late = analysis.share((at, np.ones((1000, 2))), (at, signal[:, None] * [1, 1]), 1000)
    np.testing.assert_allclose(early, 1 / 4)
    np.testing.assert_allclose(late, 1)
