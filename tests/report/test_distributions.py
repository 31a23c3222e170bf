"""The pictures of entries' sizes and of Hessians' eigenvalues, against numbers that are known."""

import numpy as np
import pytest
import torch
from harness import quiet

from playground.parameters import Layout
from playground.probes.step import formulas as step
from playground.record.view import View
from playground.report import names
from playground.report.drawing.style import ALARM
from playground.report.figures import magnitudes, spectrum

LAYOUT = Layout({"w": (3000,), "b": (1000,)})


def test_the_recorded_bins_are_the_drawn_ones():
    assert step.LOW == magnitudes.LOW
    assert step.PER_DECADE == magnitudes.PER_DECADE


def test_shares_and_median_are_those_of_the_entries(record):
    """Two members, three times: entries of a known distribution, zeros, and a broken one."""
    draw = np.random.default_rng(0)
    value = 10.0 ** draw.normal(-3, 1, size=(3, 2, 4000))
    value[1, :, :1000] = 0.0
    value[2, 0, :400] = np.nan
    recorded = {t: step.magnitudes(torch.tensor(value[t]), LAYOUT).numpy() for t in range(3)}
    arrays = {"magnitudes_gradient_model": dict(zip((1, 11, 21), recorded.values(), strict=True))}
    view = View(record(players={"model": ["w", "b"]}, arrays=arrays))
    found = magnitudes.shares(view, "model", "gradient")
    assert found.x.tolist() == [1, 11, 21]
    assert found.shares.sum(axis=1) == pytest.approx(1.0)
    assert found.shares[:, 0].tolist() == [0.0, 0.25, 0.0]
    assert found.shares[:, -1] == pytest.approx([0.0, 0.0, 0.05])
    edges = step.edges().numpy()
    for t in range(3):
        by_hand = [np.histogram(np.nan_to_num(row), edges)[0] / 4000 for row in value[t]]
        assert found.shares[t, 2:-2] == pytest.approx(np.mean(by_hand, axis=0))
        pooled = np.nanmedian(np.concatenate([row[np.isfinite(row)] for row in value[t]]))
        assert found.median()[t] == pytest.approx(np.log10(pooled), abs=0.02)
    figure = magnitudes.figure(view)
    words = [text.get_text() for text in figure.axes[0].texts]
    assert "not finite " in words


def test_a_median_of_zero_is_none(record):
    recorded = step.magnitudes(torch.zeros(1, 4000), LAYOUT).numpy()
    view = View(record(members=1, arrays={"magnitudes_update_model": {1: recorded}}))
    assert np.isnan(magnitudes.shares(view, "model", "update").median()).all()
    assert magnitudes.figure(view) is not None  # one time, nothing but zeros


@pytest.mark.parametrize(("low", "high"), [(-3.0, 120.0), (0.0, 0.0), (2.0, 2.0), (-5e-9, -1e-9)])
def test_bins_hold_both_ends(low, high):
    edges, linear = spectrum.bins(low, high)
    assert (np.diff(edges) > 0).all()
    assert edges[0] <= low
    assert high <= edges[-1]
    assert 0 < linear <= (max(abs(low), abs(high)) or 1.0)
    assert not ((edges[:-1] < 0) & (edges[1:] > 0) & (edges[:-1] != -edges[1:])).any()


def test_an_exact_spectrum_is_a_histogram(record):
    values = {k: np.random.default_rng(k).normal(size=(2, 50)) ** 3 for k in (1, 5)}
    view = View(record(arrays={"hessian-model": values}))
    found = spectrum.spectra(view, "model")
    assert found.exact
    for row, k in enumerate((1, 5)):
        counted = np.histogram(values[k], found.edges)[0] / 100
        assert found.shares[row] == pytest.approx(counted)


def test_a_density_is_weighted_and_keeps_its_mass(record):
    nodes = np.array([-1.0, 0.01, 5.0])
    weights = np.array([0.1, 0.7, 0.2])
    recorded = np.stack([nodes, weights], axis=-1)[None]
    broken = np.full_like(recorded, np.nan)
    view = View(record(members=1, arrays={"density-model": {1: recorded, 2: broken}}))
    found = spectrum.spectra(view, "model")
    assert not found.exact
    assert found.shares[0].sum() == pytest.approx(1.0)
    assert np.isnan(found.shares[1]).all()
    assert found.shares[0][found.edges[1:] <= 0].sum() == pytest.approx(0.1)
    assert found.shares[0][found.edges[:-1] > 1].sum() == pytest.approx(0.2)
    assert spectrum.figure(view) is not None


@pytest.mark.parametrize("nodes", [[3e-5, 0.2, 4.0], [0.0, 0.0], [1.0, 1.0], [-2.0, -2.0], [1e-9]])
def test_a_density_shows_no_sign_that_is_not_there(record, nodes):
    """Positive semidefinite, zero, powers of ten, negative: what is drawn has the nodes' signs."""
    recorded = np.stack([nodes, np.full(len(nodes), 1 / len(nodes))], axis=-1)[None]
    view = View(record(members=1, arrays={"density-model": {1: recorded, 5: recorded}}))
    found = spectrum.spectra(view, "model")
    assert found.shares[:, found.edges[1:] <= 0].sum() == pytest.approx(2 * (min(nodes) < 0))
    assert spectrum.figure(view) is not None


@pytest.mark.parametrize("value", [1e-300, 1e-13, 0.5, 700.0, 9e3, 1e12, np.inf, np.nan])
def test_entries_of_any_size_have_a_picture(record, value):
    recorded = step.magnitudes(torch.full((1, 4000), value, dtype=torch.float64), LAYOUT).numpy()
    arrays = {"magnitudes_gradient_model": {1: recorded, 2: recorded}}
    assert magnitudes.figure(View(record(members=1, arrays=arrays))) is not None


def test_no_spectrum_no_figure(record):
    view = View(record())
    assert spectrum.figure(view) is None
    assert magnitudes.figure(view) is None


def test_a_run_s_ends_are_lines_where_they_are_trusted(tmp_path):
    """On a quadratic with momentum: both ends are the curvatures, the line is at (2 + 2 b) / lr."""
    run = quiet(["problem=landscape/quadratic", "problem.dimension=4", "problem.condition=10",
                 "optimizer=momentum", "optimizer.lr=0.05", "optimizer.momentum=0.5",
                 "probes=full", "budget.iterations=20", "evaluate.every=5"],
                tmp_path / "run")  # fmt: skip
    assert {"spectrum", "magnitudes"} <= set(names(run))
    ax = spectrum.figure(View(run)).axes[0]
    lines = {tuple(np.unique(line.get_ydata())): line for line in ax.lines}
    levels = sorted(value for key in lines if len(key) == 1 for value in key)
    assert levels == pytest.approx([0.0, 0.1, 1.0, (2 + 2 * 0.5) / 0.05])
    assert lines[max(key for key in lines)].get_color() == ALARM


def test_ends_that_did_not_converge_are_left_out(tmp_path):
    run = quiet(["problem=supervised/two_moons", "probes=full", "budget.iterations=10",
                 "evaluate.every=5", "probes.curvature.products=3"], tmp_path / "run")  # fmt: skip
    view = View(run)
    measured = view.measured("model", "curvature")
    good = measured["lambda_min_converged"].values == 1
    assert not good.all()
    drawn = spectrum.ends_of(view, "model")["lambda_min"].values
    assert np.isfinite(drawn).tolist() == good.tolist()
