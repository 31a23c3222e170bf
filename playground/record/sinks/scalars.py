"""From rows of the records to scalars: one dictionary for every track and iteration.

    metrics       NAME, PLAYER/NAME; a standard error beside it as NAME/stderr
    gradients     PLAYER/TAP/QUANTITY of whole players, mean over the iteration's updates
                  (largest of max_abs and nonfinite; of norm the largest too, as norm_max)
    measurements  PLAYER/PROBE/QUANTITY of whole players, mean over the iteration's updates

Of tensors that are asked for, /TENSOR follows. Nothing is measured here. The same rows give the
same scalars however they are cut into blocks, so that an export equals what was mirrored live.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from playground.record.columns import QUANTITIES, TABLES
from playground.record.sinks.aliases import Alias
from playground.record.sinks.sink import Point, Track

LARGEST = ("max_abs", "nonfinite")
"""Quantities whose largest value in an iteration counts, not their mean."""

KEYS = ["iteration", "member", "player", "tensor"]


@dataclass(slots=True)
class Entry:
    """What a track has at a point."""

    track: int
    point: Point
    values: dict[str, float]
    texts: list[tuple[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class _Member:
    """What is known of a member at an iteration."""

    values: dict[str, float] = field(default_factory=dict)
    step: int | None = None
    seconds: float | None = None
    env_steps: int | None = None


class Scalars:
    """Collects blocks of rows and gives the scalars of whole iterations.

    Args:
        tracks: of the run.
        began: when the run started, in seconds since 1970.
        step: counter of the trackers' step; None is ``env_steps`` where counted, else iteration.
        tensors: patterns of tensor names.
        aliases: {other name: formula}, added to each member's scalars.
    """

    def __init__(
        self,
        tracks: Sequence[Track],
        began: float,
        step: str | None = None,
        tensors: Sequence[str] = (),
        aliases: Mapping[str, Alias] | None = None,
    ) -> None:
        self._tracks, self._began, self._step = tracks, began, step
        self._tensors, self._aliases = tuple(tensors), dict(aliases or {})
        self._rows: dict[str, list[pa.Table]] = {name: [] for name in TABLES}
        self._seconds = 0.0
        self._steps = [0] * len(tracks)

    def add(self, tables: Mapping[str, pa.Table]) -> None:
        """Take blocks of rows, whole ones of any table."""
        for name, rows in tables.items():
            if "tensor" in rows.column_names:
                rows = rows.filter(self._wanted(rows["tensor"]))
            if rows.num_rows:
                self._rows[name].append(_plain(rows))

    def take(self, until: int | None = None) -> Iterator[Entry]:
        """Give and forget the iterations up to ``until``, in order; None is all of them."""
        parts = {name: self._cut(name, until) for name in TABLES}
        found: dict[tuple[int, int], _Member] = {}

        def at(iteration: int, member: int) -> _Member:
            return found.setdefault((iteration, member), _Member())

        self._metrics(parts["metrics"], at)
        for key, value in gradients(parts["gradients"]):
            at(*key[:2]).values["/".join(key[2:])] = value
        for key, value in measurements(parts["measurements"]):
            at(*key[:2]).values["/".join(part for part in key[2:] if part)] = value
        texts: dict[int, list[tuple[int, str, str]]] = {}
        for row in parts["events"].to_pylist():
            own = (row["member"], row["kind"], row["message"])
            texts.setdefault(row["iteration"], []).append(own)
        for member in found.values():
            self._name(member)
        yield from self._entries(found, texts)

    def _wanted(self, tensor: pa.ChunkedArray) -> Any:
        """Rows of whole players, and of the tensors asked for."""
        if not self._tensors:
            return pc.equal(tensor, "")
        names = pc.unique(tensor.cast(pa.string())).to_pylist()
        kept = [n for n in names if n and any(fnmatchcase(n, p) for p in self._tensors)]
        return pc.is_in(tensor.cast(pa.string()), value_set=pa.array(["", *kept]))

    def _cut(self, name: str, until: int | None) -> pa.Table:
        """The rows up to an iteration, which are kept no longer."""
        rows = pa.concat_tables([_plain(TABLES[name].empty_table()), *self._rows[name]])
        self._rows[name] = []
        if until is None:
            return rows
        late = rows.filter(pc.greater(rows["iteration"], until))
        if late.num_rows:
            self._rows[name] = [late]
        return rows.filter(pc.less_equal(rows["iteration"], until))

    def _metrics(self, rows: pa.Table, at: Callable[[int, int], _Member]) -> None:
        """Values as they stand; of several at one iteration the last, as ``Run.metric``."""
        columns = {name: rows[name].to_pylist() for name in rows.column_names}
        counted = "env_steps" if self._step is None else self._step
        names = ("iteration", "member", "player", "name", "value", "stderr", "seconds",
                 "env_steps", counted)  # fmt: skip
        for row in zip(*(columns[name] for name in names), strict=True):
            iteration, member, player, name, value, stderr, seconds, env_steps, step = row
            own = at(iteration, member)
            if own.seconds is None:  # what training took, evaluations come after
                own.step, own.seconds, own.env_steps = step, seconds, env_steps
            name = f"{player}/{name}" if player else name
            own.values[name] = value
            if stderr is not None:
                own.values[f"{name}/stderr"] = stderr

    def _name(self, member: _Member) -> None:
        """Add the aliases."""
        if not self._aliases:
            return
        known = {**member.values}
        if member.env_steps is not None and member.seconds is not None:
            known |= {"env_steps": float(member.env_steps), "seconds": member.seconds}
        for theirs, formula in self._aliases.items():
            value = formula(known)
            if value is not None:
                member.values[theirs] = value

    def _entries(
        self,
        found: Mapping[tuple[int, int], _Member],
        texts: Mapping[int, list[tuple[int, str, str]]],
    ) -> Iterator[Entry]:
        """Every track's entries, iteration by iteration."""
        for iteration in sorted({*(key[0] for key in found), *texts}):
            for place, track in enumerate(self._tracks):
                own = [found[iteration, k] for k in track.members if (iteration, k) in found]
                said = [
                    (kind, message if member < 0 else f"member {member}: {message}")
                    for member, kind, message in texts.get(iteration, ())
                    if member in track.members or (member < 0 and place == 0)
                ]
                if own or said:
                    point = self._point(iteration, place, own)
                    yield Entry(place, point, mean([member.values for member in own]), said)

    def _point(self, iteration: int, place: int, own: Sequence[_Member]) -> Point:
        """The mean of the members' steps; the latest ones known where an iteration has none."""
        seconds = [member.seconds for member in own if member.seconds is not None]
        self._seconds = seconds[0] if seconds else self._seconds
        steps = [member.step for member in own if member.step is not None]
        if steps:
            self._steps[place] = round(sum(steps) / len(steps))
        elif own:
            self._steps[place] = iteration
        return Point(iteration, self._steps[place], self._seconds, self._began + self._seconds)


