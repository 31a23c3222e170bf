"""Every loss: values and slopes worked by hand, and at the optimum of its own theory."""

import math

import numpy as np
import pytest
import torch

from playground.domains.gan.config import LOSSES as NAMES
from playground.domains.gan.objectives import LOSSES, generate
from playground.game import reduce_term
from playground.nets import MLP

LOG2, S2 = math.log(2), math.log1p(math.exp(2.0))  # s(0), s(2)
P2, N2 = 1 / (1 + math.exp(-2.0)), 1 / (1 + math.exp(2.0))  # sigmoid(2), sigmoid(-2)
LOGISTIC = {
    # (r, f): value, d/dr, d/df
    (2.0, -2.0): (2 * (S2 - 2), -N2, N2),
    (0.0, 0.0): (2 * LOG2, -0.5, 0.5),
    (-2.0, 2.0): (2 * S2, -P2, P2),
}
DISCRIMINATOR = {
    "minimax": LOGISTIC,
    "nonsaturating": LOGISTIC,
    "least_squares": {
        (1.0, 0.0): (0.0, 0.0, 0.0),
        (0.0, 0.0): (0.5, -1.0, 0.0),
        (-2.0, 2.0): (4.5 + 2.0, -3.0, 2.0),
    },
    "wgan": {(2.0, -2.0): (-4.0, -1.0, 1.0), (0.5, 3.0): (2.5, -1.0, 1.0)},
    "hinge": {
        (2.0, -2.0): (0.0, 0.0, 0.0),  # both beyond their margins
        (0.0, 0.0): (2.0, -1.0, 1.0),
        (-2.0, 2.0): (6.0, -1.0, 1.0),
        (0.5, -3.0): (0.5, -1.0, 0.0),
    },
    "relativistic": {
        (1.0, 1.0): (LOG2, -0.5, 0.5),
        (3.0, 1.0): (S2 - 2, -N2, N2),
        (1.0, 3.0): (S2, -P2, P2),
    },
}
GENERATOR = {
    # margin (f, or f - r where paired): value, slope
    "minimax": {-2.0: (-(S2 - 2), -N2), 0.0: (-LOG2, -0.5), 2.0: (-S2, -P2)},
    "nonsaturating": {-2.0: (S2, -P2), 0.0: (LOG2, -0.5), 2.0: (S2 - 2, -N2)},
    "least_squares": {-2.0: (4.5, -3.0), 1.0: (0.0, 0.0), 2.0: (0.5, 1.0)},
    "wgan": {-2.0: (2.0, -1.0), 2.0: (-2.0, -1.0)},
    "hinge": {-2.0: (2.0, -1.0), 0.0: (0.0, -1.0), 2.0: (-2.0, -1.0)},  # no relu
    "relativistic": {-2.0: (S2, -P2), 0.0: (LOG2, -0.5), 2.0: (S2 - 2, -N2)},
}


def test_every_loss_has_a_table():
    assert {*LOSSES} == {*NAMES} == {*DISCRIMINATOR} == {*GENERATOR}


