import math

import pytest
import torch

from playground.game import Move
from playground.optim import config
from playground.optim.chain import Optimizer
from playground.optim.steppers import STEPPERS


class Bilinear:
    """min over x, max over y of x y, with the engine's two functions."""

    def __init__(self, make, start):
        self.at = {"x": start[:, :1].clone(), "y": start[:, 1:].clone()}
        self.optimizers = {name: Optimizer(make, value) for name, value in self.at.items()}
        self.moves = [Move(name, None, {}) for name in self.at]
        self.evaluations = []

    def gradient(self, move, at=None):
        point = self.at | dict(at or {})
        self.evaluations.append(move.player)
        return point["y"].clone() if move.player == "x" else -point["x"]

    def extrapolate(self, move, gradient):
        here = self.at[move.player]
        return here + self.optimizers[move.player].step(gradient, here).update

    def play(self, stepper):
        gradients = STEPPERS[stepper](self.moves, self.gradient, self.extrapolate)
        updates = {
            move.player: self.optimizers[move.player].step(value, self.at[move.player]).update
            for move, value in zip(self.moves, gradients, strict=True)
        }
        self.at = {name: value + updates[name] for name, value in self.at.items()}
        return torch.cat(list(self.at.values()), dim=1)


def spectral_radius(stepper, lr):
    """Of the linear map of one round, from its action on the two unit vectors."""
    basis = torch.eye(2, dtype=torch.float64)
    return float(torch.linalg.eigvals(Bilinear(config.SGD(lr=lr), basis).play(stepper)).abs().max())


@pytest.mark.parametrize("a", [0.1, 0.5, 1 / math.sqrt(2), 0.9, 1.2])
def test_extragradient_has_its_spectral_radius(a):
    expected = math.sqrt(1 - a**2 + a**4)
    assert spectral_radius("extragradient", a) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("a", [0.1, 0.5, 1.2])
def test_direct_steps_spiral_out(a):
    assert spectral_radius("direct", a) == pytest.approx(math.sqrt(1 + a**2), abs=1e-9)


def test_extragradient_evaluates_every_mover_twice_and_writes_nothing():
    game = Bilinear(config.SGD(lr=0.1), torch.ones(3, 2, dtype=torch.float64))
    STEPPERS["extragradient"](game.moves, game.gradient, game.extrapolate)
    assert game.evaluations == ["x", "y", "x", "y"]
    assert all(torch.equal(value, torch.ones_like(value)) for value in game.at.values())


def test_extragradient_with_adam_is_extra_adam():
    lr, beta1, beta2, eps = 0.05, 0.5, 0.9, 1e-8
    make = config.Adam(lr=lr, beta1=beta1, beta2=beta2, eps=eps)
    game = Bilinear(make, torch.tensor([[1.0, -0.7]], dtype=torch.float64))
    point, m, v = [1.0, -0.7], [0.0, 0.0], [0.0, 0.0]

    def adam(at, field, t):
        moved = []
        for i in range(2):
            m[i] = beta1 * m[i] + (1 - beta1) * field[i]
            v[i] = beta2 * v[i] + (1 - beta2) * field[i] ** 2
            root = math.sqrt(v[i] / (1 - beta2**t)) + eps
            moved.append(at[i] - lr * m[i] / (1 - beta1**t) / root)
        return moved

    for update in range(1, 31):
        half = adam(point, (point[1], -point[0]), 2 * update - 1)
        point = adam(point, (half[1], -half[0]), 2 * update)
        assert game.play("extragradient")[0].tolist() == pytest.approx(point, abs=1e-12)


def test_a_player_that_moves_twice_is_refused():
    game = Bilinear(config.SGD(), torch.ones(1, 2))
    with pytest.raises(ValueError, match="moves twice"):
        STEPPERS["extragradient"]([game.moves[0]] * 2, game.gradient, game.extrapolate)


def test_configs_and_functions_have_the_same_names():
    assert config.STEPPERS.keys() == STEPPERS.keys()
