"""A game without a run directory: problem, engine and optimizers of a command's overrides."""

from collections.abc import Callable, Sequence

import pytest
import torch

from playground.config import Config, compose, members
from playground.domains.gan.problem import GanProblem
from playground.engine import Engine
from playground.game import Context, Move, Outcomes
from playground.optim.optimizer import Optimizer


class Game:
    """What ``playground.run`` drives, driven by hand.

    Attributes:
        moves: every move played, in order.
        gradients: outcomes of every round.
    """

    def __init__(self, overrides: Sequence[str]) -> None:
        self.config: Config = compose(list(overrides))
        self.problem: GanProblem = self.config.problem.build(self.config)
        seeds = tuple(member.seed for member in members(self.config))
        dtype = getattr(torch, self.config.dtype or self.config.problem.dtype)
        self.players = self.problem.setup(Context(seeds, dtype=dtype))
        optimizers = {
            name: Optimizer(self.config.player_optimizer(name), player.parameters.values)
            for name, player in self.players.items()
        }
        self.engine = Engine(self.players, optimizers)
        self.moves: list[Move] = []
        self.outcomes: list[Outcomes] = []

    def iterate(self, iterations: int = 1) -> "Game":
        for _ in range(iterations):
            rounds = self.problem.iteration(0.0)
            try:
                moves = next(rounds)
                while True:
                    self.moves += moves
                    self.outcomes.append(self.engine.play(moves))
                    moves = rounds.send(self.outcomes[-1])
            except StopIteration:
                pass
        return self

    def values(self, player: str) -> torch.Tensor:
        return self.players[player].parameters.values


@pytest.fixture
def game() -> Callable[..., Game]:
    """``game("problem=gan/ring", ...)``."""
    return lambda *overrides: Game(overrides)
