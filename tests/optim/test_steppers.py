"""Every game method against its closed form on bilinear games, through the real engine."""

import math

import numpy as np
import pytest
import torch

from optim.games import Played, bilinear, one_round, radius
from playground.optim.config import SGD, Adam, Momentum
from playground.optim.optimizer import Optimizer
from playground.optim.steppers.config import STEPPERS
from playground.schema import ConfigError

ALTERNATING = {"turns": ("x", "y")}
STEPS = [0.1, 0.3, 0.5, 0.9]


def ogda(a):
    if a <= 0.5:
        return math.sqrt((1 + math.sqrt(1 - 4 * a * a)) / 2)
    return math.sqrt(0.25 + (a + math.sqrt(4 * a * a - 1) / 2) ** 2)


def sga(rate, strength, sigma):
    return math.hypot(1 - rate * strength * sigma**2, rate * sigma)


TABLE = [
    # stepper, its keys, radius as a function of a = rate * sigma at sigma = 1
    ("direct", {}, lambda a: math.sqrt(1 + a * a)),
    ("direct", ALTERNATING, lambda a: 1.0),
    ("extragradient", {}, lambda a: math.sqrt(1 - a * a + a**4)),
    ("lookahead", {}, lambda a: math.sqrt(1 - a * a + a**4)),
    ("optimistic", {}, ogda),
    ("past_extragradient", {}, ogda),
    ("cgd", {}, lambda a: 1 / math.sqrt(1 + a * a)),
    ("consensus", {"gamma": 0.7}, lambda a: sga(a, 0.7, 1)),
    ("sga", {"strength": 0.7, "align": False}, lambda a: sga(a, 0.7, 1)),
    ("lola", {}, lambda a: sga(a, 2 * a, 1)),
]
"""Rows of the bilinear table; aligned SGA has lambda's sign positive here, see below."""


@pytest.mark.parametrize("a", STEPS)
@pytest.mark.parametrize(
    ("stepper", "keys", "formula"), TABLE, ids=[f"{n}-{list(k)}" for n, k, _ in TABLE]
)
def test_spectral_radius_on_the_scalar_game(stepper, keys, formula, a):
    assert radius(1.0, stepper, a, **keys) == pytest.approx(formula(a), abs=1e-6)


MATRIX = np.array([[0.5, -1.2, 0.3], [0.8, 0.4, -0.6]])
RATE = 0.25


@pytest.mark.parametrize(
    ("stepper", "keys", "formula"), TABLE, ids=[f"{n}-{list(k)}" for n, k, _ in TABLE]
)
def test_spectral_radius_on_a_matrix_game_is_the_worst_singular_value_s(stepper, keys, formula):
    """x has two dimensions and y three, so one direction of y stays, with radius 1."""
    scales = {"gamma": 0.7, "strength": 0.7}
    values = np.linalg.svd(MATRIX, compute_uv=False)
    if scales.keys() & keys.keys():
        expected = max(sga(RATE, 0.7, s) for s in values)
    else:
        expected = max(formula(RATE * s) for s in values)
    assert radius(MATRIX, stepper, RATE, **keys) == pytest.approx(max(expected, 1.0), abs=1e-6)
    square = MATRIX[:, :2]
    values = np.linalg.svd(square, compute_uv=False)
    if scales.keys() & keys.keys():
        expected = max(sga(RATE, 0.7, s) for s in values)
    else:
        expected = max(formula(RATE * s) for s in values)
    assert radius(square, stepper, RATE, **keys) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("a", "expected"), [(0.1, 0.9900), (0.3, 0.9109), (0.5, 0.7718), (0.57, 0.7229)]
)
def test_alternating_optimistic_descent_has_the_tables_radii(a, expected):
    assert radius(1.0, "optimistic", a, **ALTERNATING) == pytest.approx(expected, abs=5e-5)


def test_alternating_optimistic_descent_is_best_at_two_to_the_minus_three_quarters():
    assert radius(1.0, "optimistic", 2**-0.75, **ALTERNATING) == pytest.approx(0.5**0.5, abs=1e-6)
    stable = [radius(1.0, "optimistic", a, **ALTERNATING) < 1 for a in (0.666, 0.667)]
    assert stable == [True, False]  # a < 2/3


