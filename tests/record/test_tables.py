import os
import warnings
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from playground.record.columns import TABLES
from playground.record.directory import RecordError, RunDirectory
from playground.record.tables import Cache, Limits, read_table
from playground.record.writer import Recorder, compact


def write(directory: RunDirectory, attempt: int, iterations: range) -> None:
    with Recorder(directory, attempt) as recorder:
        for iteration in iterations:
            recorder.add("metrics", {"iteration": iteration, "value": attempt})
            recorder.flush()


def rows(directory: RunDirectory) -> list[tuple[int, float]]:
    table = read_table(directory, "metrics")
    return list(zip(table["iteration"].to_pylist(), table["value"].to_pylist(), strict=True))


def resume(directory: RunDirectory, *starts: int) -> None:
    directory.update_manifest(attempts=[{"start_iteration": start} for start in starts])


def part(directory: RunDirectory, name: str) -> Path:
    return directory.path / "records" / name


def test_limits() -> None:
    limits = Limits([0, 100, 50, 70])
    assert [limits.last(a) for a in range(5)] == [50, 50, 70, None, None]
    assert Limits([]).last(0) is None


def test_resumed_rows_replace_superseded_ones(directory: RunDirectory) -> None:
    write(directory, 0, range(0, 8))
    resume(directory, 0, 5)
    assert rows(directory) == [(i, 0) for i in range(6)]
    write(directory, 1, range(6, 10))
    assert rows(directory) == [(i, 0) for i in range(6)] + [(i, 1) for i in range(6, 10)]
    resume(directory, 0, 5, 3)
    write(directory, 2, range(4, 6))
    assert rows(directory) == [(i, 0) for i in range(4)] + [(i, 2) for i in range(4, 6)]


def test_restart_from_scratch_drops_iteration_zero(directory: RunDirectory) -> None:
    write(directory, 0, range(0, 3))
    resume(directory, 0, -1)
    assert rows(directory) == []
    write(directory, 1, range(0, 2))
    assert rows(directory) == [(0, 1), (1, 1)]


def test_resume_at_iteration_zero_keeps_its_rows(directory: RunDirectory) -> None:
    write(directory, 0, range(0, 3))
    resume(directory, 0, 0)
    assert rows(directory) == [(0, 0)]


def test_superseded_rows_within_one_part(directory: RunDirectory) -> None:
    with Recorder(directory, 0) as recorder:
        recorder.add("metrics", {"iteration": range(10), "value": 0})
    resume(directory, 0, 4)
    assert len(rows(directory)) == 5


@pytest.mark.parametrize("damage", ["empty", "half", "noise", "tail"])
def test_torn_part_is_skipped_with_a_warning(directory: RunDirectory, damage: str) -> None:
    write(directory, 0, range(0, 5))
    path = part(directory, "metrics-000-000002.parquet")
    data = path.read_bytes()
    path.write_bytes(
        {"empty": b"", "half": data[: len(data) // 2], "noise": os.urandom(len(data)),
         "tail": data[:-1]}[damage]
    )  # fmt: skip
    with pytest.warns(UserWarning, match="metrics-000-000002.parquet is broken"):
        assert [i for i, _ in rows(directory)] == [0, 1, 3, 4]


def test_every_flipped_byte_is_found_or_harmless(directory: RunDirectory) -> None:
    with Recorder(directory, 0) as recorder:
        recorder.add("metrics", {"iteration": range(40), "value": range(40), "name": "x"})
    expected = read_table(directory, "metrics")
    path = part(directory, "metrics-000-000000.parquet")
    data = bytearray(path.read_bytes())
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for position in [*range(0, footer, 3), *range(footer, len(data), 29)]:
        data[position] ^= 0x55
        path.write_bytes(data)
        data[position] ^= 0x55
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            table = read_table(directory, "metrics")
        if not caught:
            assert position >= footer or table.equals(expected), position


def test_other_columns_are_not_mixed_in(directory: RunDirectory) -> None:
    write(directory, 0, range(2))
    path = part(directory, "metrics-000-000002.parquet")
    pq.write_table(pa.table({"iteration": [1]}), path)
    with pytest.warns(UserWarning, match="unexpected columns"):
        assert len(rows(directory)) == 2


def test_newer_version_is_refused(directory: RunDirectory) -> None:
    schema = TABLES["metrics"].with_metadata({"playground.version": "99"})
    pq.write_table(schema.empty_table(), part(directory, "metrics-000-000000.parquet"))
    with pytest.raises(RecordError, match="schema version 99"):
        rows(directory)


def test_foreign_files_are_ignored(directory: RunDirectory) -> None:
    write(directory, 0, range(2))
    for name in ("notes.txt", ".metrics-000-000001.parquet.7.tmp", "metrics-x.parquet"):
        part(directory, name).write_bytes(b"?")
    assert len(rows(directory)) == 2


def test_only_new_files_are_read_again(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    import playground.record.tables as tables

    read: list[str] = []
    real = tables.read_block

    def counted(path: Path, table: str, attempt: int) -> tables.Block:
        read.append(path.name)
        return real(path, table, attempt)

    monkeypatch.setattr(tables, "read_block", counted)
    cache: Cache = {}
    write(directory, 0, range(3))
    assert read_table(directory, "metrics", cache).num_rows == 3
    with Recorder(directory, 0) as recorder:
        recorder.add("metrics", {"iteration": 3})
    assert read_table(directory, "metrics", cache).num_rows == 4
    assert len(read) == len(set(read)) == 4
    compact(directory)
    assert read_table(directory, "metrics", cache).num_rows == 4
    assert list(cache) == ["metrics.parquet"]


def test_missing_records_folder(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no records folder"):
        read_table(tmp_path, "metrics")
