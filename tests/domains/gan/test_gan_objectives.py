"""Objectives with R1 against closed forms, quadrature and finite differences."""

import math

import numpy as np
import pytest
import torch

from playground.domains.gan.objectives import LOSSES, ascent, discriminate, generate
from playground.domains.gan.penalties import squared_slope
from playground.game import reduce_term
from playground.gradients import reduced
from playground.nets import MLP

LOGISTIC = [name for name, loss in LOSSES.items() if loss.logistic]


def shift(tensors, latent):
    return latent + tensors["shift"]


LINEAR = MLP((1, 1))


def shifted_normals(distance):
    """Real N(0, 1), fake N(m, 1), the optimal linear discriminator, batch by quadrature.

    The optimal logit is log p/q = m^2/2 - m x (Goodfellow et al. 2014, proposition 1).
    """
    x = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    weight = torch.exp(-(x**2) / 2)
    batch = {"real": x[:, None], "latent": x[:, None], "weight": weight}
    params = {
        "generator": {"shift": torch.tensor([distance], dtype=torch.float64)},
        "discriminator": {
            "0.weight": torch.tensor([[-distance]], dtype=torch.float64, requires_grad=True),
            "0.bias": torch.tensor([distance**2 / 2], dtype=torch.float64, requires_grad=True),
        },
    }
    return params, batch


@pytest.mark.parametrize(
    ("distance", "expected"),
    [
        (0.0, math.log(4)),
        (0.5, 1.325672),
        (1.0, 1.163451),
        (2.0, 0.712633),
        (3.0, 0.332740),
        (4.0, 0.120854),
    ],
)
@pytest.mark.parametrize("loss", LOGISTIC)
def test_optimal_discriminators_loss_is_log_4_minus_2_jsd(loss, distance, expected):
    params, batch = shifted_normals(distance)
    objective = discriminate(shift, LINEAR, LOSSES[loss], {"r1": 0.0})
    total, (terms, _) = reduced(objective, params, batch)
    assert total.item() == pytest.approx(expected, abs=1e-6)
    assert set(terms) == {"adversarial"}
    slopes = torch.autograd.grad(total, list(params["discriminator"].values()))
    assert [s.item() for s in slopes] == pytest.approx([0, 0], abs=1e-10)  # it is the optimum


@pytest.mark.parametrize("distance", [0.5, 1.0, 2.0, 3.0])
def test_a_linear_discriminator_learns_the_optimal_logit(distance):
    """Its minimum, found from 0 by a minimiser of its own: slope -m and bias m^2 / 2."""
    params, batch = shifted_normals(distance)
    tensors = {k: torch.zeros_like(v).requires_grad_() for k, v in params["discriminator"].items()}
    objective = discriminate(shift, LINEAR, LOSSES["minimax"], {})
    rule = torch.optim.LBFGS(tensors.values(), max_iter=100, line_search_fn="strong_wolfe",
                             tolerance_grad=1e-10, tolerance_change=1e-14)  # fmt: skip

    def closure():
        rule.zero_grad()
        total, _ = reduced(objective, {**params, "discriminator": tensors}, batch)
        total.backward()
        return total

    rule.step(closure)
    assert tensors["0.weight"].item() == pytest.approx(-distance, abs=1e-6)
    assert tensors["0.bias"].item() == pytest.approx(distance**2 / 2, abs=1e-6)


def test_generators_loss_where_real_and_fake_agree():
    params, batch = shifted_normals(0.0)
    for name, expected in {"nonsaturating": math.log(2), "minimax": -math.log(2)}.items():
        total, _ = reduced(generate(shift, LINEAR, LOSSES[name]), params, batch)
        assert total.item() == pytest.approx(expected, abs=1e-12)


def test_diagnostics_are_mean_logits_and_the_share_of_right_sides():
    params, batch = shifted_normals(2.0)
    objective = discriminate(shift, LINEAR, LOSSES["minimax"], {})
    _, (_, diagnostics) = reduced(objective, params, batch)
    assert diagnostics["logit/real"].item() == pytest.approx(2.0, abs=1e-6)  # m^2 / 2
    assert diagnostics["logit/fake"].item() == pytest.approx(-2.0, abs=1e-6)
    right = 0.5 * (1 + math.erf(1 / math.sqrt(2)))  # real falls on its side of x = 1
    assert diagnostics["accuracy"].item() == pytest.approx(right, abs=1e-3)