@pytest.mark.parametrize(
    ("stepper", "below", "above"),
    [
        ("extragradient", 0.999, 1.001),
        ("lookahead", 0.999, 1.001),
        ("optimistic", 0.577, 0.578),  # 1/sqrt(3)
        ("past_extragradient", 0.577, 0.578),
    ],
)
def test_stability_line(stepper, below, above):
    assert radius(1.0, stepper, below) < 1 < radius(1.0, stepper, above)


def test_sga_and_consensus_are_stable_below_their_line():
    """eta < 2 lambda / (1 + lambda^2 sigma^2); and radius .1 at eta .1, lambda 10."""
    for stepper, keys in (("consensus", "gamma"), ("sga", "strength")):
        extra = {"align": False} if stepper == "sga" else {}
        line = 2 * 0.5 / (1 + 0.25)
        assert radius(1.0, stepper, line - 1e-3, **{keys: 0.5}, **extra) < 1
        assert radius(1.0, stepper, line + 1e-3, **{keys: 0.5}, **extra) > 1
        found = radius(1.0, stepper, 0.1, **{keys: 10.0}, **extra)
        assert found == pytest.approx(0.1, abs=1e-6)


@pytest.mark.parametrize(("k", "printed"), [(5, 0.966), (10, 0.888), (20, 1.025), (50, 1.029)])
def test_lookahead_minimax_is_not_monotone_in_k(k, printed):
    """|1 - alpha + alpha (1 - i a)^k| per k updates."""
    alpha, a = 0.5, 0.3
    found = radius(1.0, "lookahead_minimax", a, rounds=k, fresh=True, k=k, alpha=alpha)
    assert found == pytest.approx(abs(1 - alpha + alpha * (1 - 1j * a) ** k), abs=1e-6)
    assert found ** (1 / k) == pytest.approx(printed, abs=5e-4)


def test_lookahead_minimax_over_extragradient():
    k, alpha, a = 6, 0.4, 0.3
    found = radius(
        1.0, "lookahead_minimax", a, rounds=k, fresh=True, k=k, alpha=alpha, inner="extragradient"
    )
    inner = 1 - 1j * a * (1 - 1j * a)
    assert found == pytest.approx(abs(1 - alpha + alpha * inner**k), abs=1e-6)


@pytest.mark.parametrize(
    ("beta", "printed"), [(-0.5, 0.9625), (-0.1, 0.9806), (0.0, 1.0), (0.1, 1.032), (0.5, 1.269)]
)
def test_negative_momentum_helps_alternating_descent(beta, printed):
    found = radius(1.0, "direct", 0, optimizer=Momentum(lr=0.5, momentum=beta), **ALTERNATING)
    assert found == pytest.approx(printed, abs=5e-4 if beta > 0 else 5e-5)


def test_negative_momentum_does_not_save_simultaneous_descent():
    found = radius(1.0, "direct", 0, optimizer=Momentum(lr=0.5, momentum=-0.5))
    assert found == pytest.approx(1.020, abs=5e-4)


# Trajectories: float64, 60 rounds, against loops over numbers written apart from the package.

START = np.array([[1.3, -0.4], [0.2, 0.9]])


def loop(method, start, a, rounds=60, **keys):
    """(x, y) after each round of min_x max_y x y with rate a; complex z = x + i y, F = -i z."""
    points, past, slow, last = [], 0j, None, None
    z = complex(*start)
    slow = z

    def field(z):
        return -1j * z

    for t in range(rounds):
        if method == "direct":
            z -= a * field(z)
        elif method == "extragradient":
            z -= a * field(z - a * field(z))
        elif method == "past_extragradient":
            past = field(z - a * past)
            z -= a * past
        elif method == "optimistic":
            now = field(z)
            z -= a * (2 * now - (now if last is None else last))
            last = now
        elif method == "lookahead":  # J = [[0, 1], [-1, 0]]: F - a J_off F = F + a i F
            z -= a * (field(z) + a * 1j * field(z))
        elif method in ("consensus", "sga"):  # J^T F = i F = z
            z -= a * (field(z) + keys["weight"] * z)
        elif method == "lola":
            z -= a * (field(z) + 2 * a * z)
        elif method == "cgd":
            z = z / (1 - 1j * a)
        elif method == "lookahead_minimax":
            z -= a * field(z)
            if (t + 1) % keys["k"] == 0:
                z = slow = slow + keys["alpha"] * (z - slow)
        points.append((z.real, z.imag))
    return np.array(points)


