"""The sheet of instruments: curves are the recorded measurements, panels only what was measured."""

import numpy as np

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
