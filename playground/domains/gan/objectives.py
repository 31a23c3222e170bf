"""Objectives of GANs: a table of losses and a table of penalties, orthogonal to each other.

D(x) is a logit, high on real samples; r = D(real), f = D(fake), s = softplus. Every loss is
per sample, and both players minimise:

    name            discriminator       generator
    minimax         s(-r) + s(f)        -s(f)         Goodfellow et al. 2014, eq. 1
    nonsaturating   s(-r) + s(f)        s(-f)         Goodfellow et al. 2014, section 3

(log of the sigmoid is -s(-.); with probabilities P = sigmoid(D) the first column is
-log P(real) - log(1 - P(fake)).) The generator's slope on a fake that the discriminator
rejects, f -> -inf, is 0 for minimax and -1 for nonsaturating.

Penalties are added to the discriminator's objective:

    r1              gamma/2 |grad_x D(x)|^2 at real x    Mescheder et al. 2018, section 4.1

summed over the dimensions of x, averaged over the batch. The factor 1/2 is the paper's; its
authors' training code has none, so their 10 is gamma = 20 here.

Shape legend: B samples, D dimensions of a sample, L of a latent.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from playground.game import Batch, Objective, Params, Terms

Network = Callable[[Mapping[str, Tensor], Tensor], Tensor]
"""``(tensors, x [B, in]) -> [B, out]`` of one member."""


@dataclass(frozen=True)
class Loss:
    """Per-sample losses [B] of both players as functions of logits [B]."""

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


def _logistic(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(-real) + F.softplus(fake)


LOSSES: dict[str, Loss] = {
    "minimax": Loss(_logistic, lambda fake: -F.softplus(fake)),
    "nonsaturating": Loss(_logistic, lambda fake: F.softplus(-fake)),
}


@dataclass(frozen=True)
class Point:
    """The Dirac-GAN's generator: every latent becomes the point theta."""

    def __call__(self, tensors: Mapping[str, Tensor], latent: Tensor) -> Tensor:
        """Map latent [..., L] to [..., 1]."""
        return tensors["theta"].expand(*latent.shape[:-1], 1)


def discriminate(
    generator: Network, discriminator: Network, loss: Loss, penalties: Mapping[str, float]
) -> Objective:
    """The discriminator's objective; batch: ``real`` [B, D] and ``latent`` [B, L].

    Real and fake go through one forward pass; with a penalty at real samples they take
    two, so that the penalty's backward pass walks half the rows.

    Args:
        generator: latent -> sample.
        discriminator: sample -> logit [B, 1].
        loss: of ``LOSSES``.
        penalties: {name: weight}, 0 is off.

    Raises:
        ValueError: an unknown penalty.
    """
    unknown = set(penalties) - {"r1"}
    if unknown:
        raise ValueError(f"penalty={sorted(unknown)[0]}: allowed are r1")
    gamma = penalties.get("r1", 0.0)

    def objective(params: Params, batch: Batch) -> tuple[Terms, Terms]:
        tensors, real = params["discriminator"], batch["real"]
        fake = generator(params["generator"], batch["latent"])
        terms: Terms = {}
        if gamma:
            square, real_logits = squared_slope(discriminator, tensors, real)
            fake_logits = discriminator(tensors, fake).squeeze(-1)
            terms["penalty"] = (0.5 * gamma) * square
        else:
            logits = discriminator(tensors, torch.cat((real, fake))).squeeze(-1)
            real_logits, fake_logits = logits.chunk(2)
        terms["adversarial"] = loss.discriminator(real_logits, fake_logits)
        return terms, _diagnose(real_logits.detach(), fake_logits.detach())

    return objective


def generate(generator: Network, discriminator: Network, loss: Loss) -> Objective:
    """The generator's objective; batch: ``latent`` [B, L]."""

    def objective(params: Params, batch: Batch) -> tuple[Terms, Terms]:
        fake = generator(params["generator"], batch["latent"])
        logits = discriminator(params["discriminator"], fake).squeeze(-1)
        return {"adversarial": loss.generator(logits)}, {"logit/fake": logits.detach()}

    return objective


def squared_slope(
    discriminator: Network, tensors: Mapping[str, Tensor], x: Tensor
) -> tuple[Tensor, Tensor]:
    """|grad_x D(x)|^2 per sample [B], summed over dimensions, and the logits [B].

    One backward pass gives all samples' gradients, for no layer mixes samples.
    """

    def total(points: Tensor) -> tuple[Tensor, Tensor]:
        logits = discriminator(tensors, points).squeeze(-1)
        return logits.sum(), logits

    slope, logits = torch.func.grad(total, has_aux=True)(x)
    return slope.square().sum(dim=-1), logits


def ascent(discriminator: Network, tensors: Mapping[str, Tensor], loss: Loss, x: Tensor) -> Tensor:
    """Where the generator wants its samples to go: minus grad_x of its loss at x [B, D]."""

    def total(points: Tensor) -> Tensor:
        return loss.generator(discriminator(tensors, points).squeeze(-1)).sum()

    slope: Tensor = torch.func.grad(total)(x)
    return -slope


def _diagnose(real: Tensor, fake: Tensor) -> Terms:
    """Logits and the share of samples on their side of 0 (half for a logit of 0)."""
    accuracy = 0.5 + 0.25 * (torch.sign(real) - torch.sign(fake))
    return {"logit/real": real, "logit/fake": fake, "accuracy": accuracy}