CASES = [
    ("direct", {}, {}),
    ("extragradient", {}, {}),
    ("past_extragradient", {}, {}),
    ("optimistic", {}, {}),
    ("lookahead", {}, {}),
    ("consensus", {"gamma": 0.7}, {"weight": 0.7}),
    ("sga", {"strength": 0.7, "align": False}, {"weight": 0.7}),
    ("sga", {"strength": 0.7}, {"weight": 0.7}),
    ("lola", {}, {}),
    ("cgd", {}, {}),
    ("lookahead_minimax", {"k": 7, "alpha": 0.6}, {"k": 7, "alpha": 0.6}),
]


@pytest.mark.parametrize(
    ("stepper", "keys", "given"),
    CASES,
    ids=[f"{n}-{k}" for n, k, _ in CASES],
)
def test_trajectory_against_a_loop_over_complex_numbers(stepper, keys, given):
    a = 0.3
    game = Played(bilinear([[1.0]]), START, stepper, SGD(lr=a), **keys)
    expected = np.stack([loop(stepper, start, a, **given) for start in START], axis=1)
    for point in expected:
        np.testing.assert_allclose(game.play().point(), point, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("stepper", "rate", "turns", "printed"),
    [
        ("direct", 0.1, ("xy",), 1.0776),
        ("direct", 0.1, ("y", "x"), 0.9959),
        ("extragradient", 0.6, ("xy",), 3e-6),
        ("past_extragradient", 0.5, ("xy",), 0.0),
    ],
)
def test_final_distances_of_a_published_notebook(stepper, rate, turns, printed):
    """Gidel et al. 2019, bilinear WGAN: x 2, y .5, y clipped to [-1, 1], 100 rounds."""
    game = Played(bilinear([[1.0]]), [[2.0, 0.5]], stepper, SGD(lr=rate))
    like = game.engine.players["y"].parameters.values
    game.engine.optimizers["y"] = Optimizer(SGD(lr=rate, project=1.0), like)
    away = np.linalg.norm(game.play(100, turns).point())
    assert away == pytest.approx(printed, abs=5e-5 if printed > 0.1 else 5e-7)


def random_game(seed, curved=True):
    """A general game with three and two parameters, not zero-sum in the own blocks."""
    draw = np.random.default_rng(seed)
    cross = draw.normal(size=(3, 2))
    own = [draw.normal(size=(n, n)) for n in (3, 2)]
    own = [(block + block.T) / 2 if curved else 0 * block for block in own]
    jacobian = np.block([[own[0], cross], [-cross.T, own[1]]])
    return bilinear(cross, own), jacobian


@pytest.mark.parametrize("seed", [0, 1])
def test_matrix_formulas_on_a_general_quadratic_game(seed):
    """One round of every method with J in full."""
    objectives, j = random_game(seed)
    identity, a, w = np.eye(5), 0.2, 0.7
    off = j.copy()
    off[:3, :3] = off[3:, 3:] = 0
    skew = (j - j.T) / 2
    # LOLA's total derivative: F_i + (d F_j step / d z_i)-term, blocks by hand from f and g
    a11, b, a22 = j[:3, :3], j[:3, 3:], j[3:, 3:]
    lola_x = np.hstack([a11, b]) - a * (b @ np.hstack([-b.T, a22]) + (-b.T).T @ np.hstack(
        [b.T, 0 * a22]))  # fmt: skip
    lola_y = np.hstack([-b.T, a22]) - a * (-b.T @ np.hstack([a11, b]) + b.T @ np.hstack(
        [0 * a11, -b]))  # fmt: skip
    maps = {
        "direct": ({}, j),
        "extragradient": ({}, j @ (identity - a * j)),
        "lookahead": ({}, j - a * off @ j),
        "consensus": ({"gamma": w}, j + w * j.T @ j),
        "sga": ({"strength": w, "align": False}, j + w * skew.T @ j),
        "cgd": ({}, np.linalg.solve(identity + a * off, j)),
        "lola": ({}, np.vstack([lola_x, lola_y])),
    }
    for name, (keys, field) in maps.items():
        found = one_round(objectives, (3, 2), name, SGD(lr=a), fresh=True, **keys)
        np.testing.assert_allclose(found, identity - a * field, atol=1e-12, err_msg=name)


