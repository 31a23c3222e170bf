import math

import pytest
import torch

from playground.domains.landscape.config import FUNCTIONS
from playground.domains.landscape.objectives import (
    MINIMISERS,
    coupling,
    function,
    minimise,
    play,
)
from playground.game import Move, Player
from playground.gradients import Differentiator
from playground.parameters import Layout, Parameters


def central(f, x, h=1e-5):
    """Central differences of f [n] -> [...] along every coordinate, stacked first."""
    steps = h * torch.eye(len(x), dtype=x.dtype)
    return torch.stack([(f(x + s) - f(x - s)) / (2 * h) for s in steps])


def hessian(f, x):
    return central(lambda p: central(f, p, 1e-4), x, 1e-4)


def gradients(points, objectives, batch=None):
    """{player: gradient [M, n]} of the objectives at points {player: [M, n]}."""
    players = {
        name: Player(name, Parameters(Layout({name: (value.shape[1],)}), value))
        for name, value in points.items()
    }
    differentiate = Differentiator(players)
    return {
        name: differentiate(Move(name, objective, batch or {})).value
        for name, objective in objectives.items()
    }


def winding(name, center, radius=1e-2, points=400):
    """Turns of the gradient (by differences) along a small circle: the index of a critical point.

    +1 at a minimum, -1 at a strict saddle of two dimensions, -2 at a monkey saddle.
    """
    f = function(name)
    turns = torch.arange(points + 1, dtype=torch.float64) * (2 * math.pi / points)
    circle = torch.stack([turns.cos(), turns.sin()], dim=1)
    slopes = torch.stack([central(f, torch.tensor(center) + radius * p, 1e-6) for p in circle])
    angles = torch.atan2(slopes[:, 1], slopes[:, 0])
    change = (angles.diff() + math.pi) % (2 * math.pi) - math.pi
    return change.sum().item() / (2 * math.pi)


@pytest.mark.parametrize("members", [1, 5])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradient_is_the_difference_quotient(name, members):
    f = function(name)
    points = torch.randn(members, 2, generator=torch.Generator().manual_seed(3)).double()
    measured = gradients({"x": points.clone()}, {"x": minimise(f)})["x"]
    expected = torch.stack([central(f, x) for x in points])
    assert torch.allclose(measured, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "point", "value"),
    [
        ("quadratic", (1.0, 1.0), 0.5 * (0.1 + 1.0)),
        ("rosenbrock", (-1.2, 1.0), 24.2),  # More, Garbow & Hillstrom 1981, problem 1
        ("beale", (1.0, 1.0), 14.203125),  # the same, problem 5
        ("himmelblau", (0.0, 0.0), 170.0),
        ("himmelblau", (-0.270845, -0.923039), 181.617),  # its maximum
        ("rastrigin", (1.0, 1.0), 2.0),
        ("rastrigin", (0.5, 0.5), 40.5),
        ("saddle", (2.0, 1.0), 3.0),
        ("monkey_saddle", (2.0, 1.0), 2.0),
    ],
)
def test_values_at_known_points(name, point, value):
    assert function(name)(torch.tensor(point).double()).item() == pytest.approx(value, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "point"),
    [(name, point) for name, points in MINIMISERS.items() for point in points]
    + [("quadratic", (0.0, 0.0)), ("rastrigin", (0.0, 0.0))],
)
def test_minimisers(name, point):
    f, x = function(name), torch.tensor(point, dtype=torch.float64)
    assert f(x).item() == pytest.approx(0.0, abs=1e-20)
    exact = gradients({"x": x[None].clone()}, {"x": minimise(f)})["x"]
    assert exact.abs().max().item() < 1e-10
    assert torch.linalg.eigvalsh(hessian(f, x)).min().item() > 0.01
    assert winding(name, point) == pytest.approx(1.0, abs=1e-6)


