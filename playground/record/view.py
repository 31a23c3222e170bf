"""A run's records as NumPy, read once per figure: series [T, M] by iteration.

Updates of a player are put on the axis of iterations: with n updates in iteration i, update
k = 1..n stands at i - 1 + k / n. So all panels share one axis and no update is lost.

Shape legend: T points in time, M members.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from playground.record.formats import load_json

if TYPE_CHECKING:
    from playground.record.reader import Run

Array = np.ndarray


@dataclass(frozen=True)
class Series:
    """A quantity over time: x [T] and values [T, M], NaN where a member has none."""

    x: Array
    values: Array

    def __bool__(self) -> bool:
        return bool(np.isfinite(self.values).any())

    def last(self) -> Array:
        """The last value of every member [M], NaN where it is not finite."""
        return self.values[-1] if len(self.values) else np.empty(0)


@dataclass(frozen=True)
class Group:
    """Members that share the values of what varies; all of them where nothing does."""

    label: str
    members: Array
    values: Mapping[str, float]


class Columns:
    """Columns of an Arrow table as NumPy; names as codes, compared once."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self._numbers: dict[str, Array] = {}
        self._names: dict[str, tuple[Array, list[str]]] = {}

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, column: str) -> Array:
        """A column of numbers; nulls are NaN."""
        if column not in self._numbers:
            chunks = self._table[column].combine_chunks()
            self._numbers[column] = chunks.to_numpy(zero_copy_only=False)
        return self._numbers[column]

    def names(self, column: str) -> list[str]:
        """The different names of a column, in order of appearance."""
        return [name for name in self._encoded(column)[1] if self.where(**{column: name}).any()]

    def where(self, **names: str) -> Array:
        """Bool [R] of the rows with these names."""
        rows = np.ones(len(self), bool)
        for column, name in names.items():
            codes, known = self._encoded(column)
            rows &= codes == known.index(name) if name in known else False
        return rows

    def _encoded(self, column: str) -> tuple[Array, list[str]]:
        if column not in self._names:
            array = self._table[column].combine_chunks()
            if isinstance(array, pa.ChunkedArray):
                array = array.unify_dictionaries().chunk(0)
            codes = array.indices.fill_null(-1).to_numpy(zero_copy_only=False)
            self._names[column] = codes, [str(name) for name in array.dictionary.to_pylist()]
        return self._names[column]


def pivot(key: Array, member: Array, value: Array, members: int) -> tuple[Array, Array]:
    """Rows as a table: the different keys [T], ascending, and values [T, members]."""
    if not len(key):
        return np.empty(0, np.int64), np.empty((0, members))
    low, span = int(key.min()), int(key.max()) - int(key.min()) + 1
    if span <= 8 * len(key) + 1024:  # dense: a table of ranks instead of a sort
        present = np.zeros(span, bool)
        present[key - low] = True
        keys, row = np.flatnonzero(present) + low, (np.cumsum(present) - 1)[key - low]
    else:
        keys, row = np.unique(key, return_inverse=True)
    values = np.full((len(keys), members), np.nan)
    values[row, member] = value
    return keys, values


