import numpy as np
import pytest
import torch
from harness import TINY, assert_same, engine, loop, player

from playground.domains.landscape.objectives import minimise, play
from playground.engine import Engine
from playground.game import Move
from playground.optim.config import SGD, Adam, AdamW, Momentum, RMSprop
from playground.optim.optimizer import Optimizer

SIGMA, RATE = 1.5, 0.2


def bilinear(start=(1.0, -0.5), members=1, stepper="direct"):
    """Players x and y of f = sigma x y, g = -f, in float64."""
    players = [
        player(name, **{name: torch.full((members, 1), value, dtype=torch.float64)})
        for name, value in zip("xy", start, strict=True)
    ]
    moves = {name: Move(name, play(name, SIGMA, 0.0), {}) for name in "xy"}
    return engine(players, SGD(lr=RATE), stepper), moves


def position(made):
    return np.array([made.players[name].parameters.values[0, 0].item() for name in "xy"])


def test_a_round_of_two_moves_is_simultaneous():
    made, moves = bilinear()
    x, y = position(made)
    made.play((moves["x"], moves["y"]))
    assert position(made) == pytest.approx([x - RATE * SIGMA * y, y + RATE * SIGMA * x], rel=1e-15)


def test_rounds_of_one_move_alternate():
    made, moves = bilinear()
    x, y = position(made)
    made.play((moves["x"],))
    made.play((moves["y"],))
    x = x - RATE * SIGMA * y
    assert position(made) == pytest.approx([x, y + RATE * SIGMA * x], rel=1e-15)


def test_extragradient_moves_by_the_field_ahead():
    made, moves = bilinear(stepper="extragradient")
    z = position(made)
    field = SIGMA * np.array([[0.0, 1.0], [-1.0, 0.0]])
    made.play((moves["x"], moves["y"]))
    assert position(made) == pytest.approx(z - RATE * field @ (z - RATE * field @ z), rel=1e-15)
    assert made.gradient_evaluations.tolist() == [4]
    assert made.updates == {"x": [1], "y": [1]}


def quadratic(params, batch):
    w = params["m"]["w"]
    return {"f": 0.5 * ((w - batch["to"]) ** 2).sum()}, {}


def member_batches(members, count):
    draw = torch.Generator().manual_seed(2)
    return [torch.randn(members, 4, generator=draw) for _ in range(count)]


OPTIMIZERS = [
    SGD(lr=0.1), Momentum(lr=0.1), RMSprop(lr=0.01, centered=True), Adam(lr=0.1, clip_norm=0.5),
    AdamW(lr=0.1),
]  # fmt: skip


@pytest.mark.parametrize("config", OPTIMIZERS, ids=lambda c: c.name)
def test_an_inactive_member_keeps_parameters_and_state(config):
    """A member that sits out some rounds equals one that never saw them."""
    start, batches = torch.ones(3, 4), member_batches(3, 8)
    made = engine([player("m", w=start)], config)
    single = engine([player("m", w=start[1:2])], config)
    for index, to in enumerate(batches):
        active = torch.tensor([True, index % 3 == 0, True])
        before = made.players["m"].parameters.values.clone()
        made.play((Move("m", quadratic, {"to": to}, active),))
        changed = (made.players["m"].parameters.values != before).any(dim=1)
        assert changed.tolist() == active.tolist()
        if active[1]:
            single.play((Move("m", quadratic, {"to": to[1:2]}),))
    left, right = (e.players["m"].parameters.values for e in (made, single))
    assert np.allclose(left[1], right[0], rtol=1e-5, atol=1e-6)
    assert made.updates["m"].tolist() == [8, 3, 8]


def test_garbage_of_an_inactive_member_is_not_a_failure():
    made = engine([player("m", w=torch.ones(2, 4))], Adam(lr=0.1))
    to = torch.zeros(2, 4)
    to[1] = float("nan")
    made.play((Move("m", quadratic, {"to": to}, torch.tensor([True, False])),))
    assert not made.settle()
    assert made.frozen.tolist() == [False, False]
    made.play((Move("m", quadratic, {"to": to}),))
    assert list(made.settle()) == [1]


