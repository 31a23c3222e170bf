"""Writing a run's tables: blocks of columns in memory, immutable Parquet parts on disk.

``add`` keeps a block as NumPy arrays and costs microseconds whatever its length; ``flush``
joins the blocks of a table and writes one part (temporary file, fsync, rename). A kill loses
what was added since the last flush and nothing else.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa

from playground.record.atomic import StrPath, atomic_file
from playground.record.columns import NAME, TABLES
from playground.record.compaction import compact
from playground.record.parquet import Part, list_parts, parquet_writer, replaced_parts

__all__ = ["Recorder", "compact"]

FLUSH_ROWS = 50_000

Column = Any
"""An array or list [R], a scalar, or for names a pair (codes [R], names)."""


@dataclass(frozen=True, slots=True)
class _Block:
    rows: int
    columns: dict[str, Any]
    null: dict[str, np.ndarray]


class _Names:
    """Codes of a dictionary-encoded column, in order of appearance."""

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}

    def encode(self, value: Column) -> np.ndarray:
        """Codes, int32 [R] or scalar, of names given in any form."""
        if isinstance(value, tuple):
            codes, names = value
            codes = np.asarray(codes)
            if codes.size and codes.dtype.kind not in "iu":
                raise TypeError("codes must be integers")
            if codes.size and (codes.min() < 0 or codes.max() >= len(names)):
                raise ValueError(f"codes must be in [0, {len(names)})")
            return np.array(self._look_up(names), np.int32)[codes] if len(names) else codes
        if isinstance(value, str):
            return np.array(self._look_up([value])[0], np.int32)
        return np.array(self._look_up(np.asarray(value).tolist()), np.int32)

    def _look_up(self, names: Sequence[Any]) -> list[int]:
        if not all(isinstance(name, str) for name in names):
            raise TypeError("names must be strings")
        return [self.codes.setdefault(name, len(self.codes)) for name in names]


class _Buffer:
    """The rows of one table since its last part."""

    def __init__(self, table: str) -> None:
        self.schema = TABLES[table]
        self.rows = 0
        self._blocks: list[_Block] = []
        self._columns = frozenset(self.schema.names)
        self._names = {f.name: _Names() for f in self.schema if f.type == NAME}
        self._types = {
            f.name: np.dtype(f.type.to_pandas_dtype())
            for f in self.schema
            if f.type not in (NAME, pa.string())
        }

    def add(self, columns: Mapping[str, Column], null: Mapping[str, Any]) -> None:
        """Check and keep a block."""
        unknown = [name for name in (*columns, *null) if name not in self._columns]
        if unknown or columns.get("iteration") is None:
            raise ValueError(f"no column {unknown[0]}" if unknown else "iteration is missing")
        kept = {}
        with np.errstate(over="ignore"):  # beyond float32 is a measured infinity
            for name, value in columns.items():
                if value is not None:
                    try:
                        kept[name] = self._convert(name, value)
                    except (TypeError, ValueError) as error:
                        raise ValueError(f"column {name}: {error}") from error
        masks = {name: np.array(mask, bool) for name, mask in null.items()}
        lengths = {len(v) for v in (*kept.values(), *masks.values()) if np.ndim(v)}
        if len(lengths) > 1:
            raise ValueError(f"columns have different lengths: {sorted(lengths)}")
        rows = lengths.pop() if lengths else 1
        if rows:
            self._blocks.append(_Block(rows, kept, masks))
            self.rows += rows

    def _convert(self, name: str, value: Column) -> Any:
        """A copy of a column in its stored type; scalars stay scalars."""
        if name in self._names:
            result: Any = self._names[name].encode(value)
        elif name in self._types:
            # astype copies: the caller may fill the same array again.
            array = np.asarray(value)
            # An empty list is float64.
            casting: Literal["same_kind", "unsafe"] = "same_kind" if array.size else "unsafe"
            result = array.astype(self._types[name], casting=casting)
        else:
            result = value if isinstance(value, str) else np.array(value, dtype=object)
        if np.ndim(result) > 1:
            raise ValueError(f"must be one-dimensional, has shape {np.shape(result)}")
        return result

    def build(self) -> pa.Table:
        """All rows as one Arrow table."""
        arrays = [self._column(name) for name in self.schema.names]
        return pa.Table.from_arrays(arrays, schema=self.schema)

    def _column(self, name: str) -> pa.Array:
        names = self._names.get(name)
        dtype = np.int32 if names is not None else self._types.get(name, np.dtype(object))
        values, mask = np.zeros(self.rows, dtype), np.zeros(self.rows, bool)
        start = 0
        for block in self._blocks:
            stop = start + block.rows
            value, null = block.columns.get(name), block.null.get(name)
            if value is None:
                mask[start:stop] = True
            else:
                values[start:stop] = value
                if null is not None:
                    mask[start:stop] = null
            start = stop
        # from_pandas would turn a measured NaN into null.
        kind = pa.int32() if names is not None else self.schema.field(name).type
        array = pa.array(values, kind, mask=mask if mask.any() else None, from_pandas=False)
        if names is None:
            return array
        return pa.DictionaryArray.from_arrays(array, pa.array(list(names.codes), pa.string()))


class Recorder:
    """Buffers rows and writes them as parts.

    Args:
        directory: the run's, locked by this process.
        attempt: index of this attempt in the manifest's ``attempts``.
        flush_seconds: after how long ``due`` says so; what a kill may lose.

    Attributes:
        listener: called after a flush with {table: the rows that it wrote}, if set.
    """

    listener: Callable[[Mapping[str, pa.Table]], None] | None = None

    def __init__(self, directory: StrPath, attempt: int, flush_seconds: float = 5.0) -> None:
        self._folder = Path(directory) / "records"
        self._attempt = attempt
        self._flush_seconds = flush_seconds
        self._buffers = {table: _Buffer(table) for table in TABLES}
        self._number = _next_number(self._folder, attempt)
        self._rows = 0
        self._flushed = time.monotonic()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def add(
        self,
        table: str,
        columns: Mapping[str, Column],
        null: Mapping[str, Any] | None = None,
    ) -> None:
        """Append a block of R rows, copied; about 40 us a block, and 0.4 us a row with its flush.

        Args:
            table: a key of ``TABLES``.
            columns: {column: array or list [R], or a scalar for all rows}; a column of names
                also takes (codes [R], names). A column that is missing or None is null;
                ``iteration`` must be given. NaN is stored as NaN.
            null: {column: bool [R]}, true where a value was not measured.

        Raises:
            ValueError: an unknown table or column, a wrong type, different lengths.
        """
        if self._closed:
            raise ValueError("the recorder is closed")
        buffer = self._buffers.get(table)
        if buffer is None:
            raise ValueError(f"table {table}: allowed are {', '.join(TABLES)}")
        try:
            buffer.add(columns, null or {})
        except ValueError as error:
            raise ValueError(f"table {table}: {error}") from error
        self._rows = sum(b.rows for b in self._buffers.values())

    def due(self) -> bool:
        """Whether rows wait since ``flush_seconds``, or more than 50 000 of them."""
        if self._rows > FLUSH_ROWS:
            return True
        return self._rows > 0 and time.monotonic() - self._flushed >= self._flush_seconds

    def flush(self) -> None:
        """Write everything added so far; after it returns, no kill can lose it.

        Raises:
            RecordError: naming the folder, such as for a full disk; parts written before are
                intact and the rows are kept, so that a later flush may succeed.
        """
        number = self._number
        self._number += 1  # also after an error: a part that was written is never replaced
        written: dict[str, pa.Table] = {}
        try:
            for table, buffer in self._buffers.items():
                if buffer.rows:
                    rows = buffer.build()
                    name = Part(self._attempt, number, table).name
                    with (
                        atomic_file(self._folder / name) as file,
                        parquet_writer(file, table) as writer,
                    ):
                        writer.write_table(rows)
                    written[table] = rows
                    self._rows -= buffer.rows
                    self._buffers[table] = _Buffer(table)
        finally:
            if self.listener is not None and written:
                self.listener(written)
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Flush and take no more rows; a second call does nothing."""
        if not self._closed:
            self.flush()
            self._closed = True


def _next_number(folder: Path, attempt: int) -> int:
    """A number that no part of the attempt has or had."""
    used = [-1]
    for table in TABLES:
        names = {part.name for part in list_parts(folder, table)}
        names |= replaced_parts(folder / f"{table}.parquet", table)
        numbers = [name.removesuffix(".parquet").split("-") for name in names]
        used += [int(number) for _, other, number in numbers if int(other) == attempt]
    return max(used) + 1
