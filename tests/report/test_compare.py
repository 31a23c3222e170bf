import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from playground.record.atomic import RecordError
from playground.record.directory import RunDirectory
from playground.record.view import Series, View
from playground.report.comparison import across_domains as crossdomain
from playground.report.comparison import race
from playground.report.comparison.entries import entries
from playground.report.comparison.report import best_of, figure, ranked, report, table

SCRIPT = Path(__file__).parents[2] / "scripts" / "report.py"


def ends(values):
    """A metric [T, M] with known values at the end."""
    return {"accuracy": lambda time, member: np.tile(np.array(values, float), (len(time), 1))}


def optimizer(name, lr=0.1):
    return {"optimizer": {"name": name, "lr": lr}}


def landscape(record, name, lr=0.1):
    step = np.linspace(1.0, lr, 31)[None, :, None].repeat(2, axis=2)
    axis = np.linspace(-2, 2, 9)
    arrays = {"trajectory": {30: step}, "targets": {30: np.zeros((1, 1, 2))},
              "contour_axes": {30: np.stack([axis, axis])[None]},
              "contour": {30: (axis**2 + axis[:, None] ** 2)[None]}}  # fmt: skip
    config = {**optimizer(name), "problem": {"name": "landscape/quadratic", "condition": 10.0}}
    return record(name, problem="landscape/quadratic", players={"x": ["x"]}, members=1,
                  arrays=arrays, config=config,
                  metric={"distance": lambda t, m: np.ones((len(t), 1)) * lr})  # fmt: skip


def test_the_table_holds_mean_spread_and_interval(record):
    """1, 2, 3: mean 2, s 1, interval 2 -+ 4.302653 / sqrt(3) (t table, 2 degrees)."""
    runs = [
        record("a", metric=ends([1, 2, 3]), members=3, config=optimizer("sgd")),
        record("b", metric=ends([0, 9, np.nan]), members=3, config=optimizer("adam")),
    ]
    text = table(entries([View(run) for run in runs]))
    lines = text.splitlines()
    assert lines[0] == "supervised/digits: test accuracy, fraction at the end (lower is better)"
    assert lines[2].split("  ")[0] == "sgd"  # a member of the other is not finite
    assert "[-0.4841, 4.484]" in lines[2]
    assert lines[2].split()[2:4] == ["2", "1"]
    assert "3 (1 not finite)" in lines[3]


def test_ranked_by_the_metrics_direction(record):
    def order(higher):
        views = [
            View(record(f"{name}{higher}", metric=ends([v]), members=1, higher=higher,
                        config=optimizer(name)))
            for name, v in (("sgd", 1), ("adam", 2))
        ]  # fmt: skip
        return [entry.label for entry in ranked(entries(views))]

    assert order(higher=False) == ["sgd", "adam"]
    assert order(higher=True) == ["adam", "sgd"]


def test_best_of_what_varies(record):
    members = [{"index": k, "seed": 0, "values": {"optimizer.lr": v}}
               for k, v in enumerate([0.1, 0.2, 0.3])]  # fmt: skip
    (entry,) = entries([View(record(metric=ends([3, 1, np.nan]), members=members))])
    best = best_of(entry)
    assert best.final().tolist() == [1.0]
    assert best.label.endswith("lr 0.2 (best of 3)")


def test_report_writes_what_the_runs_allow(record, tmp_path):
    paths = [landscape(record, name, lr).path for name, lr in (("sgd", 0.5), ("adam", 0.1))]
    paths.append(record("digits", config={"problem": {"name": "supervised/digits"}}).path)
    written, text = report(paths, tmp_path / "out")
    assert sorted(path.name for path in written) == [
        "comparison.png", "comparison.txt", "cross_domain.png", "race-landscape-quadratic.png",
    ]  # fmt: skip
    assert (tmp_path / "out" / "comparison.txt").read_text().strip() == text
    assert all(path.stat().st_size for path in written)


