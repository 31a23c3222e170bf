"""``run(overrides)``: compose, validate, build, loop, finish; and resuming what was stopped."""

import dataclasses
import sys
import time
import types
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from playground import outside
from playground.best_response import BestResponse
from playground.composition import custom_overrides
from playground.config import (
    Config,
    Member,
    compose,
    from_dict,
    members,
    to_dict,
    validate,
    varied,
)
from playground.engine import Engine
from playground.extend import Extensions, Wrap, Wrapped
from playground.game import Context, Player, Problem
from playground.optim.chain import Optimizer
from playground.optim.config import OptimizerConfig, Torch
from playground.outside import CustomConfig
from playground.probes.direction import Direction
from playground.probes.epochs import EpochGradients
from playground.probes.game_probe import GameProbe
from playground.probes.noise_probe import NoiseProbe
from playground.probes.norms import Norms
from playground.probes.passes import Pass, Passing
from playground.probes.probe import Measuring, Probe
from playground.probes.step_probe import Following, StepProbe
from playground.probes.terms import TermGradients
from playground.progress import Reporter
from playground.provenance import manifest, now
from playground.record.arrays import drop_after, save_array
from playground.record.checkpoint import load_checkpoint
from playground.record.directory import RecordError, RunDirectory, RunExists, RunLocked
from playground.record.reader import Run, load
from playground.record.writer import Recorder, compact
from playground.resume import check, check_layout, split
from playground.schema import ConfigError
from playground.session import Interrupted, RunFailed, Session
from playground.start import begin


def run(
    overrides: Sequence[str] = (),
    problem: Problem | None = None,
    *,
    objectives: Mapping[str, Wrap] | None = None,
    optimizers: Sequence[type[OptimizerConfig]] = (),
    probes: Sequence[Probe | Pass] = (),
    quiet: bool = False,
) -> Run:
    """Run an experiment and return its record.

    Args:
        overrides: as on the command line, such as ``["problem=gan/ring", "members=4"]``.
        problem: a problem of one's own, instead of ``problem=...``.
        objectives: {player: function from the problem's objective to the one trained}.
        optimizers: config dataclasses to choose from by name, besides the playground's own.
        probes: of updates or with passes of their own; they fill the table ``measurements``.
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
    extensions = Extensions(problem, objectives or {}, tuple(probes))
    reporter = Reporter(quiet=quiet)
    with outside.offered(optimizers):
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
    return drive(parts, directory, None, reporter, probes=extensions.probes)


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
        directory.write_config(to_dict(parts.config))
    return drive(parts, directory, content[1] if content else None, reporter, resumed=True,
                 probes=extensions.probes)  # fmt: skip


@dataclasses.dataclass
class Parts:
    """A run's pieces before it has a directory."""

    config: Config
    members: list[Member]
    problem: Problem
    players: dict[str, Player]
    optimizers: dict[str, Optimizer]
    device: torch.device


def assemble(
    config: Config, problem: Problem | None, objectives: Mapping[str, Wrap] | None = None
) -> Parts:
    """Build problem, players and optimizers; everything that can be wrong fails here."""
    torch.set_num_threads(config.threads)
    threadpool_limits(config.threads, user_api="blas")  # NumPy's, which acts in rl
    device = torch.device("cpu" if config.device == "auto" else config.device)
    own = isinstance(config.problem, CustomConfig)
    if problem is None:
        problem = config.problem.build(config)
    elif not own:
        raise ConfigError(f"problem: an object is given, but the run is of {config.problem.name}")
    if objectives:
        problem = Wrapped(problem, objectives)
    replicas = members(config)
    dtype = getattr(torch, config.dtype or problem.dtype or config.problem.dtype)
    context = Context(tuple(m.seed for m in replicas), device, dtype)
    players = problem.setup(context)
    if own:
        custom = config.problem.describe(
            problem.name, list(players), list(problem.counters), problem.rounds
        )
        config = dataclasses.replace(config, problem=custom)
        validate(config)
    optimizers = {
        name: make_optimizer(config, name, replicas, player.parameters.values)
        for name, player in players.items()
    }
    return Parts(config, replicas, problem, players, optimizers, device)


def make_optimizer(
    config: Config, player: str, replicas: Sequence[Member], like: torch.Tensor
) -> Optimizer:
    """A player's optimizer for all members.

    Raises:
        ConfigError: arguments that a class of ``torch.optim`` refuses.
    """
    chosen, values = config.player_optimizer(player), varied_values(config, player, replicas, like)
    try:
        return Optimizer(chosen, like, values, config.stepper.links())
    except ValueError as error:
        if not isinstance(chosen, Torch):
            raise
        path = f"players.{player}" if player in config.players else "optimizer"
        raise ConfigError(f"{path}.kwargs={chosen.kwargs}: {error}") from error


def varied_values(
    config: Config, player: str, replicas: Sequence[Member], like: torch.Tensor
) -> dict[str, torch.Tensor]:
    """{field: [M]} of a player's hyperparameters that vary along the member axis."""
    own = f"players.{player}" if player in config.players else "optimizer"
    fields = [key for key in replicas[0].values if key.rpartition(".")[0] == own]
    return {
        key.rpartition(".")[2]: torch.tensor(
            [m.values[key] for m in replicas], dtype=like.dtype, device=like.device
        )
        for key in fields
    }