@pytest.fixture
def network():
    """A smooth discriminator on the plane, eight points, all in float64."""
    discriminator = MLP((2, 7, 5, 1), activation="tanh", initialisation="lecun")
    tensors = discriminator.init(3, "discriminator")
    points = torch.randn(8, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return discriminator, tensors, points


def slopes_by_differences(function, points, h=1e-5):
    """Central differences [B, D] of a per-sample function [B]."""
    columns = []
    for axis in range(points.shape[1]):
        step = torch.zeros_like(points)
        step[:, axis] = h
        columns.append((function(points + step) - function(points - step)) / (2 * h))
    return torch.stack(columns, dim=1)


def test_squared_slope_sums_over_dimensions(network):
    discriminator, tensors, points = network
    square, logits = squared_slope(discriminator, tensors, points)
    expected = slopes_by_differences(lambda x: discriminator(tensors, x)[:, 0], points)
    assert torch.allclose(square, (expected**2).sum(1), rtol=1e-8)
    assert torch.equal(logits, discriminator(tensors, points)[:, 0])


def penalty(network, gamma, tensors=None, points=None):
    discriminator, own, all_points = network
    real = all_points if points is None else points
    params = {
        "generator": {"shift": torch.tensor([1.0, -1.0], dtype=torch.float64)},
        "discriminator": own if tensors is None else tensors,
    }
    objective = discriminate(shift, discriminator, LOSSES["minimax"], {"r1": gamma})
    terms, _ = objective(params, {"real": real, "latent": real})
    return terms


def test_r1_is_half_gamma_times_the_mean_squared_slope(network):
    discriminator, tensors, points = network
    slope = slopes_by_differences(lambda x: discriminator(tensors, x)[:, 0], points)
    expected = 0.5 * 6.0 * (slope**2).sum(1).mean()
    found = reduce_term(penalty(network, 6.0)["r1"], None)
    assert found.item() == pytest.approx(expected.item(), rel=1e-8)


def test_r1_of_a_batch_is_the_mean_over_its_samples(network):
    whole = reduce_term(penalty(network, 6.0)["r1"], None)
    singles = [reduce_term(penalty(network, 6.0, points=x[None])["r1"], None) for x in network[2]]
    assert whole.item() == pytest.approx(sum(s.item() for s in singles) / 8, rel=1e-12)


def test_r1_leaves_the_adversarial_term_alone(network):
    without, with_r1 = penalty(network, 0.0), penalty(network, 6.0)
    assert set(without) == {"adversarial"}
    assert torch.allclose(without["adversarial"], with_r1["adversarial"], rtol=1e-13)


def test_r1_reaches_the_discriminators_parameters(network):
    tensors = {k: v.clone().requires_grad_() for k, v in network[1].items()}
    value = reduce_term(penalty(network, 6.0, tensors)["r1"], None)
    found = torch.autograd.grad(value, list(tensors.values()), materialize_grads=True)
    for name, gradient in zip(tensors, found, strict=True):
        for index in np.ndindex(*gradient.shape):
            ends = []
            for h in (1e-6, -1e-6):
                moved = {k: v.detach().clone() for k, v in tensors.items()}
                moved[name][index] += h
                ends.append(reduce_term(penalty(network, 6.0, moved)["r1"], None).item())
            difference = (ends[0] - ends[1]) / 2e-6
            assert gradient[index].item() == pytest.approx(difference, rel=1e-5, abs=1e-7)


def test_r1_on_a_linear_discriminator_pulls_with_gamma_psi():
    psi = torch.tensor([[0.7]], dtype=torch.float64, requires_grad=True)
    params = {
        "generator": {"shift": torch.zeros(1, dtype=torch.float64)},
        "discriminator": {"0.weight": psi},
    }
    points = torch.tensor([[0.0], [3.0], [-1.0]], dtype=torch.float64)
    objective = discriminate(shift, MLP((1, 1), bias=False), LOSSES["minimax"], {"r1": 0.3})
    terms, _ = objective(params, {"real": points, "latent": points})
    (slope,) = torch.autograd.grad(terms["r1"].mean(), psi)
    assert slope.item() == pytest.approx(0.3 * 0.7, rel=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_ascent_is_minus_the_slope_of_the_generators_loss(network, loss):
    discriminator, tensors, points = network
    function = LOSSES[loss].generator
    real = points.flip(0)
    pair = discriminator(tensors, real)[:, 0] if LOSSES[loss].paired else 0.0
    expected = slopes_by_differences(
        lambda x: function(discriminator(tensors, x)[:, 0] - pair), points
    )
    found = ascent(discriminator, tensors, LOSSES[loss], points, real)
    assert torch.allclose(found, -expected, rtol=1e-7, atol=1e-10)


def test_an_unknown_penalty_is_refused(network):
    with pytest.raises(ValueError, match="penalty=r7: allowed are r1, r2, gradient"):
        discriminate(shift, network[0], LOSSES["minimax"], {"r7": 1.0})
