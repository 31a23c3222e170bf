"""From a configuration to a run's parts: problem, players, optimizers, engine, probes, session."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from playground.best_response import BestResponse
from playground.config import Config, Member, members
from playground.crosschecks import validate
from playground.engine import Engine
from playground.extend import Wrap, Wrapped
from playground.game import Context, Player, Problem, Stability
from playground.optim.config import Torch
from playground.optim.optimizer import Optimizer
from playground.optim.steppers.first_order import Direct
from playground.outside import CustomConfig
from playground.probes.curvature.probe import CurvatureProbe
from playground.probes.direction import Direction
from playground.probes.epochs import EpochGradients
from playground.probes.flow.probe import FlowProbe
from playground.probes.game.probe import GameProbe
from playground.probes.noise.probe import NoiseProbe
from playground.probes.passes import Pass, Passing
from playground.probes.probe import Measuring, Probe
from playground.probes.step.probe import Following, StepProbe
from playground.probes.terms import TermGradients
from playground.probes.tier0.probe import Norms
from playground.probes.time_budget import Allowance
from playground.progress import Reporter
from playground.record.arrays import save_array
from playground.record.directory import RunDirectory
from playground.record.sinks.config import check_tensors
from playground.record.writer import Recorder
from playground.schema import ConfigError
from playground.session import Session


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
    endless = [name for name in players if problem.whole(name) is None]
    if config.probes.curvature.data == "all" and endless:
        raise ConfigError(
            f"probes.curvature.data=all: problem {config.problem.name} draws without end, so "
            f"player {endless[0]} has no whole of data; allowed are batch, and all of supervised/*"
        )
    optimizers = {
        name: make_optimizer(config, name, replicas, player.parameters.values)
        for name, player in players.items()
    }
    tensors = {name: player.parameters.layout.names for name, player in players.items()}
    check_tensors(config.sinks.tensors, tensors)
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


def build_session(
    parts: Parts,
    directory: RunDirectory,
    recorder: Recorder,
    reporter: Reporter,
    probes: Sequence[Probe | Pass] = (),
    kind: Callable[..., Session] = Session,
) -> Session:
    """Engine, probes and session of a run; ``kind`` makes the session."""
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
    session = kind(
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
    if config.curvature.wanted(config.name):
        chosen.insert(0, CurvatureProbe(config.curvature, config.curvature.densities(config.name)))
    if config.flow.wanted(config.name):
        flow = config.flow
        chosen.insert(0, FlowProbe(flow.every or None, flow.dormant, flow.svd))
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
            partial(note, recorder, probe.name), lambda name: stability_line(engine, name),
            parts.problem.whole,
        )  # fmt: skip

    result: list[Passing] = []
    for probe in chosen:
        probe.begin([member.seed for member in parts.members], parts.device)
        result.append(passing(Passing, probe))
    if config.step.wanted(config.name):
        step = passing(Following, StepProbe(config.step.every or None, parts.optimizers))
        result.append(step)
        engine.observers = (*engine.observers, step.observe)
    if config.budget is not None and result:
        allowance = Allowance(config.budget, [one.probe.name for one in result])
        for one in result:
            one.allowance = allowance
    engine.before = tuple(result)
    return result


def note(recorder: Recorder, probe: str, iteration: int, message: str) -> None:
    """What a probe says of its values, as an event."""
    row = {"iteration": iteration, "member": -1, "kind": f"probe/{probe}", "message": message}
    recorder.add("events", {k: [v] for k, v in row.items()} | {"evidence": [""]})


def stability_line(engine: Engine, player: str) -> Stability | None:
    """Of a player's optimizer, where it is the optimizer alone that moves the player."""
    if player not in engine.names or not isinstance(engine.stepper, Direct):
        return None
    return engine.optimizers[player].stability(engine.progress)
