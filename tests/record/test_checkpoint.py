import hashlib
import os
import pickle
from collections import OrderedDict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import playground.record.atomic as atomic
from playground.record.checkpoint import (
    load_checkpoint,
    load_snapshot,
    save_checkpoint,
    save_snapshot,
)
from playground.record.directory import RecordError, RunDirectory


def content(value: float) -> dict[str, Any]:
    return {
        "players": {"agent": {"parameters": torch.full((2, 3), value), "optimizer": {"t": 1}}},
        "streams": np.random.default_rng(0).bit_generator.state,
        "order": OrderedDict(a=(1, "x", None, True, 2.5, b"y"), b={1, 2}),
        "rng": torch.get_rng_state(),
    }


def stored(directory: RunDirectory) -> list[str]:
    return sorted(p.name for p in (directory.path / "checkpoints").iterdir())


def loaded(directory: RunDirectory) -> tuple[int, float] | None:
    found = load_checkpoint(directory)
    if found is None:
        return None
    return found[0], float(found[1]["players"]["agent"]["parameters"][0, 0])


def test_round_trip(directory: RunDirectory) -> None:
    assert load_checkpoint(directory) is None
    given = content(0.5)
    path = save_checkpoint(directory, 7, given)
    assert path == directory.path / "checkpoints" / "7.pt"
    found = load_checkpoint(directory)
    assert found is not None
    assert found[0] == 7
    assert torch.equal(found[1]["players"]["agent"]["parameters"], torch.full((2, 3), 0.5))
    assert torch.equal(found[1]["rng"], given["rng"])
    assert found[1]["streams"] == given["streams"]
    assert found[1]["order"] == given["order"]
    digest = path.with_suffix(".sum").read_text().split()
    assert digest == [hashlib.sha256(path.read_bytes()).hexdigest(), "7.pt"]


def test_newest_two_are_kept(directory: RunDirectory) -> None:
    for iteration in (1, 9, 10, 100):
        save_checkpoint(directory, iteration, content(iteration))
    assert stored(directory) == ["10.pt", "10.sum", "100.pt", "100.sum"]
    assert loaded(directory) == (100, 100.0)


def test_superseded_ones_go(directory: RunDirectory) -> None:
    for iteration in (10, 20):
        save_checkpoint(directory, iteration, content(iteration))
    save_checkpoint(directory, 15, content(15))
    assert stored(directory) == ["10.pt", "10.sum", "15.pt", "15.sum"]


def damage(path: Path, kind: str) -> None:
    data = bytearray(path.read_bytes())
    if kind == "flipped":
        data[len(data) // 2] ^= 1
    elif kind == "truncated":
        del data[len(data) // 2 :]
    elif kind == "empty":
        data.clear()
    if kind == "no checksum":
        path.with_suffix(".sum").unlink()
    elif kind == "torn checksum":
        path.with_suffix(".sum").write_bytes(b"\xff\x00")
    else:
        path.write_bytes(data)


KINDS = ["flipped", "truncated", "empty", "no checksum", "torn checksum"]


@pytest.mark.parametrize("kind", KINDS)
def test_broken_newest_falls_back(directory: RunDirectory, kind: str) -> None:
    save_checkpoint(directory, 1, content(1))
    damage(save_checkpoint(directory, 2, content(2)), kind)
    with pytest.warns(UserWarning, match=r"broken checkpoint .*2\.pt.*using 1\.pt"):
        assert loaded(directory) == (1, 1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_all_broken(directory: RunDirectory, kind: str) -> None:
    for iteration in (1, 2):
        damage(save_checkpoint(directory, iteration, content(iteration)), kind)
    with pytest.raises(RecordError, match=r"no readable checkpoint .*2\.pt.*1\.pt"):
        load_checkpoint(directory)


class Malicious:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["PLAYGROUND_TEST_TARGET"],)


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_checkpoints_never_run_code(
    directory: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    target = tmp_path / "executed"
    monkeypatch.setenv("PLAYGROUND_TEST_TARGET", str(target))
    path = directory.path / "checkpoints" / "5.pt"
    if form == "torch":
        torch.save({"x": Malicious()}, path)
    else:
        path.write_bytes(pickle.dumps({"x": Malicious()}))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix(".sum").write_text(f"{digest}  5.pt\n")
    with pytest.raises(RecordError, match="no readable checkpoint"):
        load_checkpoint(directory)
    os.rename(path, directory.path / "snapshots" / "5.pt")
    with pytest.raises(RecordError, match="cannot read"):
        load_snapshot(directory, 5)
    assert not target.exists()


@pytest.mark.parametrize(
    "value", [np.zeros(2), np.float64(1), deque([1]), Path("x"), object(), lambda: 0]
)
def test_what_could_not_be_loaded_is_not_saved(directory: RunDirectory, value: object) -> None:
    with pytest.raises(TypeError, match=r"problem\.state\[1\]"):
        save_checkpoint(directory, 1, {"problem": {"state": [0, value]}})
    assert stored(directory) == []


@pytest.mark.parametrize(
    ("step", "after"), [("fsync", 0), ("fsync", 1), ("fsync", 2), ("replace", 0), ("replace", 1)]
)
def test_full_disk(
    directory: RunDirectory,
    fail: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    after: int,
) -> None:
    for iteration in (1, 2):
        save_checkpoint(directory, iteration, content(iteration))
    fail(step, 28, after=after)
    with pytest.raises(RecordError, match="checkpoints: No space left"):
        save_checkpoint(directory, 3, content(3))
    monkeypatch.undo()
    assert not list(directory.path.rglob("*.tmp"))
    assert loaded(directory) == (2, 2.0)


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("iteration", [2, 3])
@pytest.mark.parametrize("budget", range(8))
def test_a_kill_at_any_step_leaves_a_checkpoint(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch, iteration: int, budget: int
) -> None:
    """Also when the newest one is written again."""
    for old in (1, 2):
        save_checkpoint(directory, old, content(old))
    left = [budget]

    def step(real: Callable[..., object]) -> Callable[..., object]:
        def counted(*arguments: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return real(*arguments)

        return counted

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", step(os.fsync))
        patch.setattr(os, "replace", step(os.replace))
        patch.setattr(atomic, "remove", lambda path: None)
        try:
            save_checkpoint(directory, iteration, content(99))
        except Killed:
            assert budget < 6
    assert loaded(directory) in ((2, 2.0), (iteration, 99.0))
    with directory.locked():
        pass
    assert not list(directory.path.rglob("*.tmp"))


def test_snapshots(directory: RunDirectory, fail: Callable[..., None]) -> None:
    whole = torch.arange(1000.0)
    save_snapshot(directory, 3, {"x": whole[:2], "y": torch.nn.Parameter(torch.ones(1))})
    save_snapshot(directory, 8, {"x": torch.zeros(2)}, best=True)
    iteration, players = load_snapshot(directory, 3)
    assert iteration == 3
    assert players["x"].tolist() == [0, 1]
    assert not players["y"].requires_grad
    assert (directory.path / "snapshots" / "3.pt").stat().st_size < 3000
    assert load_snapshot(directory, None)[0] == 8
    with pytest.raises(RecordError, match="no such snapshot"):
        load_snapshot(directory, 4)
    fail("fsync", 28)
    with pytest.raises(RecordError, match="No space left"):
        save_snapshot(directory, 9, {"x": torch.zeros(2)}, best=True)
    assert load_snapshot(directory, None)[0] == 8
