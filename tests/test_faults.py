"""What goes wrong around a run, in real processes: exit codes, what is kept, what is said."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from harness import (
    TINY,
    Command,
    assert_same,
    assert_same_records,
    checkpoints,
    final,
    load,
    quiet,
    resume,
    rows,
    stop,
)

import playground
from playground.record.atomic import RecordError
from playground.schema import ConfigError
from playground.session import RunFailed, Session

pytestmark = pytest.mark.usefixtures("without_figures")

LONG = [*TINY["game"], "budget.iterations=1000000", "checkpoint.every=20", "evaluate.every=100"]
SHORT = [*TINY["supervised"], "budget.iterations=8", "checkpoint.every=2"]


def readable(path: Path) -> int:
    """Whole records, without gap or duplicate; how many iterations they hold."""
    run = load(path)
    found = rows(run, "metrics")
    assert len(set(found)) == len(found)
    player = next(iter(run.manifest["players"]))
    iterations = run.metric("loss", player)[0].tolist()
    assert iterations == list(range(1, len(iterations) + 1))
    return len(iterations)


# Signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_after_a_checkpoint(number, code, tmp_path):
    path = tmp_path / "run"
    command = Command([*LONG, f"run_dir={path}"], tmp_path / "log")
    command.until(lambda: checkpoints(path) >= 40).signal(number)
    assert command.wait() == code, command.output()
    assert "resume=" in command.output()
    run = load(path)
    assert run.manifest["status"] == "interrupted"
    assert run.manifest["reason"] == signal.Signals(number).name
    at = final(run)["session"]["iteration"]
    assert readable(path) == at == run.manifest["counters"]["iterations"]
    assert (
        Command([f"resume={path}"], tmp_path / "log")
        .until(lambda: checkpoints(path) > at)
        .signal(number)
        .wait()
        == code
    )
    whole = quiet([*LONG[:-3], f"budget.iterations={at}", *LONG[-2:]], tmp_path / "whole")
    mine = run.gradients.filter([i <= at for i in run.gradients["iteration"].to_pylist()])
    assert mine.num_rows == whole.gradients.num_rows


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_command_itself(number, code, tmp_path):
    """Started as a user does, not forked."""
    path = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-m", "playground", *LONG, f"run_dir={path}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(playground.__file__).parents[1])},
    ) as process:  # fmt: skip
        while checkpoints(path) < 20:
            assert process.poll() is None
        process.send_signal(number)
        assert process.wait(60) == code
        assert process.stderr is not None
        assert len(process.stderr.read().strip().splitlines()) == 1
    assert load(path).manifest["status"] == "interrupted"


def test_a_second_signal_does_not_wait(tmp_path, monkeypatch):
    real = Session.iterate

    def iterate(session):
        if session.iteration == 3:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        real(session)

    monkeypatch.setattr(Session, "iterate", iterate)
    with pytest.raises(SystemExit) as caught:
        quiet(SHORT, tmp_path / "run")
    assert caught.value.code == 130
    assert load(tmp_path / "run").manifest["status"] == "interrupted"
    monkeypatch.undo()
    monkeypatch.setattr("playground.report.draw_all", lambda run: [])
    whole = quiet(SHORT, tmp_path / "whole")
    assert_same(final(whole), final(resume(tmp_path / "run")))


def test_signals_are_given_back(tmp_path):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    quiet(SHORT, tmp_path / "run")
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


# Non-finite


@pytest.mark.parametrize("members", [1, 3])
def test_divergence_exits_1(members, tmp_path):
    """Gradient descent on Rosenbrock at lr 1 overflows within a few updates, in every member."""
    path = tmp_path / "run"
    command = Command(
        ["problem=landscape/rosenbrock", "optimizer=sgd", "optimizer.lr=1", f"members={members}",
         "checkpoint.every=1", f"run_dir={path}"], tmp_path / "log",
    )  # fmt: skip
    assert command.wait() == 1
    said = command.output().strip().splitlines()[-1]
    assert said.startswith("playground: run failed: ")
    assert ("non-finite" if members == 1 else "every member") in said
    run = load(path)
    assert run.manifest["status"] == "failed"
    assert run.manifest["reason"] in said
    assert run.events.num_rows == members
    assert readable(path) >= checkpoints(path) > 0


# The disk


def test_a_file_size_limit_of_the_kernel(tmp_path):
    """No file may grow beyond 30 kB: a checkpoint of the larger network cannot be written."""
    path = tmp_path / "run"
    overrides = [*TINY["supervised"], "budget.iterations=400", "checkpoint.every=50"]
    overrides += ["problem.widths=[16]", "members=2", "probes=standard"]
    command = Command([*overrides, f"run_dir={path}"], tmp_path / "log", file_bytes=14_000)
    assert command.wait() == 1, command.output()
    said = command.output().strip().splitlines()[-1]
    assert said.startswith("playground: run failed: cannot write")
    assert str(path) in said
    assert load(path).manifest["status"] == "failed"
    readable(path)
    assert not list(path.rglob("*.tmp"))
    whole = quiet(overrides, tmp_path / "whole")
    parts = resume(path)
    assert_same(final(whole), final(parts))
    assert_same_records(whole, parts)


@pytest.mark.parametrize("folder", ["records", "checkpoints", "snapshots", "arrays", "."])
@pytest.mark.parametrize("after", [0, 3])
def test_a_full_disk(folder, after, tmp_path, monkeypatch):
    """ENOSPC at the n-th write into one folder; the run resumes when there is room again."""
    path, real, count = tmp_path / "run", os.replace, iter(range(10**6))
    begun = []

    def replace(source, target):
        target = Path(target)
        where = target.parent if folder != "." else target
        wanted = path / folder if folder != "." else path / "manifest.json"
        if begun and where == wanted and next(count) >= after:
            raise OSError(28, os.strerror(28))
        real(source, target)

    iterate = Session.run
    monkeypatch.setattr(Session, "run", lambda session: (begun.append(1), iterate(session)))
    monkeypatch.setattr(os, "replace", replace)
    overrides = [*TINY["landscape"], "budget.iterations=8", "checkpoint.every=2"]
    if folder == "." and after:
        pytest.skip("the manifest is written once at the end")
    with pytest.raises((RunFailed, RecordError), match="No space left"):
        quiet(overrides, path)
    monkeypatch.undo()
    monkeypatch.setattr("playground.report.draw_all", lambda run: [])
    assert load(path).manifest["status"] in ("failed", "running")
    readable(path)
    assert not list(path.rglob("*.tmp"))
    whole = quiet(overrides, tmp_path / "whole")
    parts = resume(path)
    assert parts.manifest["status"] == "finished"
    assert_same(final(whole), final(parts))
    assert_same_records(whole, parts)


def test_a_compaction_that_fails_fails_the_run(tmp_path, monkeypatch):
    """Every row is on the disk already, and the message says where room is missing."""

    def full(directory):
        raise RecordError("cannot write metrics.parquet: No space left on device")

    monkeypatch.setattr("playground.run.compact", full)
    with pytest.raises(RunFailed, match="No space left"):
        quiet(SHORT, tmp_path / "run")
    assert load(tmp_path / "run").manifest["status"] == "failed"
    assert readable(tmp_path / "run") == 8
    monkeypatch.undo()
    monkeypatch.setattr("playground.report.draw_all", lambda run: [])
    assert resume(tmp_path / "run").manifest["status"] == "finished"
    assert readable(tmp_path / "run") == 8


def test_a_read_only_folder(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    if os.access(folder, os.W_OK):  # root may write everywhere
        (tmp_path / "file").write_text("not a folder")
        folder = tmp_path / "file"
    command = Command([*SHORT, f"run_dir={folder / 'run'}"], tmp_path / "log")
    assert command.wait() == 1
    assert str(folder) in command.output()
    assert "Traceback" not in command.output()
    assert not (folder / "run").exists()


@pytest.mark.parametrize("what", ["run", "folder", "file"])
def test_run_dir_exists(what, tmp_path):
    path = tmp_path / "here"
    if what == "run":
        quiet(SHORT, path)
    elif what == "folder":
        path.mkdir()
        (path / "thesis.tex").write_text("do not touch")
    else:
        path.write_text("do not touch")
    before = sorted((str(p), p.stat().st_mtime_ns) for p in tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match="run_dir="):
        quiet(SHORT, path)
    assert sorted((str(p), p.stat().st_mtime_ns) for p in tmp_path.rglob("*")) == before


# Broken files


def spoil(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "flipped":
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    else:
        path.write_bytes(b"")


@pytest.mark.parametrize("how", ["truncated", "flipped", "empty"])
def test_the_newest_checkpoint_is_broken(how, tmp_path):
    path = tmp_path / "run"
    stop(SHORT, path, 5)
    spoil(path / "checkpoints" / f"{checkpoints(path)}.pt", how)
    with pytest.warns(UserWarning, match="broken checkpoint .*5.pt"):
        parts = resume(path)
    whole = quiet(SHORT, tmp_path / "whole")
    assert_same(final(whole), final(parts))
    assert_same_records(whole, parts)
    assert parts.manifest["attempts"][-1]["start_iteration"] == 4


def test_both_checkpoints_are_broken(tmp_path):
    path = tmp_path / "run"
    stop(SHORT, path, 5)
    for checkpoint in (path / "checkpoints").glob("*.pt"):
        spoil(checkpoint, "truncated")
    command = Command([f"resume={path}"], tmp_path / "log")
    assert command.wait() == 1
    assert "no readable checkpoint" in command.output()
    assert "Traceback" not in command.output()
    assert readable(path) == 5
    assert load(path).manifest["status"] == "interrupted"


def test_a_broken_part_is_skipped_with_a_warning(tmp_path):
    path = tmp_path / "run"
    stop(SHORT, path, 5)
    parts = sorted((path / "records").glob("metrics-*.parquet"))
    spoil(parts[0], "truncated")
    with pytest.warns(UserWarning, match=parts[0].name):
        found = load(path).metric("loss", "model")[0].tolist()
    assert found == [3, 4, 5]
    command = Command([f"resume={path}"], tmp_path / "log")
    assert command.wait() == 0, command.output()
    assert parts[0].exists()  # what is broken is left for the user to look at


# Two processes


def test_two_processes_cannot_write_one_run(tmp_path):
    path = tmp_path / "run"
    first = Command([*LONG, f"run_dir={path}"], tmp_path / "first")
    first.until(lambda: checkpoints(path) >= 20)
    second = Command([f"resume={path}"], tmp_path / "second")
    assert second.wait() == 1
    assert f"process {first.process.pid} writes this run" in second.output()
    assert "Traceback" not in second.output()
    assert first.signal(signal.SIGINT).wait() == 130
    run = load(path)
    assert len(run.manifest["attempts"]) == 1
    assert readable(path) == final(run)["session"]["iteration"]


def test_two_processes_start_in_one_folder(tmp_path):
    path = tmp_path / "run"
    commands = [Command([*SHORT, f"run_dir={path}"], tmp_path / f"log{i}") for i in range(2)]
    assert sorted(command.wait() for command in commands) == [0, 2]
    assert readable(path) == 8


# An error of one's own code


def test_an_error_in_a_problem_keeps_the_records(tmp_path, monkeypatch):
    real = Session.iterate

    def iterate(session):
        if session.iteration == 5:
            raise ZeroDivisionError("mine")
        real(session)

    monkeypatch.setattr(Session, "iterate", iterate)
    with pytest.raises(ZeroDivisionError):
        quiet(SHORT, tmp_path / "run")
    run = load(tmp_path / "run")
    assert run.manifest["status"] == "failed"
    assert run.manifest["reason"] == "ZeroDivisionError: mine"
    assert readable(tmp_path / "run") == 5
