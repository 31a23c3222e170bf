import numpy as np
import pytest
import torch
from harness import TINY, engine, first_round, loop, player

from playground.domains.landscape.objectives import play
from playground.game import Move, reduce_term
from playground.gradients import Differentiator, reduced
from playground.optim.config import SGD


def weighted(params, batch):
    """A least-squares fit, per sample."""
    residual = batch["x"] @ params["m"]["w"] - batch["y"]
    return {"fit": residual**2, "size": 0.1 * (params["m"]["w"] ** 2).sum()}, {"residual": residual}


def data(members, samples=6, size=3, seed=0):
    draw = np.random.default_rng(seed)
    return {
        "x": torch.tensor(draw.normal(size=(members, samples, size))),
        "y": torch.tensor(draw.normal(size=(members, samples))),
    }


def test_weights_reduce_by_their_sum():
    """Gradient of sum(w r^2) / sum(w) by hand."""
    batch = data(2)
    weight = torch.tensor([[1.0, 0, 2, 0.5, 0, 1], [0, 0, 0, 0, 3, 1]]).double()
    w = torch.tensor([[0.3, -1.0, 2.0], [1.0, 0.5, -0.2]]).double()
    found = Differentiator({"m": player("m", w=w)})(
        Move("m", weighted, {**batch, "weight": weight})
    )
    for k in range(2):
        x, y, v, p = (t[k].numpy() for t in (batch["x"], batch["y"], weight, w))
        residual = x @ p - y
        assert found.terms["fit"][k].item() == pytest.approx((v * residual**2).sum() / v.sum())
        assert found.diagnostics["residual"][k].item() == pytest.approx(
            (v * residual).sum() / v.sum()
        )
        expected = 2 * (v * residual) @ x / v.sum() + 0.2 * p
        assert np.allclose(found.value[k], expected, rtol=1e-13)


def test_all_zero_weights_give_zero():
    batch = {**data(2), "weight": torch.zeros(2, 6).double()}
    w = torch.ones(2, 3).double()
    found = Differentiator({"m": player("m", w=w)})(Move("m", weighted, batch))
    assert found.terms["fit"].tolist() == [0.0, 0.0]
    assert found.value.tolist() == [[0.2] * 3] * 2


def test_reduce_term():
    term = torch.tensor([1.0, 2.0, 6.0])
    assert reduce_term(term, None).item() == 3.0
    assert reduce_term(term, torch.tensor([0.25, 0.0, 0.75])).item() == 19 / 4
    assert reduce_term(term, torch.zeros(3)).item() == 0.0
    assert reduce_term(term[0], torch.zeros(3)).item() == 1.0


@pytest.mark.parametrize("domain", TINY)
def test_members_together_equal_members_alone(domain):
    """vmap over three members against a plain call for each."""
    many = loop(*TINY[domain], "members=3", "dtype=float64")
    moves = first_round(many)
    together = [many.engine.gradient(move) for move in moves]
    for k in range(3):
        alone = {
            name: player(name, **{t: v[k : k + 1] for t, v in p.parameters.views.items()})
            for name, p in many.players.items()
        }
        single = Differentiator(alone)
        for move, many_gradient in zip(moves, together, strict=True):
            batch = {key: value[k : k + 1] for key, value in move.batch.items()}
            one = single(Move(move.player, move.objective, batch))
            scale = one.value.abs().max().item()
            assert np.allclose(many_gradient.value[k], one.value[0], rtol=1e-9, atol=1e-12 * scale)
            for name, term in one.terms.items():
                assert many_gradient.terms[name][k].item() == pytest.approx(term.item(), rel=1e-9)


@pytest.mark.parametrize("domain", TINY)
def test_gradients_are_finite_differences(domain):
    """Along three random directions, central differences of the objective in float64."""
    made = loop(*TINY[domain], "dtype=float64", "seed=5").iterate(2)
    draw = torch.Generator().manual_seed(0)
    rounds = made.problem.iteration(0.0)
    for move in next(rounds):
        flat = made.players[move.player].parameters.values
        gradient = made.engine.gradient(move).value[0]
        batch = {key: value[0] for key, value in move.batch.items()}

        def objective(point, move=move, batch=batch):
            views = {n: p.parameters.member(0) for n, p in made.players.items()}
            layout = made.players[move.player].parameters.layout
            return reduced(move.objective, {**views, move.player: layout.views(point)}, batch)[0]

        for _ in range(3):
            direction = torch.randn(flat.shape[1], generator=draw, dtype=torch.float64)
            direction /= direction.norm()
            h = 1e-6
            difference = (
                objective(flat[0] + h * direction) - objective(flat[0] - h * direction)
            ) / (2 * h)
            expected = (gradient @ direction).item()
            scale = gradient.norm().item()
            assert difference.item() == pytest.approx(expected, abs=2e-6 * scale + 1e-9)