def test_alignment_takes_the_papers_sign_with_the_parameter_count():
    """d is 5 here, not the two tensors that the authors' notebook divides by."""
    objectives, j = random_game(3)
    starts = np.random.default_rng(4).normal(size=(200, 5)) * 0.5
    skew, w, a = (j - j.T) / 2, 0.7, 0.1
    signs, others = [], []
    for z in starts:
        xi = j @ z
        value = (xi @ (j.T @ xi)) * ((skew.T @ xi) @ (j.T @ xi))
        signs.append(np.sign(value / 5 + 0.1))
        others.append(np.sign(value / 2 + 0.1))
    assert {*signs} == {-1.0, 1.0}
    assert signs != others  # some starts tell the two apart
    field = starts @ j.T
    expected = starts - a * (field + w * np.array(signs)[:, None] * field @ skew)
    game = Played(objectives, starts, "sga", SGD(lr=a), split=3, strength=w)
    np.testing.assert_allclose(game.play().point(), expected, atol=1e-12)


@pytest.mark.parametrize("k", [0, 1, 2, 5])
def test_unrolling_against_finite_differences(k):
    """The leader's total derivative of f(x, y after k steps) on a general game."""
    objectives, j = random_game(5)
    cross, own_x, own_y = j[:3, 3:], j[:3, :3], j[3:, 3:]
    z, a, inner = np.random.default_rng(6).normal(size=5), 0.3, 0.15

    def unrolled(x):
        y = z[3:]
        for _ in range(k):
            y = y - inner * (-cross.T @ x + own_y @ y)
        return x @ cross @ y + x @ own_x @ x / 2

    game = Played(objectives, z[None], "unrolled", SGD(lr=a), split=3, player="x", k=k, rate=inner)
    after = game.play().point()[0]
    eps = 1e-6
    slope = [(unrolled(z[:3] + eps * e) - unrolled(z[:3] - eps * e)) / (2 * eps) for e in np.eye(3)]
    np.testing.assert_allclose((z[:3] - after[:3]) / a, slope, atol=1e-8)
    np.testing.assert_allclose(
        after[3:], z[3:] - a * (-cross.T @ z[:3] + own_y @ z[3:]), atol=1e-12
    )


# Equivalences


def test_optimism_is_the_extrapolation_point_of_the_past():
    """y of past extragradient follows 2 F(y_t) - F(y_t-1), with F(y_-1) = 0."""
    a, j = 0.2, np.array([[0.0, 1.0], [-1.0, 0.0]])
    y, last = START.copy(), np.zeros_like(START)
    game = Played(bilinear([[1.0]]), START, "past_extragradient", SGD(lr=a))
    for _ in range(20):
        game.play()
        now = y @ j.T
        y, last = y - a * (2 * now - last), now
        z = game.point()
        np.testing.assert_allclose(z - a * last, y, atol=1e-12)


SEPARABLE = [
    *[(name, SGD(lr=0.1)) for name in ("lookahead", "sga", "cgd", "lola")],
    *[(name, Adam(lr=0.05)) for name in ("lookahead", "sga", "lola")],
]


@pytest.mark.parametrize(("name", "base"), SEPARABLE, ids=[f"{n}-{c.name}" for n, c in SEPARABLE])
def test_without_interaction_a_method_is_its_base_optimizer(name, base):
    """Separable losses leave J block diagonal and symmetric."""
    own = [np.diag([1.0, 0.3, 2.0]), np.diag([0.5, 1.5])]
    objectives = bilinear(np.zeros((3, 2)), own)
    start = np.random.default_rng(1).normal(size=(2, 5))
    plain = Played(objectives, start, "direct", base, split=3).play(20)
    method = Played(objectives, start, name, base, split=3).play(20)
    np.testing.assert_allclose(method.point(), plain.point(), atol=1e-12)


def test_without_interaction_unrolling_is_the_base_optimizer():
    objectives = bilinear(np.zeros((3, 2)), [np.eye(3), np.eye(2)])
    start = np.random.default_rng(1).normal(size=(2, 5))
    plain = Played(objectives, start, "direct", SGD(lr=0.1), split=3).play(20)
    method = Played(objectives, start, "unrolled", SGD(lr=0.1), split=3, player="y").play(20)
    np.testing.assert_allclose(method.point(), plain.point(), atol=1e-12)


NEUTRAL = [
    ("consensus", {"gamma": 0.0}),
    ("sga", {"strength": 0.0}),
    ("lookahead_minimax", {"alpha": 1.0, "k": 3}),
    ("unrolled", {"k": 0, "player": "x"}),
]


