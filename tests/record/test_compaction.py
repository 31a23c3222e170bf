import os
from collections.abc import Callable

import pytest

import playground.record.compaction as compaction
from playground.record.directory import RecordError, RunDirectory
from playground.record.tables import read_table
from playground.record.writer import Recorder, compact

COMPACTED = ["events.parquet", "metrics.parquet"]


def write(directory: RunDirectory, attempt: int, iterations: range) -> None:
    with Recorder(directory, attempt) as recorder:
        for i in iterations:
            recorder.add("metrics", {"iteration": i, "value": i, "name": f"n{i % 3}"})
            recorder.add("events", {"iteration": i, "message": f"m{i}"})
            recorder.flush()


def attempts(directory: RunDirectory, *starts: int) -> None:
    directory.update_manifest(attempts=[{"start_iteration": start} for start in starts])


def iterations(directory: RunDirectory) -> list[int]:
    events = read_table(directory, "events")["iteration"].to_pylist()
    metrics = read_table(directory, "metrics")["iteration"].to_pylist()
    assert events == metrics
    return metrics


def files(directory: RunDirectory) -> list[str]:
    return sorted(p.name for p in (directory.path / "records").iterdir())


def test_joins_everything_once(directory: RunDirectory) -> None:
    write(directory, 0, range(0, 8))
    attempts(directory, 0, 5)
    write(directory, 1, range(6, 10))
    before = read_table(directory, "metrics")
    compact(directory)
    assert files(directory) == COMPACTED
    assert read_table(directory, "metrics").equals(before)
    assert iterations(directory) == list(range(10))
    compact(directory)
    assert iterations(directory) == list(range(10))


def test_without_rows(directory: RunDirectory) -> None:
    compact(directory)
    assert files(directory) == []


def test_longer_budget_joins_the_earlier_file(directory: RunDirectory) -> None:
    write(directory, 0, range(0, 5))
    compact(directory)
    attempts(directory, 0, 4)
    write(directory, 1, range(5, 8))
    assert iterations(directory) == list(range(8))
    compact(directory)
    assert files(directory) == COMPACTED
    assert iterations(directory) == list(range(8))


def test_resume_below_a_compacted_end(directory: RunDirectory) -> None:
    write(directory, 0, range(0, 10))
    compact(directory)
    attempts(directory, 0, 6)
    assert iterations(directory) == list(range(7))
    write(directory, 1, range(7, 9))
    assert iterations(directory) == list(range(9))
    compact(directory)
    assert iterations(directory) == list(range(9))


def test_row_groups(directory: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "GROUP_ROWS", 3)
    write(directory, 0, range(0, 8))
    compact(directory)
    assert iterations(directory) == list(range(8))
    assert read_table(directory, "metrics")["name"].to_pylist() == [f"n{i % 3}" for i in range(8)]
    attempts(directory, 0, 4)
    write(directory, 1, range(5, 7))
    compact(directory)
    assert iterations(directory) == list(range(7))


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_kill_at_any_step_loses_and_doubles_nothing(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    """Every system call that changes the folder is a place to die."""
    if rounds == 2:
        write(directory, 0, range(0, 4))
        compact(directory)
        attempts(directory, 0, 3)
        write(directory, 1, range(4, 8))
    else:
        write(directory, 0, range(0, 8))
    budget = 0
    while True:
        left = [budget]

        def step(real: Callable[..., object], left: list[int] = left) -> Callable[..., object]:
            def counted(*arguments: object, **options: object) -> object:
                if left[0] == 0:
                    raise Killed
                left[0] -= 1
                return real(*arguments, **options)

            return counted

        with monkeypatch.context() as patch:
            patch.setattr("os.replace", step(os.replace))
            patch.setattr("os.fsync", step(os.fsync))
            patch.setattr(compaction, "remove", step(compaction.remove))
            try:
                compact(directory)
                break
            except Killed:
                pass
        assert iterations(directory) == list(range(8)), budget
        budget += 1
    assert budget > 3
    assert files(directory) == COMPACTED
    assert iterations(directory) == list(range(8))


def test_parts_that_could_not_be_deleted_never_come_back(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(directory, 0, range(0, 4))
    with monkeypatch.context() as patch:
        patch.setattr(compaction, "remove", lambda path: None)
        compact(directory)
        attempts(directory, 0, 3)
        write(directory, 1, range(4, 6))
        compact(directory)
    assert len(files(directory)) == 14
    assert iterations(directory) == list(range(6))
    compact(directory)
    assert files(directory) == COMPACTED
    assert iterations(directory) == list(range(6))


def test_broken_part_is_left(directory: RunDirectory) -> None:
    write(directory, 0, range(0, 4))
    torn = directory.path / "records" / "metrics-000-000001.parquet"
    torn.write_bytes(b"PAR1")
    with pytest.warns(UserWarning, match="000001"):
        compact(directory)
    assert files(directory) == ["events.parquet", torn.name, "metrics.parquet"]
    with pytest.warns(UserWarning, match="000001"):
        table = read_table(directory, "metrics")
    assert table["iteration"].to_pylist() == [0, 2, 3]


def test_broken_compacted_file_is_not_overwritten(directory: RunDirectory) -> None:
    write(directory, 0, range(0, 4))
    compact(directory)
    target = directory.path / "records" / "metrics.parquet"
    target.write_bytes(target.read_bytes()[:-20])
    broken = target.read_bytes()
    attempts(directory, 0, 3)
    write(directory, 1, range(4, 6))
    before = files(directory)
    with pytest.raises(RecordError, match="broken"):
        compact(directory)
    assert target.read_bytes() == broken
    assert files(directory) == before
    with pytest.warns(UserWarning, match="metrics.parquet is broken"):
        assert read_table(directory, "metrics")["iteration"].to_pylist() == [4, 5]


def test_full_disk(directory: RunDirectory, fail: Callable[..., None]) -> None:
    write(directory, 0, range(0, 4))
    before = files(directory)
    fail("fsync", 28)
    with pytest.raises(RecordError, match=str(directory.path)):
        compact(directory)
    assert files(directory) == before
    assert iterations(directory) == list(range(4))
