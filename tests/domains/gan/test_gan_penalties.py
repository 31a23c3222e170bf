"""Penalties against closed forms of linear and quadratic discriminators and hand loops."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from harness import SMALL_GAN, loop

from playground.domains.gan.objectives import LOSSES, discriminate
from playground.domains.gan.penalties import NAMES, interpolate, norm, penalise, places
from playground.game import reduce_term
from playground.nets import MLP

GENERATOR = torch.Generator().manual_seed(0)


def random(*shape):
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


REAL, FAKE = random(6, 2), 3 + random(6, 2)
BATCH = {
    "mix": torch.rand(6, 1, generator=GENERATOR, dtype=torch.float64),
    "perturbation": random(6, 2),
}
DRAGAN_POINTS = REAL + 0.5 * REAL.std() * BATCH["perturbation"]
MIXED = BATCH["mix"] * REAL + (1 - BATCH["mix"]) * FAKE


def linear(tensors, x):
    return x @ tensors["w"][:, None]


def quadratic(tensors, x):
    """D(x) = 1/2 x.A x with A symmetric: the slope is A x."""
    return 0.5 * ((x @ tensors["a"]) * x).sum(dim=1, keepdim=True)


def mean(name, network, tensors, weight=1.0, center=1.0):
    weights = {name: weight}
    points = places(weights, BATCH, REAL, FAKE)
    return reduce_term(penalise(network, tensors, points, weights, center)[0][name], None)


W = torch.tensor([3.0, -4.0], dtype=torch.float64)  # |w| = 5
LINEAR = [
    ("r1", 1.0, 0.5 * 6 * 25, 6 * W),
    ("r2", 1.0, 0.5 * 6 * 25, 6 * W),
    ("gradient", 1.0, 6 * 16, 6 * 2 * 4 * W / 5),
    ("gradient", 0.0, 6 * 25, 6 * 2 * W),
    ("gradient", 2.0, 6 * 9, 6 * 2 * 3 * W / 5),
    ("dragan", 0.0, 6 * 16, 6 * 2 * 4 * W / 5),  # its centre is always 1
]


@pytest.mark.parametrize(("name", "center", "value", "slope"), LINEAR)
def test_a_linear_discriminator(name, center, value, slope):
    w = W.clone().requires_grad_()
    found = mean(name, linear, {"w": w}, 6.0, center)
    assert found.item() == pytest.approx(value, rel=1e-14)
    assert torch.allclose(torch.autograd.grad(found, w)[0], slope, rtol=1e-13)


A = torch.tensor([[2.0, -0.5], [-0.5, 1.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "points", "center", "formula"),
    [
        ("r1", REAL, 1.0, lambda n: n**2 / 2),
        ("r2", FAKE, 1.0, lambda n: n**2 / 2),
        ("gradient", MIXED, 1.0, lambda n: (n - 1) ** 2),
        ("gradient", MIXED, 0.0, lambda n: n**2),
        ("dragan", DRAGAN_POINTS, 0.0, lambda n: (n - 1) ** 2),
    ],
)
def test_a_quadratic_discriminator_at_the_right_points(name, points, center, formula):
    lengths = [math.hypot(*(A.numpy() @ x)) for x in points.numpy()]
    expected = np.mean([formula(n) for n in lengths])
    found = mean(name, quadratic, {"a": A}, 1.0, center)
    assert found.item() == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_the_penalty_of_a_batch_is_the_mean_over_single_samples(name):
    """One norm over the whole batch, as a published library takes, would differ."""
    weights, network, tensors = {name: 2.0}, quadratic, {"a": A}
    points = places(weights, BATCH, REAL, FAKE)[name]
    whole = penalise(network, tensors, {name: points}, weights, 1.0)[0][name]
    singles = [penalise(network, tensors, {name: x[None]}, weights, 1.0)[0][name] for x in points]
    assert torch.allclose(whole, torch.cat(singles), rtol=1e-13)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("center", [0.0, 1.0])
def test_a_constant_discriminator_has_finite_slopes(name, center):
    w = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    found = mean(name, linear, {"w": w}, 3.0, center)
    centred = name == "dragan" or (name == "gradient" and center)
    assert found.item() == (3.0 if centred else 0.0)
    assert torch.autograd.grad(found, w)[0].tolist() == [0.0, 0.0]


def test_norms_are_roots_and_flat_at_zero():
    square = torch.tensor([0.0, 4.0, 1e-300], dtype=torch.float64, requires_grad=True)
    found = norm(square)
    assert found.tolist() == [0.0, 2.0, 1e-150]
    assert torch.autograd.grad(found.sum(), square)[0].tolist() == [0.0, 0.25, 0.5e150]


def test_interpolates_are_between_their_own_pair():
    found = interpolate(REAL, FAKE, BATCH["mix"])
    assert torch.allclose(found, MIXED, rtol=1e-14)
    packs = interpolate(REAL, FAKE, BATCH["mix"][:3])  # two samples a pack share their u
    u = BATCH["mix"][:3].repeat_interleave(2, dim=0)
    assert torch.allclose(packs, u * REAL + (1 - u) * FAKE, rtol=1e-14)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("center", [0.0, 1.0])
def test_slopes_by_parameters_are_those_of_finite_differences(name, center):
    network = MLP((2, 5, 1), activation="tanh", initialisation="lecun")
    tensors = {k: v.requires_grad_() for k, v in network.init(3, "discriminator").items()}
    value = mean(name, network, tensors, 2.0, center)
    found = torch.autograd.grad(value, list(tensors.values()), materialize_grads=True)
    for key, gradient in zip(tensors, found, strict=True):
        for index in np.ndindex(*gradient.shape):
            ends = []
            for h in (1e-6, -1e-6):
                moved = {k: v.detach().clone() for k, v in tensors.items()}
                moved[key][index] += h
                ends.append(mean(name, network, moved, 2.0, center).item())
            assert gradient[index].item() == pytest.approx(
                (ends[0] - ends[1]) / 2e-6, rel=1e-5, abs=1e-7
            )


def dirac(psi, penalties, theta=0.3):
    """Terms of the Dirac-GAN's discriminator at (theta, psi)."""
    params = {
        "generator": {"theta": torch.tensor([theta], dtype=torch.float64)},
        "discriminator": {"0.weight": psi},
    }
    batch = {"real": torch.zeros(1, 1, dtype=torch.float64),
             "latent": torch.zeros(1, 1, dtype=torch.float64),
             "mix": torch.full((1, 1), 0.25, dtype=torch.float64),
             "perturbation": torch.ones(1, 1, dtype=torch.float64)}  # fmt: skip

    def point(tensors, latent):
        return tensors["theta"].expand(*latent.shape[:-1], 1)

    objective = discriminate(point, MLP((1, 1), bias=False), LOSSES["minimax"], penalties)
    return objective(params, batch)[0]


