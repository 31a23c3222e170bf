"""``run(overrides)``: compose, validate, build, loop, finish; and resuming what was stopped."""

import dataclasses
import sys
import time
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from playground import back, outside
from playground.assembly import Parts, assemble, build_session
from playground.composition import custom_overrides
from playground.config import Config, compose, from_dict, to_dict
from playground.crosschecks import varied
from playground.extend import Extensions, Wrap
from playground.game import Problem
from playground.optim.config import OptimizerConfig
from playground.probes.passes import Pass
from playground.probes.probe import Probe
from playground.progress import Reporter
from playground.provenance import manifest, now
from playground.record.arrays import drop_after
from playground.record.checkpoint import load_checkpoint
from playground.record.directory import RecordError, RunDirectory, RunExists, RunLocked
from playground.record.reader import Run, load
from playground.record.sinks.sink import Sink
from playground.record.sinks.tracks import opening
from playground.record.writer import Recorder, compact
from playground.resume import check, check_layout, split
from playground.schema import ConfigError
from playground.session import RunFailed, Session
from playground.signals import Interrupted
from playground.start import begin


def run(
    overrides: Sequence[str] = (),
    problem: Problem | None = None,
    *,
    objectives: Mapping[str, Wrap] | None = None,
    optimizers: Sequence[type[OptimizerConfig]] = (),
    probes: Sequence[Probe | Pass] = (),
    sinks: Sequence[Sink] = (),
    quiet: bool = False,
) -> Run:
    """Run an experiment and return its record.

    Args:
        overrides: as on the command line, such as ``["problem=gan/ring", "members=4"]``.
        problem: a problem of one's own, instead of ``problem=...``.
        objectives: {player: function from the problem's objective to the one trained}.
        optimizers: config dataclasses to choose from by name, besides the playground's own.
        probes: of updates or with passes of their own; they fill the table ``measurements``.
        sinks: trackers of one's own, besides ``sinks=[...]``.
        quiet: print nothing.

    Raises:
        ConfigError: the configuration is wrong; nothing was written.
        RunFailed, RecordError: the run stopped; what it had is kept.

    Example:
        >>> run = playground.run(["problem=landscape/quadratic", "optimizer=momentum"])
        >>> iterations, values = run.metric("distance")     # [T], [T, M]
    """
    if isinstance(overrides, str):
        raise ConfigError(f"{overrides}: overrides must be a list, as in ['seed=1']")
    extensions = Extensions(problem, objectives or {}, tuple(probes), tuple(sinks))
    reporter = Reporter(quiet=quiet)
    with outside.offered(optimizers):
        asked, overrides = back.split(overrides)
        if asked is not None:
            from playground.repeat import go_back  # which drives runs too

            return go_back(asked, overrides, extensions, reporter)
        path, overrides = split(overrides)
        if path is not None:
            return resume(path, overrides, extensions, reporter)
        if problem is not None:
            overrides = custom_overrides(overrides)
        return execute(compose(overrides), extensions, reporter)


def execute(config: Config, extensions: Extensions, reporter: Reporter) -> Run:
    """Run a checked configuration in a directory of its own."""
    check_device(config)
    if extensions.objectives and config.best_response.updates:
        updates = config.best_response.updates
        raise ConfigError(f"best_response.updates={updates}: not with objectives of one's own")
    parts = assemble(config, extensions.problem, extensions.objectives)
    config = parts.config
    begin(config.snapshot, parts.problem, parts.players)
    try:
        directory = RunDirectory.create(config.name or config.problem.name, config.run_dir)
    except (RunExists, RunLocked) as error:
        raise ConfigError(f"run_dir={error}") from error
    directory.write_config(to_dict(config))
    content = manifest(config, parts.problem, parts.players, parts.members, parts.device)
    directory.write_manifest({**content, "extensions": extensions.names()})
    return drive(parts, directory, None, reporter, probes=extensions.probes, sinks=extensions.sinks)


