import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from playground.record.arrays import save_array
from playground.record.checkpoint import save_snapshot
from playground.record.directory import RecordError, RunDirectory
from playground.record.reader import Run, Sweep, load
from playground.record.writer import Recorder, compact


def run_of(directory: RunDirectory) -> Run:
    result = load(directory.path)
    assert isinstance(result, Run)
    return result


def test_everything_of_a_run(directory: RunDirectory) -> None:
    save_array(directory, "samples", 3, np.arange(4))
    for iteration in (8, 1):
        save_snapshot(directory, iteration, {"x": torch.zeros(1)})
    save_snapshot(directory, 8, {"x": torch.zeros(1)}, best=True)
    run = run_of(directory)
    assert run.path == directory.path
    assert run.config == {"seed": 0}
    assert run.manifest["status"] == "running"
    assert run.members == [{"seed": 0}]
    assert run.snapshots == [1, 8]
    assert run.arrays["samples"][3].tolist() == [0, 1, 2, 3]
    assert "running" in repr(run)
    tables = (run.metrics, run.gradients, run.measurements, run.events)
    assert all(table.num_rows == 0 for table in tables)


def test_live_read(directory: RunDirectory) -> None:
    run = run_of(directory)
    recorder = Recorder(directory, 0)
    for i in range(1, 6):
        recorder.add("metrics", {"iteration": i, "member": 0, "name": "loss", "player": ""})
        assert run.metrics.num_rows == i - 1
        recorder.flush()
        assert run.metrics.num_rows == i
    recorder.close()
    compact(directory)
    directory.update_manifest(status="finished")
    assert run.metrics.num_rows == 5
    assert "finished" in repr(run)


def test_metric_is_aligned_over_members(directory: RunDirectory) -> None:
    directory.update_manifest(members=[{"seed": s} for s in range(3)])
    with Recorder(directory, 0) as recorder:
        recorder.add(
            "metrics",
            {"iteration": [5, 5, 1, 5], "member": [0, 2, 1, 2], "name": "return",
             "player": "", "value": [1.0, 2.0, 3.0, 4.0]},
            null={"value": [True, False, False, False]},
        )  # fmt: skip
        recorder.add("metrics", {"iteration": 1, "member": 0, "name": "return", "player": "agent"})
    run = run_of(directory)
    iterations, values = run.metric("return")
    assert iterations.tolist() == [1, 5]
    nan = np.nan
    np.testing.assert_array_equal(values, [[nan, 3, nan], [nan, nan, 4]])
    assert run.metric("return", "agent")[1].shape == (1, 3)
    assert run.metric("absent")[1].shape == (0, 3)
    assert run.metric_names() == ["return"]
    assert run.metric_names("model") == []


def test_measurements_by_name(directory: RunDirectory) -> None:
    rows = [  # iteration, member, player, tensor, probe, quantity, value
        (1, 0, "g", "", "noise", "snr", 0.5), (1, 1, "g", "", "noise", "snr", 0.25),
        (9, 1, "g", "", "noise", "snr", 2.0), (1, 0, "g", "w", "noise", "snr", 7.0),
        (1, 0, "g", "", "step", "alpha", 3.0), (1, 0, "d", "", "step", "alpha", 4.0),
        (1, 0, "", "", "game", "turn", 5.0),
    ]  # fmt: skip
    names = ("iteration", "member", "player", "tensor", "probe", "quantity", "value")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    directory.update_manifest(members=[{"seed": 0}, {"seed": 1}])
    with Recorder(directory, 0) as recorder:
        recorder.add("measurements", {**columns, "update": columns["iteration"]})
    run = run_of(directory)
    iterations, values = run.measurement("noise", "snr")
    assert iterations.tolist() == [1, 9]
    np.testing.assert_array_equal(values, [[0.5, 0.25], [np.nan, 2.0]])
    assert run.measurement("noise", "snr", tensor="w")[1][0, 0] == 7.0
    assert run.measurement("step", "alpha", player="d")[1][0, 0] == 4.0
    assert run.measurement("game", "turn")[1][0, 0] == 5.0
    with pytest.raises(ValueError, match="step/alpha of g, d: name one"):
        run.measurement("step", "alpha")
    with pytest.raises(ValueError, match="noise/snt was not measured"):
        run.measurement("noise", "snt")


def test_metric_without_members_in_the_manifest(directory: RunDirectory) -> None:
    directory.update_manifest(members=[])
    assert run_of(directory).metric("loss")[1].shape == (0, 0)
    with Recorder(directory, 0) as recorder:
        recorder.add("metrics", {"iteration": 1, "member": [0, 1], "name": "loss", "player": ""})
    assert run_of(directory).metric("loss")[1].shape == (1, 2)


def test_clear_errors(tmp_path: Path, directory: RunDirectory) -> None:
    with pytest.raises(RecordError, match="no such run"):
        load(tmp_path / "absent")
    with pytest.raises(RecordError, match="not a run"):
        load(directory.path / "records")
    directory.update_manifest(schema_version=99)
    with pytest.raises(RecordError, match="schema version 99"):
        load(directory.path)


def test_figures_and_players_come_from_elsewhere(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, runner = ModuleType("playground.report"), ModuleType("playground.run")
    report.__dict__["draw"] = lambda run, name: run.path / "figures" / f"{name}.png"
    runner.__dict__["load_player"] = lambda run, name, member: (name, member)
    monkeypatch.setitem(sys.modules, "playground.report", report)
    monkeypatch.setitem(sys.modules, "playground.run", runner)
    run = run_of(directory)
    assert run.figure("norms") == directory.path / "figures" / "norms.png"
    assert run.player("agent", member=2) == ("agent", 2)
    with pytest.raises(RecordError, match="name"):
        run.figure("../../x")


def child(root: Path, number: int, status: str, iterations: range) -> None:
    directory = RunDirectory.create("x", root / str(number))
    directory.write_manifest({"status": status, "attempts": [{"start_iteration": 0}],
                              "overrides": [f"seed={number}"]})  # fmt: skip
    with Recorder(directory, 0) as recorder:
        for i in iterations:
            recorder.add("metrics", {"iteration": i, "name": f"m{number}", "value": number})
    directory.release()


def test_sweep(tmp_path: Path) -> None:
    jobs = [["seed=0"], ["seed=2"]]
    root = RunDirectory.create_sweep(tmp_path / "s", ["seed=0,2"], jobs)
    child(root, 10, "failed", range(1))
    child(root, 0, "finished", range(3))
    (root / "notes").mkdir()
    sweep = load(root)
    assert isinstance(sweep, Sweep)
    assert sweep.runs == [
        {"run": 0, "overrides": ["seed=0"], "status": "finished"},
        {"run": 1, "overrides": ["seed=2"], "status": "missing"},
        {"run": 10, "overrides": ["seed=10"], "status": "failed"},
    ]
    assert sweep.metrics["run"].to_pylist() == [0, 0, 0, 10]
    assert sweep.metrics["name"].to_pylist() == ["m0", "m0", "m0", "m10"]
    assert sweep.gradients.column_names[0] == "run"
    child(root, 1, "running", range(2))
    assert sweep.metrics["run"].to_pylist() == [0, 0, 0, 1, 1, 10]
    assert [c.path.name for c in sweep.children] == ["0", "1", "10"]
    assert "3 runs" in repr(sweep)


def test_reading_needs_no_torch(environment: dict[str, str]) -> None:
    script = "import sys, playground.record.reader, playground.record.writer\n" \
             "sys.exit('torch' in sys.modules)"  # fmt: skip
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
