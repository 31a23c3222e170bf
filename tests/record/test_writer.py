from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from playground.record.columns import QUANTITIES, TABLES
from playground.record.directory import RecordError, RunDirectory
from playground.record.tables import read_table
from playground.record.writer import Recorder, compact


def parts(directory: RunDirectory) -> list[str]:
    return sorted(p.name for p in (directory.path / "records").iterdir())


def test_round_trip_of_every_form(directory: RunDirectory) -> None:
    with Recorder(directory, 0) as recorder:
        recorder.add(
            "metrics",
            {"iteration": [1, 2], "member": np.arange(2), "player": "", "name": ["a", "b"],
             "value": np.array([0.1, np.inf]), "seconds": 2.5, "stderr": None},
        )  # fmt: skip
        recorder.add("metrics", {"iteration": 3, "name": (np.array([1]), ["x", "b"]), "value": 7})
        recorder.add("metrics", {"iteration": [], "value": []})
    rows = read_table(directory, "metrics").to_pylist()
    assert [r["iteration"] for r in rows] == [1, 2, 3]
    assert [r["name"] for r in rows] == ["a", "b", "b"]
    assert [r["value"] for r in rows] == [0.1, np.inf, 7.0]
    assert [r["player"] for r in rows] == ["", "", None]
    assert [r["seconds"] for r in rows] == [2.5, 2.5, None]
    assert all(r["stderr"] is None for r in rows)


@pytest.mark.parametrize("table", TABLES)
def test_stored_schema(directory: RunDirectory, table: str) -> None:
    with Recorder(directory, 0) as recorder:
        recorder.add(table, {"iteration": np.arange(3), "member": 0})
    assert read_table(directory, table).schema == TABLES[table]
    file = pq.ParquetFile(directory.path / "records" / f"{table}-000-000000.parquet")
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"


def test_null_is_not_nan(directory: RunDirectory) -> None:
    norm = np.array([np.nan, np.nan, np.inf, 1.0], np.float32)
    with Recorder(directory, 0) as recorder:
        recorder.add(
            "gradients",
            {"iteration": 1, "norm": norm, "player": np.array(["a", "a", "b", "b"])},
            null={"norm": np.array([True, False, False, False])},
        )
    table = read_table(directory, "gradients")
    assert table["norm"].null_count == 1
    values = table["norm"].to_pylist()
    assert values[0] is None
    assert np.isnan(values[1])
    assert values[2:] == [np.inf, 1.0]
    assert all(table[q].null_count == 4 for q in QUANTITIES if q != "norm")


def test_float32_is_stored_as_given(directory: RunDirectory) -> None:
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    with Recorder(directory, 0) as recorder:
        recorder.add("gradients", {"iteration": 1, "norm": values, "ratio": 1e300})
    table = read_table(directory, "gradients")
    np.testing.assert_array_equal(table["norm"].to_numpy(), values)
    assert table["ratio"][0].as_py() == np.inf


def test_blocks_are_copies(directory: RunDirectory) -> None:
    ring = np.zeros(3)
    mask = np.zeros(3, bool)
    with Recorder(directory, 0) as recorder:
        recorder.add("metrics", {"iteration": 1, "value": ring}, null={"value": mask})
        ring[:], mask[:] = 9, True
    assert read_table(directory, "metrics")["value"].to_pylist() == [0, 0, 0]


def test_events_are_text(directory: RunDirectory) -> None:
    with Recorder(directory, 0) as recorder:
        recorder.add("events", {"iteration": 1, "kind": "note", "message": ["a", "b"]})
        recorder.add("events", {"iteration": 2, "kind": "note", "message": "c", "evidence": "{}"})
    table = read_table(directory, "events")
    assert table["message"].to_pylist() == ["a", "b", "c"]
    assert table["evidence"].to_pylist() == [None, None, "{}"]


