"""Temporary members: a run's problem built anew, at the run's parameters, with other seeds.

They serve measurements that training must not notice. K temporary members at one point give K
independent gradient estimates at once; placed on a grid they give the objective and the
metrics there. Any problem and algorithm will do, since the engine batches members anyway. The
run is read from its folder and never touched.

Shape legend: K temporary members, N parameters of a player.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from playground.composition import custom_overrides, parse
from playground.config import Config, compose, from_dict, members, to_dict
from playground.extend import Wrap, Wrapped
from playground.game import Context, Gradient, Move, Outcome, Player, Problem
from playground.gradients import Differentiator
from playground.record.checkpoint import load_checkpoint, load_snapshot
from playground.record.reader import Run, load
from playground.resume import check_layout
from playground.schema import ConfigError

Source = Run | Path | str | Sequence[str]
"""A run, its folder, or overrides of a run that was never made (its initial parameters)."""


@dataclass(frozen=True)
class Point:
    """Where to measure: one member's parameters, and how to build its problem again.

    Attributes:
        config: the run's.
        member: index in the run.
        iteration: completed iterations.
        parameters: {player: [N]}.
        state: the problem's saved state, None where only parameters are known.
        make: builds the problem.
    """

    config: Config
    member: int
    iteration: int
    parameters: dict[str, Tensor]
    state: dict[str, Any] | None
    make: Callable[[], Problem]


def find_point(
    source: Source,
    at: str | int = "final",
    member: int = 0,
    *,
    overrides: Sequence[str] = (),
    problem: Callable[[], Problem] | None = None,
    objectives: Mapping[str, Wrap] | None = None,
) -> Point:
    """A point of a run.

    Args:
        source: a run, its folder, or overrides.
        at: ``final`` (the newest checkpoint), ``best``, or the iteration of a snapshot; see
            ``run.snapshots``. Overrides have their initial parameters only.
        member: whose.
        overrides: keys of the run to change for the measurement, as ``problem.num_envs=64``.
        problem: makes the problem, where it is one's own.
        objectives: as the run was given.

    Raises:
        ConfigError: no such member or key.
        RecordError: the run has no such snapshot.
    """
    if isinstance(source, str | Path | Run):
        run = source if isinstance(source, Run) else load(source)
        if not isinstance(run, Run):
            raise ConfigError(f"{source}: a sweep; give one of its runs")
        config = from_dict(changed(run.config, overrides))
        iteration, values, state = saved(run, at)
        written = run.manifest.get("tensors", {})
    else:
        own = list(source) if problem is None else custom_overrides(source)
        config = compose([*own, *overrides])
        iteration, values, state, written = 0, None, None, {}
    replicas = members(config)
    if not 0 <= member < len(replicas):
        raise ConfigError(f"member={member}: the run has members 0 to {len(replicas) - 1}")

    def make() -> Problem:
        made = config.problem.build(config) if problem is None else problem()
        return Wrapped(made, objectives) if objectives else made

    players = make().setup(context(config, [replicas[member].seed]))
    for name, tensors in written.items():
        check_layout(name, tensors, players)
    if values is None:
        own_values = {n: p.parameters.values[0].clone() for n, p in players.items()}
    else:
        own_values = {name: value[member] for name, value in values.items()}
    return Point(config, member, iteration, own_values, state, make)


def saved(run: Run, at: str | int) -> tuple[int, dict[str, Tensor], dict[str, Any] | None]:
    """Iteration, parameters {player: [M, N]} and the problem's state, where it was kept."""
    if at == "final":
        found = load_checkpoint(run.path)
        if found is None:
            raise ConfigError(f"{run.path}: no checkpoint")
        iteration, content = found
        values = {name: kept["parameters"] for name, kept in content["players"].items()}
        return iteration, values, content["problem"]
    if isinstance(at, str) and at != "best":
        raise ConfigError(f"at={at}: allowed are final, best, or the iteration of a snapshot")
    return *load_snapshot(run.path, None if isinstance(at, str) else at), None


def changed(data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A saved configuration with other values of some keys; groups cannot be exchanged.

    Raises:
        ConfigError: a key that is not there.
    """
    result = to_dict(from_dict(data))
    for typed, item in zip(overrides, parse(overrides), strict=True):
        *path, last = item.key_or_group.split(".")
        node: Any = result
        for part in path:
            node = node.get(part) if isinstance(node, dict) else None
        if not isinstance(node, dict) or last not in node or isinstance(node[last], dict):
            raise ConfigError(f"{typed}: the run has no such value")
        node[last] = item.value()
    return result


def context(config: Config, seeds: Sequence[int]) -> Context:
    """What a problem gets, with seeds of one's own."""
    device = torch.device("cpu" if config.device == "auto" else config.device)
    return Context(tuple(seeds), device, getattr(torch, config.dtype or config.problem.dtype))


class Temporary:
    """K temporary members at one point.

    Attributes:
        problem, players: built anew.
    """

    def __init__(self, point: Point, seeds: Sequence[int]) -> None:
        self.problem = point.make()
        self.players: dict[str, Player] = self.problem.setup(context(point.config, seeds))
        if point.state is not None:
            self.problem.adopt(point.state, point.member)
        for name, value in point.parameters.items():
            self.place(name, value)
        self._differentiate = Differentiator(self.players)

    def place(self, player: str, values: Tensor) -> None:
        """Set one player's parameters: [N] for all members, or [K, N]."""
        own = self.players[player].parameters.values
        own.copy_(values.expand_as(own))

    def burn_in(self, iterations: int, progress: float = 0.0) -> None:
        """Begin iterations and drop them, so that environments leave their first episodes."""
        for _ in range(iterations):
            rounds = self.problem.iteration(progress)
            next(rounds)
            rounds.close()

    def moves(self, progress: float = 0.0) -> Iterator[tuple[Move, Gradient]]:
        """Every move of one iteration with its gradients [K, N]; parameters stay as they are."""
        rounds = self.problem.iteration(progress)
        try:
            moves = next(rounds)
            while True:
                outcomes = {}
                for move in moves:
                    with torch.enable_grad():  # a probe measures without
                        gradient = self._differentiate(move)
                    yield move, gradient
                    outcomes[move.player] = Outcome(gradient.terms, gradient.diagnostics)
                moves = rounds.send(outcomes)
        except StopIteration:
            return
        finally:
            rounds.close()
