"""What the study of the edge of stability reads from ratios and losses that were made up."""

import numpy as np
import pytest

from playground import study


@pytest.fixture(scope="module")
def analysis():
    return study.load_analysis(study.find("cohen2021"))


def trail(analysis, ratio, loss):
    at = 1 + 10 * np.arange(len(ratio))
    ratio = np.array(ratio, float)
    return analysis.Trail(at, ratio, np.zeros_like(ratio), np.array(loss, float))


def test_crossing_rises_and_fall(analysis):
    """Member 0 crosses at iteration 21, after which every other update raises; 1 never does."""
    ratio = [[0.5, 0.5], [0.9, 0.6], [1.1, 0.7], [0.9, 0.8]]
    falling = 10.0 - 0.1 * np.arange(40)
    bouncing = falling.copy()
    bouncing[21::2] += 1.0
    found = trail(analysis, ratio, np.stack([bouncing, falling], axis=1))
    assert found.crossings().tolist() == [21, 40]
    before, after = found.rises()
    assert before.tolist() == [0.0, 0.0]
    assert after == pytest.approx([10 / 19, 0.0])  # updates 21 to 39, the odd of them
    assert found.fall() == pytest.approx([np.log10(bouncing[-1] / bouncing[20]), 0.0])
    assert found.last().tolist() == [[0.9, 0.8]]


def test_a_member_above_the_line_at_once_has_no_update_below(analysis):
    found = trail(analysis, [[1.2], [1.0]], np.linspace(2, 1, 20)[:, None])
    assert found.crossings().tolist() == [1]
    assert found.rises()[0].tolist() == [0.0]


def test_frozen_members_are_left_out_of_the_middle(analysis):
    values = np.array([[np.nan, np.nan], [1.0, np.nan], [1.0, 3.0]])
    assert analysis.middle(values) == pytest.approx([np.nan, 1.0, 2.0], nan_ok=True)


@pytest.mark.parametrize("quick", [False, True])
def test_rates_are_members_of_one_run(analysis, quick):
    for name, overrides in analysis.runs(quick).items():
        rates = ",".join(map(str, analysis.METHODS[name]["rates"]))
        assert f"vary.optimizer.lr=[{rates}]" in overrides