@pytest.mark.parametrize(("name", "keys"), NEUTRAL, ids=[n for n, _ in NEUTRAL])
def test_with_the_correction_off_adam_is_torch_s(name, keys):
    """Against torch.optim.Adam on the same bilinear game."""
    game = Played(bilinear([[1.0]]), START[:1], name, Adam(lr=0.05), **keys)
    x, y = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in START[0])
    other = torch.optim.Adam([x, y], lr=0.05)
    for _ in range(30):
        x.grad, y.grad = y.detach().clone(), -x.detach().clone()
        other.step()
        found = game.play().point()[0]
        np.testing.assert_allclose(found, [x.item(), y.item()], atol=1e-12)


def test_conjugate_gradients_solve_what_elimination_solves(monkeypatch):
    """On a game that is not zero-sum, with rates of their own for both players."""
    draw = np.random.default_rng(2)
    first, second = draw.normal(size=(3, 2)), draw.normal(size=(2, 3))

    def objective(name):
        b = torch.as_tensor(first if name == "x" else second.T)

        def value(params, batch):
            own = (params[name][name] ** 2).sum()
            return {"f": params["x"]["x"] @ b @ params["y"]["y"] + own}, {}

        return value

    start, rates = draw.normal(size=(4, 5)), (0.3, 0.7)
    found = []
    for limit in (32, 0):
        monkeypatch.setattr("playground.optim.steppers.second_order.DENSE", limit)
        game = Played({n: objective(n) for n in "xy"}, start, "cgd", SGD(lr=rates[0]), split=3,
                      tolerance=1e-12)  # fmt: skip
        game.engine.optimizers["y"]._lr = rates[1]
        found.append(game.play().point())
    np.testing.assert_allclose(found[0], found[1], atol=1e-9)
    j = np.block([[2 * np.eye(3), first], [second, 2 * np.eye(2)]])
    off = np.block([[np.zeros((3, 3)), first], [second, np.zeros((2, 2))]])
    scale = np.diag([rates[0]] * 3 + [rates[1]] * 2)
    step = np.linalg.solve(np.eye(5) + scale @ off, scale @ j)
    np.testing.assert_allclose(found[0], start - start @ step.T, atol=1e-12)


def test_a_member_s_conjugate_gradients_do_not_depend_on_the_others(monkeypatch):
    monkeypatch.setattr("playground.optim.steppers.second_order.DENSE", 0)
    objectives, _ = random_game(7)
    start = np.random.default_rng(8).normal(size=(3, 5))
    start[0] = 0  # converges at once
    together = Played(objectives, start, "cgd", SGD(lr=0.3), split=3).play(3).point()
    for k in range(3):
        alone = Played(objectives, start[k : k + 1], "cgd", SGD(lr=0.3), split=3).play(3).point()
        np.testing.assert_allclose(together[k], alone[0], atol=1e-14)


# Optimizers below the methods


def test_extragradient_with_adam_is_extra_adam():
    lr, beta1, beta2, eps = 0.05, 0.5, 0.9, 1e-8
    make = Adam(lr=lr, beta1=beta1, beta2=beta2, eps=eps)
    game = Played(bilinear([[1.0]]), [[1.0, -0.7]], "extragradient", make)
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
        assert game.play().point()[0].tolist() == pytest.approx(point, abs=1e-12)


def test_optimistic_adam_is_the_published_update():
    """Daskalakis et al. 2018, algorithm 1, with the first direction counted once."""
    lr, b1, b2, eps = 0.05, 0.5, 0.9, 1e-8
    game = Played(bilinear([[1.0]]), START[:1], "optimistic", Adam(lr=lr, beta1=b1, beta2=b2))
    z, m, v, last = START[0].copy(), np.zeros(2), np.zeros(2), None
    for t in range(1, 31):
        g = np.array([z[1], -z[0]])
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        d = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        z = z - lr * (2 * d - (d if last is None else last))
        last = d
        np.testing.assert_allclose(game.play().point()[0], z, atol=1e-12)


def test_the_last_direction_is_a_copy():
    """Published bug (VIP and OL, OMD): the last gradient kept by reference becomes the new one,
    and optimistic descent degenerates to descent, whose radius is above 1."""
    game = Played(bilinear([[1.0]]), START, "optimistic", SGD(lr=0.4)).play(100)
    before = np.linalg.norm(START, axis=1)
    assert (np.linalg.norm(game.point(), axis=1) < before * ogda(0.4) ** 90).all()


# Costs, refusals, members