def leaf(values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("name", LOSSES)
def test_the_discriminators_table(name):
    points = list(DISCRIMINATOR[name])
    real, fake = leaf([p[0] for p in points]), leaf([p[1] for p in points])
    value = LOSSES[name].discriminator(real, fake)
    slopes = torch.autograd.grad(value.sum(), [real, fake])
    found = torch.stack([value, *slopes], dim=1).detach().numpy()
    assert found == pytest.approx(np.array(list(DISCRIMINATOR[name].values())), abs=1e-14)


@pytest.mark.parametrize("name", LOSSES)
def test_the_generators_table(name):
    margin = leaf(list(GENERATOR[name]))
    value = LOSSES[name].generator(margin)
    (slope,) = torch.autograd.grad(value.sum(), margin)
    found = torch.stack([value, slope], dim=1).detach().numpy()
    assert found == pytest.approx(np.array(list(GENERATOR[name].values())), abs=1e-14)


@pytest.mark.parametrize("name", LOSSES)
def test_slopes_are_those_of_finite_differences(name):
    points = torch.linspace(-3.05, 3.05, 23, dtype=torch.float64)  # no kink is among them
    real, fake = (x.flatten() for x in torch.meshgrid(points, points, indexing="ij"))
    loss, h = LOSSES[name], 1e-6
    cases = [
        (lambda x: loss.discriminator(x, fake), real),
        (lambda x: loss.discriminator(real, x), fake),
        (loss.generator, points),
    ]
    for function, x in cases:
        (slope,) = torch.autograd.grad(function(x.requires_grad_()).sum(), x)
        x = x.detach()
        expected = (function(x + h) - function(x - h)) / (2 * h)
        assert torch.allclose(slope, expected.detach(), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", LOSSES)
def test_far_out_logits_have_finite_values_and_slopes(name, dtype):
    far = [-100.0, 100.0, -100.0, 100.0]
    other = [-100.0, -100.0, 100.0, 100.0]
    real = torch.tensor(far, dtype=dtype, requires_grad=True)
    fake = torch.tensor(other, dtype=dtype, requires_grad=True)
    loss = LOSSES[name]
    total = loss.discriminator(real, fake).sum() + loss.generator(fake).sum()
    assert torch.isfinite(total)
    assert all(torch.isfinite(slope).all() for slope in torch.autograd.grad(total, [real, fake]))


def test_rejected_fakes_teach_the_minimax_generator_nothing():
    """A log of the sigmoid plus 1e-8, as published code has, dies at -18."""
    slopes = {}
    for name, loss in LOSSES.items():
        logit = leaf(-80.0)
        slopes[name] = torch.autograd.grad(loss.generator(logit), logit)[0].item()
    assert slopes.pop("minimax") == pytest.approx(-math.exp(-80), rel=1e-9)  # not rounded away
    assert slopes.pop("least_squares") == -81
    assert list(slopes.values()) == pytest.approx([-1, -1, -1, -1], abs=1e-12)


def optimal(name, p, q):
    """The pointwise optimal logit at densities p (real) and q (fake), from each paper."""
    return {
        "minimax": np.log(p / q),  # Goodfellow et al. 2014, proposition 1
        "nonsaturating": np.log(p / q),
        "least_squares": p / (p + q),  # Mao et al. 2017, eq. 10 with a = 0, b = 1
        "hinge": np.sign(p - q),  # Lim and Ye 2017, lemma 1
    }[name]


@pytest.mark.parametrize("name", ["minimax", "nonsaturating", "least_squares", "hinge"])
@pytest.mark.parametrize(("p", "q"), [(0.3, 0.1), (0.2, 0.7), (0.05, 0.04)])
def test_the_optimal_discriminator_is_the_papers(name, p, q):
    grid = torch.linspace(-4, 4, 80_001, dtype=torch.float64)
    loss = LOSSES[name]
    zero = torch.zeros_like(grid)
    at_real = loss.discriminator(grid, zero) - loss.discriminator(zero, zero)
    at_fake = loss.discriminator(zero, grid)
    best = grid[(p * at_real + q * at_fake).argmin()].item()
    assert best == pytest.approx(optimal(name, p, q), abs=2e-4)


@pytest.mark.parametrize(
    ("name", "discriminator", "generator"),
    [
        ("minimax", math.log(4), -LOG2),
        ("nonsaturating", math.log(4), LOG2),
        ("wgan", 0.0, 0.0),
        ("hinge", 2.0, 0.0),
        ("relativistic", LOG2, LOG2),
    ],
)
def test_losses_where_real_and_fake_agree(name, discriminator, generator):
    """The optimal discriminator says 0 everywhere."""
    zero = torch.zeros(5, dtype=torch.float64)
    loss = LOSSES[name]
    assert loss.discriminator(zero, zero).numpy() == pytest.approx(discriminator)
    assert loss.generator(zero).numpy() == pytest.approx(generator)


def shift(tensors, latent):
    return latent + tensors["shift"]


def test_the_relativistic_generator_takes_pairs_of_real_and_fake():
    """Not the plain loss of fakes alone, which overwrites it in a widely used script."""
    psi, theta = 0.7, 0.4
    params = {
        "generator": {"shift": torch.tensor([theta], dtype=torch.float64, requires_grad=True)},
        "discriminator": {"0.weight": torch.tensor([[psi]], dtype=torch.float64)},
    }
    real = torch.tensor([[1.0], [-2.0], [0.5]], dtype=torch.float64)
    latent = torch.tensor([[0.1], [0.2], [-1.5]], dtype=torch.float64)
    objective = generate(shift, MLP((1, 1), bias=False), LOSSES["relativistic"])
    terms, _ = objective(params, {"real": real, "latent": latent})
    margin = psi * (latent + theta - real)[:, 0].numpy()
    value = reduce_term(terms["adversarial"], None)
    assert value.item() == pytest.approx(np.log1p(np.exp(-margin)).mean(), rel=1e-13)
    (slope,) = torch.autograd.grad(value, params["generator"]["shift"])
    assert slope.item() == pytest.approx((-psi / (1 + np.exp(margin))).mean(), rel=1e-13)
