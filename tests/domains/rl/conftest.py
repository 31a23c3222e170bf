"""A game without a run directory: problem, engine and optimizers of a command's overrides."""

from collections.abc import Callable, Sequence

import pytest
import rl_toys
import torch
from threadpoolctl import threadpool_limits

from playground.config import Config, compose, members
from playground.domains.rl.problem import PolicyGradient
from playground.engine import Engine
from playground.game import Context, Move, Outcome
from playground.optim.optimizer import Optimizer


class Game:
    """What ``playground.run`` drives, driven by hand."""

    def __init__(self, overrides: Sequence[str]) -> None:
        self.config: Config = compose(["problem=rl/cartpole", *overrides])
        self.problem: PolicyGradient = self.config.problem.build(self.config)
        seeds = tuple(member.seed for member in members(self.config))
        dtype = getattr(torch, self.config.dtype or self.config.problem.dtype)
        self.players = self.problem.setup(Context(seeds, dtype=dtype))
        optimizers = {
            name: Optimizer(self.config.player_optimizer(name), player.parameters.values)
            for name, player in self.players.items()
        }
        self.engine = Engine(self.players, optimizers)
        self.metrics: dict = {}

    def iterate(self, iterations: int = 1) -> "Game":
        for _ in range(iterations):
            rounds, outcomes = self.problem.iteration(0.0), None
            try:
                while True:
                    outcomes = self.engine.play(rounds.send(outcomes))
            except StopIteration as stop:
                self.metrics = stop.value
        return self

    def moves(self, iterations: int = 1) -> list[Move]:
        """The moves of the next iterations; nothing is updated."""
        made: list[Move] = []
        for _ in range(iterations):
            rounds, outcomes = self.problem.iteration(0.0), None
            try:
                while True:
                    moves = rounds.send(outcomes)
                    made += moves
                    gradients = [self.engine.gradient(move) for move in moves]
                    outcomes = {
                        move.player: Outcome(gradient.terms, gradient.diagnostics)
                        for move, gradient in zip(moves, gradients, strict=True)
                    }
            except StopIteration:
                continue
        return made

    def values(self, player: str = "agent") -> torch.Tensor:
        return self.players[player].parameters.values


@pytest.fixture
def game() -> Callable[..., Game]:
    """``game("algorithm=ppo", ...)``."""
    rl_toys.register()
    torch.set_num_threads(1)
    threadpool_limits(1, user_api="blas")
    return lambda *overrides: Game(overrides)
