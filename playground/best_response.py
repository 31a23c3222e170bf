"""How far each player is from its best response: progress that a game's losses do not show.

    gap_i = L_i(z_i, z_-i) - L_i(z_i*, z_-i),   z_i* after k updates of i against the frozen others

L_i is player i's objective on batches that no training has seen, the same ones at both points,
so that the standard error is of the difference. Retraining starts where the player stands, with
a fresh optimizer of its own settings at its unscheduled learning rate, and draws fresh data. The
sum over players is 0 at an equilibrium as far as k updates can tell (in zero-sum games it is the
duality gap, Nikaido and Isoda 1955; for GANs: Grnarova et al. 2019). It may come out below 0
where k updates make the player worse, as under noise: that is not hidden.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from playground.config import Config
from playground.engine import Engine
from playground.game import Move, Problem
from playground.gradients import Differentiator
from playground.start import place

BATCHES = 16
"""Batches that both losses are taken on (ours)."""

RETRAINING, JUDGING = 2**40, 2**41
"""Added to the seed: streams that training never sees."""


class BestResponse:
    """Measures the gap of every player of a run.

    Args:
        config: the run's.
        assemble: from a configuration to its parts: problem, players and optimizers.

    Players that are frozen in the run have no gap.
    """

    def __init__(self, config: Config, assemble: Callable[[Config], Any]) -> None:
        self.config, self.assemble = config, assemble
        self.updates = config.best_response.updates

    def __call__(
        self, values: Mapping[str, Tensor]
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Metrics ``best_response/<player>`` and their sum ``best_response`` [M], with errors."""
        metrics, errors = {}, {}
        for player in values:
            if player in self.config.frozen:
                continue
            difference = self._difference(player, values).cpu().numpy()  # [T, M]
            name = f"best_response/{player}"
            metrics[name] = difference.mean(axis=0)
            errors[name] = difference.std(axis=0, ddof=1) / math.sqrt(len(difference))
        metrics["best_response"] = np.sum(list(metrics.values()), axis=0)
        errors["best_response"] = np.sqrt(np.sum(np.square(list(errors.values())), axis=0))
        return metrics, errors

    def _difference(self, player: str, values: Mapping[str, Tensor]) -> Tensor:
        """The player's loss before minus after its retraining, on each batch [T, M]."""
        others = [name for name in values if name != player]
        parts = self._parts(RETRAINING, values)
        engine = Engine(parts.players, parts.optimizers, held=others)
        while engine.updates[player].max() < self.updates:
            if engine.frozen.all():
                break
            play(parts.problem, engine)
        after = {**values, player: parts.players[player].parameters.values}
        judge = self._parts(JUDGING, values)
        differentiate = Differentiator(judge.players)
        rows = []
        for move in moves_of(judge.problem, player, BATCHES):
            before, now = (
                torch.stack(list(differentiate(move, at).terms.values())).sum(0)
                for at in (values, after)
            )
            rows.append(before - now)
        return torch.stack(rows)

    def _parts(self, offset: int, values: Mapping[str, Tensor]) -> Any:
        """The run's parts with other seeds, at these parameters."""
        direct = dataclasses.replace(self.config, seed=self.config.seed + offset)
        parts = self.assemble(direct)
        place(parts.problem, parts.players, values)
        return parts


def play(problem: Problem, engine: Engine) -> None:
    """One iteration, without records."""
    rounds = problem.iteration(0.0)
    try:
        moves = next(rounds)
        while True:
            moves = rounds.send(engine.play(moves))
    except StopIteration:
        return


def moves_of(problem: Problem, player: str, count: int) -> list[Move]:
    """The first moves that a problem yields for a player, none of them played."""
    found: list[Move] = []
    while len(found) < count:
        for moves in problem.iteration(0.0):
            found += [move for move in moves if move.player == player]
    return found[:count]