def test_saddles_have_their_indices():
    origin = torch.zeros(2, dtype=torch.float64)
    curvatures = torch.linalg.eigvalsh(hessian(function("saddle"), origin))
    assert torch.allclose(curvatures, torch.tensor([-2.0, 2.0]).double(), atol=1e-6)
    assert hessian(function("monkey_saddle"), origin).abs().max().item() < 1e-6
    assert winding("saddle", (0.0, 0.0)) == pytest.approx(-1.0, abs=1e-6)
    assert winding("monkey_saddle", (0.0, 0.0)) == pytest.approx(-2.0, abs=1e-6)


@pytest.mark.parametrize(("dimension", "condition"), [(2, 10.0), (7, 1000.0), (4, 1.0)])
def test_quadratic_spectrum_is_log_spaced(dimension, condition):
    matrix = hessian(function("quadratic", condition), torch.ones(dimension).double())
    spectrum = torch.linalg.eigvalsh(matrix)
    steps = torch.arange(dimension).double() / (dimension - 1)
    assert torch.allclose(spectrum, condition ** (steps - 1), rtol=1e-5)


def test_quadratic_of_one_dimension_is_half_a_square():
    assert function("quadratic", 50.0)(torch.tensor([3.0])).item() == 4.5


@pytest.mark.parametrize("members", [1, 4])
def test_game_gradients(members):
    source = torch.Generator().manual_seed(1)
    x, y = (torch.randn(members, 3, generator=source).double() for _ in range(2))
    sigma, mu = 0.7, 0.2
    objectives = {name: play(name, sigma, mu) for name in ("x", "y")}
    field = gradients({"x": x.clone(), "y": y.clone()}, objectives)
    assert torch.allclose(field["x"], sigma * y + mu * x)
    assert torch.allclose(field["y"], -sigma * x + mu * y)


@pytest.mark.parametrize("members", [1, 4])
def test_a_matrix_game_of_different_sizes(members):
    """F = (sigma B y + mu x, -sigma B'x + mu y)."""
    source = torch.Generator().manual_seed(2)
    x, y = (torch.randn(members, n, generator=source).double() for n in (3, 2))
    matrix = [[1.0, 2.0], [0.0, -1.0], [0.5, 3.0]]
    b = torch.tensor(matrix).double()
    term = coupling("bilinear", matrix)
    field = gradients(
        {"x": x.clone(), "y": y.clone()}, {name: play(name, 0.7, 0.2, term) for name in "xy"}
    )
    assert torch.allclose(field["x"], 0.7 * y @ b.T + 0.2 * x)
    assert torch.allclose(field["y"], -0.7 * x @ b + 0.2 * y)


def test_matching_pennies_against_its_payoffs():
    """The row player loses 1 where the coins agree: f = sum over coins of +-1, by finite sums."""
    x, y = torch.tensor([[0.3], [-1.2]]).double(), torch.tensor([[2.0], [0.4]]).double()
    p, q = torch.sigmoid(x), torch.sigmoid(y)
    expected = p * q + (1 - p) * (1 - q) - p * (1 - q) - (1 - p) * q
    term = coupling("matching_pennies")
    assert torch.allclose(term(x, y), expected[:, 0])
    origin = torch.zeros(1, 1).double()
    near = gradients({"x": origin, "y": origin + 1e-6}, {"x": play("x", 1.0, 0.0, term)})["x"]
    assert near.item() / 1e-6 == pytest.approx(0.25, abs=1e-9)  # locally bilinear, sigma = 1/4


def test_gradient_noise_is_added_to_the_gradient():
    x = torch.tensor([[1.0, 2.0], [0.0, -1.0]]).double()
    noise = torch.tensor([[0.5, -0.5], [3.0, 0.0]]).double()
    measured = gradients({"x": x.clone()}, {"x": minimise(function("saddle"))}, {"noise": noise})
    assert torch.allclose(measured["x"], x * torch.tensor([2.0, -2.0]) + noise)