@pytest.mark.parametrize("stepper", ["direct", "extragradient"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("config", OPTIMIZERS, ids=lambda c: c.name)
def test_a_non_finite_gradient_freezes_its_member_alone(config, value, stepper):
    batches = member_batches(3, 9)
    made = engine([player("m", w=torch.ones(3, 4))], config, stepper)
    clean = engine([player("m", w=torch.ones(3, 4))], config, stepper)
    kept = None
    for index, to in enumerate(batches):
        clean.play((Move("m", quadratic, {"to": to}),))
        if index == 4:
            kept = member_state(made, 2)
            to = to.clone()
            to[2, 3] = value
        made.play((Move("m", quadratic, {"to": to}),))
    assert_same(kept, member_state(made, 2))
    failure = made.settle()[2]
    assert (failure.member, failure.player, failure.update) == (2, "m", 5)
    assert torch.isfinite(failure.gradient).tolist() == [True, True, True, False]
    left, right = (e.players["m"].parameters.values[:2] for e in (made, clean))
    assert torch.equal(left, right)
    assert made.updates["m"].tolist() == [9, 9, 4]
    assert made.frozen.tolist() == [False, False, True]


def member_state(made, member):
    """Parameters and optimizer state of one member."""
    state = made.optimizers["m"].state()
    links = [{k: v[member].clone() for k, v in link.items()} for link in state["links"]]
    return [made.players["m"].parameters.values[member].clone(), links]


def test_a_fault_where_the_other_player_goes_is_seen():
    """Extragradient evaluates x's gradient at y ahead too; the first one is not finite."""

    def f(params, batch):
        y = params["y"]["y"].sum()
        return {"f": params["x"]["x"].sum() * (1 / y - 1 / y + 1)}, {}

    def g(params, batch):
        return {"g": -params["y"]["y"].sum() + 0 * params["x"]["x"].sum()}, {}

    players = [player(n, **{n: torch.zeros(1, 1)}) for n in "xy"]
    made = engine(players, SGD(lr=1.0), "extragradient")
    made.play((Move("x", f, {}), Move("y", g, {})))
    assert made.settle()[0].player == "x"
    assert position(made).tolist() == [0.0, 0.0]


def test_a_norm_that_overflows_is_no_failure():
    """1e30 squared is beyond float32, 1e30 is not."""
    made = engine([player("m", w=torch.zeros(2, 4))], SGD(lr=1e-30))
    to = torch.ones(2, 4)
    to[0] = -1e30
    made.play((Move("m", quadratic, {"to": to}),))
    assert not made.settle()
    assert made.players["m"].parameters.values[0].tolist() == pytest.approx([-1.0] * 4)


def test_an_update_that_overflows_is_not_applied():
    """The gradient is finite, lr times the gradient is not."""
    made = engine([player("m", w=torch.zeros(2, 4))], SGD(lr=1e20))
    to = torch.zeros(2, 4)
    to[1, 0] = 1e30
    made.play((Move("m", quadratic, {"to": to}),))
    failure = made.settle()[1]
    assert failure.update == 1
    assert torch.isfinite(failure.gradient).all()
    assert made.players["m"].parameters.values[1].tolist() == [0.0] * 4
    assert made.updates["m"].tolist() == [1, 0]


def test_a_round_returns_each_player_s_terms_before_the_update():
    made, moves = bilinear(start=(2.0, 3.0), members=2)
    outcomes = made.play((moves["x"], moves["y"]))
    assert outcomes["x"].terms["interaction"].tolist() == [9.0, 9.0]
    assert outcomes["y"].terms["interaction"].tolist() == [-9.0, -9.0]


def test_observers_see_the_values_before_they_are_applied():
    seen = []
    start = torch.ones(2, 4)
    made = engine([player("m", w=start)], SGD(lr=0.5, clip_norm=1.0), observers=[seen.append])
    to = torch.zeros(2, 4)
    to[1] = 0.99
    made.play((Move("m", quadratic, {"to": to}),))
    made.play((Move("m", quadratic, {"to": to}),))
    first, second = seen
    assert first.gradient.tolist() == [[1.0] * 4, pytest.approx([0.01] * 4)]
    assert first.norm.tolist() == pytest.approx([2.0, 0.02])
    assert first.clip_coefficient.tolist() == pytest.approx([0.5, 1.0], rel=1e-5)
    assert first.clipped[0].tolist() == pytest.approx([0.5] * 4, rel=1e-5)
    assert first.update[0].tolist() == pytest.approx([-0.25] * 4, rel=1e-5)
    assert (first.index, second.index) == (1, 2)
    assert (first.round_index, second.round_index) == (0, 1)
    assert first.learning_rate == 0.5
    assert second.gradient[0].tolist() == pytest.approx([0.75] * 4, rel=1e-5)


@pytest.mark.parametrize("domain", TINY)
def test_members_follow_their_own_trajectories(domain):
    """Three members at once and each on its own, for several iterations, in float64."""
    overrides = [*TINY[domain], "dtype=float64"]
    many = loop(*overrides, "members=3", "seed=4").iterate(3)
    for k in range(3):
        one = loop(*overrides, f"seed={4 + k}").iterate(3)
        for name, values in one.values().items():
            assert np.allclose(many.values()[name][k], values[0], rtol=1e-8, atol=1e-10)


def test_state_goes_on_with_every_counter():
    made, moves = bilinear(members=2)
    made.play((moves["x"], moves["y"]))
    made.play((moves["x"],))
    other, _ = bilinear(members=2)
    other.load_state(made.state())
    assert_same(made.state(), other.state())
    assert other.updates["x"].tolist() == [2, 2]
    assert other.gradient_evaluations.tolist() == [3, 3]


def test_float64_landscape_against_the_closed_form():
    """Gradient descent on 1/2 sum l x^2 from 1: (1 - lr l)^t."""
    x = player("x", x=torch.ones(1, 2, dtype=torch.float64))
    made = Engine({"x": x}, {"x": Optimizer(SGD(lr=0.3), x.parameters.values)})
    curve = torch.tensor([0.1, 1.0], dtype=torch.float64)
    move = Move("x", minimise(lambda p: 0.5 * (curve * p**2).sum(-1)), {})
    for _ in range(50):
        made.play((move,))
    expected = (1 - 0.3 * curve.numpy()) ** 50
    assert x.parameters.values[0].numpy() == pytest.approx(expected, rel=1e-12)