@pytest.mark.parametrize(
    ("table", "columns", "null", "message"),
    [
        ("nothing", {"iteration": 1}, {}, "allowed are metrics"),
        ("metrics", {"value": 1}, {}, "iteration is missing"),
        ("metrics", {"iteration": 1, "norm": 1}, {}, "no column norm"),
        ("metrics", {"iteration": 1}, {"norm": [True]}, "no column norm"),
        ("metrics", {"iteration": [1, 2], "value": [1, 2, 3]}, {}, "different lengths"),
        ("metrics", {"iteration": [1, 2]}, {"value": [True]}, "different lengths"),
        ("metrics", {"iteration": 1.5}, {}, "column iteration"),
        ("metrics", {"iteration": 1, "value": "high"}, {}, "column value"),
        ("metrics", {"iteration": 1, "value": [None, 1.0]}, {}, "column value"),
        ("metrics", {"iteration": 1, "name": 3}, {}, "column name"),
        ("metrics", {"iteration": 1, "name": [3]}, {}, "column name"),
        ("metrics", {"iteration": 1, "name": ([2], ["a", "b"])}, {}, "codes"),
        ("metrics", {"iteration": 1, "name": ([-1], ["a", "b"])}, {}, "codes"),
        ("metrics", {"iteration": 1, "name": ([0.5], ["a", "b"])}, {}, "codes"),
        ("metrics", {"iteration": 1, "value": np.zeros((2, 2))}, {}, "one-dimensional"),
    ],
)
def test_wrong_blocks_are_refused(
    directory: RunDirectory, table: str, columns: dict, null: dict, message: str
) -> None:
    recorder = Recorder(directory, 0)
    with pytest.raises(ValueError, match=message):
        recorder.add(table, columns, null=null)
    recorder.close()
    assert parts(directory) == []


def test_due(directory: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("playground.record.writer.time.monotonic", lambda: now[0])
    recorder = Recorder(directory, 0, flush_seconds=5)
    now[0] = 6
    assert not recorder.due()
    recorder.add("metrics", {"iteration": 1, "value": 1.0})
    assert recorder.due()
    recorder.flush()
    recorder.add("metrics", {"iteration": 1, "value": 1.0})
    assert not recorder.due()
    recorder.add("metrics", {"iteration": np.ones(50_000, np.int64)})
    assert recorder.due()


def test_parts_are_never_replaced(directory: RunDirectory) -> None:
    for value in range(3):
        with Recorder(directory, 0) as recorder:
            recorder.add("metrics", {"iteration": 1, "value": value})
    assert len(parts(directory)) == 3
    compact(directory)
    with Recorder(directory, 0) as recorder:
        recorder.add("metrics", {"iteration": 1, "value": 3})
    assert parts(directory) == ["metrics-000-000003.parquet", "metrics.parquet"]
    assert read_table(directory, "metrics")["value"].to_pylist() == [0, 1, 2, 3]


def test_closed(directory: RunDirectory) -> None:
    recorder = Recorder(directory, 0)
    recorder.close()
    recorder.close()
    with pytest.raises(ValueError, match="closed"):
        recorder.add("metrics", {"iteration": 1})


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_full_disk(
    directory: RunDirectory, fail: Callable[..., None], step: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    recorder = Recorder(directory, 0)
    recorder.add("metrics", {"iteration": 1, "value": 1.0})
    recorder.flush()
    recorder.add("metrics", {"iteration": 2, "value": 2.0})
    recorder.add("events", {"iteration": 2, "message": "x"})
    # Metrics get through (a file and its folder are synced), events do not.
    fail(step, 28, after=2 if step == "fsync" else 1)
    with pytest.raises(RecordError, match=str(directory.path / "records")):
        recorder.flush()
    monkeypatch.undo()
    assert parts(directory) == ["metrics-000-000000.parquet", "metrics-000-000001.parquet"]
    recorder.add("metrics", {"iteration": 3, "value": 3.0})
    recorder.close()
    assert read_table(directory, "metrics")["value"].to_pylist() == [1, 2, 3]
    assert read_table(directory, "events")["message"].to_pylist() == ["x"]


def test_names_of_many_parts_are_one_dictionary(directory: RunDirectory) -> None:
    recorder = Recorder(directory, 0)
    for i in range(4):
        recorder.add("metrics", {"iteration": i, "name": f"n{i % 2}"})
        recorder.flush()
    table = read_table(directory, "metrics")
    assert table["name"].to_pylist() == ["n0", "n1", "n0", "n1"]
    chunk = table["name"].combine_chunks()
    assert isinstance(chunk.type, pa.DictionaryType)
