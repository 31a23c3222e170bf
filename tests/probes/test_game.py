"""The vector field's instruments against closed-form Jacobians, numpy.linalg and differences."""

import numpy as np
import pytest
import torch
import torch.autograd.forward_ad as fwd
from harness import SMALL_GAN, loop

from playground.probes.game import formulas as game
from playground.probes.game.probe import GameProbe, of_turn
from playground.probes.passes import Turn

DRAW = np.random.default_rng(0)


def linear(matrix, sizes=(3, 2)):
    """The field F(z) = J z of players with these sizes, as a function of {player: [M, N]}."""
    matrix = torch.as_tensor(matrix, dtype=torch.float64)

    def field(at):
        flat = torch.cat(list(at.values()), dim=1) @ matrix.T
        return dict(zip(at, torch.split(flat, list(sizes), dim=1), strict=True))

    return field


def point(members=2, sizes=(3, 2), seed=1):
    draw = np.random.default_rng(seed)
    return {
        name: torch.as_tensor(draw.normal(size=(members, size)))
        for name, size in zip("xy", sizes, strict=True)
    }


def curved(at):
    """A field that is not linear: F_x = y0 x^2 + sin y1, F_y = x0 x1 y."""
    x, y = at["x"], at["y"]
    return {"x": y[:, :1] * x**2 + torch.sin(y[:, 1:]), "y": x[:, :1] * x[:, 1:2] * y}


def closed(at):
    """Its Jacobian by hand [M, 5, 5]."""
    x, y = at["x"].numpy(), at["y"].numpy()
    result = np.zeros((len(x), 5, 5))
    for k in range(len(x)):
        result[k, :3, :3] = np.diag(2 * y[k, 0] * x[k])
        result[k, :3, 3], result[k, :3, 4] = x[k] ** 2, np.cos(y[k, 1])
        result[k, 3:, 0], result[k, 3:, 1] = x[k, 1] * y[k], x[k, 0] * y[k]
        result[k, 3:, 3:] = np.eye(2) * x[k, 0] * x[k, 1]
    return result


def test_jacobian_against_the_closed_form_and_finite_differences():
    at = point(3)
    found = game.jacobian(curved, at).numpy()
    np.testing.assert_allclose(found, closed(at), atol=1e-12)
    flat, eps = torch.cat(list(at.values()), dim=1), 1e-6
    for j in range(5):
        step = torch.zeros_like(flat)
        step[:, j] = eps
        sides = []
        for sign in (1, -1):
            there = torch.split(flat + sign * step, [3, 2], dim=1)
            values = curved(dict(zip("xy", there, strict=True)))
            sides.append(torch.cat(list(values.values()), dim=1))
        np.testing.assert_allclose(
            found[:, :, j], ((sides[0] - sides[1]) / (2 * eps)).numpy(), atol=1e-8
        )


def test_products_against_the_matrix_and_each_other():
    at = point(3)
    u, v = (torch.as_tensor(DRAW.normal(size=(3, 5))) for _ in range(2))
    matrix = torch.as_tensor(closed(at))
    ahead, back = game.forward(curved, at, v), game.transposed(curved, at, u)
    torch.testing.assert_close(ahead, torch.einsum("mij,mj->mi", matrix, v))
    torch.testing.assert_close(back, torch.einsum("mij,mi->mj", matrix, u))
    torch.testing.assert_close((u * ahead).sum(1), (back * v).sum(1))  # <u, J v> = <J^T u, v>


def test_more_rows_than_one_pass_takes(monkeypatch):
    monkeypatch.setattr(game, "ROWS", 2)
    at = point(2)
    np.testing.assert_allclose(game.jacobian(curved, at).numpy(), closed(at), atol=1e-12)


def test_a_constant_field_has_no_jacobian():
    at = point(2)
    field = lambda at: {name: torch.ones_like(value) for name, value in at.items()}  # noqa: E731
    assert not game.jacobian(field, at).any()
    assert not game.forward(field, at, torch.ones(2, 5, dtype=torch.float64)).any()


@pytest.mark.parametrize("seed", range(4))
def test_spectrum_and_stable_rate_against_numpy(seed):
    matrix = np.random.default_rng(seed).normal(size=(5, 5)) + 2 * np.eye(5)
    found = game.spectrum(torch.as_tensor(matrix)[None])[0].numpy()
    expected = np.linalg.eigvals(matrix)
    np.testing.assert_allclose(np.sort_complex(found), np.sort_complex(expected), atol=1e-10)
    rate = game.stable_rate(torch.as_tensor(found)[None]).item()
    if (expected.real <= 0).any():
        assert rate == 0
        return
    for factor, stable in ((0.999, True), (1.001, False)):  # the definition itself
        radius = np.abs(np.linalg.eigvals(np.eye(5) - factor * rate * matrix)).max()
        assert (radius < 1) == stable


