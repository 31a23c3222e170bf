"""One run: iterations between evaluations, checkpoints, snapshots and signals.

Only the engine trains and only the problem knows its domain; the session decides when things
happen and what is kept. Everything that a later session needs is in the checkpoint.
"""

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from playground.best_response import BestResponse
from playground.config import Config, Member
from playground.crosschecks import budget
from playground.diagnosis.report import KIND, due, look
from playground.engine import Engine, Failure
from playground.game import Player, Problem
from playground.metriclog import MetricLog, Stamp
from playground.probes.passes import Passing
from playground.probes.probe import Measuring
from playground.probes.tier0.probe import Norms
from playground.progress import Reporter
from playground.record.arrays import save_array
from playground.record.checkpoint import save_checkpoint, save_snapshot
from playground.record.directory import RunDirectory
from playground.record.sinks.mirror import Mirrors
from playground.record.writer import Recorder
from playground.signals import Interrupted, Signals

EVALUATIONS, CHECKPOINTS = 20, 10
"""Per run, where ``evaluate.every`` and ``checkpoint.every`` are null (ours)."""

FLUSH_SECONDS = 5.0
"""What a kill may lose: the longest time between two flushes, iterations allowing."""

ARROWS = 64
"""Players up to this many parameters leave their last gradient, momentum and update."""


class RunFailed(Exception):
    """The run cannot go on; what it had is kept."""


