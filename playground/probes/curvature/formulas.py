"""Curvature: extreme eigenvalues, trace and spectral density of a Hessian.

H is the Hessian of one player's objective by its own parameters; it is never formed beyond a few
hundred parameters. One product H v is a reverse pass through the gradient's graph, which is built
once and serves all of them.

    lambda_min, lambda_max   both ends of one Lanczos run, each with its residual |H u - lambda u|:
                             an eigenvalue of H lies within the residual of the value given, and
                             lambda_max is never overestimated, lambda_min never underestimated
    trace                    sum of the Ritz values, and random signs on the rest, with its error
    density                  Ritz values and their weights, from random starts

Functions of a product, for anyone's loop; ``curvature_probe`` measures them in a run.

    slope, product = linearise(lambda x: gradient of f, x)          # [M, N], a function of [M, N]
    ends = extremes(product, torch.randn_like(x), 15, 1e-2)
    ends.values, ends.residuals                                     # [M, 2] each

Products are as exact as the parameters' type (about 1e-7 of |H| in float32), far below any
tolerance of use.

Shape legend: M members, N parameters of a player, K Lanczos steps, V random vectors.

(A power iteration, as other tools have it, finds the largest |lambda| only, whose sign is that of
lambda_min at some saddles.)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from playground.probes.curvature.lanczos import Krylov, Product, krylov
from playground.products import Products

LEAST = 6
"""Products before a run may stop (ours): fewer may miss an eigenvector that the start lacks."""

WORTH = 2
"""Times the tolerance that a Ritz vector's residual may have for its refinement to be tried (ours):
on the digits network it was mostly 1.1 to 2 times smaller, and more where the Ritz vector mixed
two eigenvectors, the farther of which a run that went on found."""

TRUSTED = 0.1
"""Share of an eigenvalue that its residual may have, for the value to stand (ours)."""


def linearise(gradient: Callable[[Tensor], Tensor], at: Tensor) -> tuple[Tensor, Product]:
    """The gradient [M, N] at a point, and products with its Jacobian there, the Hessian."""
    leaf = at.detach().requires_grad_()
    slope = gradient(leaf)
    return slope.detach(), of(Products([slope], [leaf]))


def of(products: Products) -> Product:
    """H v of one player; H is symmetric, so the cheaper H^T v."""
    return lambda vector: products.transposed([vector])[0].detach()


def preconditioned(product: Product, scale: Tensor, decay: Tensor) -> Product:
    """P^-1/2 (H + decay) P^-1/2 v, whose eigenvalues are those of P^-1 (H + decay).

    Args:
        product: with H.
        scale: [M, N], the diagonal of P, positive.
        decay: [M], a multiple of the identity.
    """
    root = scale.rsqrt()

    def scaled(vector: Tensor) -> Tensor:
        inner = root * vector
        return root * (product(inner) + decay[:, None] * inner)

    return scaled


@dataclass(slots=True)
class Extremes:
    """The ends of a spectrum.

    Attributes:
        values: [M, 2] float64, smallest and largest.
        residuals: [M, 2], |H u - lambda u| of each.
        vectors: [M, 2, N], the unit vectors u, refined; 0 where there is none.
        space: that they are from; its length is the number of products.
    """

    values: Tensor
    residuals: Tensor
    vectors: Tensor
    space: Krylov

    @property
    def products(self) -> int:
        """How many there were."""
        return self.space.basis.shape[1]

    @property
    def trusted(self) -> Tensor:
        """Bool [M, 2]: the residual is at most a tenth of the value."""
        return self.residuals <= TRUSTED * self.values.abs()


def extremes(
    product: Product,
    start: Tensor,
    steps: int,
    tolerance: float,
    *,
    relative: Literal["largest", "each"] = "largest",
    top: bool = False,
) -> Extremes:
    """Smallest and largest eigenvalue from one Lanczos run.

    It stops once every member's residuals are at most ``tolerance`` of its largest |lambda|, or
    of each eigenvalue itself, but not before ``LEAST`` products. The host looks once a step. The
    residuals are those of refined vectors, which takes a tenth fewer products.

    Args:
        product: with H.
        start: [M, N]; random, or ``warm``.
        steps: products at most.
        tolerance: of the residuals.
        relative: to what.
        top: only the largest must be found.
    """
    least, both = min(LEAST, steps), np.array([0, -1])
    asked = both[1:] if top else both

    def done(space: Krylov) -> bool:
        if space.basis.shape[1] < least:
            return False
        values, _, residuals = space.ritz()
        sizes = np.abs(values)
        scale = sizes[:, asked] if relative == "each" else sizes.max(axis=1, keepdims=True)
        if (residuals[:, asked] > WORTH * tolerance * scale).any():
            return False
        _, least_ones = space.refined(values[:, asked])
        return not (least_ones > tolerance * scale).any()  # NaN waits for nobody

    space = krylov(product, start, steps, done)
    values = space.ritz()[0][:, both]
    inside, residuals = space.refined(values)
    vectors = torch.bmm(torch.from_numpy(inside).to(start), space.basis)
    unit = vectors / torch.linalg.vector_norm(vectors, dim=2, keepdim=True)
    found, errors = (torch.from_numpy(x).to(start.device) for x in (values, residuals))
    return Extremes(found, errors, unit.nan_to_num(0.0), space)


def warm(vectors: Tensor, noise: Tensor, share: float = 0.1) -> Tensor:
    """A start [M, N] from the last Ritz vectors and random noise, so that new ones are found.

    Args:
        vectors: [M, E, N], unit vectors, or 0 where there are none.
        noise: [M, N].
        share: of the noise beside one vector (ours).
    """
    known = vectors.sum(dim=1)
    none = ~(torch.linalg.vector_norm(known, dim=1, keepdim=True) > 0)
    random = noise / torch.linalg.vector_norm(noise, dim=1, keepdim=True)
    return torch.where(none, random, known + share * random)


def trace(
    product: Product, signs: Sequence[Tensor], space: Krylov | None = None
) -> tuple[Tensor, Tensor]:
    """Trace [M] float64 of H with its standard error; a product a vector.

    E z^T H z = tr H for independent signs z, variance 2 (|H|_F^2 - sum h_ii^2) a vector. A space
    known from elsewhere contributes its own trace exactly and only the rest is estimated:

        tr H = tr T + E z^T Q H Q z,  Q the projection onto its complement

    Args:
        product: with H.
        signs: V times [M, N], entries +-1; V >= 2.
        space: independent of ``signs``.

    Source: Hutchinson (1990); with a space: Meyer et al. (2021), algorithm 1.
    """
    samples = []
    for vector in signs:
        rest = vector
        if space is not None:
            parts = torch.bmm(space.basis, rest.unsqueeze(2))
            rest = rest - torch.bmm(parts.transpose(1, 2), space.basis).squeeze(1)
        samples.append((rest * product(rest)).sum(dim=1, dtype=torch.float64))
    found = torch.stack(samples)
    known = torch.zeros_like(found[0])
    if space is not None:
        inside = torch.linalg.vector_norm(space.basis, dim=2) > 0.5
        diagonal = torch.from_numpy(space.matrix.diagonal(axis1=1, axis2=2).copy()).to(found)
        known = torch.where(inside, diagonal, 0.0).sum(dim=1)
    return known + found.mean(0), found.std(0) / len(signs) ** 0.5


def quadrature(product: Product, starts: Sequence[Tensor], steps: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights [M, V K] float64 of the spectral density; a product a vector and step.

    sum w f(theta) estimates tr f(H) / N; for one start v it equals v^T f(H) v / |v|^2 for
    polynomials of degree up to 2 K - 1. Weights add up to 1.

    Args:
        product: with H.
        starts: V times [M, N], standard normal.
        steps: K, at most N.

    Source: stochastic Lanczos quadrature: Ghorbani et al. (2019), section 2; Golub and Welsch
    (1969).
    """
    nodes, weights = [], []
    for start in starts:
        values, vectors, _ = krylov(product, start, steps).ritz()
        nodes.append(values)
        weights.append(np.square(vectors[:, 0]) / len(starts))
    where = starts[0].device
    found = (torch.from_numpy(np.concatenate(x, axis=1)).to(where) for x in (nodes, weights))
    return next(found), next(found)


def density(nodes: Tensor, weights: Tensor, grid: Tensor, width: float) -> Tensor:
    """The density [M, G] on a grid [G]: a Gaussian of standard deviation ``width`` a node.

    Source: Ghorbani et al. (2019), section 2.
    """
    gap = (grid - nodes[:, :, None]) / width
    bumps = torch.exp(-0.5 * gap.square()) / (width * (2 * torch.pi) ** 0.5)
    result: Tensor = (weights[:, :, None] * bumps).sum(dim=1)
    return result
