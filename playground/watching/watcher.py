"""The watcher: hooks of optimizers on one side, a run directory on the other.

It hangs on hooks that anyone may use (``Optimizer.register_step_pre_hook`` and ``_post_hook``),
changes nothing and stops nothing: should it fail itself, it says so once and leaves. An update
is one step of an optimizer; an iteration ends when every player has had one.
"""

import atexit
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from playground.metriclog import MetricLog, Stamp
from playground.probes.passes import Pass
from playground.probes.probe import Measuring, Probe
from playground.probes.tier0.probe import Norms
from playground.provenance import now
from playground.record.arrays import save_array
from playground.record.directory import RunDirectory
from playground.record.sinks.config import SinksConfig
from playground.record.sinks.mirror import Mirrors
from playground.record.sinks.sink import Sink
from playground.record.sinks.tracks import opening
from playground.record.writer import Recorder, compact
from playground.watching import clipping
from playground.watching.folder import Settings
from playground.watching.health import Health
from playground.watching.hooks import attach
from playground.watching.objective import Loss, Objectives
from playground.watching.player import Reading, Watched
from playground.watching.rows import number, record

FLUSH_SECONDS = 5.0
"""What a kill may lose."""

FLUSH_UPDATES = 4096
"""Updates after which small values leave the device (ours)."""

PATIENCE = 1000
"""Updates of one iteration at most, where a player is updated no longer (ours)."""


