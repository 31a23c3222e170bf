"""Reading what a run or a sweep wrote, live or ended: ``playground.load(path)``.

Nothing is read before it is asked for, and asking again reads only new files, so that the same
object serves a notebook and a live page. Figures, reports and pages read records only.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from playground.record.arrays import ArraySeries, list_arrays
from playground.record.atomic import RecordError, StrPath
from playground.record.columns import SCHEMA_VERSION, TABLES
from playground.record.directory import check_name
from playground.record.formats import load_json, load_yaml
from playground.record.tables import Cache, read_table


def load(path: StrPath) -> "Run | Sweep":
    """Read a run, or a sweep of runs, live or ended.

    Raises:
        RecordError: nothing is there, it is neither, or a newer version wrote it.
    """
    path = Path(path)
    if not path.is_dir():
        raise RecordError(f"{path}: no such run")
    if (path / "sweep.yaml").is_file():
        return Sweep(path)
    if not (path / "manifest.json").is_file():
        raise RecordError(f"{path}: not a run (it has no manifest.json and no sweep.yaml)")
    run = Run(path)
    version = run.manifest.get("schema_version", SCHEMA_VERSION)
    if version > SCHEMA_VERSION:
        raise RecordError(
            f"{path}: schema version {version}, this program reads up to {SCHEMA_VERSION}"
        )
    return run


class Tables(ABC):
    """The four tables of a run or a sweep, as Arrow tables in written order."""

    @abstractmethod
    def table(self, name: str) -> pa.Table:
        """One table, as it is now."""

    @property
    def metrics(self) -> pa.Table:
        """Evaluations, losses and other named values, long."""
        return self.table("metrics")

    @property
    def gradients(self) -> pa.Table:
        """Gradients and updates by player, tensor and tap, wide."""
        return self.table("gradients")

    @property
    def measurements(self) -> pa.Table:
        """What the other probes measured, long."""
        return self.table("measurements")

    @property
    def events(self) -> pa.Table:
        """What happened: non-finite values, dropped arrays and the like."""
        return self.table("events")


class Run(Tables):
    """One run's record.

    Attributes:
        path: the run directory.
    """

    def __init__(self, path: StrPath) -> None:
        self.path = Path(path)
        self._caches: dict[str, Cache] = {name: {} for name in TABLES}

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.manifest.get('status', 'unknown')})"

    def table(self, name: str) -> pa.Table:
        """One table without superseded rows, as it is now.

        Raises:
            RecordError: it cannot be read. A broken part is skipped with a warning.
        """
        return read_table(self.path, name, self._caches[name])

    @property
    def manifest(self) -> dict[str, Any]:
        """Status, versions, seeds, members, counters, as they are now."""
        return load_json(self.path / "manifest.json")

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration."""
        return load_yaml(self.path / "config.yaml")

    @property
    def members(self) -> list[dict[str, Any]]:
        """Seed and varied values of every member."""
        return list(self.manifest.get("members", []))

    @property
    def arrays(self) -> dict[str, ArraySeries]:
        """{name: {iteration: array}}, each read when asked for."""
        return list_arrays(self.path)

    @property
    def snapshots(self) -> list[int]:
        """Iterations that have a snapshot, ascending."""
        stems = [path.stem for path in (self.path / "snapshots").glob("*.pt")]
        return sorted(int(stem) for stem in stems if stem.isdecimal())

    def metric(self, name: str, player: str = "") -> tuple[np.ndarray, np.ndarray]:
        """One metric as iterations [T] and values [T, M]; NaN where a member has none.

        A metric that was not recorded (see ``metric_names``) has T = 0.
        """
        table = self.metrics
        wanted = pc.and_(pc.equal(table["name"], name), pc.equal(table["player"], player))
        return self._series(table.filter(wanted))

    def measurement(
        self, probe: str, quantity: str, player: str | None = None, tensor: str = ""
    ) -> tuple[np.ndarray, np.ndarray]:
        """What a probe measured, as iterations [T] and values [T, M]; NaN where undefined.

        Args:
            probe: its name, such as ``noise``.
            quantity: as in docs/instruments.md.
            player: null is the only one that has it, or nobody's, of the whole game.
            tensor: "" is the whole player.

        Raises:
            ValueError: nothing of that name was measured, or several players have it.
        """
        table = self.measurements
        wanted = pc.and_(pc.equal(table["probe"], probe), pc.equal(table["quantity"], quantity))
        table = table.filter(pc.and_(wanted, pc.equal(table["tensor"], tensor)))
        owners = pc.unique(table["player"].cast(pa.string())).to_pylist()
        if player is None and len(owners) == 1:
            player = owners[0]
        if player not in owners:
            known = f"of {', '.join(owners)}: name one" if owners else "was not measured"
            raise ValueError(f"{probe}/{quantity} {tensor}".strip() + f" {known}")
        return self._series(table.filter(pc.equal(table["player"], player)))

    def _series(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """Rows of one quantity as iterations [T] and values [T, M]."""
        member = table["member"].to_numpy()
        iterations, row = np.unique(table["iteration"].to_numpy(), return_inverse=True)
        columns = len(self.members) or int(member.max(initial=-1)) + 1
        values = np.full((len(iterations), columns), np.nan)
        values[row, member] = table["value"].to_numpy()
        return iterations, values

    def metric_names(self, player: str = "") -> list[str]:
        """Names of the metrics recorded for a player, or for the run, sorted."""
        table = self.metrics
        names = table.filter(pc.equal(table["player"], player))["name"]
        return sorted(pc.unique(names.cast(pa.string())).to_pylist())

    def figure(self, name: str = "overview") -> Path:
        """Draw a figure from the records and return its path, ``figures/<name>.png``."""
        path: Path = import_module("playground.report").draw(self, check_name(name))
        return path

    def player(self, name: str, member: int = 0) -> Any:
        """The trained ``nn.Module`` of one player and member."""
        return import_module("playground.run").load_player(self, name, member)


class Sweep(Tables):
    """The runs of a sweep, read together.

    Attributes:
        path: the folder with ``sweep.yaml`` and numbered run folders.
    """

    def __init__(self, path: StrPath) -> None:
        self.path = Path(path)
        self._children: dict[int, Run] = {}

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Sweep({str(self.path)!r}, {len(self.children)} runs)"

    @cached_property
    def config(self) -> dict[str, Any]:
        """The content of ``sweep.yaml``: the command's overrides and those of each job."""
        return load_yaml(self.path / "sweep.yaml")

    @property
    def children(self) -> list[Run]:
        """The runs that have begun, by number."""
        for number in self._numbers():
            path = self.path / str(number)
            if number not in self._children and (path / "manifest.json").is_file():
                self._children[number] = Run(path)
        return [self._children[number] for number in sorted(self._children)]

    @property
    def runs(self) -> list[dict[str, Any]]:
        """{run, overrides, status} of every job; the status is ``missing`` before it begins."""
        jobs = self.config.get("jobs", [])
        begun = {int(run.path.name): run.manifest for run in self.children}
        rows = []
        for number in sorted({*range(len(jobs)), *self._numbers()}):
            manifest = begun.get(number, {})
            given = jobs[number] if number < len(jobs) else manifest.get("overrides", [])
            status = manifest.get("status", "missing")
            rows.append({"run": number, "overrides": list(given), "status": status})
        return rows

    def table(self, name: str) -> pa.Table:
        """One table of all runs; the first column, ``run``, int32, is the folder's number."""
        schema = TABLES[name].insert(0, pa.field("run", pa.int32()))
        pieces = [schema.empty_table()]
        for run in self.children:
            rows = run.table(name)
            number = pa.array(np.full(rows.num_rows, int(run.path.name), np.int32))
            pieces.append(rows.add_column(0, schema.field("run"), number))
        return pa.concat_tables(pieces).unify_dictionaries()

    def _numbers(self) -> Iterator[int]:
        """Numbers of the run folders, ascending."""
        names = [path.name for path in self.path.iterdir() if path.is_dir()]
        return iter(sorted(int(name) for name in names if name.isdecimal()))