COSTS = {
    "direct": 1, "extragradient": 2, "past_extragradient": 1, "optimistic": 1, "lookahead": 2,
    "lookahead_minimax": 1, "consensus": 3, "sga": 5, "lola": 4,
}  # fmt: skip


@pytest.mark.parametrize("name", COSTS)
def test_gradient_evaluations_are_counted(name):
    game = Played(bilinear([[1.0]]), START, name, SGD(lr=0.1)).play(3)
    assert game.engine.gradient_evaluations.tolist() == [2 * 3 * COSTS[name]] * 2


@pytest.mark.parametrize("k", [0, 1, 4])
def test_unrolling_counts_every_step_and_the_pass_through_it(k):
    game = Played(bilinear([[1.0]]), START, "unrolled", SGD(lr=0.1), player="x", k=k).play()
    assert game.engine.gradient_evaluations.tolist() == [3 * k + 1 if k else 2] * 2


WHOLE = [name for name, config in STEPPERS.items() if config.whole]


@pytest.mark.parametrize("name", WHOLE)
def test_half_a_round_is_refused(name):
    keys = {"player": "x"} if name == "unrolled" else {}
    game = Played(bilinear([[1.0]]), START, name, SGD(lr=0.1), **keys)
    with pytest.raises(ConfigError, match=f"stepper={name}: needs every player in each round"):
        game.play(turns=("x",))


@pytest.mark.parametrize("name", ["extragradient", "past_extragradient", *WHOLE])
def test_a_player_that_moves_twice_is_refused(name):
    keys = {"player": "x"} if name == "unrolled" else {}
    game = Played(bilinear([[1.0]]), START, name, SGD(lr=0.1), **keys)
    with pytest.raises(ConfigError, match="moves twice"):
        game.play(turns=("xx",))


@pytest.mark.parametrize("name", STEPPERS)
def test_a_broken_member_freezes_alone_and_the_rest_resumes(name):
    """One start is infinite; the other members do what they do without it, also resumed."""
    keys = {"player": "x"} if name == "unrolled" else {}
    keys |= {"k": 2} if name == "lookahead_minimax" else {}
    start = np.vstack([START, [math.inf, 1.0]])
    objectives = bilinear([[1.0]], [[[0.5]], [[0.5]]])
    base = SGD(lr=0.1) if name == "cgd" else Momentum(lr=0.1)
    clean = Played(objectives, START, name, base, **keys).play(6).point()
    game = Played(objectives, start, name, base, **keys).play(3)
    assert game.engine.frozen.tolist() == [False, False, True]
    np.testing.assert_array_equal(game.point()[2], start[2])
    other = Played(objectives, game.point(), name, base, **keys)
    other.engine.load_state(game.engine.state())
    for made in (game, other):
        made.play(3)
        np.testing.assert_allclose(made.point()[:2], clean, atol=1e-13)
        np.testing.assert_array_equal(made.point()[2], start[2])
    np.testing.assert_array_equal(game.point(), other.point())


def test_lookahead_pulls_all_players_at_once_in_alternating_games():
    """Published bug (LA): each player's slow copy may be updated at a moment of its own."""
    a, k, alpha = 0.3, 3, 0.5
    game = Played(bilinear([[1.0]]), START, "lookahead_minimax", SGD(lr=a), k=k, alpha=alpha)
    z = START.copy()
    slow = z.copy()
    for t in range(1, 13):
        z[:, 0] -= a * z[:, 1]
        z[:, 1] += a * z[:, 0]
        if t % k == 0:
            z = slow + alpha * (z - slow)
            slow = z.copy()
        np.testing.assert_allclose(game.play(turns=("x", "y")).point(), z, atol=1e-13)


def test_held_players_stay_and_are_no_part_of_the_game():
    """With y held, every method is descent on f(., y): J is x's own Hessian."""
    own = [np.diag([1.0]), np.diag([0.5])]
    objectives = bilinear([[2.0]], own)
    for name, keys in (("direct", {}), ("consensus", {"gamma": 0.3})):
        game = Played(objectives, START, name, SGD(lr=0.1), **keys)
        game.engine.names = ("x",)
        game.play()
        gradient = START[:, 0] + 2.0 * START[:, 1]
        field = gradient if name == "direct" else gradient * 1.3
        np.testing.assert_allclose(game.point()[:, 0], START[:, 0] - 0.1 * field, atol=1e-14)
        np.testing.assert_array_equal(game.point()[:, 1], START[:, 1])
        assert game.engine.updates["y"].tolist() == [0, 0]
