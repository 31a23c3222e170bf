import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from playground.record.arrays import drop_after, list_arrays, save_array
from playground.record.checkpoint import save_snapshot
from playground.record.directory import RecordError, RunDirectory


def test_round_trip(directory: RunDirectory) -> None:
    samples = np.random.default_rng(0).standard_normal((2, 5, 2)).astype(np.float32)
    assert save_array(directory, "samples", 10, samples)
    assert save_array(directory, "samples", 2, samples[:1])
    assert save_array(directory, "gradient.x-1", 0, np.float64(3))
    assert (directory.path / "arrays" / "samples-000000010.npy").exists()
    found = list_arrays(directory)
    assert sorted(found) == ["gradient.x-1", "samples"]
    assert list(found["samples"]) == [2, 10]
    np.testing.assert_array_equal(found["samples"][10], samples)
    assert found["gradient.x-1"][0] == 3
    with pytest.raises(KeyError):
        found["samples"][3]


def test_cap_drops_with_one_warning(directory: RunDirectory) -> None:
    array = np.zeros(100, np.uint8)  # 228 bytes with the header
    assert save_array(directory, "a", 1, array, cap_bytes=500)
    assert save_array(directory, "a", 2, array, cap_bytes=500)
    assert save_array(directory, "a", 2, array, cap_bytes=500)
    with pytest.warns(UserWarning, match="more are dropped"):
        assert not save_array(directory, "a", 3, array, cap_bytes=500)
    assert not save_array(directory, "a", 4, array, cap_bytes=500)
    assert list(list_arrays(directory)["a"]) == [1, 2]


@pytest.mark.parametrize("name", ["../a", "a/b", "", ".a"])
def test_unsafe_names(directory: RunDirectory, name: str) -> None:
    with pytest.raises(RecordError, match="name"):
        save_array(directory, name, 1, np.zeros(1))


def test_objects_are_refused(directory: RunDirectory) -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        save_array(directory, "a", 1, np.array([object()]))
    assert list_arrays(directory) == {}


def test_pickled_and_torn_files_are_not_read(directory: RunDirectory) -> None:
    folder = directory.path / "arrays"
    np.save(folder / "a-000000001.npy", np.array([{}]), allow_pickle=True)
    (folder / "b-000000001.npy").write_bytes(b"\x93NUMPY")
    for name in ("a", "b"):
        with pytest.raises(RecordError, match=f"{name}-000000001"):
            list_arrays(directory)[name][1]


def test_full_disk(directory: RunDirectory, fail: Callable[..., None]) -> None:
    fail("replace", 28)
    with pytest.raises(RecordError, match="arrays: No space left"):
        save_array(directory, "a", 1, np.zeros(3))
    assert list((directory.path / "arrays").iterdir()) == []


@pytest.mark.parametrize(
    ("after", "arrays", "snapshots"), [(4, [0, 4], ["0", "4", "best"]), (-1, [], [])]
)
def test_drop_after(
    directory: RunDirectory, after: int, arrays: list[int], snapshots: list[str]
) -> None:
    for iteration in (0, 4, 5, 10):
        save_array(directory, "a", iteration, np.zeros(1))
        save_snapshot(directory, iteration, {"x": torch.zeros(1)})
    save_snapshot(directory, 5, {"x": torch.zeros(1)}, best=True)
    drop_after(directory, after)
    assert list(list_arrays(directory).get("a", ())) == arrays
    left = sorted(p.stem for p in (directory.path / "snapshots").iterdir())
    assert left == snapshots


def test_the_bytes_are_counted_again_where_somebody_else_removed_files(
    directory: RunDirectory,
) -> None:
    array = np.zeros(100, np.uint8)  # 228 bytes with the header
    for iteration in (1, 2):
        assert save_array(directory, "a", iteration, array, cap_bytes=500)
    time.sleep(0.02)  # a change of the folder has a time of its own
    (directory.path / "arrays" / "a-000000001.npy").unlink()
    assert save_array(directory, "b", 3, array, cap_bytes=500)
    with pytest.warns(UserWarning, match="more are dropped"):
        assert not save_array(directory, "b", 4, array, cap_bytes=500)
    drop_after(directory, 2)
    assert save_array(directory, "b", 3, array, cap_bytes=500)


def test_counting_does_not_look_at_every_file_again(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for iteration in range(30):
        save_array(directory, "a", iteration, np.zeros(8))
    looked: list[Path] = []
    real = Path.stat
    monkeypatch.setattr(Path, "stat", lambda path, **o: looked.append(path) or real(path, **o))
    save_array(directory, "a", 30, np.zeros(8))
    assert len(looked) < 10
