"""Discriminators trained by the engine against a held generator end at the closed forms.

Linear discriminators, so that the optimum is in their reach: real N(0, 1) against fake N(m, 1)
has the logit m^2/2 - m x (Goodfellow et al. 2014, proposition 1) and the loss log 4 - 2 JSD; two
Diracs at distance d under WGAN-GP have the slope 1 + d / 2 lambda and the value d + d^2 / 4 lambda.
"""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from playground.engine import Engine

GAUSSIANS = [
    "problem=gan/mixture_1d", "problem.modes=1", "problem.sigma=1", "problem.latent=1",
    "problem.generator_widths=[]", "problem.discriminator_widths=[]", "problem.batch_size=1000",
    "penalty.r1=0", "optimizer=sgd", "optimizer.lr=4", "optimizer.schedule=linear", "members=4",
]  # fmt: skip


def train(run, iterations):
    """Play with the generator held, the learning rate annealed over the iterations."""
    run.engine = Engine(run.players, run.engine.optimizers, held=["generator"])
    start = run.values("generator").clone()
    for iteration in range(iterations):
        run.engine.progress = iteration / iterations
        run.iterate()
    assert run.values("generator").equal(start)
    assert (run.engine.updates["discriminator"] == iterations).all()


def divergence(m):
    """JSD of N(0, 1) and N(m, 1), nats, by quadrature of its definition."""

    def density(x):
        p, q = norm.pdf(x), norm.pdf(x, m)
        return 0.5 * (p * np.log(2 * p / (p + q)) + q * np.log(2 * q / (p + q)))

    return quad(density, -15, 15 + m, limit=200)[0]


def last(run, count):
    """The discriminator's mean terms over the last updates, of all members together."""
    played = [out["discriminator"].terms for out in run.outcomes if "discriminator" in out][-count:]
    return {
        name: np.mean([terms[name].tolist() for terms in played])
        for name in played[-1]
    }  # fmt: skip


@pytest.mark.parametrize("m", [0.5, 1.0, 2.0])
def test_the_discriminator_learns_the_logit_between_two_gaussians(game, m):
    """Standard errors, from 4e5 samples: .003 of slope and bias, .001 of the loss."""
    run = game(*GAUSSIANS)
    views = run.players["generator"].parameters.views
    views["0.weight"].fill_(1)
    views["0.bias"].fill_(m)
    train(run, 400)
    learnt = run.players["discriminator"].parameters.views
    assert learnt["0.weight"].mean().item() == pytest.approx(-m, abs=0.02)
    assert learnt["0.bias"].mean().item() == pytest.approx(m**2 / 2, abs=0.02)
    loss = last(run, 100)["adversarial"]
    assert loss == pytest.approx(np.log(4) - 2 * divergence(m), abs=0.005)


@pytest.mark.parametrize("d", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("weight", [0.1, 10.0])
def test_the_critic_learns_the_slope_of_wgan_gp(game, d, weight):
    run = game(
        "problem=gan/dirac", "loss=wgan", f"penalty.gradient={weight}",
        f"problem.start=[{d},-0.5]", "problem.first=discriminator",
        f"optimizer.lr={0.2 / weight}",
    )  # fmt: skip
    train(run, 100)
    assert run.values("discriminator").item() == pytest.approx(-1 - d / (2 * weight), rel=1e-9)
    terms = last(run, 1)
    assert -terms["adversarial"] == pytest.approx(d + d**2 / (2 * weight), rel=1e-9)
    assert -sum(terms.values()) == pytest.approx(d + d**2 / (4 * weight), rel=1e-9)
