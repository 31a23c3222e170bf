"""What pictures need and tables cannot hold: ``arrays/<name>-<iteration>.npy``."""

import io
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from playground.record.atomic import RecordError, StrPath, remove, sync_folder, write_atomic
from playground.record.directory import check_name

CAP_BYTES: Final = 256 * 2**20
"""Of all arrays of a run (ours)."""

ARRAY = re.compile(r"(.+)-(\d{9,})\.npy")

_warned: set[Path] = set()
_totals: dict[Path, tuple[int, int]] = {}
"""{folder: when it was last changed, and the bytes in it then}: counting anew takes longer and
longer where many arrays are kept."""


def save_array(
    directory: StrPath, name: str, iteration: int, array: np.ndarray, cap_bytes: int = CAP_BYTES
) -> bool:
    """Write ``arrays/<name>-<iteration>.npy``; False, and one warning a run, beyond the cap.

    Raises:
        RecordError: an unsafe name, or a full disk.
        ValueError: an array of Python objects.
    """
    folder = Path(directory) / "arrays"
    path = folder / f"{check_name(name)}-{iteration:09d}.npy"
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    others = _total(folder) - (path.stat().st_size if path.exists() else 0)
    if others + buffer.tell() > cap_bytes:
        if folder not in _warned:
            _warned.add(folder)
            warnings.warn(
                f"{folder}: arrays reached {cap_bytes / 2**20:g} MiB, more are dropped",
                stacklevel=2,
            )
        return False
    write_atomic(path, buffer.getvalue())
    _totals[folder] = folder.stat().st_mtime_ns, others + buffer.tell()
    return True


def _total(folder: Path) -> int:
    """Bytes of the files of a folder, counted where others have changed it."""
    changed, total = _totals.get(folder, (-1, 0))
    if changed == folder.stat().st_mtime_ns:
        return total
    return sum(file.stat().st_size for file in folder.iterdir())


def drop_after(directory: StrPath, iteration: int) -> None:
    """Remove arrays and numbered snapshots that a resumed run repeats: those after an iteration.

    -1, a restart from scratch, removes the best snapshot too; else it stays until it is beaten.
    """
    arrays, snapshots = Path(directory) / "arrays", Path(directory) / "snapshots"
    _totals.pop(arrays, None)
    for path in arrays.iterdir():
        match = ARRAY.fullmatch(path.name)
        if match is not None and int(match[2]) > iteration:
            remove(path)
    for path in snapshots.glob("*.pt"):
        superseded = path.stem.isdecimal() and int(path.stem) > iteration
        if superseded or (path.stem == "best" and iteration < 0):
            remove(path)
    sync_folder(arrays)
    sync_folder(snapshots)


def copy_until(source: StrPath, target: StrPath, iteration: int) -> None:
    """Copy another run's arrays and numbered snapshots up to an iteration."""
    for path in (Path(source) / "arrays").glob("*.npy"):
        match = ARRAY.fullmatch(path.name)
        if match is not None and int(match[2]) <= iteration:
            shutil.copyfile(path, Path(target) / "arrays" / path.name)
    for path in (Path(source) / "snapshots").glob("*.pt"):
        if path.stem.isdecimal() and int(path.stem) <= iteration:
            shutil.copyfile(path, Path(target) / "snapshots" / path.name)


class ArraySeries(Mapping[int, np.ndarray]):
    """One name's arrays by iteration, ascending, read when asked for."""

    def __init__(self, paths: Mapping[int, Path]) -> None:
        self._paths = dict(sorted(paths.items()))

    def __getitem__(self, iteration: int) -> np.ndarray:
        path = self._paths[iteration]
        try:
            array: np.ndarray = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise RecordError(f"cannot read {path}: {error}") from error
        return array

    def __iter__(self) -> Iterator[int]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


def list_arrays(directory: StrPath) -> dict[str, ArraySeries]:
    """{name: arrays by iteration} of a run; nothing is read yet."""
    folder = Path(directory) / "arrays"
    found: dict[str, dict[int, Path]] = {}
    for path in sorted(folder.glob("*.npy")):
        match = ARRAY.fullmatch(path.name)
        if match is not None:
            found.setdefault(match[1], {})[int(match[2])] = path
    return {name: ArraySeries(paths) for name, paths in found.items()}