def test_shares_of_known_fields():
    even = np.array([[2.0, 1.0], [1.0, 3.0]])
    odd = np.array([[0.0, 1.0], [-1.0, 0.0]])
    batch = torch.as_tensor(np.stack([even, odd, even + odd]))
    symmetric, skew = game.shares(batch)
    assert symmetric.tolist() == pytest.approx([1, 0, 15 / 17])
    assert skew.tolist() == pytest.approx([0, 1, 2 / 17])


def test_the_estimated_share_is_near_the_exact_one_by_its_own_error():
    """100 members with vectors of their own: errors of the size that is stated."""
    matrix = DRAW.normal(size=(20, 20)) + 3 * np.eye(20)
    at = {"x": torch.zeros(100, 12).double(), "y": torch.zeros(100, 8).double()}
    _, products = game.linearise(linear(matrix, (12, 8)), at)
    source = torch.Generator().manual_seed(0)
    signs = [torch.randint(0, 2, (100, 20), generator=source).double() * 2 - 1 for _ in range(16)]
    share, error = game.estimated_share(products, signs)
    exact = game.shares(torch.as_tensor(matrix)[None])[1].item()
    miss = (share - exact) / error
    assert abs(share.mean().item() - exact) < 4 * error.mean().item() / 10
    assert 0.7 < miss.square().mean().sqrt().item() < 1.4


def test_ritz_values_are_the_spectrum_after_n_steps_and_its_outside_before():
    matrix = np.diag(np.linspace(0.1, 1, 30))
    matrix[:2, :2] = [[4.0, 3.0], [-3.0, 4.0]]  # modulus 5, apart from the rest
    turn, _ = np.linalg.qr(DRAW.normal(size=(30, 30)))
    matrix = turn @ matrix @ turn.T
    at = {"x": torch.zeros(2, 30).double()}
    field = linear(matrix, (30,))
    start = torch.as_tensor(DRAW.normal(size=(2, 30)))
    _, products = game.linearise(field, at)
    outer, residual = game.ritz(products, start, 12)
    index = outer.abs().argmax(dim=1)
    for k in range(2):
        assert abs(outer[k, index[k]]).item() == pytest.approx(5.0, abs=1e-6)
        assert residual[k, index[k]].item() < 1e-5
    exact, _ = game.ritz(products, start, 30)
    found = np.sort_complex(exact[0].numpy())
    np.testing.assert_allclose(found, np.sort_complex(np.linalg.eigvals(matrix)), atol=1e-8)


def test_how_a_field_stretches_and_turns_along_itself():
    """Spiral F = (mu x + sigma y, -sigma x + mu y): stretch mu, turn sigma everywhere."""
    matrix = np.array([[0.3, 2.0], [-2.0, 0.3]])
    value, products = game.linearise(linear(matrix, (1, 1)), point(4, (1, 1)))
    stretch, turn = game.along(products, value)
    assert stretch.tolist() == pytest.approx([0.3] * 4)
    assert turn.tolist() == pytest.approx([2.0] * 4)


def test_path_angle_of_attraction_and_of_rotation():
    """F = A z towards the equilibrium 0: cos = sign(1 - a) for A = I, 0 for pure rotation."""
    start = {"x": torch.tensor([[1.0]]).double(), "y": torch.tensor([[2.0]]).double()}
    end = {name: torch.zeros(1, 1).double() for name in "xy"}
    shares = [-0.1, 0.5, 0.9, 1.1]
    cosine, norm = game.path_angle(linear(np.eye(2), (1, 1)), start, end, shares)
    assert cosine[:, 0].tolist() == pytest.approx([1, 1, 1, -1])
    expected = [5**0.5 * abs(1 - a) for a in shares]
    assert norm[:, 0].tolist() == pytest.approx(expected)
    rotation = np.array([[0.0, 1.0], [-1.0, 0.0]])
    cosine, _ = game.path_angle(linear(rotation, (1, 1)), start, end, shares)
    assert cosine[:, 0].tolist() == pytest.approx([0] * 4, abs=1e-12)


def turn_of(made):
    moves = next(made.problem.iteration(0.0))
    return Turn({m.player: m for m in moves}, made.engine.differentiate, made.players)


def quadratic_game(*more):
    return loop(
        "problem=landscape/quadratic_game", "problem.curvature=0.3", "problem.interaction=2",
        "members=2", *more,
    )  # fmt: skip


