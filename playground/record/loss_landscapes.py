"""Slices that were measured of a run: ``slices/<name>.npz``, so that pictures need no more work."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from playground.record.atomic import RecordError, StrPath, write_atomic
from playground.record.directory import check_name
from playground.record.formats import dump_json

ABOUT = "about"


@dataclass(frozen=True)
class SavedSlice:
    """What was kept of a slice.

    Attributes:
        arrays: ``offsets/0``, ``values/<quantity>``, ``stderr/<quantity>``; with a path also
            ``path/iterations``, ``path/coordinates``, ``path/values/<quantity>`` and the like.
        about: directions, player, member, iteration, others.
    """

    arrays: dict[str, np.ndarray]
    about: dict[str, Any]

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """{rest of the name: array} of the arrays whose names begin so."""
        start = f"{prefix}/"
        return {k.removeprefix(start): v for k, v in self.arrays.items() if k.startswith(start)}


def save_slice(
    directory: StrPath, name: str, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]
) -> Path:
    """Write a slice, whole or not at all; one of the same name is replaced.

    Raises:
        RecordError: an unsafe name, a full disk or the like.
    """
    path = Path(directory) / "slices" / f"{check_name(name)}.npz"
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise RecordError(f"cannot make {path.parent}: {error.strerror or error}") from error
    buffer = io.BytesIO()
    words = np.frombuffer(dump_json(about), np.uint8)
    np.savez_compressed(buffer, allow_pickle=False, **{ABOUT: words, **arrays})
    write_atomic(path, buffer.getvalue())
    return path


def load_slice(directory: StrPath, name: str) -> SavedSlice:
    """A slice by its name.

    Raises:
        RecordError: it is missing or broken.
    """
    path = Path(directory) / "slices" / f"{name}.npz"
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {key: content[key] for key in content.files}
        return SavedSlice(arrays, json.loads(arrays.pop(ABOUT).tobytes()))
    except Exception as error:  # a broken archive raises what its bytes make it raise
        raise RecordError(f"cannot read {path}: {error}") from error


def list_slices(directory: StrPath) -> list[str]:
    """Names of the slices of a run, sorted."""
    return sorted(path.stem for path in (Path(directory) / "slices").glob("*.npz"))
