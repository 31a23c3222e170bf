"""Joining the parts of a table into one file, at the end of a run.

At any moment, also after a kill, a reader sees each row once: the new file names the parts that
it replaces, readers ignore those, and only then are they deleted.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from playground.record.atomic import RecordError, StrPath, atomic_file, remove, sync_folder
from playground.record.columns import TABLES
from playground.record.parquet import (
    ATTEMPT,
    READ_ERRORS,
    REPLACES,
    BrokenFile,
    Part,
    list_parts,
    open_file,
    parquet_writer,
    read_block,
    replaced_parts,
)
from playground.record.tables import Limits, attempt_starts, read_table, warn_broken

GROUP_ROWS = 500_000
"""Rows of a row group of a compacted file, about 50 MB in memory (ours)."""


def compact(directory: StrPath) -> None:
    """Join each table's parts into ``records/<table>.parquet`` without superseded rows.

    The new file names the parts that it replaces and readers ignore those, so that every row
    is seen once at any moment, also after a kill; then the parts are deleted. Parts of a
    resumed run join the file of its earlier end. Broken parts are left where they are.

    Raises:
        RecordError: a full disk, or a broken compacted file; everything stays as it was.
    """
    limits = Limits(attempt_starts(Path(directory)))
    for table in TABLES:
        _compact_table(Path(directory) / "records", table, limits)


def branch(source: StrPath, target: StrPath, iteration: int) -> None:
    """Write another run's rows up to an iteration, as those of this run's attempt 0.

    Raises:
        RecordError: they cannot be read, or a full disk.
    """
    for table in TABLES:
        rows = read_table(source, table)
        rows = rows.filter(pc.less_equal(rows["iteration"], iteration))
        path = Path(target) / "records" / f"{table}.parquet"
        with atomic_file(path) as file, parquet_writer(file, table) as writer:
            writer.write_table(rows.combine_chunks())
            writer.add_key_value_metadata({REPLACES: "[]", ATTEMPT: "0"})


def _compact_table(folder: Path, table: str, limits: Limits) -> None:
    """Join one table; without new parts only what an interrupted deletion left is removed."""
    target = folder / f"{table}.parquet"
    replaced = replaced_parts(target, table)
    parts = list_parts(folder, table)
    gone = [part for part in parts if part.name in replaced]
    new = [part for part in parts if part.name not in replaced]
    if new:
        with atomic_file(target) as file, parquet_writer(file, table) as writer:
            for group in _groups(_valid_rows(target, new, limits, joined=gone)):
                writer.write_table(group)
            names = json.dumps([part.name for part in gone])
            writer.add_key_value_metadata({REPLACES: names, ATTEMPT: str(new[-1].attempt)})
    for part in gone:
        remove(folder / part.name)
    sync_folder(folder)


def _valid_rows(
    target: Path, parts: Sequence[Part], limits: Limits, *, joined: list[Part]
) -> Iterator[pa.Table]:
    """Rows of the earlier compacted file, then of the parts; readable ones go to ``joined``."""
    table = target.stem
    if target.exists():
        try:
            file, metadata = open_file(target, table)
            attempt = int(metadata[ATTEMPT])
            for group in range(file.num_row_groups):
                yield limits.valid(file.read_row_group(group), attempt)
            file.close()
        except (BrokenFile, *READ_ERRORS) as error:
            raise RecordError(f"{target} is broken, its parts are not joined: {error}") from error
    for part in parts:
        try:
            block = read_block(target.with_name(part.name), table, part.attempt)
        except BrokenFile as error:
            warn_broken(target.with_name(part.name), error)
            continue
        joined.append(part)
        yield limits.valid(block.rows, part.attempt)


def _groups(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of at least ``GROUP_ROWS``, the last one excepted."""
    pending: list[pa.Table] = []
    rows = 0
    for table in tables:
        pending.append(table)
        rows += table.num_rows
        if rows >= GROUP_ROWS:
            yield pa.concat_tables(pending).unify_dictionaries().combine_chunks()
            pending, rows = [], 0
    if rows:
        yield pa.concat_tables(pending).unify_dictionaries().combine_chunks()