def test_terms_sum_to_the_objective_and_diagnostics_carry_no_gradient():
    def objective(params, batch):
        w = params["m"]["w"]
        return {"a": w.sum(), "b": -2 * w[0]}, {"noise": 1e6 * w.sum()}

    found = Differentiator({"m": player("m", w=torch.ones(1, 2))})(Move("m", objective, {}))
    assert found.value.tolist() == [[-1.0, 1.0]]
    assert not any(t.requires_grad for t in (*found.terms.values(), *found.diagnostics.values()))
    assert not found.value.requires_grad


def test_a_gradient_elsewhere_leaves_the_parameters_alone():
    mine = player("m", w=torch.tensor([[3.0]]))

    def square(params, batch):
        return {"f": params["m"]["w"].square().sum()}, {}

    differentiate = Differentiator({"m": mine})
    assert differentiate(Move("m", square, {}), {"m": torch.tensor([[5.0]])}).value.item() == 10.0
    assert mine.parameters.values.item() == 3.0
    assert differentiate(Move("m", square, {})).value.item() == 6.0


def test_a_player_that_its_objective_ignores_has_gradient_zero():
    def other(params, batch):
        return {"f": params["y"]["y"].sum() + 0 * params["x"]["x"].sum()}, {}

    players = {n: player(n, **{n: torch.ones(2, 2)}) for n in ("x", "y")}
    assert not Differentiator(players)(Move("x", other, {})).value.any()


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize(("sigma", "mu"), [(0.7, 0.0), (1.3, 0.4)])
def test_the_game_jacobian(sigma, mu, members):
    """F = (mu x + sigma y, mu y - sigma x), so J = [[mu, sigma], [-sigma, mu]] x identity."""
    draw = torch.Generator().manual_seed(1)
    start = {n: torch.randn(members, 2, generator=draw, dtype=torch.float64) for n in ("x", "y")}
    made = engine([player(n, **{n: v}) for n, v in start.items()], SGD(lr=0.1))
    at = {n: v.clone().requires_grad_() for n, v in start.items()}
    field = torch.cat(
        [
            made.gradient(Move(n, play(n, sigma, mu), {}), at, create_graph=True).value
            for n in ("x", "y")
        ],
        dim=1,
    )
    expected = np.kron([[mu, sigma], [-sigma, mu]], np.eye(2))
    point = torch.cat([start["x"], start["y"]], dim=1).numpy()
    assert np.allclose(field.detach(), point @ expected.T, rtol=1e-13)
    for row in range(4):
        pieces = torch.autograd.grad(
            field[:, row].sum(), [at["x"], at["y"]], retain_graph=True, materialize_grads=True
        )
        jacobian = torch.cat(pieces, dim=1)
        assert np.allclose(jacobian, expected[row], atol=1e-14)


def test_create_graph_with_the_other_player_alone():
    """d(dx f)/dy where only y is given: x's gradient of (x y)^2 is 2 x y^2."""

    def f(params, batch):
        return {"f": (params["x"]["x"] * params["y"]["y"]).square().sum()}, {}

    players = {
        "x": player("x", x=torch.tensor([[3.0]])),
        "y": player("y", y=torch.tensor([[2.0]])),
    }
    y = torch.tensor([[5.0]], requires_grad=True)
    gradient = Differentiator(players)(Move("x", f, {}), {"y": y}, create_graph=True).value
    assert gradient.item() == 150.0
    (mixed,) = torch.autograd.grad(gradient.sum(), y)
    assert mixed.item() == 60.0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # while it imports itself
@pytest.mark.parametrize("domain", ["game", "supervised", "gan"])
def test_compiled_equals_eager(domain):
    """The GAN's penalty nests a gradient inside the compiled one."""
    for members in (1, 3):
        made = loop(*TINY[domain], f"members={members}", "dtype=float64")
        compiled = Differentiator(made.players, compiled=True)
        for move in first_round(made):
            eager, other = made.engine.gradient(move), compiled(move)
            assert np.allclose(eager.value, other.value, rtol=1e-9, atol=1e-12)
            for kind in ("terms", "diagnostics"):
                left, right = getattr(eager, kind), getattr(other, kind)
                assert list(left) == list(right)
                for name in left:
                    assert np.allclose(left[name], right[name], rtol=1e-9)