def resume(path: str, overrides: Sequence[str], extensions: Extensions, reporter: Reporter) -> Run:
    """Go on with a run, bit for bit.

    Raises:
        ConfigError: no such run, an override that changes the experiment, or nothing left.
        RecordError: no readable checkpoint, or another process writes the run.
    """
    directory, config = check(path, overrides)
    check_device(config)
    before = directory.read_manifest()
    extensions.check_resumed(before.get("extensions", {}))
    with directory.locked():
        content = load_checkpoint(directory)
        parts = assemble(config, extensions.problem, extensions.objectives)
        sizes = {name: p.parameters.layout.size for name, p in parts.players.items()}
        if sizes != before.get("players", sizes):
            raise ConfigError(f"problem: it has the players {sizes}, the run {before['players']}")
        for name, tensors in before.get("tensors", {}).items():
            check_layout(name, tensors, parts.players)
        if content is None:
            begin(config.snapshot, parts.problem, parts.players)
        directory.write_config(to_dict(parts.config))
    return drive(parts, directory, content[1] if content else None, reporter, resumed=True,
                 probes=extensions.probes, sinks=extensions.sinks)  # fmt: skip


def drive(
    parts: Parts,
    directory: RunDirectory,
    content: Mapping[str, Any] | None,
    reporter: Reporter,
    *,
    resumed: bool = False,
    probes: Sequence[Probe | Pass] = (),
    sinks: Sequence[Sink] = (),
    kind: Callable[..., Session] = Session,
) -> Run:
    """Hold the directory's lock, run the session that ``kind`` makes, finish the record."""
    with directory.locked():
        attempts = list(directory.read_manifest().get("attempts", []))
        start = int(content["session"]["iteration"]) if content else (-1 if resumed else 0)
        attempts.append({"start_iteration": start, "started": now()})
        directory.update_manifest(status="running", reason="", attempts=attempts)
        if resumed:
            drop_after(directory, start)
        recorder = Recorder(directory, attempt=len(attempts) - 1)
        session = build_session(parts, directory, recorder, reporter, probes, kind)
        if content:
            session.load(dict(content))
        announce(parts, directory, session, reporter)
        mirror(session, directory, sinks, len(attempts) - 1)
        begun = time.monotonic()
        reporter.start()
        try:
            session.run()
            status, reason = "finished", ""
        except Interrupted as error:
            status, reason = "interrupted", str(error)
            raise
        except (RunFailed, RecordError) as error:
            status, reason = "failed", str(error)
            raise
        except (KeyboardInterrupt, SystemExit):  # a signal before, or the second during the loop
            status, reason = "interrupted", "at once, without a checkpoint"
            raise
        except BaseException as error:
            status, reason = "failed", f"{type(error).__name__}: {error}"
            raise
        finally:
            reporter.stop()
            trouble = close(session, directory, status, reason)
            if session.whole and status in ("finished", "failed") and not trouble:
                conclude(directory, reporter)
    if trouble:
        raise RunFailed(trouble)
    finish(directory, session, reporter, time.monotonic() - begun)
    return load_run(directory.path)


def mirror(session: Session, directory: RunDirectory, sinks: Sequence[Sink], attempt: int) -> None:
    """Begin to mirror what the recorder writes; of a run that is repeated, nothing."""
    settings = session.config.sinks
    chosen = [*settings.build(), *sinks] if session.whole else []
    if chosen:
        config, about = to_dict(session.config), directory.read_manifest()
        stands = session.iteration or -1
        run = opening(directory.path, config, about, settings.members, attempt, stands)
        session.mirrors.start(chosen, settings, run)
        session.recorder.listener = session.mirrors.give


def close(session: Session, directory: RunDirectory, status: str, reason: str) -> str:
    """Flush what can be flushed and write how the run ended; returns what went wrong with it."""
    trouble = ""
    try:
        session.flush()
        if status == "finished":
            compact(directory)
    except RecordError as error:
        trouble = str(error)
        reason = reason or trouble
        status = "failed" if status == "finished" else status
    counters = {k: int(v.min()) for k, v in session.counters().items()}
    try:
        directory.update_manifest(
            status=status, reason=reason, ended=now(), seconds=round(session.seconds, 3),
            counters={"iterations": session.iteration, **counters},
        )  # fmt: skip
    except (RecordError, OSError) as error:  # a full disk: the manifest stays "running"
        trouble = trouble or str(error)
    end_mirrors(session, directory, status, at_once=reason.startswith("at once"))
    return trouble


def end_mirrors(
    session: Session, directory: RunDirectory, status: str, *, at_once: bool = False
) -> None:
    """Wait for the sinks and write down what they did."""
    told = session.mirrors.close(status, at_once=at_once)
    session.say_news(event=False)
    if told:
        with suppress(RecordError, OSError):
            directory.update_manifest(sinks=told)