class Session:
    """Drives a problem through its budget.

    Attributes:
        iteration: completed iterations.
        every: {"evaluate": n, "checkpoint": n}, fixed after the first iteration.
        whole: whether the records are of a run that rules about its course can judge.
        measuring: probes besides tier 0, set before the run.
        respond: measures best responses at evaluations, set before the run.
        mirrors: the sinks, which see what the recorder has written.
    """

    whole: bool = True
    measuring: Sequence[Measuring | Passing] = ()
    respond: BestResponse | None = None

    def __init__(
        self,
        config: Config,
        members: list[Member],
        problem: Problem,
        players: dict[str, Player],
        engine: Engine,
        norms: Norms | None,
        directory: RunDirectory,
        recorder: Recorder,
        reporter: Reporter,
    ) -> None:
        self.config, self.members, self.problem, self.players = config, members, problem, players
        self.engine, self.norms, self.directory = engine, norms, directory
        self.recorder, self.reporter = recorder, reporter
        self.mirrors = Mirrors()
        self.log = MetricLog(len(members))
        self.key, self.amount = budget(config)
        self.iteration = 0
        self.every = {"evaluate": config.evaluate.every, "checkpoint": config.checkpoint.every}
        self.best: float | None = None
        self.latest: dict[str, np.ndarray] = {}
        self._before = 0.0
        self._began = time.monotonic()
        self._flushed = self._began
        self._start_used = 0
        self._reported: set[int] = set()
        self._array_warned = False
        self.live = config.probes.name in ("standard", "full")

    @property
    def seconds(self) -> float:
        """Wall time of the run, earlier attempts included."""
        return self._before + time.monotonic() - self._began

    def used(self) -> int:
        """What the living member that has used most has used: none goes beyond its budget."""
        if self.key == "iterations":
            return self.iteration
        counts = self._count(self.key)
        if self.engine.failures:
            living = ~self.engine.frozen.cpu().numpy()
            counts = counts[living] if living.any() else counts
        return int(counts.max())

    def over(self) -> bool:
        """Whether nothing is left to do."""
        return self.used() >= self.amount

    def counters(self) -> dict[str, np.ndarray]:
        """{counter: int64 [M]}; ``updates`` is the most-updated player's."""
        names = ("updates", "gradient_evaluations", *self.problem.counters)
        return {name: self._count(name).copy() for name in names}

    def _count(self, name: str) -> np.ndarray:
        """One of the counters, not to be kept."""
        if name == "updates":
            first, *others = self.engine.updates.values()
            return np.maximum.reduce([first, *others]) if others else first
        if name == "gradient_evaluations":
            return self.engine.gradient_evaluations
        return self.problem.counters[name]

    def run(self) -> None:
        """Iterate until the budget is used.

        Raises:
            RunFailed: a non-finite value under ``raise``, or in every member.
            Interrupted: after SIGINT or SIGTERM, with everything saved.
        """
        self._start_used = self.used()
        with Signals() as signals:
            if self.iteration == 0:
                self._evaluate()
                self._snapshot()
            while not self.over():
                self.iterate()
                if signals.number is not None and not self.over():
                    self.save()
                    raise Interrupted(signals.number)
            self._arrows()
            self._account()
            self.save()

    def iterate(self) -> None:
        """One iteration of the problem, and what is due after it."""
        engine = self.engine
        engine.progress = min(1.0, self.used() / self.amount)
        engine.round_index = 0
        if self.norms is not None:
            self.norms.iteration = self.iteration + 1
        for probe in self.measuring:
            probe.iteration = self.iteration + 1
            if isinstance(probe, Passing):
                probe.cadence = self.every["evaluate"] or 1
        rounds = self.problem.iteration(engine.progress)
        metrics: dict[str, np.ndarray] | None = None
        try:
            moves = next(rounds)
            while True:
                outcomes = engine.play(moves)
                self.log.round(outcomes)
                moves = rounds.send(outcomes)
        except StopIteration as stop:
            metrics = stop.value
        self.iteration += 1
        if self.iteration == 1:
            self._settle_cadence()
        stamp = self._stamp()
        self.log.iteration(stamp)
        for name, value in (metrics or {}).items():
            self.log.add(stamp, "", name, value)
            self.latest[name] = value
        self._check_failures(engine.settle())
        done = self.over()
        if done or self.iteration % (self.every["evaluate"] or 1) == 0:
            self._evaluate(final=done)
        if self.live and due(self.iteration, self.every["evaluate"] or 1):
            self._diagnose()
        if self._snapshot_due():
            self._snapshot()
        if not done and self.iteration % (self.every["checkpoint"] or 1) == 0:
            self.save()
        elif self.recorder.due() or time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()
        if self.reporter.due():
            self._report()

    def _settle_cadence(self) -> None:
        """Turn null cadences into iterations, from what the first iteration used."""
        total = math.ceil(self.amount / max(1, self.used()))
        for key, parts in (("evaluate", EVALUATIONS), ("checkpoint", CHECKPOINTS)):
            if self.every[key] is None:
                self.every[key] = max(1, total // parts)

    def _stamp(self) -> Stamp:
        return Stamp(self.iteration, self.seconds, self.counters())

    def _evaluate(self, *, final: bool = False) -> None:
        """Evaluate every member; keep the best snapshot by the main metric's mean."""
        result = self.problem.evaluate()
        if self.respond is not None and (final or self.config.best_response.when != "end"):
            gaps, errors = self.respond({n: p.parameters.values for n, p in self.players.items()})
            result.metrics.update(gaps)
            result.stderr.update(errors)
        stamp = self._stamp()
        for name, value in result.metrics.items():
            self.log.add(stamp, "", name, value, result.stderr.get(name))
            self.latest[name] = value
        for name, array in result.arrays.items():
            kept = save_array(self.directory, name, self.iteration, array)
            if not kept and not self._array_warned:
                self._array_warned = True
                self.event("arrays", "byte cap reached: further arrays are dropped")
        main = result.metrics.get(self.problem.main_metric)
        if main is None or not np.isfinite(main).any():
            return
        score = float(np.nanmean(np.where(np.isfinite(main), main, np.nan)))
        better = self.best is None or (score > self.best) == self.problem.higher_is_better
        if better and score != self.best:
            self.best = score
            self._snapshot(best=True)

    def _diagnose(self) -> None:
        """Look at the records while the run runs; what is new becomes an event."""
        self.flush()
        for message, evidence in look(self.directory.path):
            self.event(KIND, message, evidence=evidence)
            self.reporter.say(f"  {message}")

    def _snapshot_due(self) -> bool:
        """After 1, 2, 4, 8, ... iterations, and evenly where it was asked for."""
        every = self.config.checkpoint.snapshot_every
        power = self.iteration & (self.iteration - 1) == 0
        return power or (every is not None and self.iteration % every == 0)

    def _snapshot(self, *, best: bool = False) -> None:
        values = {name: player.parameters.values for name, player in self.players.items()}
        save_snapshot(self.directory, self.iteration, values, best=best)

    def _arrows(self) -> None:
        """The last gradient, momentum and update of small players, for pictures."""
        if self.norms is None:
            return
        state = self.norms.state()
        for name, player in self.players.items():
            if player.parameters.layout.size > ARROWS or name not in state:
                continue
            arrays = dict(zip(("gradient", "update"), state[name], strict=True))
            momentum = self.engine.optimizers[name].momentum()
            if momentum is not None:
                arrays["momentum"] = momentum
            for key, value in arrays.items():
                save_array(self.directory, f"{key}.{name}", self.iteration, value.cpu().numpy())

    def _account(self) -> None:
        """Say what an allowance made of the cadences of passes."""
        kept = [m.allowance for m in self.measuring if isinstance(m, Passing) and m.allowance]
        message = kept[0].summary() if kept else ""
        if message:
            self.event("probes", message)
            self.reporter.say(f"  {message}")

    def _check_failures(self, failures: dict[int, Failure]) -> None:
        """Report new non-finite members; stop the run by ``on_nonfinite``."""
        new = [f for member, f in failures.items() if member not in self._reported]
        policy = self.config.on_nonfinite or ("raise" if len(self.members) == 1 else "freeze")
        for failure in new:
            self._reported.add(failure.member)
            if failure.update < 0:
                continue  # frozen before this attempt
            text = self._name_failure(failure)
            self.event("nonfinite", text, member=failure.member)
            if policy == "raise":
                raise RunFailed(text)
            self.reporter.say(f"frozen: {text}")
        if new and len(self._reported) == len(self.members):
            raise RunFailed("every member met a non-finite value; see the events of the run")

    def _name_failure(self, failure: Failure) -> str:
        layout = self.players[failure.player].parameters.layout
        bad = ~torch.isfinite(failure.gradient)
        tensors = [name for name, piece in layout.slices.items() if bool(bad[piece].any())]
        what = f"gradient of {', '.join(tensors)}" if tensors else "update"
        return (
            f"non-finite {what} (player {failure.player}, member {failure.member}, "
            f"update {failure.update}, iteration {self.iteration}, "
            f"seed {self.members[failure.member].seed})"
        )

    def event(self, kind: str, message: str, *, member: int = -1, evidence: str = "") -> None:
        """A row of the table ``events``; member -1 is the run."""
        row = {"iteration": self.iteration, "member": member, "kind": kind}
        self.recorder.add("events", {k: [v] for k, v in row.items()} | {
            "message": [message], "evidence": [evidence]})  # fmt: skip

    def flush(self) -> None:
        """Write everything measured so far."""
        if self.norms is not None:
            self.norms.flush()
        for probe in self.measuring:
            probe.flush()
        rows = self.log.rows()
        if rows is not None:
            self.recorder.add("metrics", rows[0], null=rows[1])
        self.recorder.flush()
        self._flushed = time.monotonic()
        self.say_news()

    def say_news(self, *, event: bool = True) -> None:
        """Tell, once, of a sink in trouble."""
        for name, trouble in self.mirrors.news():
            if event:
                self.event(f"sink/{name}", trouble)
            self.reporter.say(f"  sink {name}: {trouble}; training and records are unharmed")

    def save(self) -> None:
        """Flush the records, then write a checkpoint."""
        self.flush()
        engine = self.engine.state()
        optimizers = engine.pop("optimizers")  # saved once, with their players
        players = {
            name: {"parameters": player.parameters.values, "optimizer": optimizers[name]}
            for name, player in self.players.items()
        }
        content = {
            "players": players,
            "problem": self.problem.state(),
            "engine": engine,
            "counters": {k: v.tolist() for k, v in self.problem.counters.items()},
            "probes": self.norms.state() if self.norms is not None else {},
            "measuring": {m.probe.name: m.probe.state() for m in self.measuring},
            "session": {
                "iteration": self.iteration,
                "seconds": self.seconds,
                "best": self.best,
                "every": dict(self.every),
                "reported": sorted(self._reported),
            },
        }
        save_checkpoint(self.directory, self.iteration, content)

    def load(self, content: dict[str, Any]) -> None:
        """Take back what ``save`` wrote."""
        for name, saved in content["players"].items():
            self.players[name].parameters.values.copy_(saved["parameters"])
        optimizers = {name: saved["optimizer"] for name, saved in content["players"].items()}
        self.engine.load_state({**content["engine"], "optimizers": optimizers})
        for name, values in content["counters"].items():
            self.problem.counters[name][:] = values
        self.problem.load_state(content["problem"])
        if self.norms is not None:
            layouts = {name: player.parameters.layout for name, player in self.players.items()}
            self.norms.load_state(content["probes"], layouts)
        for measuring in self.measuring:
            measuring.probe.load_state(content["measuring"][measuring.probe.name])
        session = content["session"]
        self.iteration, self.best = session["iteration"], session["best"]
        self._before = session["seconds"]
        self._reported = set(session["reported"])
        for key, value in session["every"].items():
            if self.every[key] is None:
                self.every[key] = value

    def status(self) -> str:
        """The latest value of the main metric, as mean and spread over members."""
        value = self.latest.get(self.problem.main_metric)
        if value is None:
            return ""
        finite = value[np.isfinite(value)]
        if not len(finite):
            return f"{self.problem.main_metric} not finite"
        spread = f" +- {finite.std(ddof=1):.3g}" if len(finite) > 1 else ""
        return f"{self.problem.main_metric} {finite.mean():.4g}{spread}"

    def _report(self) -> None:
        used = self.used()
        elapsed = max(1e-9, time.monotonic() - self._began)
        rate = (used - self._start_used) * len(self.members) / elapsed
        self.reporter.update(
            min(1.0, used / self.amount),
            f"{self.key} {used:,}/{self.amount:,}",
            f"{rate:,.0f}/s  {self.status()}",
        )