@pytest.mark.parametrize(
    ("penalties", "expected"),
    [
        ({"r1": 0.3}, 0.3 * 0.7),  # gamma psi
        ({"r2": 0.3}, 0.3 * 0.7),
        ({"r1": 0.3, "r2": 0.5}, 0.8 * 0.7),  # they add up
        ({"gradient": 0.3, "center": 0.0}, 2 * 0.3 * 0.7),
        ({"gradient": 0.3, "center": 1.0}, 2 * 0.3 * (0.7 - 1)),
    ],
)
def test_pull_on_the_dirac_gan(penalties, expected):
    psi = torch.tensor([[0.7]], dtype=torch.float64, requires_grad=True)
    terms = dirac(psi, penalties)
    assert set(terms) == {*penalties, "adversarial"} - {"center"}
    value = sum(term.mean() for name, term in terms.items() if name != "adversarial")
    (slope,) = torch.autograd.grad(value, psi)
    assert slope.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("gap", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("weight", [0.1, 10.0])
def test_wgan_gp_overshoots_the_unit_slope_by_distance_over_two_lambda(gap, weight):
    """Two Diracs at distance d: the critic's gap d + d^2 / 2 lambda is not W1 = d."""
    slopes = torch.linspace(0, 20, 200_001, dtype=torch.float64)
    objective = LOSSES["wgan"].discriminator(slopes * gap, 0 * slopes) + weight * (slopes - 1) ** 2
    assert slopes[objective.argmin()].item() == pytest.approx(1 + gap / (2 * weight), abs=1e-4)
    w = torch.tensor([1 + gap / (2 * weight)], dtype=torch.float64, requires_grad=True)
    params = {"generator": {}, "discriminator": {"w": w}}
    batch = {"real": torch.full((4, 1), gap, dtype=torch.float64),
             "latent": torch.zeros(4, 1, dtype=torch.float64),
             "mix": torch.rand(4, 1, dtype=torch.float64)}  # fmt: skip
    terms, _ = discriminate(lambda t, z: z, linear, LOSSES["wgan"], {"gradient": weight})(
        params, batch
    )
    total = sum(term.mean() for term in terms.values())
    assert torch.autograd.grad(total, w)[0].item() == pytest.approx(0, abs=1e-12)
    assert -total.item() == pytest.approx(gap + gap**2 / (4 * weight), rel=1e-12)


@pytest.mark.parametrize(("loss", "penalty"), list(product(LOSSES, ["all", *NAMES])))
def test_every_loss_trains_with_every_penalty(loss, penalty):
    names = NAMES if penalty == "all" else [penalty]
    weights = [f"penalty.{name}=0.5" for name in names]
    made = loop("problem=gan/ring", *SMALL_GAN, f"loss={loss}", "penalty.r1=0", *weights,
                "members=2").iterate(2)  # fmt: skip
    for player in made.players.values():
        assert torch.isfinite(player.parameters.values).all()
    (move,) = next(made.problem.iteration(0.0))
    terms = made.engine.gradient(move).terms
    assert {*terms} == {"adversarial", *names}
    assert all((terms[name] > 0).all() for name in names)
