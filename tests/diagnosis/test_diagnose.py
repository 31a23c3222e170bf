"""The diagnosis of real runs: planted faults are named first, healthy runs have no findings."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

import playground
from playground.diagnosis import words
from playground.diagnosis.report import KIND, due
from playground.record.view import View
from playground.report.figures import overview

SCRIPT = Path(__file__).parents[2] / "scripts" / "diagnose.py"


@pytest.mark.parametrize(("overrides", "rule"), [
    # lr beyond 2 / L: every optimizer book's divergence
    (["problem=landscape/quadratic", "optimizer=sgd", "optimizer.lr=2.2",
      "budget.iterations=60"], "step_too_long"),
    (["problem=landscape/beale", "optimizer=adam", "optimizer.lr=1e-9"], "step_too_short"),
    # simultaneous descent on x y moves outwards by sqrt(1 + lr^2) a step
    (["problem=landscape/bilinear"], "rotation"),
    (["problem=landscape/quadratic"], None),
    pytest.param(["problem=landscape/rosenbrock", "optimizer=adam"], None, marks=pytest.mark.slow),
    pytest.param(["problem=landscape/bilinear", "stepper=extragradient"], None,
                 marks=pytest.mark.slow),
])  # fmt: skip
def test_what_is_named_first(tmp_path, overrides, rule):
    run = playground.run([*overrides, f"run_dir={tmp_path / 'run'}"], quiet=True)
    found = playground.diagnose(run)
    assert (found[0].rule if found else None) == rule
    kept = json.loads((run.path / "diagnosis.json").read_text())
    assert [finding["rule"] for finding in kept["findings"]] == [f.rule for f in found]


def test_a_failed_run_is_diagnosed_and_the_script_explains(tmp_path):
    path = tmp_path / "run"
    command = ["problem=supervised/linear_regression", "optimizer=sgd", "optimizer.lr=1e6",
               f"run_dir={path}"]  # fmt: skip
    with pytest.raises(Exception, match="non-finite"):
        playground.run(command, quiet=True)
    assert "non_finite" in (path / "diagnosis.json").read_text()
    shown = subprocess.run(
        [sys.executable, SCRIPT, path], capture_output=True, text=True, check=True
    )
    assert "non_finite" in shown.stdout
    assert "Would be refuted by" in shown.stdout


def test_what_is_found_while_a_run_runs_is_an_event_once(tmp_path):
    run = playground.run(["problem=landscape/quadratic", "optimizer=sgd", "optimizer.lr=2.05",
                          "probes=standard", "members=2", f"run_dir={tmp_path / 'run'}"],
                         quiet=True)  # fmt: skip
    events = [e for e in run.events.to_pylist() if e["kind"] == KIND]
    rules = [e["message"].partition(":")[0] for e in events]
    assert rules.count("step_too_long") == 1
    assert events[0]["iteration"] < 200
    assert "in 2 of 2 members" in events[0]["message"]
    (paragraph,) = (w for w in words(playground.diagnose(run), 2) if w.startswith("step_too_long"))
    assert "Try: a smaller optimizer.lr" in paragraph


def test_findings_are_marked_on_the_overview(tmp_path):
    run = playground.run(["problem=landscape/quadratic", "optimizer=sgd", "optimizer.lr=2.05",
                          f"run_dir={tmp_path / 'run'}"], quiet=True)  # fmt: skip
    (finding,) = (f for f in playground.diagnose(run) if f.rule == "step_too_long")
    figure = overview.figure(View(run))
    main = figure.axes[0]
    (label,) = (text for text in main.texts if text.get_text().strip() == "step_too_long")
    assert label.get_position()[0] == finding.began
    assert any(line.get_xdata()[0] == finding.began for line in main.lines)
    assert any("step_too_long (1)" in text.get_text() for text in figure.texts)


def test_a_run_of_any_length_is_looked_at_in_proportion():
    """Every fourth evaluation of a usual run; of a long one few enough to read it 12 times."""
    for every in (1, 7):
        looks = [i for i in range(1, 60 * every + 1) if due(i, every)]
        assert looks == list(range(4 * every, 61 * every, 4 * every))
    for iterations in (10**4, 10**5):
        looks = [i for i in range(1, iterations + 1) if due(i, 1)]
        assert sum(looks) < 12 * iterations
        assert max(b / a for a, b in pairwise(looks[8:])) < 1.13
