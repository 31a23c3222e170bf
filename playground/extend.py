"""What a program hands to ``playground.run`` besides overrides: objects of its own.

A problem replaces ``problem=...``; an objective wraps the objective of one player, so that it
may add a term, change one or replace it; probes see every update. All of them are code, which a
configuration never holds: the manifest names them, and a resumed run must be given them again.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from playground.game import (
    Context,
    Evaluation,
    Move,
    Objective,
    Outcomes,
    Player,
    Problem,
    Round,
)
from playground.probes.passes import Pass
from playground.probes.probe import Probe
from playground.record.sinks.sink import Sink
from playground.schema import ConfigError

Wrap = Callable[[Objective], Objective]
"""From the objective that a problem gives a player to the one that is trained."""


@dataclass(frozen=True)
class Extensions:
    """A program's own objects.

    Attributes:
        problem: instead of ``problem=...``.
        objectives: {player: wrap}.
        probes: called with every update's values.
        sinks: trackers that mirror the records; no part of the experiment.
    """

    problem: Problem | None = None
    objectives: Mapping[str, Wrap] = field(default_factory=dict)
    probes: Sequence[Probe | Pass] = ()
    sinks: Sequence[Sink] = ()

    def __post_init__(self) -> None:
        if self.problem is not None and not isinstance(self.problem, Problem):
            raise ConfigError(f"problem={self.problem!r}: must be a playground.Problem object")
        for player, wrap in self.objectives.items():
            if not callable(wrap):
                raise ConfigError(f"objectives[{player!r}]={wrap!r}: must be a function")
        for probe in self.probes:
            if not isinstance(probe, Probe | Pass):
                raise ConfigError(
                    f"probes: {probe!r} must be a playground.Probe or playground.Pass object"
                )
        for sink in self.sinks:
            if not isinstance(sink, Sink):
                raise ConfigError(
                    f"sinks: {sink!r} must be a playground.record.sinks.Sink object; names are "
                    "chosen by the override sinks=[...]"
                )
        names = [probe.name for probe in self.probes]
        if "game" in names:
            raise ConfigError("probes: game is the playground's own; choose another name")
        if len(set(names)) < len(names):
            raise ConfigError(f"probes: two have the same name ({', '.join(names)})")

    def names(self) -> dict[str, list[str]]:
        """What the manifest keeps, to tell a resumed run what is missing."""
        return {
            "objectives": sorted(self.objectives),
            "probes": sorted(probe.name for probe in self.probes),
        }

    def check_resumed(self, before: Mapping[str, Sequence[str]]) -> None:
        """Refuse to go on with other objects than the run began with.

        Raises:
            ConfigError: naming what is missing or new.
        """
        for kind, given in self.names().items():
            wanted = list(before.get(kind, []))
            if given != wanted:
                raise ConfigError(
                    f"{kind}: the run has {', '.join(wanted) or 'none'}, "
                    f"given are {', '.join(given) or 'none'}"
                )


class Wrapped(Problem):
    """A problem whose players have other objectives."""

    def __init__(self, problem: Problem, objectives: Mapping[str, Wrap]) -> None:
        self.problem, self.wraps = problem, dict(objectives)
        self.name = problem.name
        self.epochs = problem.epochs
        self.main_metric, self.higher_is_better = problem.main_metric, problem.higher_is_better
        self.rounds, self.dtype = problem.rounds, problem.dtype
        self._made: dict[tuple[str, Objective], Objective] = {}

    def setup(self, context: Context) -> dict[str, Player]:
        """The problem's own players.

        Raises:
            ConfigError: an objective for a player that is not there.
        """
        players = self.problem.setup(context)
        for name in self.wraps:
            if name not in players:
                raise ConfigError(
                    f"objectives[{name!r}]: problem {self.name} has no player {name} "
                    f"(allowed are {', '.join(players)})"
                )
        self.counters = self.problem.counters
        return players

    def iteration(self, progress: float) -> Generator[Round, Outcomes, Any]:
        """The problem's rounds with the objectives exchanged."""
        rounds = self.problem.iteration(progress)
        try:
            moves = next(rounds)
            while True:
                outcomes = yield tuple(self._exchange(move) for move in moves)
                moves = rounds.send(outcomes)
        except StopIteration as stop:
            metrics: dict[str, np.ndarray] | None = stop.value
            return metrics

    def evaluate(self) -> Evaluation:
        """The problem's own."""
        return self.problem.evaluate()

    def whole(self, player: str) -> Move | None:
        """The problem's own, with the player's new objective."""
        move = self.problem.whole(player)
        return None if move is None else self._exchange(move)

    def replaced(self) -> None:
        """The problem's own."""
        self.problem.replaced()

    def state(self) -> dict[str, Any]:
        """The problem's own."""
        return self.problem.state()

    def load_state(self, state: dict[str, Any]) -> None:
        """The problem's own."""
        self.problem.load_state(state)

    def adopt(self, state: dict[str, Any], member: int) -> None:
        """The problem's own."""
        self.problem.adopt(state, member)

    def _exchange(self, move: Move) -> Move:
        """A move with its player's new objective, the same function for the same one before."""
        wrap = self.wraps.get(move.player)
        if wrap is None:
            return move
        key = (move.player, move.objective)
        if key not in self._made:
            self._made[key] = wrap(move.objective)
        return replace(move, objective=self._made[key])
