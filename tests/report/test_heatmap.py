import numpy as np
import pytest

from playground.record.view import View
from playground.report.figures.gradient_norms import cells, figure, limits

TENSORS = {"model": ["a", "b"]}


def test_cells_hand_computed(record):
    """4 updates in 2 cells of 2: geometric means over updates and members."""

    def norm(update, member):
        return np.array([[1.0, 100.0], [1.0, 100.0], [0.0, 0.0], [0.0, 0.0]])

    view = View(record(players=TENSORS, iterations=4, rounds=1, norm=norm))
    # update 0 does not exist: the first cell holds update 1, the second 2 and 3, the third 4
    found = cells(view, "model", columns=3)
    assert found.edges.tolist() == [0, 2, 4, 6]
    assert found.norm[0] == pytest.approx([5.0, 5.0, np.nan], nan_ok=True)  # a = .5 norm
    assert found.norm[1] == pytest.approx([2.5, 2.5, np.nan], nan_ok=True)
    assert found.zero[0].tolist() == [False, False, True]
    assert found.measured.all()
    assert not found.broken.any()


def test_every_cell_holds_a_measurement_at_any_cadence(record):
    view = View(record(players=TENSORS, iterations=500, rounds=1, every=7))
    found = cells(view, "model", columns=40)
    assert (found.edges[1] % 7) == 0
    assert found.measured[:, 1:-1].all()
    assert found.norm.shape[1] <= 41


def test_non_finite_zero_and_unmeasured_are_told_apart(record):
    def norm(update, member):
        values = np.ones((len(update), len(member)))
        values[10:20, 0] = np.nan  # one member of two
        values[30:] = np.inf
        values[20:30] = 0.0
        return values

    view = View(record(players=TENSORS, iterations=40, rounds=1, norm=norm))
    found = cells(view, "model", columns=100)
    assert found.edges[[0, -1]].tolist() == [1, 41]
    assert (found.broken[0, 10:20] == 0.5).all()
    assert (found.broken[0, 30:40] == 1).all()
    assert found.zero[0, 20:30].all()
    assert not found.zero[0, 10:20].any()
    assert found.measured.all()


def test_a_tensor_that_was_never_measured(record):
    run = record(players={"model": ["a"]})
    view = View(run)
    view.manifest["tensors"]["model"] = ["a", "never"]
    found = cells(view, "model")
    assert found.measured[0].any()
    assert not found.measured[1].any()


@pytest.mark.parametrize(
    ("known", "low", "high"),
    [([], 0.1, 1.0), ([2.0, 2.0], 2 / 10**0.5, 2 * 10**0.5), ([1e-8, 1.0], 1e-8, 1.0)],
)
def test_colour_limits(known, low, high):
    found = limits(np.array(known))
    assert found[0] == pytest.approx(low, rel=0.2)
    assert found[1] == pytest.approx(high, rel=0.2)


def test_nothing_measured(record):
    assert figure(View(record(gradients=False))) is None


def test_many_tensors_have_legible_labels(record):
    many = {"model": [f"layer.{k}.weight" for k in range(130)]}
    drawn = figure(View(record(players=many, iterations=3)))
    labels = [text.get_text() for text in drawn.axes[0].get_yticklabels()]
    assert labels[0] == "layer.0.weight"
    assert len(labels) <= 48
    assert float(drawn.get_figheight()) < 12