def test_the_probe_on_a_quadratic_game():
    """Eigenvalues mu +- i sigma; stable below 2 mu / (mu^2 + sigma^2)."""
    probe = GameProbe(1, 300, 8, 20)
    probe.begin((0, 1), torch.device("cpu"))
    made = quadratic_game()
    reading = probe.measure(turn_of(made))
    expected = {
        "real_min": 0.3, "real_max": 0.3, "imaginary_max": 2.0,
        "spectral_radius": np.hypot(0.3, 2), "largest_stable_rate": 0.6 / (0.09 + 4),
        "antisymmetric_share": 4 / 4.09, "stretch": 0.3, "turn": 2.0,
        "field_norm": np.hypot(0.3 + 2, 0.3 - 2), ("x", "curvature_min"): 0.3,
        ("y", "curvature_max"): 0.3,
    }  # fmt: skip
    for key, value in expected.items():
        assert reading.values[key].tolist() == pytest.approx([value] * 2), key
    assert reading.arrays["spectrum"][0].tolist() == [
        pytest.approx([0.3, -2]), pytest.approx([0.3, 2]),
    ]  # fmt: skip
    (xs, ys), flow = reading.arrays["vector_field_axes"][0], reading.arrays["vector_field"][0]
    x, y = xs[5].item(), ys[11].item()
    assert flow[11, 5].tolist() == pytest.approx([-(0.3 * x + 2 * y), -(0.3 * y - 2 * x)])
    assert xs[0] < 1 < xs[-1]
    assert not {"vector_field"} & {*probe.measure(turn_of(made)).arrays}  # nobody left the window


def test_a_player_alone_has_a_symmetric_jacobian_and_no_picture():
    """Rosenbrock's Hessian at (-1, 1) is [[802, 400], [400, 200]]."""
    made = loop("problem=landscape/rosenbrock", "problem.start=[-1.0,1.0]", "members=2")
    probe = GameProbe(1, 300, 8, 20)
    probe.begin((0, 1), torch.device("cpu"))
    reading = probe.measure(turn_of(made))
    radius = np.linalg.eigvalsh([[802.0, 400.0], [400.0, 200.0]])[-1]
    assert reading.values["antisymmetric_share"].tolist() == [0, 0]
    assert reading.values["spectral_radius"].tolist() == pytest.approx([radius] * 2)
    assert "vector_field" not in reading.arrays


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # torch's own, in fwd
@pytest.mark.parametrize("members", [1, 3])
def test_a_network_game_without_its_jacobian_agrees_with_it(members):
    """Ring GAN with R1, batched by vmap where M > 1: Ritz and shares against the dense J, J v
    against forward-mode differentiation."""
    made = loop("problem=gan/ring", *SMALL_GAN, "penalty.r1=0.5", "problem.rounds=simultaneous",
                "problem.latent=2", "dtype=float64", f"members={members}")  # fmt: skip
    seen = turn_of(made)
    at = {name: p.parameters.values for name, p in seen.players.items()}
    matrix = game.jacobian(of_turn(seen), at)
    vector = torch.as_tensor(DRAW.normal(size=(members, matrix.shape[1])))
    ahead = game.forward(of_turn(seen), at, vector)
    torch.testing.assert_close(ahead, torch.einsum("mij,mj->mi", matrix, vector))
    pieces = torch.split(vector, [v.shape[1] for v in at.values()], dim=1)
    with fwd.dual_level():
        dual = {
            name: fwd.make_dual(value.clone().requires_grad_(), piece)
            for (name, value), piece in zip(at.items(), pieces, strict=True)
        }
        values = of_turn(seen)(dual)
        tangents = [fwd.unpack_dual(values[name]).tangent for name in at]
    torch.testing.assert_close(torch.cat(tangents, dim=1).detach(), ahead)
    exact, free = GameProbe(1, 10**6, 8, 40), GameProbe(1, 0, 64, 40)
    for probe in (exact, free):
        probe.begin(range(members), torch.device("cpu"))
    left, right = exact.measure(seen), free.measure(seen)
    radius = right.values["spectral_radius"]
    miss = (radius - left.values["spectral_radius"]).abs()
    assert (miss <= 1e-3 * radius + 10 * right.stderr["spectral_radius"]).all()
    share = left.values["antisymmetric_share"]
    miss = (right.values["antisymmetric_share"] - share).abs()
    assert (miss < 5 * right.stderr["antisymmetric_share"]).all()
    for key in ("field_norm", "stretch", "turn"):
        torch.testing.assert_close(left.values[key], right.values[key])


def test_a_broken_member_is_undefined_and_harms_nobody():
    made = quadratic_game()
    made.values()["x"][1] = float("inf")
    probe = GameProbe(1, 300, 8, 20)
    probe.begin((0, 1), torch.device("cpu"))
    reading = probe.measure(turn_of(made))
    assert torch.isfinite(torch.stack([v[0] for v in reading.values.values()])).all()
    nan = torch.full((1, 4, 4), float("nan"))
    assert torch.isnan(game.spectrum(nan).real).all()
