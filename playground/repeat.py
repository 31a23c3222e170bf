"""Going back in time: the run again, bit for bit, and what is measured or changed there.

Only the newest checkpoints are kept, so the way back often begins at the start; either way what is
repeated is compared with what the original recorded. The original is read and never written.
"""

import sys
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow.compute as pc

from playground.assembly import Parts, assemble
from playground.back import Asked, Journey, check
from playground.config import Config, to_dict
from playground.extend import Extensions
from playground.probes.direction import Direction
from playground.probes.passes import Passing
from playground.progress import Reporter
from playground.provenance import environment, manifest
from playground.record.checkpoint import load_checkpoint, load_snapshot
from playground.record.directory import RecordError, RunDirectory, RunExists, RunLocked
from playground.record.reader import Run
from playground.resume import check_layout
from playground.run import check_device, drive
from playground.schema import ConfigError
from playground.session import RunFailed, Session
from playground.signals import Interrupted
from playground.start import place

Content = dict[str, Any]
"""Of a checkpoint."""

NUMERIC = ("torch", "numpy", "gymnasium")
"""Packages whose versions may change bits."""


class Repeat(Session):
    """A run again up to an iteration: nothing is evaluated, and it is saved at the end only."""

    whole = False

    def __init__(self, until: int, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.until = until
        self.live = False

    def over(self) -> bool:
        """Whether the iteration is reached."""
        return self.iteration >= self.until

    def run(self) -> None:
        """Up to the iteration; a signal leaves nothing to go on with."""
        try:
            super().run()
        except Interrupted as error:
            error.saved = False
            raise

    def save(self) -> None:
        """Flush; a checkpoint at the end."""
        if self.over():
            super().save()
        else:
            self.flush()

    def load(self, content: Content) -> None:
        """Take back what the original's session wrote, as far as probes are the same."""
        saved = content["measuring"]
        own = {m.probe.name: saved.get(m.probe.name, m.probe.state()) for m in self.measuring}
        super().load({**content, "measuring": own})

    def _evaluate(self, *, final: bool = False) -> None:
        """Not again: it leaves no trace in training."""

    def _snapshot(self, *, best: bool = False) -> None:
        """Not again."""


class Replay(Repeat):
    """Measures the last iteration: passes there only, tier 0 at its every update.

    Passes begin there with fresh streams, so that their values do not depend on where the way back
    began.
    """

    def load(self, content: Content) -> None:
        """As a repetition does, without the states of passes."""
        passes = {m.probe.name for m in self.measuring if isinstance(m, Passing)}
        kept = {k: v for k, v in content["measuring"].items() if k not in passes}
        super().load({**content, "measuring": kept})

    def run(self) -> None:
        """Up to the iteration, and through it whatever happens there."""
        for measuring in self.measuring:
            if isinstance(measuring, Passing):
                measuring.only = self.until
            elif isinstance(measuring.probe, Direction):
                measuring.probe.due = sys.maxsize
        super().run()

    def iterate(self) -> None:
        """One iteration; snapshots of the parameters stand before and after the last one."""
        last = self.iteration + 1 == self.until
        if last:
            Session._snapshot(self)
            if self.norms is not None:
                self.norms.every = 1
            for measuring in self.measuring:
                if isinstance(measuring.probe, Direction):
                    measuring.probe.due = 1
        try:
            super().iterate()
        except RunFailed as error:
            if not last:
                raise
            self.reporter.say(f"  as in the original: {error}")
        if last:
            Session._snapshot(self)

    def status(self) -> str:
        """Where it is."""
        return f"iteration {self.iteration}"


def go_back(
    asked: Asked, overrides: Sequence[str], extensions: Extensions, reporter: Reporter
) -> Run:
    """Replay or fork a run.

    Raises:
        ConfigError: what is asked for is not possible; nothing was written.
        RunFailed: what was repeated is not what the original recorded, or the fork failed.
    """
    from playground.forking import fork  # which repeats runs too

    journey = check(asked, overrides)
    check_device(journey.after)
    source = journey.original.read_manifest()
    before = dict(source.get("extensions", {}))
    if asked.kind == "replay":
        before["probes"] = extensions.names()["probes"]
    extensions.check_resumed(before)
    for package, here in environment()["versions"].items():
        then = source.get("versions", {}).get(package)
        if package in NUMERIC and then != here:
            reporter.say(f"  {package} is {here}, was {then}: bits may differ")
    return (replay if asked.kind == "replay" else fork)(asked, journey, extensions, reporter)


def replay(asked: Asked, journey: Journey, extensions: Extensions, reporter: Reporter) -> Run:
    """Repeat a run up to an iteration, measure it there, and compare with what was recorded."""
    until = journey.iteration
    parts = parts_of(journey.after, journey, extensions)
    content = whole(journey, earlier(journey, until - 1, reporter), reporter)
    start = begin(asked, journey, parts, content, reporter)
    directory = create(parts)
    about = {"run": str(journey.original.path.resolve()), "update": asked.at,
             "iteration": until, "from": start}  # fmt: skip
    describe(directory, parts, extensions, replay=about)
    run = drive(parts, directory, content, reporter, probes=extensions.probes,
                kind=partial(Replay, until))  # fmt: skip
    equal, norms = compare_norms(Run(journey.original.path), run, until)
    directory.update_manifest(replay={**about, "norms": norms, "equal": equal})
    if equal < norms:
        raise RunFailed(
            f"iteration {until}: {norms - equal} of {norms} gradient norms are not those of "
            f"{asked.run}: {directory.path} measured another run"
        )
    same = f"all {norms} gradient norms of iteration {until} are the original's, bit for bit"
    reporter.say(f"  {same if norms else 'the original recorded no norms to compare with'}")
    reporter.say(f"  measured there: {inventory(run, until)} (table measurements)")
    return run


def whole(journey: Journey, content: Content | None, reporter: Reporter) -> Content | None:
    """Where a replay begins, by what its probes need of the past.

    Probe ``direction`` follows training from its start. It is left out where the way back begins
    later, unless its cadence was given.
    """
    direction = journey.after.probes.direction
    wanted = direction.cadence(journey.after.probes.name)
    if content is None or not wanted or "direction" in content["measuring"]:
        return content
    if direction.every:
        return None
    direction.every = 0
    reporter.say(
        "  without probe direction, which follows training from its start; "
        "probes.direction.every=1 begins there"
    )
    return content


def parts_of(config: Config, journey: Journey, extensions: Extensions) -> Parts:
    """The parts of a run, laid out as the original's.

    Raises:
        ConfigError: players of other names or tensors.
    """
    parts = assemble(config, extensions.problem, extensions.objectives)
    for name, tensors in journey.original.read_manifest().get("tensors", {}).items():
        check_layout(name, tensors, parts.players)
    return parts


def earlier(journey: Journey, latest: int | None, reporter: Reporter) -> Content | None:
    """The newest checkpoint of at most an iteration, None without any that is whole."""
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = load_checkpoint(journey.original, latest)
    except RecordError as error:
        reporter.say(f"  {error}")
        return None
    reporter.lines(f"  {warning.message}" for warning in said)
    return None if found is None else found[1]


def begin(
    asked: Asked, journey: Journey, parts: Parts, content: Content | None, reporter: Reporter
) -> int:
    """Where the way back begins, said; at another run's parameters where the original did."""
    start = int(content["session"]["iteration"]) if content else 0
    where = f"the checkpoint of iteration {start}" if start else "the start"
    reporter.say(
        f"{asked}: update {asked.at} is in iteration {journey.iteration}; repeating from {where}"
    )
    if content is None:
        if "fork" in journey.original.read_manifest():
            raise RecordError(f"{journey.original.path}: the checkpoint where it began is missing")
        if journey.before.snapshot.run is not None:
            place(parts.problem, parts.players, load_snapshot(journey.original, 0)[1])
    return start


def create(parts: Parts) -> RunDirectory:
    """The new run's folder.

    Raises:
        ConfigError: it is in use.
    """
    config = parts.config
    try:
        return RunDirectory.create(config.name or config.problem.name, config.run_dir)
    except (RunExists, RunLocked) as error:
        raise ConfigError(f"run_dir={error}") from error


def describe(directory: RunDirectory, parts: Parts, extensions: Extensions, **about: Any) -> None:
    """Write configuration and manifest."""
    directory.write_config(to_dict(parts.config))
    content = manifest(parts.config, parts.problem, parts.players, parts.members, parts.device)
    directory.write_manifest({**content, "extensions": extensions.names(), **about})


def inventory(run: Run, iteration: int) -> str:
    """What stands in ``measurements`` of an iteration, as ``curvature 10, noise 24``."""
    rows = run.measurements
    rows = rows.filter(pc.equal(rows["iteration"], iteration)).select(["probe", "quantity"])
    found = set(zip(rows["probe"].to_pylist(), rows["quantity"].to_pylist(), strict=True))
    names = sorted({probe for probe, _ in found})
    counts = [f"{name} {sum(probe == name for probe, _ in found)}" for name in names]
    return ", ".join(counts) or "nothing"


def compare_norms(original: Run, run: Run, iteration: int) -> tuple[int, int]:
    """How many gradient norms of an iteration are the same in every bit, and of how many."""
    left, right = (norms_of(each, iteration) for each in (original, run))
    same = sum(
        key in right and np.float32(value).tobytes() == np.float32(right[key]).tobytes()
        for key, value in left.items()
    )
    return same, len(left)


def norms_of(run: Run, iteration: int) -> dict[tuple[str, int, int, int], float]:
    """{(player, update, round, member): norm of the whole gradient} in an iteration."""
    rows = run.gradients
    wanted = pc.and_(pc.equal(rows["iteration"], iteration), pc.equal(rows["tensor"], ""))
    rows = rows.filter(pc.and_(wanted, pc.equal(rows["tap"], "gradient")))
    columns = [rows[name].to_pylist() for name in ("player", "update", "round", "member")]
    return dict(zip(zip(*columns, strict=True), rows["norm"].to_pylist(), strict=True))