class Watcher:
    """Records a loop from outside until it is closed.

    Attributes:
        path: the run directory.
        iteration: completed iterations.
        updates: {player: its updates so far}.
    """

    def __init__(
        self, watched: Mapping[str, Watched], settings: Settings, probes: Sequence[Probe]
    ) -> None:
        self.watched, self.settings = dict(watched), settings
        self.iteration, self.updates = 0, dict.fromkeys(watched, 0)
        self.norms = None
        if settings.probes != "none":
            self.norms = Norms(
                settings.every, settings.seed,
                lambda columns, null: self._recorder.add("gradients", columns, null=null),
                settings.megabytes,
            )  # fmt: skip
            self.norms.own = {name: player.every for name, player in watched.items()}
        self._measuring = [Measuring(probe, self._measured) for probe in probes]
        self._health = {n: Health(n, w.names) for n, w in watched.items()}
        self._objectives: Objectives | None = None
        self._log, self._mirrors = MetricLog(1), Mirrors()
        self._named: list[str] = []
        self._open, self._round, self._waiting = False, 0, 0
        self._seen: set[str] = set()
        self._pending: dict[str, Reading] = {}
        self._warned: set[str] = set()
        self._began = self._flushed = time.monotonic()
        self._pid = os.getpid()

    def take_objectives(
        self, functions: Mapping[str, Loss], passes: Sequence[Pass], budget: float | None = None
    ) -> None:
        """Have passes made of the players' objectives, for a share of wall time."""
        self._objectives = Objectives(
            self.watched, functions, passes, lambda name: self.updates[name], self._measured,
            lambda name, iteration, array: save_array(self._directory, name, iteration, array),
            lambda probe, iteration, text: self._event(iteration, f"probe/{probe}", text, ""),
            self.settings.passes_every, self.settings.seed,
        )  # fmt: skip
        if budget is not None:
            self._objectives.allow(budget)

    def open(self, directory: RunDirectory) -> None:
        """Begin: records into a locked directory, hooks onto the optimizers."""
        self._directory, self.path = directory, directory.path
        self._recorder = Recorder(directory, attempt=0)
        self._handles = []
        for name, player in self.watched.items():
            before, after = partial(self._before, name), partial(self._after, name)
            self._handles += attach(
                player.optimizer, partial(self._guarded, before), partial(self._guarded, after)
            )
            clipping.listen(player)
        self._open = True
        atexit.register(self._at_exit)

    def mirror(self, sinks: Sequence[Sink], settings: SinksConfig) -> None:
        """Have sinks see what is written from now on; a log may come an iteration late."""
        directory = self._directory
        run = opening(self.path, directory.read_config(), directory.read_manifest(), None)
        self._mirrors.start(sinks, settings, run, behind=2)
        self._recorder.listener = self._mirrors.give

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, KeyboardInterrupt):
            self.close("interrupted", "KeyboardInterrupt")
        elif error is not None:
            self.close("failed", f"{type(error).__name__}: {error}")
        else:
            self.close()

    def log(
        self, values: Mapping[str, Any] | None = None, /, *, player: str = "", **named: Any
    ) -> None:
        """Record values of one's own, numbers or tensors of one element, at this iteration.

        Names are the user's: ``loss``, ``accuracy``, ``return``. Figures draw a player's ``loss``
        and the metric that ``watch(metric=...)`` names.
        """
        if not self._open:
            return
        stamp = Stamp(self.iteration, time.monotonic() - self._began, self._counters())
        for name, given in {**(values or {}), **named}.items():
            value = number(given)
            if not player and name not in self._named:
                self._named.append(name)
            self._log.add(stamp, player, name, value)
            if len(self.watched) == 1 and not player and name.partition("/")[0] == "loss":
                self._log.add(stamp, next(iter(self.watched)), name, value)

    def batch(self, batch: Any, player: str | None = None) -> None:
        """The batch that the objectives are measured on from now on, of one player or of all."""
        if self._objectives is not None:
            self._objectives.give(batch, player)

    def flush(self) -> None:
        """Write everything measured so far."""
        if self.norms is not None:
            self.norms.flush()
        for measuring in self._measuring:
            measuring.flush()
        for passing in self._objectives.passing if self._objectives is not None else []:
            passing.flush()
        for health in self._health.values():
            for event in health.flush():
                self._event(event.iteration, event.kind, event.message, event.evidence)
        rows = self._log.rows()
        if rows is not None:
            self._recorder.add("metrics", rows[0], null=rows[1])
        self._recorder.flush()
        self._flushed, self._waiting = time.monotonic(), 0
        for name, trouble in self._mirrors.news():
            self._say(f"sink {name}: {trouble}", f"sink/{name}")

    def close(self, status: str = "finished", reason: str = "") -> None:
        """Take the hooks off, write the rest and finish the run; a second call does nothing."""
        if not self._open or os.getpid() != self._pid:
            return
        self._detach()
        trouble = self._last_words()
        if trouble:
            status, reason = "failed", reason or f"the watcher failed: {trouble}"
        try:
            stands = not self._named or self.settings.metric in self._named
            changes = {} if stands else {"main_metric": self._named[0]}
            counters = {"iterations": self.iteration, "updates": max(self.updates.values())}
            self._directory.update_manifest(
                status=status, reason=reason, ended=now(), counters=counters,
                seconds=round(time.monotonic() - self._began, 3), **changes,
            )  # fmt: skip
            told = self._mirrors.close(status)
            if told:
                self._directory.update_manifest(sinks=told)
        except Exception as error:
            trouble = trouble or f"{type(error).__name__}: {error}"
        finally:
            self._directory.release()
        if trouble:
            warnings.warn(f"playground.watch: the last records are lost: {trouble}", stacklevel=3)
        for name, trouble in self._mirrors.news():
            warnings.warn(f"playground.watch: sink {name}: {trouble}", stacklevel=3)

    def _last_words(self) -> str:
        """Write what is left; what went wrong, since closing stops no loop either."""
        try:
            spent = self._objectives.spent() if self._objectives is not None else ""
            if spent:
                self._event(self.iteration, "probes", spent, "")
            self.flush()
            self._recorder.close()
            compact(self._directory)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return ""

    def _detach(self) -> None:
        self._open = False
        for handle in self._handles:
            handle.remove()
        for player in self.watched.values():
            clipping.ignore(player)
        atexit.unregister(self._at_exit)

    def _at_exit(self) -> None:
        error = getattr(sys, "last_value", None)  # set before exit where a traceback was printed
        if error is None:
            self.close()
        else:
            self.close("failed", f"{type(error).__name__}: {error}")

    def _guarded(self, work: Callable[..., None], *arguments: Any) -> None:
        """Work that must not stop the loop, whatever happens."""
        if not self._open or os.getpid() != self._pid:
            return
        try:
            with torch.no_grad():
                work(*arguments)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            try:
                self._pending.clear()
                self.close("failed", f"the watcher failed: {reason}")
            except Exception:  # the disk, most likely, and that is the first error too
                pass
            warnings.warn(f"playground.watch stopped ({reason}); training goes on", stacklevel=4)

    def _before(self, name: str) -> None:
        """Before an update: read the gradient, make the passes that are due."""
        player, update = self.watched[name], self.updates[name] + 1
        copy = any((update - 1) % m.probe.every == 0 for m in self._measuring)
        if self.norms is not None or copy:
            due, ahead = (self._due(name, update + k) for k in (0, 1))
            self._pending[name] = player.read(update, copy=copy, due=due, ahead=ahead)
        if self._objectives is not None:
            self._passes(name, self._objectives)

    def _due(self, name: str, update: int) -> bool:
        """Whether tier 0 measures an update; of a large player also the first with one before."""
        if self.norms is None:
            return False
        first = update == 2 and self.watched[name].mode != "copies"
        return first or self.norms.due(update, name)

    def _passes(self, name: str, objectives: Objectives) -> None:
        """Show a move to the passes that are due; one that fails is left out from then on."""
        for passing in objectives.due(self.iteration + 1):
            probe = passing.probe.name
            if not objectives.has_batch(name):
                text = f"no batch of player {name}: call watcher.batch(...) before its step"
                self._say(f"objective: {text}")
                return
            try:
                objectives.look(passing, name)
            except Exception as error:
                objectives.passing.remove(passing)
                self._say(f"probe {probe} is left out: {type(error).__name__}: {error}")

    def _after(self, name: str, calls: int) -> None:
        """After an update: measure it, count it, and write now and then."""
        player, seen = self.watched[name], self._pending.pop(name, None)
        self.updates[name] += 1
        update, iteration = self.updates[name], self.iteration + 1
        stamp = (iteration, update, self._round)
        if seen is not None:
            ahead = self._due(name, update + 1)
            moved = player.finish(seen, update, ahead=ahead, again=calls > 1)
            record(self.norms, self._measuring, player, seen, moved, stamp)
            self._health[name].note(stamp, seen.norms, seen.broken, player.missing)
            if len(player.optimizer.param_groups) != player.groups:
                player.groups = len(player.optimizer.param_groups)
                self._health[name].add(stamp, "layout", "parameters were added to the optimizer; "
                                       "they are not watched")  # fmt: skip
        self._seen.add(name)
        self._round += 1
        if len(self._seen) == len(self.watched) or self._round >= PATIENCE:
            self.iteration, self._round, self._seen = iteration, 0, set()
        self._waiting += 1
        late = time.monotonic() - self._flushed >= FLUSH_SECONDS
        if late or self._waiting >= FLUSH_UPDATES or self._recorder.due():
            self.flush()

    def _measured(self, columns: dict[str, Any], null: dict[str, Any]) -> None:
        self._recorder.add("measurements", columns, null=null)

    def _say(self, text: str, kind: str = "watch") -> None:
        """One warning and one event, the first time."""
        if text not in self._warned:
            self._warned.add(text)
            self._event(self.iteration, kind, text, "")
            warnings.warn(f"playground.watch: {text}", stacklevel=6)

    def _event(self, iteration: int, kind: str, message: str, evidence: str) -> None:
        row = {"iteration": [iteration], "member": [0], "kind": [kind], "message": [message],
               "evidence": [evidence]}  # fmt: skip
        self._recorder.add("events", row)

    def _counters(self) -> dict[str, np.ndarray]:
        return {"updates": np.array([max(self.updates.values())], np.int64)}
