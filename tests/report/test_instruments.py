"""The sheet of instruments: curves are the recorded measurements, panels only what was measured."""

import numpy as np
from harness import SMALL_GAN

import playground
from playground.report import draw, instruments
from playground.report.view import View


def test_curves_are_the_recorded_measurements(tmp_path):
    run = playground.run([
        "problem=supervised/two_moons", "probes=full", "members=2", "budget.iterations=40",
        "evaluate.every=10", f"run_dir={tmp_path / 'run'}",
    ], quiet=True)  # fmt: skip
    assert (run.path / "figures" / "instruments.png").exists()
    panels = {ax.get_title(loc="left"): ax for ax in instruments.figure(View(run)).axes}
    rows = [
        row for row in run.measurements.to_pylist()
        if row["quantity"] == "trace" and row["probe"] == "curvature"
    ]  # fmt: skip
    by_iteration = {}
    for row in rows:
        by_iteration.setdefault(row["iteration"], []).append(row["value"])
    mean = panels["trace of the Hessian"].lines[-1]
    np.testing.assert_array_equal(mean.get_xdata(), sorted(by_iteration))
    np.testing.assert_allclose(mean.get_ydata(), [np.mean(by_iteration[k]) for k in
                                                  sorted(by_iteration)])  # fmt: skip
    assert {"noise scale B, samples", "step length alpha", "distance / path length"} <= set(panels)


def test_a_light_run_has_none(tmp_path):
    run = playground.run(["problem=landscape/saddle", "budget.iterations=5",
                          f"run_dir={tmp_path / 'run'}"], quiet=True)  # fmt: skip
    assert instruments.figure(View(run)) is None
    assert draw(run, "overview").exists()


def test_of_two_players_no_curve_is_left_out(tmp_path):
    run = playground.run([
        "problem=gan/ring", *SMALL_GAN, "probes=full", "budget.iterations=60",
        "evaluate.every=10", f"run_dir={tmp_path / 'run'}",
    ], quiet=True)  # fmt: skip
    view = View(run)
    panels = {ax.get_title(loc="left"): ax for ax in instruments.figure(view).axes}
    for player in ("generator", "discriminator"):
        known = view.measured(player, "direction")
        lags = [q for q, series in known.items() if q.startswith("cosine_update/") and series]
        lines = panels[f"cosine of updates, by lag, {player}"].get_lines()
        colors = {str(line.get_color()) for line in lines} - {"#999999"}  # the line at 0
        assert len(colors) == len(lags) > 3
