"""Files that are whole or absent, whatever happens to the process or the disk.

A file is written beside its final place, synced, renamed, and the folder is synced. A reader
sees the old content or the new, never a part; a failed write leaves nothing behind.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

StrPath = str | os.PathLike[str]


class RecordError(Exception):
    """A run's directory cannot be read or written; one line that names the path."""


@contextmanager
def atomic_file(path: StrPath) -> Iterator[BinaryIO]:
    """A binary file that takes its name when the block ends without an error.

    Raises:
        RecordError: the disk is full, the folder is read-only or the like; what stood under
            the name before is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise RecordError(
            f"cannot write {path.name} in {path.parent}: {error.strerror or error}"
        ) from error
    finally:
        remove(temporary)


def write_atomic(path: StrPath, data: bytes) -> None:
    """Write a whole file: temporary file in the same folder, fsync, rename, fsync the folder.

    Raises:
        RecordError: naming the folder; the file that stood there before is untouched.
    """
    with atomic_file(path) as file:
        file.write(data)


def sync_folder(folder: StrPath) -> None:
    """Make renames and removals in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file; one that is gone, or that cannot be removed, is no error."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # cleaning up must not hide the error that made it necessary


def sweep_temporary(folder: Path) -> None:
    """Remove what writers that were killed left in a folder."""
    for path in folder.glob(".*.tmp"):
        remove(path)
