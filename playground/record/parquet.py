"""The Parquet files of a run: their names, what their metadata say, checked reading.

A part ``<table>-<attempt>-<number>.parquet`` is immutable. ``<table>.parquet`` joins parts and
names those that it replaces. Page checksums find flipped bytes.
"""

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from playground.record.atomic import RecordError
from playground.record.columns import SCHEMA_VERSION, TABLES

PART = re.compile(r"([a-z]+)-(\d{3,})-(\d{6,})\.parquet")
REPLACES, ATTEMPT, VERSION = "playground.replaces", "playground.attempt", "playground.version"
READ_ERRORS = (pa.ArrowException, OSError, EOFError, ValueError)


@dataclass(frozen=True, order=True)
class Part:
    """The name of a part, ordered as written."""

    attempt: int
    number: int
    table: str

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{self.table}-{self.attempt:03d}-{self.number:06d}.parquet"


@dataclass(frozen=True)
class Block:
    """Rows of one file; a compacted file has the last attempt it joins and what it replaces."""

    rows: pa.Table
    attempt: int
    replaces: frozenset[str] = field(default_factory=frozenset)


class BrokenFile(Exception):
    """A record file is torn, or not what was written."""


def list_parts(folder: Path, table: str) -> list[Part]:
    """The parts of a table in written order, replaced ones included."""
    matches = [PART.fullmatch(name) for name in os.listdir(folder)]
    return sorted(
        Part(int(match[2]), int(match[3]), match[1])
        for match in matches
        if match is not None and match[1] == table
    )


def open_file(path: Path, table: str) -> tuple[Any, dict[str, str]]:
    """A Parquet file of a table, checked, and its metadata.

    Raises:
        FileNotFoundError: it is gone.
        BrokenFile: it is torn or has other columns.
        RecordError: a newer version wrote it.
    """
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        pairs = file.metadata.metadata or {}
        metadata = {key.decode(): value.decode() for key, value in pairs.items()}
    except FileNotFoundError:
        raise
    except READ_ERRORS as error:
        raise BrokenFile(str(error).splitlines()[0] if str(error) else "torn") from error
    version = metadata.get(VERSION, "")
    if version.isdigit() and int(version) > SCHEMA_VERSION:
        file.close()
        raise RecordError(
            f"{path}: schema version {version}, this program reads up to {SCHEMA_VERSION}"
        )
    if not file.schema_arrow.equals(TABLES[table]):
        file.close()
        raise BrokenFile("unexpected columns")
    return file, metadata


def read_block(path: Path, table: str, attempt: int) -> Block:
    """All rows of a file; a compacted file's own attempt wins over the one given.

    Raises:
        FileNotFoundError, BrokenFile, RecordError: as ``open_file``.
    """
    file, metadata = open_file(path, table)
    try:
        rows = file.read().replace_schema_metadata(None)
        attempt = int(metadata.get(ATTEMPT, attempt))
        return Block(rows, attempt, frozenset(json.loads(metadata.get(REPLACES, "[]"))))
    except READ_ERRORS as error:
        raise BrokenFile(str(error).splitlines()[0] if str(error) else "torn") from error
    finally:
        file.close()


def replaced_parts(path: Path, table: str) -> frozenset[str]:
    """Names of the parts that a compacted file replaces; none if it is missing or broken."""
    try:
        file, metadata = open_file(path, table)
    except (BrokenFile, FileNotFoundError):
        return frozenset()
    file.close()
    return frozenset(json.loads(metadata.get(REPLACES, "[]")))


def parquet_writer(file: BinaryIO, table: str) -> Any:
    """A writer of a table's rows into an open file."""
    schema = TABLES[table]
    return pq.ParquetWriter(
        file,
        schema.with_metadata({VERSION: str(SCHEMA_VERSION)}),
        compression="zstd",
        compression_level=1,
        # Dictionaries of floats cost time and gain nothing.
        use_dictionary=[f.name for f in schema if not pa.types.is_floating(f.type)],
        write_page_checksum=True,
    )
