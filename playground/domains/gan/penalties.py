"""Penalties on the slope of the discriminator: a table, orthogonal to the losses.

Each is added to the discriminator's objective with a weight of its own, so that they combine.
g(x) = grad_x D(x), |.| over all dimensions of a sample; each is the mean over the batch of:

    r1         gamma/2 |g(x)|^2      at real x               Mescheder et al. 2018, section 4.1
    r2         gamma/2 |g(x)|^2      at fake x               Mescheder et al. 2018, section 4.1
    gradient   lambda (|g(x)| - c)^2 at u real + (1 - u) fake, u uniform on [0, 1), one a sample
               c = ``penalty.center``: 1 is WGAN-GP (Gulrajani et al. 2017, eq. 3), 0 the
               zero-centred one (Thanh-Tung et al. 2019)
    dragan     lambda (|g(x)| - 1)^2 at real + s n / 2, n normal, s the batch's standard
               deviation (Kodali et al. 2017; s/2 as their code, which adds uniform noise)

The factor 1/2 of r1 and r2 is the paper's; its authors' training code has none, so their 10 is
gamma = 20 here. u and n travel in the batch as ``mix`` and ``perturbation``. Where the slope is
0 that of its norm is taken as 0, not as 0/0.

With packs (``nets``: m samples are one input) x is the pack, and u is one a pack.

Shape legend: B samples, D dimensions of a sample, P = B/m inputs of the discriminator.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from playground.game import Batch, Terms
from playground.taps import input_gradient

Network = Callable[[Mapping[str, Tensor], Tensor], Tensor]
"""``(tensors, x [B, in]) -> [B, out]`` of one member."""

NAMES = ("r1", "r2", "gradient", "dragan")


def weights_of(penalties: Mapping[str, float]) -> tuple[dict[str, float], float]:
    """The penalties that are on, {name: weight}, and the centre c.

    Raises:
        ValueError: an unknown name.
    """
    unknown = set(penalties) - {*NAMES, "center"}
    if unknown:
        raise ValueError(f"penalty={sorted(unknown)[0]}: allowed are {', '.join(NAMES)}, center")
    weights = {name: penalties[name] for name in NAMES if penalties.get(name)}
    return weights, penalties.get("center", 1.0)


def places(
    weights: Mapping[str, float], batch: Batch, real: Tensor, fake: Tensor
) -> dict[str, Tensor]:
    """{penalty: the points [B, D] where it takes the slope}."""
    points: dict[str, Tensor] = {}
    if "r1" in weights:
        points["r1"] = real
    if "r2" in weights:
        points["r2"] = fake
    if "gradient" in weights:
        points["gradient"] = interpolate(real, fake, batch["mix"])
    if "dragan" in weights:
        points["dragan"] = real + 0.5 * real.std() * batch["perturbation"]
    return points


def interpolate(real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """Points u real + (1 - u) fake [B, D] with u [P, 1]."""
    inputs = (len(mix), -1)
    return torch.lerp(fake.reshape(inputs), real.reshape(inputs), mix).reshape(real.shape)


def penalise(
    discriminator: Network,
    tensors: Mapping[str, Tensor],
    points: Mapping[str, Tensor],
    weights: Mapping[str, float],
    center: float,
) -> tuple[Terms, dict[str, Tensor]]:
    """The penalties' terms and the logits at their points, {name: [P]}; one pass for all."""
    if not points:
        return {}, {}
    square, logits = squared_slope(discriminator, tensors, torch.cat(tuple(points.values())))
    terms = {
        name: weights[name] * _penalty(name, part, center)
        for name, part in zip(points, square.chunk(len(points)), strict=True)
    }
    return terms, dict(zip(points, logits.chunk(len(points)), strict=True))


def _penalty(name: str, square: Tensor, center: float) -> Tensor:
    """The formula above without its weight, of |g|^2."""
    if name in ("r1", "r2"):
        return 0.5 * square
    target = 1.0 if name == "dragan" else center
    return (norm(square) - target).square() if target else square


def norm(square: Tensor) -> Tensor:
    """The root of a square, with slope 0 at 0."""
    positive = square > 0
    return torch.where(positive, square, 1.0).sqrt() * positive


def squared_slope(
    discriminator: Network, tensors: Mapping[str, Tensor], x: Tensor
) -> tuple[Tensor, Tensor]:
    """|grad_x D(x)|^2 of every input [P], summed over dimensions, and the logits [P].

    One backward pass gives all inputs' gradients, for no layer mixes them.
    """

    def total(points: Tensor) -> tuple[Tensor, Tensor]:
        logits = discriminator(tensors, points).squeeze(-1)
        return logits.sum(), logits

    slope, logits = input_gradient(total, x)
    return slope.square().reshape(len(logits), -1).sum(dim=-1), logits
