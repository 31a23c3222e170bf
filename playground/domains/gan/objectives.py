"""Objectives of GANs: a table of losses, orthogonal to the penalties of ``penalties.py``.

D(x) is a logit, high on real samples; r = D(real), f = D(fake), s = softplus. Every loss is
per sample, and both players minimise:

    name            discriminator              generator
    minimax         s(-r) + s(f)               -s(f)           Goodfellow et al. 2014, eq. 1
    nonsaturating   s(-r) + s(f)               s(-f)           Goodfellow et al. 2014, section 3
    least_squares   1/2 (r - 1)^2 + 1/2 f^2    1/2 (f - 1)^2   Mao et al. 2017, eq. 9
    wgan            f - r                      -f              Arjovsky et al. 2017, eq. 2, 3
    hinge           (1 - r)+ + (1 + f)+        -f              Miyato et al. 2018, eq. 16, 17
    relativistic    s(f - r)                   s(r - f)        Jolicoeur-Martineau 2019

(log of the sigmoid is -s(-.); with probabilities P = sigmoid(D) the first column is
-log P(real) - log(1 - P(fake)).) The generator's slope on a fake that the discriminator
rejects, f -> -inf, is 0 for minimax and -1 for nonsaturating. The relativistic loss pairs the
k-th real sample with the k-th fake in both players' moves, each with fresh real samples, as
R3GAN (Huang et al. 2024, eq. 2). wgan wants a Lipschitz bound: a penalty, spectral
normalisation, or weights clipped by the discriminator's ``optimizer.project``.

Shape legend: B samples, D dimensions of a sample, L of a latent.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from playground.domains.gan.penalties import Network, penalise, places, weights_of
from playground.game import Batch, Objective, Params, Terms


@dataclass(frozen=True)
class Loss:
    """Per-sample losses [B] of both players as functions of logits [B].

    Attributes:
        discriminator: of (r, f).
        generator: of f, or of the margin f - r where ``paired``.
        paired: whether the generator's move needs real samples too.
        logistic: whether the sigmoid of a logit estimates a probability.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]
    paired: bool = False
    logistic: bool = False


def _logistic(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(-real) + F.softplus(fake)


LOSSES: dict[str, Loss] = {
    "minimax": Loss(_logistic, lambda fake: -F.softplus(fake), logistic=True),
    "nonsaturating": Loss(_logistic, lambda fake: F.softplus(-fake), logistic=True),
    "least_squares": Loss(
        lambda real, fake: 0.5 * (real - 1).square() + 0.5 * fake.square(),
        lambda fake: 0.5 * (fake - 1).square(),
    ),
    "wgan": Loss(lambda real, fake: fake - real, torch.neg),
    "hinge": Loss(lambda real, fake: torch.relu(1 - real) + torch.relu(1 + fake), torch.neg),
    "relativistic": Loss(
        lambda real, fake: F.softplus(fake - real), lambda margin: F.softplus(-margin), paired=True
    ),
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
    """The discriminator's objective; batch: ``real`` [B, D], ``latent`` [B, L], and noise.

    Real and fake go through one forward pass; points where a penalty wants the slope take
    one of their own, so that its backward pass walks no other rows.

    Args:
        generator: latent -> sample.
        discriminator: sample -> logit [B, 1].
        loss: of ``LOSSES``.
        penalties: {name: weight}, 0 is off; and ``center``.

    Raises:
        ValueError: an unknown penalty.
    """
    weights, center = weights_of(penalties)

    def objective(params: Params, batch: Batch) -> tuple[Terms, Terms]:
        tensors, real = critic(params, batch), batch["real"]
        fake = imitate(generator, params, batch)
        points = places(weights, batch, real, fake)
        terms, logits = penalise(discriminator, tensors, points, weights, center)
        others = {"r1": real, "r2": fake}
        rest = {name: x for name, x in others.items() if name not in logits}
        if rest:
            found = discriminator(tensors, torch.cat(tuple(rest.values()))).squeeze(-1)
            logits |= dict(zip(rest, found.chunk(len(rest)), strict=True))
        real_logits, fake_logits = logits["r1"], logits["r2"]
        terms["adversarial"] = loss.discriminator(real_logits, fake_logits)
        return terms, _diagnose(real_logits.detach(), fake_logits.detach())

    return objective


def generate(generator: Network, discriminator: Network, loss: Loss) -> Objective:
    """The generator's objective; batch: ``latent`` [B, L], noise, and ``real`` where paired."""

    def objective(params: Params, batch: Batch) -> tuple[Terms, Terms]:
        fake = imitate(generator, params, batch)
        real = batch["real"] if loss.paired else None
        margin, logits = _margin(discriminator, critic(params, batch), loss, fake, real)
        return {"adversarial": loss.generator(margin)}, {"logit/fake": logits.detach()}

    return objective


def imitate(generator: Network, params: Params, batch: Batch) -> Tensor:
    """The generator's samples [B, D], with the batch's instance noise where it has any."""
    fake = generator(params["generator"], batch["latent"])
    return fake + batch["noise"] if "noise" in batch else fake


def critic(params: Params, batch: Batch) -> Mapping[str, Tensor]:
    """The discriminator's tensors, with the singular vectors that travel in the batch."""
    vectors = {name: value for name, value in batch.items() if name.startswith("spectral/")}
    return {**params["discriminator"], **vectors} if vectors else params["discriminator"]


def ascent(
    discriminator: Network,
    tensors: Mapping[str, Tensor],
    loss: Loss,
    x: Tensor,
    real: Tensor | None = None,
) -> Tensor:
    """Where the generator wants its samples to go: minus grad_x of its loss at x [B, D].

    Args:
        discriminator: sample -> logit.
        tensors: the discriminator's.
        loss: of ``LOSSES``.
        x: [B, D].
        real: [B, D], the other half of every pair, for paired losses.
    """

    def total(points: Tensor) -> Tensor:
        margin, _ = _margin(discriminator, tensors, loss, points, real if loss.paired else None)
        return loss.generator(margin).sum()

    slope: Tensor = torch.func.grad(total)(x)
    return -slope


def _margin(
    discriminator: Network,
    tensors: Mapping[str, Tensor],
    loss: Loss,
    fake: Tensor,
    real: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """What the generator's loss is a function of, and the logits of fakes, each [B]."""
    if real is None:
        logits = discriminator(tensors, fake).squeeze(-1)
        return logits, logits
    real_logits, logits = discriminator(tensors, torch.cat((real, fake))).squeeze(-1).chunk(2)
    return logits - real_logits, logits


def _diagnose(real: Tensor, fake: Tensor) -> Terms:
    """Logits and the share of samples on their side of 0 (half for a logit of 0)."""
    accuracy = 0.5 + 0.25 * (torch.sign(real) - torch.sign(fake))
    return {"logit/real": real, "logit/fake": fake, "accuracy": accuracy}
