import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from playground.record.directory import (
    FOLDERS,
    RecordError,
    RunDirectory,
    RunExists,
    RunLocked,
    check_name,
    write_atomic,
)

HOLD = """
import os, sys, time
from playground.record.directory import RunDirectory
directory = RunDirectory.open(sys.argv[1])
directory.lock()
worker, (receive, send) = 0, os.pipe()
if len(sys.argv) > 2:
    worker = os.fork()
    if worker == 0:
        os.write(send, b"x")
        time.sleep(60)
        os._exit(0)
    os.read(receive, 1)
print(worker, flush=True)
time.sleep(60)
"""


def test_unique_directories(tmp_path: Path) -> None:
    made = [RunDirectory.create("gan/ring", root=tmp_path) for _ in range(20)]
    assert len({d.path for d in made}) == 20
    date, folder = made[0].path.relative_to(tmp_path).parts
    assert len(date) == 10
    assert folder[8:].startswith("-gan-ring-")
    assert sorted(p.name for p in made[0].path.iterdir() if p.is_dir()) == sorted(FOLDERS)


def test_given_directory_must_be_empty(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run"
    first = RunDirectory.create("x", path)
    first.write_manifest({})
    first.release()
    with pytest.raises(RunExists, match="not empty"):
        RunDirectory.create("x", path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.yaml").write_text("mine: 1\n")
    with pytest.raises(RunExists):
        RunDirectory.create("x", other)
    assert [p.name for p in other.iterdir()] == ["config.yaml"]
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(RunExists):
        RunDirectory.create("x", file)


def test_killed_before_the_manifest_is_made_again(tmp_path: Path) -> None:
    first = RunDirectory.create("x", tmp_path / "run")
    first.write_config({"seed": 1})
    first.release()
    RunDirectory.create("x", tmp_path / "run").release()


def test_concurrent_creation_has_one_winner(tmp_path: Path) -> None:
    won: list[RunDirectory] = []

    def create() -> None:
        with contextlib.suppress(RecordError):
            won.append(RunDirectory.create("x", tmp_path / "run"))

    threads = [threading.Thread(target=create) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


@pytest.mark.parametrize("name", ["run", "a.b", "gan-ring_2", "0", "-x"])
def test_safe_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".x", "a/b", "../x", "a b", "a\n", "é", "a\0", "$x"]
)
def test_unsafe_names(name: str) -> None:
    with pytest.raises(RecordError, match="name"):
        check_name(name)


def test_unsafe_run_name_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RecordError):
        RunDirectory.create("../../etc", root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_config_and_manifest_round_trip(directory: RunDirectory) -> None:
    config = {"seed": 3, "lr": 1e-5, "none": None, "flag": True, "vary": {"a": [1e-4, 2]}, "e": {}}
    directory.write_config(config)
    assert directory.read_config() == config
    directory.write_manifest(
        {"a": np.float32(0.5), "b": np.arange(3), "c": float("nan"), "d": Path("x"), "e": (True,)}
    )
    changed = directory.update_manifest(status="finished")
    assert changed == directory.read_manifest()
    assert changed == {"a": 0.5, "b": [0, 1, 2], "c": "nan", "d": "x", "e": [True],
                       "status": "finished"}  # fmt: skip
    json.loads((directory.path / "manifest.json").read_text(), parse_constant=pytest.fail)


def test_open_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no such run"):
        RunDirectory.open(tmp_path / "absent")
    with pytest.raises(RecordError, match=r"no manifest\.json"):
        RunDirectory.open(tmp_path)
    (tmp_path / "manifest.json").write_text("{torn")
    with pytest.raises(RecordError, match="cannot read"):
        RunDirectory.open(tmp_path).read_manifest()
    (tmp_path / "config.yaml").write_text("a: [1\n")
    with pytest.raises(RecordError, match="cannot read"):
        RunDirectory.open(tmp_path).read_config()


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("number", [28, 30])
def test_failed_write_keeps_the_old_file(tmp_path: Path, fail, step: str, number: int) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    fail(step, number)
    with pytest.raises(RecordError, match=str(tmp_path)):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="No such file"):
        write_atomic(tmp_path / "absent" / "file", b"x")


def test_lock_within_a_process(directory: RunDirectory) -> None:
    second = RunDirectory.open(directory.path)
    with directory.locked(), pytest.raises(RunLocked, match=str(os.getpid())), second.locked():
        pytest.fail("locked twice")
    with second.locked():
        pass


def test_created_directory_hands_its_lock_over(tmp_path: Path) -> None:
    made = RunDirectory.create("x", tmp_path / "run")
    made.write_manifest({})
    with pytest.raises(RunLocked):
        RunDirectory.open(made.path).lock()
    with made.locked():
        pass
    RunDirectory.open(made.path).lock()


def test_dropped_directory_gives_its_lock_back(tmp_path: Path) -> None:
    RunDirectory.create("x", tmp_path / "run")
    RunDirectory.create("x", tmp_path / "run").release()


@pytest.mark.parametrize("forked", [False, True])
def test_lock_between_processes_ends_with_the_writer(
    directory: RunDirectory, environment: dict[str, str], forked: bool
) -> None:
    command = [sys.executable, "-c", HOLD, str(directory.path), *(["fork"] if forked else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        try:
            with pytest.raises(RunLocked, match=str(process.pid)):
                directory.lock()
            process.kill()
            process.wait(10)
            with directory.locked():
                pass
        finally:
            process.kill()
            if worker:
                os.kill(worker, signal.SIGKILL)


def test_lock_removes_what_a_killed_writer_left(directory: RunDirectory) -> None:
    for folder in (".", "records", "checkpoints", "figures"):
        (directory.path / folder / ".x.1.tmp").write_bytes(b"half")
    with directory.locked():
        pass
    left = [p.parent.name for p in directory.path.rglob("*.tmp")]
    assert left == ["figures"]


def test_sweep_folder(tmp_path: Path) -> None:
    overrides = ["problem=gan/ring", "seed=0,1"]
    path = RunDirectory.create_sweep(None, overrides, root=tmp_path)
    assert "-gan-ring-" in path.name
    given = tmp_path / "sweep"
    jobs = [["seed=0"], ["seed=1"]]
    assert RunDirectory.create_sweep(given, overrides, jobs) == given
    RunDirectory.create("x", given / "0").release()
    assert RunDirectory.create_sweep(given, overrides) == given
    with pytest.raises(RunExists, match="seed=0,1"):
        RunDirectory.create_sweep(given, ["seed=2"])
    with pytest.raises(RunExists):
        RunDirectory.create_sweep(tmp_path, overrides)
    assert "-sweep-" in RunDirectory.create_sweep(None, ["problem=a/b,c/d"], root=tmp_path).name
