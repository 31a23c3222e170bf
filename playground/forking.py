"""A fork: a run again up to an update, from there on with other hyperparameters.

Original and fork share their past bit for bit, and the streams of every member go on the same, so
members are compared in pairs. The fork's records begin with the original's rows.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from playground.assembly import build_session, make_optimizer
from playground.back import Asked, Journey
from playground.extend import Extensions
from playground.optim.optimizer import Optimizer
from playground.progress import Reporter
from playground.provenance import now
from playground.record.arrays import copy_until
from playground.record.checkpoint import (
    load_checkpoint,
    load_snapshot,
    save_checkpoint,
    save_snapshot,
)
from playground.record.compaction import branch
from playground.record.directory import RecordError, RunDirectory
from playground.record.reader import Run
from playground.record.writer import Recorder
from playground.repeat import Content, Repeat, begin, create, describe, earlier, parts_of
from playground.run import drive
from playground.session import Session
from playground.study import interval


class Fork(Session):
    """Begins where another session stopped, with other hyperparameters.

    Args:
        fit: from that session's checkpoint to one that this session can load.
    """

    def __init__(self, fit: Callable[[Session, Content], Content], *arguments: Any) -> None:
        super().__init__(*arguments)
        self.fit = fit

    def load(self, content: Content) -> None:
        """Take back what the other session wrote."""
        super().load(self.fit(self, content))


def fork(asked: Asked, journey: Journey, extensions: Extensions, reporter: Reporter) -> Run:
    """Repeat a run up to an iteration, go on with other hyperparameters, and compare."""
    until = journey.iteration - 1
    parts_of(journey.after, journey, extensions)  # what is wrong must not wait
    content = state_before(asked, journey, extensions, reporter)
    parts = parts_of(journey.after, journey, extensions)
    directory = create(parts)
    attempts = []
    if until:  # else the fork evaluates the start itself
        branch(journey.original, directory, until)
        copy_until(journey.original, directory, until)
        content["session"]["best"] = take_best(journey.original, directory, until)
        attempts = [{"start_iteration": 0, "started": now()}]
    save_checkpoint(directory, until, content, keep=True)  # nothing before it can be repeated
    about = {"run": str(journey.original.path.resolve()), "update": asked.at, "from": until,
             "changes": journey.changes}  # fmt: skip
    describe(directory, parts, extensions, fork=about, attempts=attempts)
    run = drive(parts, directory, content, reporter, resumed=bool(until),
                probes=extensions.probes, sinks=extensions.sinks,
                kind=partial(Fork, partial(fitted, journey)))  # fmt: skip
    found = compare(Run(journey.original.path), run, until)
    if found is None:
        reporter.say("  nothing to compare: no evaluation of both has a finite main metric")
        return run
    directory.update_manifest(fork={**about, "comparison": dataclasses.asdict(found)})
    reporter.lines(found.lines())
    return run


def state_before(
    asked: Asked, journey: Journey, extensions: Extensions, reporter: Reporter
) -> Content:
    """The checkpoint that the original would have written before the iteration."""
    until = journey.iteration - 1
    content = earlier(journey, until, reporter)
    parts = parts_of(journey.before, journey, extensions)
    begin(asked, journey, parts, content, reporter)
    with tempfile.TemporaryDirectory() as folder:
        directory = RunDirectory.create("repeat", folder)
        with directory.locked():
            session = build_session(parts, directory, Recorder(directory, 0), reporter,
                                    extensions.probes, partial(Repeat, until))  # fmt: skip
            newest = earlier(journey, None, reporter)
            if newest is not None:  # null cadences are a share of the original's first budget
                session.every.update(newest["session"]["every"])
            if content is not None:
                session.load(content)
            reporter.start()
            try:
                session.run()
            finally:
                reporter.stop()
        found = load_checkpoint(directory)
    assert found is not None
    return found[1]


def take_best(original: RunDirectory, directory: RunDirectory, until: int) -> float | None:
    """Take over the best snapshot where it is of the common past; its main metric."""
    found = load_checkpoint(original)
    try:
        iteration, values = load_snapshot(original, None)
    except RecordError:
        return None
    if found is None or iteration > until:
        return None
    save_snapshot(directory, iteration, values, best=True)
    best: float | None = found[1]["session"]["best"]
    return best


def fitted(journey: Journey, session: Session, content: Content) -> Content:
    """A checkpoint of the original as one that a session with other hyperparameters can load."""
    saved, engine = content["measuring"], session.engine
    players = {}
    for name, values in content["players"].items():
        old = make_optimizer(journey.before, name, session.members, values["parameters"])
        state = adopted(engine.optimizers[name], old.kinds, values["optimizer"])
        players[name] = {**values, "optimizer": state}
    same = type(journey.before.stepper) is type(journey.after.stepper)
    stepper = content["engine"]["stepper"] if same else engine.stepper.state()
    return {
        **content,
        "players": players,
        "engine": {**content["engine"], "stepper": stepper},
        "problem": merged(session.problem.state(), content["problem"]),
        "measuring": {
            m.probe.name: saved.get(m.probe.name, m.probe.state()) for m in session.measuring
        },
    }


def adopted(optimizer: Optimizer, kinds: Sequence[str], state: dict[str, Any]) -> dict[str, Any]:
    """Another chain's state, for the transforms that both chains have; others begin anew.

    So a clip or a decay more does not cost Adam its moments. Updates are counted from 0 again where
    a transform's state begins anew, because bias corrections (and a warm-up) count from there.
    """
    saved: dict[str, list[Any]] = {}
    for kind, link in zip(kinds, state["links"], strict=True):
        saved.setdefault(kind, []).append(link)
    fresh = optimizer.state()
    links, anew = [], False
    for kind, own in zip(optimizer.kinds, fresh["links"], strict=True):
        known = saved[kind].pop(0) if saved.get(kind) else None
        if known is None or (own and own.keys() != known.keys()):
            links.append(own)
            anew = anew or bool(own) or not optimizer.chained
        else:
            links.append(known)
    return {"count": 0 if anew else state["count"], "links": links}


def merged(fresh: Any, saved: Any) -> Any:
    """A saved state, with what only the new configuration has as it is at a start."""
    if not isinstance(fresh, Mapping) or not isinstance(saved, Mapping):
        return saved
    both = {k: merged(fresh[k], v) if k in fresh else v for k, v in saved.items()}
    return {**both, **{k: v for k, v in fresh.items() if k not in saved}}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The main metric of a fork beside the original's, member by member.

    Attributes:
        metric, higher_is_better: which, and its good direction.
        iterations: of the evaluations that are compared, the original's and the fork's.
        original, fork: mean over the members that are finite in both.
        difference: fork - original, mean, and its 95 % t interval over pairs of members.
        members: pairs that are compared, and all.
    """

    metric: str
    higher_is_better: bool
    iterations: tuple[int, int]
    original: float
    fork: float
    difference: tuple[float, float, float]
    members: tuple[int, int]

    def lines(self) -> list[str]:
        """In words, for the terminal."""
        good = "higher" if self.higher_is_better else "lower"
        first, second = self.iterations
        when = f"iteration {first}" if first == second else f"iterations {first} and {second}"
        mean, low, high = self.difference
        pairs, total = self.members
        spread = f", 95 % t interval [{low:.4g}, {high:.4g}]" if pairs > 1 else ""
        who = f"{pairs} member{'s' if pairs > 1 else ''}"
        who += f" of {total}, the others are not finite" if pairs < total else ""
        return [
            f"{self.metric} at {when}, {good} is better, {who}:",
            f"  original {self.original:.6g}  fork {self.fork:.6g}",
            f"  fork - original {mean:.4g}{spread or '; members=5 or so would give an interval'}",
        ]


def compare(original: Run, run: Run, after: int) -> Comparison | None:
    """The main metric at the last evaluation of both, or at each one's last without a common one.

    None where there is no pair of finite values.
    """
    manifest = original.manifest
    metric = str(manifest["main_metric"])
    (left_at, left), (right_at, right) = original.metric(metric), run.metric(metric)
    if not len(left_at) or not len(right_at):
        return None
    common = np.intersect1d(left_at, right_at)
    here, there = len(left_at) - 1, len(right_at) - 1
    if len(common) and common[-1] > after:
        here, there = (int(np.searchsorted(at, common[-1])) for at in (left_at, right_at))
    x, y = left[here], right[there]
    finite = np.isfinite(x) & np.isfinite(y)
    if not finite.any():
        return None
    x, y = x[finite], y[finite]
    return Comparison(
        metric, bool(manifest["higher_is_better"]),
        (int(left_at[here]), int(right_at[there])), float(x.mean()), float(y.mean()),
        interval(y - x), (len(x), len(finite)),
    )  # fmt: skip
