"""The sheet of instruments: curves are the recorded measurements, panels only what was measured."""

import numpy as np
from harness import SMALL_GAN

import playground
from playground.record.view import Series, View
from playground.report import draw
from playground.report.drawing import panels
from playground.report.figures import instruments


def test_curves_are_the_recorded_measurements(tmp_path):
    run = playground.run([
        "problem=supervised/two_moons", "probes=full", "members=2", "budget.iterations=40",
        "evaluate.every=10", f"run_dir={tmp_path / 'run'}",
    ], quiet=True)  # fmt: skip
    assert (run.path / "figures" / "instruments.png").exists()
    shown = {ax.get_title(loc="left"): ax for ax in instruments.figure(View(run)).axes}
    rows = [
        row for row in run.measurements.to_pylist()
        if row["quantity"] == "trace" and row["probe"] == "curvature"
    ]  # fmt: skip
    by_iteration = {}
    for row in rows:
        by_iteration.setdefault(row["iteration"], []).append(row["value"])
    mean = shown["trace of the Hessian"].lines[-1]
    np.testing.assert_array_equal(mean.get_xdata(), sorted(by_iteration))
    np.testing.assert_allclose(mean.get_ydata(), [np.mean(by_iteration[k]) for k in
                                                  sorted(by_iteration)])  # fmt: skip
    assert {"noise scale B, samples", "step length alpha", "distance / path length"} <= set(shown)


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
    shown = {ax.get_title(loc="left"): ax for ax in instruments.figure(view).axes}
    for player in ("generator", "discriminator"):
        known = view.measured(player, "direction")
        lags = [q for q, series in known.items() if q.startswith("cosine_update/") and series]
        lines = shown[f"cosine of updates, by lag, {player}"].get_lines()
        colors = {str(line.get_color()) for line in lines} - {"#999999"}  # the line at 0
        assert len(colors) == len(lags) > 3


def test_a_player_has_one_colour_and_the_game_is_drawn(tmp_path):
    run = playground.run([
        "problem=landscape/quadratic_game", "probes=full", "budget.iterations=8",
        "evaluate.every=2", f"run_dir={tmp_path / 'run'}",
    ], quiet=True)  # fmt: skip
    shown = {ax.get_title(loc="left"): ax for ax in instruments.figure(View(run)).axes}
    found = {}
    for title in ("Hessian: both ends", "sharpness / stability line", "trace of the Hessian"):
        for line in shown[title].get_lines():
            player = str(line.get_label()).partition(" ")[0]
            if player in ("x", "y"):
                found.setdefault(player, set()).add(line.get_color())
    assert all(len(colors) == 1 for colors in found.values())
    assert found["x"] != found["y"]
    styles = {str(line.get_label()): line.get_linestyle()
              for line in shown["Hessian: both ends"].get_lines()}  # fmt: skip
    assert styles["x largest"] == styles["y largest"] != styles["x smallest"]
    turn = run.measurement("game", "turn")
    drawn = {str(line.get_label()): line for line in shown["game: along its own flow"].get_lines()}
    np.testing.assert_allclose(drawn["turn"].get_ydata(), turn[1][:, 0])


def test_one_bound_alone_is_named(record):
    """Where B cannot be estimated the bound that can is not taken for it."""
    view = View(record())
    nothing, low = (Series(np.array([1]), np.array([[v]])) for v in (np.nan, 92.0))
    found = {("model", "noise"): {"noise_scale": nothing, "noise_scale_low": low}}
    view.manifest["players"] = {"model": 3}
    made = [panel for panel in instruments.panels(view, found) if any(panel.curves.values())]
    ax = panels.draw(view, "title", made, "").axes[0]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["low"]


def test_a_quantity_that_is_zero_beside_one_over_decades(record):
    """On a log axis there is no place for it, and no warning."""
    x = np.arange(1, 6)
    large, zero = (Series(x, np.outer(v, np.ones(12))) for v in (10.0**x, 0.0 * x))
    panel = panels.Panel("eigenvalues", {"largest": large, "imaginary": zero}, line=0.0)
    ax = panels.draw(View(record(members=12)), "title", [panel], "").axes[0]
    assert ax.get_yscale() == "log"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["largest"]