def test_report_of_a_sweep_and_of_varying_members(record, tmp_path):
    sweep = RunDirectory.create_sweep(tmp_path / "sweep", ["optimizer=sgd,adam"])
    members = [{"index": k, "seed": k % 2, "values": {"optimizer.lr": [0.1, 0.2][k // 2]}}
               for k in range(4)]  # fmt: skip
    for number, name in enumerate(("sgd", "adam")):
        record(f"sweep/{number}", members=members, config=optimizer(name))
    written, text = report([sweep], tmp_path / "out")
    assert "learning_rate.png" in {path.name for path in written}
    assert len([line for line in text.splitlines() if line.startswith(("sgd", "adam"))]) == 4


def test_missing_paths_are_one_clear_error(tmp_path):
    with pytest.raises(RecordError, match="no such run"):
        report([tmp_path / "nowhere"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_race_needs_the_same_landscape(record):
    pooled = entries([View(landscape(record, name)) for name in ("sgd", "adam")])
    assert set(race.figures(pooled)) == {"landscape-quadratic"}
    pooled[1].first.config["problem"]["condition"] = 20.0
    assert race.figures(pooled) == {}


def test_the_races_curves_hold_every_iteration(record):
    (entry,) = entries([View(landscape(record, "sgd", 0.5))])
    path = race.trajectory.trail(entry.first.arrays)
    (racer,) = race.racers(entry, path)
    series = race.distance(racer)
    assert series.values[:, 0] == pytest.approx(np.sqrt(2) * np.linspace(1, 0.5, 31))


def test_relative_norms_start_at_one(record):
    (entry,) = entries([View(record(iterations=10, rounds=4))])
    series = crossdomain.relative(entry, "model", "norm", "gradient")
    assert series.x[-1] == 1.0
    assert series.values[0].tolist() == [1.0, 1.0]
    assert series.values[:, 0] == pytest.approx(np.exp(-np.arange(40) / 20), rel=1e-5)


def test_first_positive_value():
    values = np.array([[0.0, np.nan, 5.0], [2.0, np.nan, 7.0]])
    found = crossdomain.first_positive(values)
    assert np.array_equal(found, [2.0, np.nan, 5.0], equal_nan=True)


def test_the_cross_domain_page_has_a_column_a_problem(record):
    problems = ("supervised/digits", "rl/cartpole", "gan/ring")
    views = [View(record(p.replace("/", "-"), problem=p, config={"problem": {"name": p}}))
             for p in problems]  # fmt: skip
    pooled = entries(views)
    drawn = crossdomain.figure(pooled)
    panels = [ax for ax in drawn.axes if ax.has_data()]
    assert len(panels) == 3 * (1 + len(crossdomain.ROWS))
    assert crossdomain.figure(entries([View(record("none", gradients=False))])) is None


def test_many_entries_keep_colours_by_place(record):
    views = [View(record(f"r{k}", members=1, metric=ends([9 - k]), iterations=3,
                         config=optimizer("sgd", 0.1 * (k + 1)))) for k in range(4)]  # fmt: skip
    drawn = figure(entries(views))
    labels = drawn.axes[-1].get_yticklabels()
    assert [text.get_text() for text in labels] == [f"lr {0.1 * (k + 1):g}" for k in (3, 2, 1, 0)]
    assert labels[0].get_color() == "#CC79A7"  # the fourth colour: it was given fourth
    assert isinstance(entries(views)[0].metric("accuracy"), Series)


def run_script(*arguments):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True,
        env={"PYTHONPATH": str(SCRIPT.parents[1]), "PATH": ""}, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_the_script_prints_table_and_paths(record, tmp_path):
    done = run_script(record("a").path, record("b", config=optimizer("sgd")).path, "--out",
                      tmp_path / "out")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "out" / "comparison.png")
    assert (tmp_path / "out" / "comparison.png").exists()
    only = run_script(tmp_path / "a")
    assert str(tmp_path / "a" / "figures" / "overview.png") in only.stdout.splitlines()


def test_the_script_refuses_what_is_no_run(tmp_path):
    done = run_script(tmp_path / "nowhere")
    assert done.returncode == 2
    assert done.stderr == f"report: {tmp_path / 'nowhere'}: no such run\n"
    assert run_script().returncode == 2
    assert "RUN_OR_SWEEP" in run_script("--help").stdout