def drive(
    parts: Parts,
    directory: RunDirectory,
    content: Mapping[str, Any] | None,
    reporter: Reporter,
    *,
    resumed: bool = False,
    probes: Sequence[Probe | Pass] = (),
) -> Run:
    """Hold the directory's lock, run the session, finish the record."""
    with directory.locked():
        attempts = list(directory.read_manifest().get("attempts", []))
        start = int(content["session"]["iteration"]) if content else (-1 if resumed else 0)
        attempts.append({"start_iteration": start, "started": now()})
        directory.update_manifest(status="running", reason="", attempts=attempts)
        if resumed:
            drop_after(directory, start)
        recorder = Recorder(directory, attempt=len(attempts) - 1)
        session = build_session(parts, directory, recorder, reporter, probes)
        if content:
            session.load(dict(content))
        announce(parts, directory, session, reporter)
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
            if status in ("finished", "failed") and not trouble:
                conclude(directory, reporter)
    if trouble:
        raise RunFailed(trouble)
    finish(directory, session, reporter, time.monotonic() - begun)
    return load_run(directory.path)


def build_session(
    parts: Parts,
    directory: RunDirectory,
    recorder: Recorder,
    reporter: Reporter,
    probes: Sequence[Probe | Pass] = (),
) -> Session:
    """Engine, probes and session of a run."""
    config = parts.config
    norms = None
    if config.probes.every:
        norms = Norms(
            config.probes.every, config.seed,
            lambda columns, null: recorder.add("gradients", columns, null=null),
            config.probes.megabytes,
        )  # fmt: skip
    own: list[Probe] = [EpochGradients(*parts.problem.epochs)] if wants_epochs(parts) else []
    direction = config.probes.direction
    if direction.cadence(config.probes.name):
        cadence = direction.cadence(config.probes.name)
        own.append(Direction(cadence, config.seed, direction.megabytes))
    measuring = [
        Measuring(probe, lambda columns, null: recorder.add("measurements", columns, null=null))
        for probe in [*own, *probes]
        if isinstance(probe, Probe)
    ]
    engine = Engine(
        parts.players, parts.optimizers, config.stepper.build(),
        [*([norms] if norms is not None else []), *measuring], held=config.frozen,
        compiled=config.compile,
    )  # fmt: skip
    session = Session(
        config, parts.members, parts.problem, parts.players, engine, norms, directory, recorder,
        reporter,
    )  # fmt: skip
    if config.best_response.updates:
        session.respond = BestResponse(config, lambda other: assemble(other, None))
    session.measuring = [*measuring, *passes(parts, engine, directory, recorder, probes)]
    return session


def wants_epochs(parts: Parts) -> bool:
    """Whether a run measures how gradients turn between its epochs: where it has any."""
    _, epochs = parts.problem.epochs
    return epochs > 1 and parts.config.probes.name != "none"


def passes(
    parts: Parts,
    engine: Engine,
    directory: RunDirectory,
    recorder: Recorder,
    probes: Sequence[Probe | Pass] = (),
) -> list[Passing]:
    """Probes with passes of their own, hooked to the engine: the playground's, then those given."""
    config = parts.config.probes
    chosen = [probe for probe in probes if isinstance(probe, Pass)]
    size = sum(player.parameters.layout.size for player in parts.players.values())
    if config.game.wanted(config.name, len(parts.players), size):
        game = config.game
        chosen.insert(0, GameProbe(game.every, game.dense, game.vectors, game.steps))
    if config.terms.wanted(config.name):
        chosen.insert(0, TermGradients(config.terms.every or None))
    if config.noise.wanted(config.name):
        noise = config.noise
        chosen.insert(0, NoiseProbe(noise.every or None, noise.method, noise.chunks))

    def passing(kind: type[Passing], probe: Any) -> Any:
        return kind(
            probe, parts.players, engine.differentiate,
            lambda name: int(engine.updates[name].max()),
            lambda columns, null: recorder.add("measurements", columns, null=null),
            lambda name, iteration, array: save_array(directory, name, iteration, array),
            partial(note, recorder, probe.name),
        )  # fmt: skip

    result = []
    for probe in chosen:
        probe.begin([member.seed for member in parts.members], parts.device)
        result.append(passing(Passing, probe))
    if config.step.wanted(config.name):
        step = passing(Following, StepProbe(config.step.every or None, parts.optimizers))
        result.append(step)
        engine.observers = (*engine.observers, step.observe)
    engine.before = tuple(result)
    return result


def note(recorder: Recorder, probe: str, iteration: int, message: str) -> None:
    """What a probe says of its values, as an event."""
    row = {"iteration": iteration, "member": -1, "kind": f"probe/{probe}", "message": message}
    recorder.add("events", {k: [v] for k, v in row.items()} | {"evidence": [""]})


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
        return trouble or str(error)
    return trouble


def announce(parts: Parts, directory: RunDirectory, session: Session, reporter: Reporter) -> None:
    """Say what is about to run, with the values that were not typed."""
    config = parts.config
    size = {n: p.parameters.layout.size for n, p in parts.players.items()}
    players = ", ".join(f"{n} ({s:,} parameters)" for n, s in size.items())
    where = f"{parts.device}, {config.threads} thread{'s' if config.threads > 1 else ''}"
    if config.device == "auto":
        where += " (auto: small networks are fastest on the CPU)"
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
