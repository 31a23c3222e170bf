"""Closed forms through the real problem, engine, optimizer and stepper."""

import math

import pytest
import torch

from playground.domains.landscape.config import LandscapeConfig
from playground.engine import Engine
from playground.game import Context
from playground.optim.config import SGD
from playground.optim.optimizer import Optimizer
from playground.optim.steppers.config import STEPPERS


def trajectory(iterations, lr, *, stepper="direct", members=1, **keys):
    """Positions [iterations + 1, M, n] of gradient descent, all players together."""
    config = LandscapeConfig(**keys)
    config.validate()
    problem = config.build(None)
    players = problem.setup(Context(tuple(range(members)), dtype=torch.float64))
    method = STEPPERS[stepper]()
    optimizers = {
        name: Optimizer(SGD(lr=lr), player.parameters.values, links=method.links())
        for name, player in players.items()
    }
    engine = Engine(players, optimizers, method.build())

    def position():
        return torch.cat([player.parameters.values for player in players.values()], dim=1)

    points = [position()]
    for _ in range(iterations):
        rounds = problem.iteration(0.0)
        outcomes = None
        while True:
            try:
                outcomes = engine.play(rounds.send(outcomes))
            except StopIteration:
                break
        points.append(position())
    return torch.stack(points)


@pytest.mark.parametrize("condition", [3.0, 10.0, 100.0])
@pytest.mark.parametrize("dimension", [2, 5])
def test_gradient_descent_meets_its_optimal_rate(condition, dimension):
    lr = 2 / (1 / condition + 1)
    points = trajectory(
        400, lr, function="quadratic", condition=condition, dimension=dimension, members=2
    )
    size = points.norm(dim=2)
    rate = (size[400] / size[200]) ** (1 / 200)
    expected = (condition - 1) / (condition + 1)
    assert rate.numpy() == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(("lr", "grows"), [(1.98, False), (2.02, True)])
def test_gradient_descent_diverges_beyond_its_stability_line(lr, grows):
    size = trajectory(200, lr, function="quadratic", condition=10.0).norm(dim=2)[:, 0]
    assert bool(size[-1] > size[0]) == grows


GAME = {"function": "bilinear", "members": 3, "start": "random", "spread": 1.0}


@pytest.mark.parametrize("step", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("interaction", [1.0, 0.4])
def test_simultaneous_descent_spirals_out(step, interaction):
    size = trajectory(40, step / interaction, interaction=interaction, **GAME).norm(dim=2)
    rate = (size[-1] / size[0]) ** (1 / 40)
    assert rate.numpy() == pytest.approx(math.sqrt(1 + step**2), abs=1e-6)


@pytest.mark.parametrize("step", [0.1, 0.5, 1.0, 1.9])
@pytest.mark.parametrize(("first", "sign"), [("x", -1), ("y", 1)])
def test_alternating_descent_keeps_its_invariant(step, first, sign):
    points = trajectory(60, step, rounds="alternating", first=first, **GAME)
    x, y = points.chunk(2, dim=2)
    invariant = (x**2 + y**2 + sign * step * x * y).sum(dim=2)
    assert invariant.std(dim=0).max().item() < 1e-12
    assert points.norm(dim=2).std(dim=0).min().item() > 1e-3


@pytest.mark.parametrize("step", [0.1, 0.5, 1 / math.sqrt(2), 1.2])
def test_extragradient_spirals_in_while_the_step_is_below_one(step):
    size = trajectory(40, step, stepper="extragradient", **GAME).norm(dim=2)
    rate = (size[-1] / size[0]) ** (1 / 40)
    assert rate.numpy() == pytest.approx(math.sqrt(1 - step**2 + step**4), abs=1e-6)


def test_matching_pennies_spirals_out_as_its_linearisation():
    """Radius sqrt(1 + lr^2/16), 1.0308 at lr 1."""
    points = trajectory(40, 1.0, function="matching_pennies", start=[1e-5, -2e-5]).norm(dim=2)
    rate = (points[-1] / points[0]) ** (1 / 40)
    assert rate.numpy() == pytest.approx(math.sqrt(1 + 1 / 16), abs=1e-6)


@pytest.mark.parametrize("curvature", [0.1, 0.5])
def test_curvature_damps_the_game(curvature):
    """Eigenvalues mu +- i sigma of the field: one step multiplies by |1 - lr (mu +- i sigma)|."""
    points = trajectory(
        40, 0.3, function="quadratic_game", curvature=curvature, members=2, start="random"
    )
    rate = (points.norm(dim=2)[-1] / points.norm(dim=2)[0]) ** (1 / 40)
    assert rate.numpy() == pytest.approx(abs(1 - 0.3 * complex(curvature, 1.0)), abs=1e-6)