def announce(parts: Parts, directory: RunDirectory, session: Session, reporter: Reporter) -> None:
    """Say what is about to run, with the values that were not typed."""
    config = parts.config
    size = {n: p.parameters.layout.size for n, p in parts.players.items()}
    players = ", ".join(f"{n} ({s:,} parameters)" for n, s in size.items())
    where = f"{parts.device}, {config.threads} thread{'s' if config.threads > 1 else ''}"
    if config.device == "auto":
        where += " (device=auto takes the CPU)"
    reporter.say(f"{config.problem.name}: {players}; members {len(parts.members)}; {where}")
    for name in parts.players:
        reporter.say(f"  {name}: {describe_optimizer(config, name)}")
    going = f", from iteration {session.iteration}" if session.iteration else ""
    reporter.say(f"  budget {session.key} {session.amount:,}{going}; records in {directory.path}")


def describe_optimizer(config: Config, player: str) -> str:
    """Name and values of a player's optimizer, what varies written as its values."""
    optimizer = config.player_optimizer(player)
    own = f"players.{player}" if player in config.players else "optimizer"
    several = varied(config)
    words = []
    for field in dataclasses.fields(optimizer):
        value = several.get(f"{own}.{field.name}", getattr(optimizer, field.name))
        if field.name != "name" and value not in (None, 0, {}, "constant", False):
            words.append(f"{field.name}={value}")
    return f"{optimizer.name} {' '.join(words)}"


def finish(directory: RunDirectory, session: Session, reporter: Reporter, elapsed: float) -> None:
    """Say how it ended and draw the figures, whose failure cannot undo a finished run."""
    from playground.report import draw_all

    reporter.say(
        f"finished: {session.status()} after {session.key} {session.used():,} in {elapsed:.1f} s"
    )
    try:
        for path in draw_all(load_run(directory.path)):
            reporter.say(f"  figure {path}")
    except OSError as error:
        reporter.say(f"  no figures ({error.strerror or error}); the records are whole")


def conclude(directory: RunDirectory, reporter: Reporter) -> None:
    """Say what the records show; a diagnosis that fails cannot undo a run."""
    from playground.diagnosis import report

    try:
        lines = report.conclude(load_run(directory.path))
    except (OSError, RecordError) as error:
        reporter.say(f"  no diagnosis ({error}); the records are whole")
        return
    if lines:
        reporter.say(f"diagnosis (scripts/diagnose.py {directory.path} explains):")
        reporter.lines(f"  {line}" for line in lines)


def load_run(path: Path) -> Run:
    """The record of one run."""
    result = load(path)
    assert isinstance(result, Run)
    return result


def load_player(run: Run, name: str, member: int = 0) -> torch.nn.Module:
    """The trained module of one player and member, from the newest checkpoint.

    Raises:
        ConfigError: no such player or member, or a player that is not a network.
    """
    parts = assemble(from_dict(run.config), None)
    if name not in parts.players:
        raise ConfigError(f"player {name}: the run has {', '.join(parts.players)}")
    if not 0 <= member < len(parts.members):
        raise ConfigError(f"member {member}: the run has {len(parts.members)}")
    player = parts.players[name]
    if player.module is None:
        raise ConfigError(f"player {name}: not a network; its values are in the checkpoint")
    check_layout(name, run.manifest.get("tensors", {}).get(name, ()), parts.players)
    content = load_checkpoint(RunDirectory.open(run.path))
    if content is None:
        raise RecordError(f"{run.path}: no checkpoint")
    values = content[1]["players"][name]["parameters"]
    module = player.module().to(values.dtype)
    module.load_state_dict(player.parameters.layout.views(values[member]))
    return module


def check_device(config: Config) -> None:
    """Refuse an accelerator that is not there.

    Raises:
        ConfigError: naming the device.
    """
    if not config.device.startswith("cuda"):
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = int(config.device.partition(":")[2] or 0)
    if index >= count:
        raise ConfigError(f"device={config.device}: this machine has {count} CUDA devices")


class _Callable(types.ModuleType):
    """Once this module is imported, ``playground.run`` is the module: calling it runs."""

    def __call__(self, *arguments: Any, **options: Any) -> Run:
        return run(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
