"""Reading a run's tables: which files count, and which of their rows.

A table is ``records/<table>.parquet`` (after a clean end) followed by the parts that it does
not name as replaced. Parts are immutable, so reading needs no lock, and a writer or a
compaction may work at the same time.

Rows of attempt a are valid iff their iteration is at most the ``start_iteration`` of every
later attempt: a run resumed from the checkpoint of iteration C repeats what came after C. A
restart from scratch has ``start_iteration`` -1. The manifest decides, parts are not rewritten.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from playground.record.atomic import RecordError, StrPath
from playground.record.columns import TABLES
from playground.record.formats import load_json
from playground.record.parquet import Block, BrokenFile, Part, list_parts, read_block

TRIES = 20

Identity = tuple[int, int, int]
Cache = dict[str, tuple[Identity, Block]]


def read_table(directory: StrPath, table: str, cache: Cache | None = None) -> pa.Table:
    """The valid rows of a table in written order, of a live or an ended run.

    Args:
        directory: the run's.
        table: a key of ``TABLES``.
        cache: kept by the caller between calls, so that only new files are read.

    Raises:
        RecordError: the folder cannot be read, or a newer version wrote it.
    """
    path = Path(directory)
    folder = path / "records"
    cache = {} if cache is None else cache
    for _ in range(TRIES):
        try:
            before = _identity(folder / f"{table}.parquet")
            parts = list_parts(folder, table)
            if _identity(folder / f"{table}.parquet") != before:
                continue  # a compaction ended while the folder was listed
            blocks = _read_blocks(folder, table, parts, compacted=before is not None, cache=cache)
        except FileNotFoundError:
            if not folder.is_dir():
                raise RecordError(f"{path}: no records folder") from None
            continue  # a compaction removed a part after it was listed
        # After the parts: an attempt stands in the manifest before its first part is written.
        limits = Limits(attempt_starts(path))
        pieces = [TABLES[table].empty_table(), *(limits.valid(b.rows, b.attempt) for b in blocks)]
        return pa.concat_tables(pieces).unify_dictionaries()
    raise RecordError(f"{folder}: the files kept changing while they were read")


def _read_blocks(
    folder: Path, table: str, parts: Sequence[Part], *, compacted: bool, cache: Cache
) -> list[Block]:
    """The compacted file's rows and those of the parts that it does not replace."""
    blocks: list[Block] = []
    replaced: frozenset[str] = frozenset()
    if compacted:
        first = _cached(folder / f"{table}.parquet", table, 0, cache)
        if first is not None:
            blocks.append(first)
            replaced = first.replaces
    for part in parts:
        if part.name not in replaced:
            block = _cached(folder / part.name, table, part.attempt, cache)
            if block is not None:
                blocks.append(block)
    return blocks


def _cached(path: Path, table: str, attempt: int, cache: Cache) -> Block | None:
    """A file's rows, read once; None and a warning for a broken file."""
    identity = _identity(path)
    if identity is None:
        raise FileNotFoundError(path)
    if path.name in cache and cache[path.name][0] == identity:
        return cache[path.name][1]
    try:
        block = read_block(path, table, attempt)
    except BrokenFile as error:
        warn_broken(path, error)
        return None
    cache[path.name] = identity, block
    for name in block.replaces:
        cache.pop(name, None)
    return block


def warn_broken(path: Path, error: BrokenFile) -> None:
    """Say which file is left out."""
    warnings.warn(f"{path} is broken and skipped: {error}", stacklevel=3)


def _identity(path: Path) -> Identity | None:
    """What changes when a file is replaced; None where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def attempt_starts(path: Path) -> list[int]:
    """The ``start_iteration`` of every attempt in the manifest; none without a manifest."""
    manifest: Mapping[str, Any] = {}
    if (path / "manifest.json").exists():
        manifest = load_json(path / "manifest.json")
    return [int(attempt["start_iteration"]) for attempt in manifest.get("attempts", [])]


class Limits:
    """Which rows of each attempt are valid.

    Args:
        starts: the start iteration of every attempt.
    """

    def __init__(self, starts: Sequence[int]) -> None:
        self._starts = list(starts)

    def last(self, attempt: int) -> int | None:
        """The last valid iteration of an attempt; None without a limit."""
        return min(self._starts[attempt + 1 :], default=None)

    def valid(self, rows: pa.Table, attempt: int) -> pa.Table:
        """The rows of an attempt that no later attempt repeats."""
        last = self.last(attempt)
        if last is None or not rows.num_rows:
            return rows
        return rows.filter(pc.less_equal(rows["iteration"], last))