def gradients(rows: pa.Table) -> Iterator[tuple[tuple[Any, ...], float]]:
    """(iteration, member, player, tap, quantity[, tensor]) and value, of table ``gradients``."""
    asked = [(name, "max" if name in LARGEST else "mean") for name in QUANTITIES]
    groups, columns = _aggregated(rows, [*KEYS, "tap"], [*asked, ("norm", "max")])
    for (name, kind), values in columns.items():
        quantity = f"{name}_max" if (name, kind) == ("norm", "max") else name
        for (iteration, member, player, tensor, tap), value in zip(groups, values, strict=True):
            if value is not None:
                key = (iteration, member, player, tap, quantity)
                yield (*key, tensor) if tensor else key, value


def measurements(rows: pa.Table) -> Iterator[tuple[tuple[Any, ...], float]]:
    """(iteration, member, player, probe, quantity, tensor) and value, of ``measurements``."""
    groups, columns = _aggregated(rows, [*KEYS, "probe", "quantity"], [("value", "mean")])
    values = columns["value", "mean"]
    for (iteration, member, player, tensor, *rest), value in zip(groups, values, strict=True):
        if value is not None:
            yield (iteration, member, player, *rest, tensor), value


def mean(members: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of every name over the members that have a number; NaN where none has."""
    if len(members) <= 1:
        return dict(members[0]) if members else {}
    columns: dict[str, list[float]] = {}
    for values in members:
        for name, value in values.items():
            columns.setdefault(name, []).append(value)
    result = {}
    for name, column in columns.items():
        numbers = np.array(column)
        numbers = numbers[~np.isnan(numbers)]
        result[name] = float(numbers.mean()) if len(numbers) else float("nan")
    return result


def _aggregated(
    rows: pa.Table, keys: list[str], asked: list[tuple[str, str]]
) -> tuple[list[tuple[Any, ...]], dict[tuple[str, str], list[Any]]]:
    """Groups of rows by keys, and {(column, function): a value a group}; null where all are."""
    table = rows.group_by(keys, use_threads=False).aggregate(asked)
    groups = list(zip(*(table[key].to_pylist() for key in keys), strict=True))
    return groups, {pair: table["_".join(pair)].to_pylist() for pair in asked}


def _plain(rows: pa.Table) -> pa.Table:
    """Names as strings, which blocks can be joined and grouped by."""
    for i, own in enumerate(rows.schema):
        if pa.types.is_dictionary(own.type):
            rows = rows.set_column(i, own.name, rows[own.name].cast(pa.string()))
    return rows