class View:
    """What figures need of a run.

    Attributes:
        run: where everything comes from.
        problem: its name, such as ``gan/ring``; ``domain`` is the part before the slash.
    """

    def __init__(self, run: "Run") -> None:
        self.run = run
        self.manifest: dict[str, Any] = run.manifest
        self.problem = str(self.manifest.get("problem", ""))
        self.domain = self.problem.partition("/")[0]
        self.main_metric = str(self.manifest.get("main_metric", ""))
        self.members: list[dict[str, Any]] = list(self.manifest.get("members", [])) or [{}]

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved configuration."""
        return self.run.config

    @cached_property
    def solved(self) -> float | None:
        """The return at which the environment counts as solved; None where none is known."""
        known = self.arrays.get("threshold")
        return float(np.ravel(known[max(known)])[0]) if known else None

    def config_value(self, key: str) -> float | None:
        """A number of the configuration by its dotted key, None where there is none."""
        node: Any = self.config
        for part in key.split("."):
            node = node.get(part) if isinstance(node, Mapping) else None
        number = isinstance(node, int | float) and not isinstance(node, bool)
        return float(node) if number else None

    @cached_property
    def arrays(self) -> Mapping[str, Mapping[int, Array]]:
        """{name: {iteration: array}}."""
        return self.run.arrays

    @cached_property
    def metrics(self) -> Columns:
        """The table ``metrics``."""
        return Columns(self.run.metrics)

    @cached_property
    def gradients(self) -> Columns:
        """The table ``gradients``."""
        return Columns(self.run.gradients)

    @cached_property
    def measurements(self) -> Columns:
        """The table ``measurements``."""
        return Columns(self.run.measurements)

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """Rows of the table ``events``."""
        rows: list[dict[str, Any]] = self.run.events.to_pylist()
        return rows

    @cached_property
    def findings(self) -> list[tuple[str, float, int]]:
        """(rule, where its evidence begins, members) of ``diagnosis.json``, earliest first."""
        path = self.run.path / "diagnosis.json"
        found: dict[str, tuple[float, set[int]]] = {}
        for row in load_json(path)["findings"] if path.exists() else ():
            began, members = found.get(row["rule"], (np.inf, set()))
            found[row["rule"]] = min(began, float(row["began"])), members | {int(row["member"])}
        marks = [(rule, began, len(members)) for rule, (began, members) in found.items()]
        return sorted(marks, key=lambda mark: mark[1])

    @property
    def players(self) -> list[str]:
        """Names of the players, in the manifest's order."""
        named = list(self.manifest.get("players", {}))
        return named or [name for name in self.gradients.names("player") if name]

    @cached_property
    def groups(self) -> list[Group]:
        """Members by the values of what varies, in order of appearance."""
        found: dict[tuple[tuple[str, float], ...], list[int]] = {}
        for index, member in enumerate(self.members):
            found.setdefault(tuple(member.get("values", {}).items()), []).append(index)
        return [
            Group(", ".join(f"{key.rpartition('.')[2]} {value:g}" for key, value in pairs),
                  np.array(members), dict(pairs))
            for pairs, members in found.items()
        ]  # fmt: skip

    def metric(self, name: str, player: str = "", x: str = "iteration") -> Series:
        """A metric over iterations, or over a counter's mean over members."""
        rows = self.metrics.where(name=name, player=player)
        iteration, member = self.metrics["iteration"][rows], self.metrics["member"][rows]
        keys, values = pivot(iteration, member, self.metrics["value"][rows], len(self.members))
        if x != "iteration":
            _, counts = pivot(iteration, member, self.metrics[x][rows], len(self.members))
            keys = np.nanmax(counts, axis=1) if counts.size else keys
        return Series(keys, values)

    def has(self, name: str, player: str = "") -> bool:
        """Whether a metric was recorded."""
        return bool(self.metrics.where(name=name, player=player).any())

    def gradient(
        self, player: str, quantity: str, tap: str = "gradient", tensor: str = ""
    ) -> Series:
        """A tier-0 quantity over iterations, at every update where it was measured."""
        key = (player, quantity, tap, tensor)
        if key not in self._gradients:
            self._gradients[key] = self._gradient(*key)
        return self._gradients[key]

    def _gradient(self, player: str, quantity: str, tap: str, tensor: str) -> Series:
        rows = self.gradients.where(player=player, tap=tap, tensor=tensor)
        value = self.gradients[quantity][rows]
        if quantity != "norm":  # norm exists at every row of its taps; NaN there is a value
            rows = np.flatnonzero(rows)[~np.isnan(value)]
            value = self.gradients[quantity][rows]
        update, member = self.gradients["update"][rows], self.gradients["member"][rows]
        keys, values = pivot(update, member, value, len(self.members))
        return Series(self.position(player, keys), values)

    def measured(self, player: str, probe: str) -> dict[str, Series]:
        """{quantity: series over iterations} of a probe's whole-player rows."""
        table = self.measurements
        own = table.where(player=player, probe=probe, tensor="") if len(table) else np.empty(0)
        found = {}
        for quantity in table.names("quantity") if own.any() else ():
            rows = own & table.where(quantity=quantity)
            if rows.any():
                iteration, member = table["iteration"][rows], table["member"][rows]
                values = pivot(iteration, member, table["value"][rows], len(self.members))
                found[quantity] = Series(*values)
        return found

    def position(self, player: str, updates: Array) -> Array:
        """Where updates of a player stand on the axis of iterations."""
        known, x = self._positions(player)
        if not len(known):
            return np.asarray(updates, np.float64)
        result: Array = np.interp(updates, known, x)
        return result

    def _positions(self, player: str) -> tuple[Array, Array]:
        if player not in self._cache:
            rows = self.gradients.where(player=player, tap="gradient", tensor="")
            update, iteration = self.gradients["update"][rows], self.gradients["iteration"][rows]
            known, iterations = pivot(update, np.zeros(len(update), np.int64), iteration, 1)
            self._cache[player] = known, spaced(iterations[:, 0])
        return self._cache[player]

    @cached_property
    def _gradients(self) -> dict[tuple[str, str, str, str], Series]:
        return {}

    @cached_property
    def _cache(self) -> dict[str, tuple[Array, Array]]:
        return {}


def spaced(iterations: Array) -> Array:
    """Positions i - 1 + k/n of updates whose iterations [U] are given in order."""
    if not len(iterations):
        return np.empty(0)
    starts = np.flatnonzero(np.diff(iterations, prepend=np.nan) != 0)
    sizes = np.diff(starts, append=len(iterations))
    rank = np.arange(len(iterations)) - np.repeat(starts, sizes) + 1
    result: Array = iterations - 1 + rank / np.repeat(sizes, sizes)
    return result
