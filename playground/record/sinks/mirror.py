"""The guard around a sink: a thread of its own, a bounded queue, and a count of what went wrong.

Training hands over tables that are already on the disk and goes on at once. A sink that raises is
called again with the next point; one that does not come back fills its queue, whose rest is
dropped and counted; at the end it is waited for no longer than its patience. In every case the
manifest says so under ``sinks``, and one event and one line of the run tell the first error.
"""

import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from playground.record.columns import TABLES
from playground.record.reader import Run
from playground.record.sinks.aliases import aliases
from playground.record.sinks.config import SinksConfig
from playground.record.sinks.scalars import Entry, Scalars
from playground.record.sinks.sink import Opening, Sink
from playground.record.sinks.tracks import began

WAITING = 64
"""Blocks that may wait for a sink; a block is a flush of the records (ours)."""

Tables = Mapping[str, pa.Table]


@dataclass(slots=True)
class Report:
    """What a sink did.

    Attributes:
        where: folder, store or project.
        scalars: values that it took.
        failures: calls that raised; ``error`` is the first.
        dropped: rows of the records that never reached it.
        closed: whether it came to its end.
    """

    where: str = ""
    scalars: int = 0
    failures: int = 0
    error: str = ""
    dropped: int = 0
    closed: bool = False

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Catch and count whatever a sink raises."""
        try:
            yield
        except BaseException as error:
            self.failures += 1
            self.error = self.error or f"{type(error).__name__}: {error}".strip()

    def trouble(self) -> str:
        """What is wrong, empty where nothing is."""
        if self.error:
            return f"{self.error} ({self.failures} calls failed)"
        return f"{self.dropped} rows were dropped, it is too slow" if self.dropped else ""


def scalars_of(run: Opening, settings: SinksConfig) -> Scalars:
    """What turns the rows of a run into scalars."""
    others = aliases(run.config) if settings.aliases else {}
    start = began(run.manifest)
    return Scalars(run.tracks, start, settings.step, settings.tensors, others)


def deliver(sink: Sink, entries: Sequence[Entry], report: Report) -> None:
    """Give entries to a sink, each whatever became of the one before."""
    for entry in entries:
        with report.guarded():
            if entry.values:
                sink.scalars(entry.track, entry.point, entry.values)
                report.scalars += len(entry.values)
            for kind, message in entry.texts:
                sink.text(entry.track, entry.point, kind, message)
    with report.guarded():
        sink.flush()


class Mirror:
    """One sink of one run, in its thread.

    Args:
        sink: not opened yet.
        run: as it will be opened.
        settings: what it gets.
        behind: how many of the newest iterations may still get rows.
    """

    def __init__(self, sink: Sink, run: Opening, settings: SinksConfig, behind: int) -> None:
        self.sink, self.report = sink, Report()
        self._run, self._settings, self._behind = run, settings, behind
        self._scalars = scalars_of(run, settings)
        self._newest = -1
        self._ending: str | None = None
        self._queue: queue.Queue[Tables | str] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._work, name=f"sink {sink.name}", daemon=True)
        self._thread.start()

    def give(self, tables: Tables) -> None:
        """Hand rows over, or drop them where the sink does not keep up."""
        try:
            self._queue.put_nowait(tables)
        except queue.Full:
            self.report.dropped += sum(rows.num_rows for rows in tables.values())

    def end(self, status: str) -> None:
        """Ask for the end, without waiting for it."""
        self._ending = status
        with suppress(queue.Full):
            self._queue.put_nowait(status)
            self._ending = None

    def wait(self, deadline: float) -> None:
        """Wait for the end until ``deadline``."""
        if self._ending is not None:  # the queue was full
            with suppress(queue.Full):
                self._queue.put(self._ending, timeout=max(0.0, deadline - time.monotonic()))
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self.report.failures += 1
            self.report.error = self.report.error or "it did not come to its end in time"

    def _work(self) -> None:
        """The thread."""
        opened = False
        with self.report.guarded():
            self._open()
            opened = True
        while True:
            item = self._queue.get()
            if isinstance(item, str):
                break
            if opened:
                with self.report.guarded():
                    self._take(item)
            else:
                self.report.dropped += sum(rows.num_rows for rows in item.values())
        if opened:
            self._send(None)
            with self.report.guarded():
                self.sink.close(item)
                self.report.closed = True

    def _open(self) -> None:
        """Open the sink, with what the records hold of earlier attempts."""
        entries = earlier(self._run, self._settings) if self._run.stands >= 0 else []
        self.sink.open(self._run)
        self.report.where = str(self.sink.where)
        deliver(self.sink, entries, self.report)

    def _take(self, tables: Tables) -> None:
        newest = [pc.max(rows["iteration"]).as_py() for rows in tables.values() if rows.num_rows]
        self._newest = max([self._newest, *newest])
        self._scalars.add(tables)
        self._send(self._newest - self._behind)

    def _send(self, until: int | None) -> None:
        entries: list[Entry] = []
        with self.report.guarded():
            entries = list(self._scalars.take(until))
        deliver(self.sink, entries, self.report)


def earlier(run: Opening, settings: SinksConfig) -> list[Entry]:
    """What the records hold up to the iteration that stands."""
    scalars, record = scalars_of(run, settings), Run(run.path)
    for name in TABLES:
        rows = record.table(name)
        scalars.add({name: rows.filter(pc.less_equal(rows["iteration"], run.stands))})
    return list(scalars.take())


class Mirrors:
    """All sinks of a run; none unless ``start`` is called."""

    def __init__(self) -> None:
        self._mirrors: dict[str, Mirror] = {}
        self._patience = 0.0
        self._told: set[str] = set()

    def start(
        self, sinks: Sequence[Sink], settings: SinksConfig, run: Opening, behind: int = 0
    ) -> None:
        """Begin to mirror."""
        self._patience = settings.patience
        for sink in sinks:
            name, number = sink.name, 2
            while name in self._mirrors:
                name, number = f"{sink.name}-{number}", number + 1
            self._mirrors[name] = Mirror(sink, run, settings, behind)

    def give(self, tables: Tables) -> None:
        """Hand rows over that were just written."""
        for mirror in self._mirrors.values():
            mirror.give(tables)

    def news(self) -> list[tuple[str, str]]:
        """(sink, its first error) of those in trouble, each once."""
        found = []
        for name, mirror in self._mirrors.items():
            trouble = mirror.report.trouble()
            if trouble and name not in self._told:
                self._told.add(name)
                found.append((name, trouble))
        return found

    def close(self, status: str, *, at_once: bool = False) -> dict[str, Any]:
        """End them and say what each did, for the manifest; an interrupt ends the waiting."""
        deadline = time.monotonic() + (1.0 if at_once else self._patience)
        for mirror in self._mirrors.values():
            mirror.end(status)
        for mirror in self._mirrors.values():
            try:
                mirror.wait(deadline)
            except KeyboardInterrupt:
                deadline = 0.0
                mirror.wait(deadline)
        return {name: told(mirror.report) for name, mirror in self._mirrors.items()}


def told(report: Report) -> dict[str, Any]:
    """A report as the manifest keeps it: trouble only where there was any."""
    content: dict[str, Any] = {"where": report.where, "scalars": report.scalars}
    if report.failures or report.dropped or not report.closed:
        content |= {"failures": report.failures, "error": report.error,
                    "dropped_rows": report.dropped, "closed": report.closed}  # fmt: skip
    return content
