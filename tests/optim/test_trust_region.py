"""Steps in the metric of a divergence, against dense matrices."""

import math

import pytest
import torch
from torch.distributions import Categorical as TorchCategorical

from playground.config import compose
from playground.domains.rl.objectives import divergence, surrogate
from playground.domains.rl.policies.categorical import Categorical
from playground.domains.rl.policies.gaussian import Gaussian
from playground.game import Move, Player
from playground.gradients import Differentiator, MoveGeometry
from playground.nets import MLP
from playground.optim import config
from playground.optim.optimizer import Optimizer
from playground.optim.trust_region import RESIDUAL, conjugate_gradients
from playground.parameters import Parameters
from playground.schema import ConfigError

from .metrics import Bowl, positive

M, N = 3, 9
POLICIES = {
    "categorical": lambda: Categorical(MLP((3, 4, 3)), [3], single=True),
    "multi": lambda: Categorical(MLP((3, 4, 5)), [2, 3], single=False),
    "gaussian": lambda: Gaussian(MLP((3, 4, 2)), -0.3),
}


def random(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def solve(matrix, vector):
    return torch.linalg.solve(matrix, vector.unsqueeze(2)).squeeze(2)


def multiply(matrix, vector):
    return (matrix @ vector.unsqueeze(2)).squeeze(2)


class Case:
    """A policy's surrogate and divergence on a batch of which some rows do not count."""

    def __init__(self, kind, members=M, rows=30, moved=0.0):
        self.policy = POLICIES[kind]()

        def initial(k):
            return {n: 2 * t for n, t in self.policy.init(k, "policy").items()}

        parameters = Parameters.build(initial, members, torch.device("cpu"), torch.float64)
        self.player = Player("policy", parameters)
        observation = random(M, rows, 3, seed=1)[:members]
        self.actions = self._actions(rows)[:members]
        old = torch.func.vmap(self.policy)(parameters.views, observation)
        weight = (random(M, rows, seed=4)[:members] < 0.8).double()
        self.batch = {
            "observation": observation, "action": self.actions, "weight": weight,
            "log_prob": self.policy.log_prob(old, self.actions),
            "advantage": random(M, rows, seed=3)[:members],
            **{f"old_{name}": value for name, value in old.items()},
        }  # fmt: skip
        parameters.values.add_(moved)
        self.move = Move("policy", surrogate(self.policy, "policy"), self.batch,
                         divergence=divergence(self.policy, "policy"))  # fmt: skip
        self.differentiate = Differentiator({"policy": self.player})
        self.gradient = self.differentiate(self.move).value

    def _actions(self, rows):
        if isinstance(self.policy, Gaussian):
            return random(M, rows, 2, seed=2)
        rng = torch.Generator().manual_seed(2)
        if self.policy.single:
            return torch.randint(3, (M, rows), generator=rng)
        return torch.stack([torch.randint(n, (M, rows), generator=rng) for n in (2, 3)], -1)

    @property
    def values(self):
        return self.player.parameters.values

    def geometry(self):
        return MoveGeometry(self.differentiate, self.move)

    def dense(self):
        """The operator's matrix [M, N, N], column by column."""
        geometry = self.geometry()
        size = self.values.shape[1]
        columns = [geometry.product(row.expand(len(self.values), size).contiguous())
                   for row in torch.eye(size, dtype=torch.float64)]  # fmt: skip
        return torch.stack(columns, dim=2)

    def step(self, cls=config.NaturalGradient, **keys):
        optimizer = Optimizer(cls(**keys), self.values)
        return optimizer.step(self.gradient, self.values, geometry=self.geometry())


def test_conjugate_gradients_solve_every_member():
    matrix, target = positive(M, N), random(M, N)
    target[1] *= 1e-7  # its squared residual is below the limit before the first step
    matrix[2] = 3 * torch.eye(N)  # one step is enough
    found = conjugate_gradients(lambda v: multiply(matrix, v), target, 50)
    expected = solve(matrix, target)
    assert torch.allclose(found[[0, 2]], expected[[0, 2]], rtol=1e-4, atol=1e-6)
    assert target[1].square().sum() < RESIDUAL
    assert not found[1].any()
    residual = (multiply(matrix, found) - target).square().sum(1)
    assert (residual <= RESIDUAL).all()


@pytest.mark.parametrize("iterations", [1, 2, 4])
def test_truncated_conjugate_gradients_minimise_over_the_krylov_space(iterations):
    """x_k is the minimiser of x^T A x / 2 - b^T x over span(b, A b, ...)."""
    matrix, target = positive(M, N), random(M, N)
    found = conjugate_gradients(lambda v: multiply(matrix, v), target, iterations)
    for a, b, x in zip(matrix, target, found, strict=True):
        powers = [b]
        for _ in range(iterations - 1):
            powers.append(a @ powers[-1])
        basis, _ = torch.linalg.qr(torch.stack(powers, 1))
        expected = basis @ torch.linalg.solve(basis.T @ a @ basis, basis.T @ b)
        assert torch.allclose(x, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kind", POLICIES)
def test_the_product_is_the_hessian_by_differences(kind):
    """Of the mean KL, the old policy held, by central differences of its values."""
    case, h = Case(kind, rows=12, moved=0.02), 1e-4
    geometry, dense = case.geometry(), case.dense()
    assert torch.allclose(dense, dense.transpose(1, 2), atol=1e-12)
    for k in range(3):
        u, v = (random(M, case.values.shape[1], seed=10 + 2 * k + i) for i in range(2))

        def kl(a, b, u=u, v=v):
            return geometry.evaluate(case.values + h * (a * u + b * v))[1]

        numeric = (kl(1, 1) - kl(1, -1) - kl(-1, 1) + kl(-1, -1)) / (4 * h * h)
        exact = (u * multiply(dense, v)).sum(1)
        assert torch.allclose(numeric, exact, rtol=1e-4, atol=1e-5)
    zero = Case(kind, rows=12)
    assert zero.geometry().evaluate(zero.values)[1].abs().max() < 1e-15


def fisher_of(case):
    """E_s E_a [score score^T] [M, N, N] with the scores of log-probabilities by autograd."""
    layout, result = case.player.parameters.layout, []
    for k, flat in enumerate(case.values):
        observation, weight = case.batch["observation"][k], case.batch["weight"][k]
        share, total = weight / weight.sum(), 0.0
        if isinstance(case.policy, Gaussian):
            mean = torch.func.jacrev(lambda f, o=observation: case.policy(
                layout.views(f), o)["mean"])(flat)  # fmt: skip
            spread = torch.func.jacrev(lambda f, o=observation: case.policy(
                layout.views(f), o)["log_std"])(flat)  # fmt: skip
            scale = case.policy(layout.views(flat), observation)["log_std"].exp()
            scaled = mean / scale.unsqueeze(2)  # information 1 / s^2 of a mean, 2 of a log std
            total = torch.einsum("b,bki,bkj->ij", share, scaled, scaled)
            total = total + 2 * torch.einsum("b,bki,bkj->ij", share, spread, spread)
        else:
            sizes = [3] if case.policy.single else [2, 3]

            def log_p(f, o=observation, sizes=sizes):
                logits = case.policy.network(layout.views(f), o)
                return [TorchCategorical(logits=z).logits for z in logits.split(sizes, -1)]

            for block, scores in zip(log_p(flat), torch.func.jacrev(log_p)(flat), strict=True):
                total = total + torch.einsum("b,ba,bai,baj->ij", share, block.exp(), scores, scores)
        result.append(total)
    return torch.stack(result)


@pytest.mark.parametrize("kind", POLICIES)
def test_the_product_is_fisher_s_matrix(kind):
    """The mean outer product of scores, every action with its probability."""
    case = Case(kind)
    expected = fisher_of(case)
    assert expected.abs().max() > 1e-2
    assert torch.allclose(case.dense(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("damping", [0.03, 1.0])
@pytest.mark.parametrize("kind", POLICIES)
def test_the_direction_is_that_of_a_dense_solve(kind, damping):
    """Scaled so that the damped quadratic form is the radius."""
    case, radius = Case(kind), 0.02
    step = case.step(radius=radius, damping=damping, iterations=60)
    size = case.values.shape[1]
    matrix = fisher_of(case) + damping * torch.eye(size, dtype=torch.float64)
    natural = solve(matrix, case.gradient)
    form = (natural * multiply(matrix, natural)).sum(1, keepdim=True)
    expected = -(2 * radius / form).sqrt() * natural
    # conjugate gradients end at |residual| <= 1e-5, so that |d - exact| <= 1e-5 / damping
    bound = 2 * step.report["natural/scale"] * RESIDUAL**0.5 / damping
    assert ((step.update - expected).norm(dim=1) <= bound).all()
    assert (bound < 0.01 * expected.norm(dim=1)).all()
    own = 0.5 * (step.update * multiply(matrix, step.update)).sum(1)
    assert torch.allclose(own, torch.full_like(own, radius), rtol=1e-3)
    assert torch.allclose(step.report["natural/scale"], (2 * radius / form.squeeze(1)).sqrt(),
                          rtol=1e-3)  # fmt: skip


@pytest.mark.parametrize("kind", POLICIES)
def test_the_divergence_is_the_radius_to_second_order(kind):
    """KL + damping |u|^2 / 2 is the radius, up to a share that falls as its root."""
    case, errors = Case(kind), []
    for radius in (1e-3, 1e-5, 1e-7):
        update = case.step(radius=radius, damping=1e-2, iterations=60).update
        reached = case.geometry().evaluate(case.values + update)[1]
        damped = reached + 0.5 * 1e-2 * update.square().sum(1)
        errors.append((damped / radius - 1).abs().max().item())
        assert (reached > 0.5 * radius).all()
    assert errors[1] < 0.2 * errors[0]
    assert errors[2] < 0.2 * errors[1]


@pytest.mark.parametrize("kind", POLICIES)
def test_an_accepted_step_is_inside_and_improves(kind):
    """Whatever the radius, realised values by the policy itself, not by what is reported."""
    case, shrunk = Case(kind), 0
    before, _ = case.geometry().evaluate(case.values)
    for radius in (1e-4, 1e-2, 0.3, 3.0):
        step = case.step(config.TrustRegion, radius=radius, damping=1e-3, iterations=20)
        objective, reached = case.geometry().evaluate(case.values + step.update)
        accepted = step.report["trust_region/accepted"] == 1
        assert (reached[accepted] <= radius).all()
        assert (objective[accepted] < before[accepted]).all()
        assert not step.update[~accepted].any()
        fraction = step.report["trust_region/fraction"]
        power = (fraction[accepted].log() / math.log(0.8)).round()
        assert torch.allclose(fraction[accepted], 0.8**power)
        assert torch.allclose(step.report["trust_region/divergence"][accepted], reached[accepted])
        gain = step.report["trust_region/improvement"]
        assert torch.allclose(gain[accepted], (before - objective)[accepted])
        # the step before it in the line was worse than allowed
        larger = case.values + step.update / 0.8
        objective, reached = case.geometry().evaluate(larger)
        tried = accepted & (fraction < 1)
        assert ((reached > radius) | (objective >= before))[tried].all()
        shrunk += int(tried.sum())
        plain = case.step(radius=radius, damping=1e-3, iterations=20).update
        assert torch.allclose(step.update, fraction[:, None] * plain, rtol=1e-12)
    assert shrunk > 0


def bowl(curvature=0.0, members=M):
    return Bowl(random(members, N), random(members, N, seed=1), positive(members, N), curvature)


def bend(bowl_, cls=config.TrustRegion, values=None, **keys):
    keys = {"damping": 0.0, "iterations": 40, **keys}
    optimizer = Optimizer(cls(**keys), bowl_.point, values or {})
    return optimizer.step(bowl_.gradient, bowl_.point, geometry=bowl_)


def test_the_line_search_on_a_known_divergence():
    """q + q^2 / r with q = r f^2: f^2 + f^4 <= 1 up to f^2 = (sqrt(5) - 1) / 2, f = 0.786."""
    step = bend(bowl(), radius=0.01, shrink=0.9)
    assert torch.allclose(step.report["trust_region/fraction"], torch.full((M,), 0.9**3).double())
    f = 0.9**3
    expected = torch.full((M,), 0.01 * (f**2 + f**4), dtype=torch.float64)
    assert torch.allclose(step.report["trust_region/divergence"], expected, rtol=1e-6)


def test_a_failed_search_moves_nothing():
    """Where every step rises, and where the first trials are not enough."""
    steep, short = bend(bowl(curvature=1e6)), bend(bowl(), backtracks=2, shrink=0.95)
    for step in (steep, short):
        assert not step.update.any()
        for name in ("accepted", "fraction", "improvement", "divergence"):
            assert not step.report[f"trust_region/{name}"].any()
        assert (step.report["natural/scale"] > 0).all()


def test_one_member_s_failure_is_its_own():
    mixed = bowl()
    mixed.curvature = torch.tensor([0.0, 1e6, 0.0], dtype=torch.float64)
    step = bend(mixed)
    assert step.report["trust_region/accepted"].tolist() == [1, 0, 1]
    assert torch.equal(step.update[[0, 2]], bend(bowl()).update[[0, 2]])
    assert not step.update[1].any()


@pytest.mark.parametrize("cls", [config.NaturalGradient, config.TrustRegion])
@pytest.mark.parametrize("kind", POLICIES)
def test_a_member_steps_as_it_would_alone(kind, cls):
    keys = {"radius": 0.3, "damping": 1e-2, "iterations": 8}
    together, alone = Case(kind), Case(kind, members=1)
    ours, theirs = together.step(cls, **keys), alone.step(cls, **keys)
    assert torch.allclose(ours.update[:1], theirs.update, rtol=1e-8, atol=1e-12)
    assert ours.report.keys() == theirs.report.keys()
    for name, value in theirs.report.items():
        assert torch.allclose(ours.report[name][:1], value, rtol=1e-6)


@pytest.mark.parametrize("mask", ["active", "frozen"])
def test_other_members_stay(mask):
    """Those that do not step get 0, also where their gradient is not finite."""
    made = bowl()
    made.gradient = made.gradient.clone()
    made.gradient[1] = float("nan")
    still = torch.tensor([False, True, False])
    optimizer = Optimizer(config.TrustRegion(damping=0.0), made.point)
    keys = {mask: ~still if mask == "active" else still}
    step = optimizer.step(made.gradient, made.point, geometry=made, **keys)
    assert not step.update[1].any()
    expected = bend(bowl(), iterations=15).update
    assert torch.allclose(step.update[[0, 2]], expected[[0, 2]], rtol=1e-12)


@pytest.mark.parametrize("cls", [config.NaturalGradient, config.TrustRegion])
def test_no_gradient_no_step(cls):
    made = bowl()
    made.gradient = torch.zeros_like(made.gradient)
    step = bend(made, cls)
    assert not step.update.any()
    assert not step.report["natural/scale"].any()


def test_the_learning_rate_is_a_factor_on_the_step():
    full = bend(bowl(), config.NaturalGradient, lr=1.0).update
    assert torch.allclose(bend(bowl(), config.NaturalGradient, lr=0.3).update, 0.3 * full)
    rates = torch.tensor([1.0, 0.3, 0.01])
    own = bend(bowl(), config.NaturalGradient, values={"lr": rates}).update
    assert torch.allclose(own, rates.double()[:, None] * full)
    # a trust region sees the step that is taken: q + q^2 / r with q = r (0.7)^2 is inside
    short = bend(bowl(), lr=0.7)
    assert short.report["trust_region/fraction"].tolist() == [1.0] * M
    assert torch.allclose(short.update, 0.7 * full)


def test_products_are_gradient_evaluations():
    """One for the graph, one a product: k of conjugate gradients and one for the scale."""
    for iterations in (1, 5):
        case = Case("categorical")
        geometry = case.geometry()
        optimizer = Optimizer(config.TrustRegion(iterations=iterations), case.values)
        assert optimizer.uses_geometry
        optimizer.step(case.gradient, case.values, geometry=geometry)
        assert geometry.evaluations == 1 + iterations + 1


def test_a_move_without_divergence_has_no_geometry():
    case = Case("categorical")
    with pytest.raises(ValueError, match="player policy: its move has no divergence"):
        MoveGeometry(case.differentiate, Move("policy", case.move.objective, case.batch))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["optimizer=trust_region"], "optimizer=trust_region: .* player agent"),
        (["problem=gan/ring", "optimizer=natural_gradient"], "optimizer=natural_gradient: "),
        (["algorithm=reinforce", "optimizer@players.policy=trust_region"],
         "optimizer@players.policy=trust_region: .* player policy"),
        (["algorithm=trpo", "optimizer@players.value=trust_region"],
         "optimizer@players.value=trust_region: .* player value"),
        (["algorithm=npg", "optimizer=natural_gradient"], "optimizer=natural_gradient: .* value"),
    ],
)  # fmt: skip
def test_players_without_a_divergence_are_refused(overrides, words):
    with pytest.raises(ConfigError, match=words) as caught:
        compose(["problem=rl/cartpole", *overrides])
    assert "algorithm=npg|trpo" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("radius", 0), ("damping", -1), ("iterations", 0), ("backtracks", 0), ("shrink", 1)],
)
def test_values_out_of_range_are_refused(key, value):
    with pytest.raises(ConfigError, match=f"players.policy.{key}={value}"):
        compose(["problem=rl/cartpole", "algorithm=trpo", f"players.policy.{key}={value}"])
