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
tolerance of use; the small tridiagonal matrix is float64.

Shape legend: M members, N parameters of a player, K Lanczos steps, V random vectors.

Sources: Lanczos and its residuals: Parlett (1998), chapters 4 and 13. (A power iteration, as other
tools have it, finds the largest |lambda| only, whose sign is that of lambda_min at some saddles.)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from playground.products import Products

Product = Callable[[Tensor], Tensor]
"""v [M, N] to H v [M, N]."""

LEAST = 6
"""Products before a run may stop (ours): fewer may miss an eigenvector that the start lacks."""

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
class Krylov:
    """H on the space of start, H start, H^2 start, ...

    Attributes:
        basis: [M, K, N], orthonormal; rows of 0 where a member's space is smaller.
        matrix: [M, K, K] float64, tridiagonal.
        coupling: [M] float64, norm of what H takes out of the space.
    """

    basis: Tensor
    matrix: Tensor
    coupling: Tensor

    def ritz(self) -> tuple[Tensor, Tensor, Tensor]:
        """Ritz values [M, K], ascending, their vectors in the basis [M, K, K], residuals [M, K].

        A member whose products were not finite has NaN.
        """
        good = torch.isfinite(self.matrix).flatten(1).all(dim=1)
        safe = torch.where(good[:, None, None], self.matrix, 0.0)
        values, vectors = torch.linalg.eigh(safe)
        residuals = self.coupling[:, None] * vectors[:, -1].abs()
        bad = ~good[:, None]
        return values.masked_fill(bad, torch.nan), vectors, residuals.masked_fill(bad, torch.nan)


def krylov(
    product: Product,
    start: Tensor,
    steps: int,
    done: Callable[[Krylov], bool] | None = None,
) -> Krylov:
    """Lanczos with full reorthogonalisation, all members at once; a product a step.

    Where H takes nothing out of a member's space, its matrix goes on with copies of its first
    entry, which lies inside the spectrum and changes neither ends nor weights.

    Args:
        product: with H.
        start: [M, N], not 0.
        steps: at most; N is enough.
        done: stops sooner.
    """
    members, size = start.shape
    steps = min(steps, size)
    basis = start.new_zeros(members, steps, size)
    matrix = torch.zeros(members, steps, steps, dtype=torch.float64, device=start.device)
    vector = start / torch.linalg.vector_norm(start, dim=1, keepdim=True)
    alive = torch.ones(members, dtype=torch.bool, device=start.device)
    largest, eps = start.new_zeros(members), torch.finfo(start.dtype).eps
    for k in range(steps):
        basis[:, k] = vector
        image = product(vector)
        largest = torch.maximum(largest, torch.linalg.vector_norm(image, dim=1))
        known = basis[:, : k + 1]
        for _ in range(2):
            parts = torch.bmm(known, image.unsqueeze(2))
            image = image - torch.bmm(parts.transpose(1, 2), known).squeeze(1)
            matrix[:, k, k] += parts[:, k, 0]
        matrix[:, k, k] = torch.where(alive, matrix[:, k, k], matrix[:, 0, 0])
        size_left = torch.linalg.vector_norm(image, dim=1)
        alive = alive & ~(size_left <= eps * largest)  # a NaN lives on and shows
        coupling = torch.where(alive, size_left, 0.0).double()
        found = Krylov(known, matrix[:, : k + 1, : k + 1], coupling)
        if k + 1 == steps or (done is not None and done(found)):
            break
        matrix[:, k, k + 1] = matrix[:, k + 1, k] = coupling
        vector = torch.where(alive[:, None], image / size_left[:, None], 0.0)
    return found


@dataclass(slots=True)
class Extremes:
    """The ends of a spectrum.

    Attributes:
        values: [M, 2] float64, smallest and largest.
        residuals: [M, 2], |H u - lambda u| of each.
        vectors: [M, 2, N], the unit Ritz vectors u; 0 where not finite.
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
    of each eigenvalue itself, but not before ``LEAST`` products. The host looks once a step.

    Args:
        product: with H.
        start: [M, N]; random, or ``warm``.
        steps: products at most.
        tolerance: of the residuals.
        relative: to what.
        top: only the largest must be found.
    """
    least = min(LEAST, steps)
    ends = [-1] if top else [0, -1]

    def done(space: Krylov) -> bool:
        if space.basis.shape[1] < least:
            return False
        values, _, residuals = space.ritz()
        scale = values.abs()[:, ends] if relative == "each" else values.abs().amax(1, keepdim=True)
        return not bool((residuals[:, ends] > tolerance * scale).any())  # NaN waits for nobody

    space = krylov(product, start, steps, done)
    values, inside, residuals = space.ritz()
    ends = [0, -1]
    weights = inside[:, :, ends].transpose(1, 2).to(start)
    vectors = torch.bmm(weights, space.basis)
    unit = vectors / torch.linalg.vector_norm(vectors, dim=2, keepdim=True)
    return Extremes(values[:, ends], residuals[:, ends], unit.nan_to_num(0.0), space)


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
        diagonal = torch.diagonal(space.matrix, dim1=1, dim2=2)
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
        weights.append(vectors[:, 0].square() / len(starts))
    return torch.cat(nodes, dim=1), torch.cat(weights, dim=1)


def density(nodes: Tensor, weights: Tensor, grid: Tensor, width: float) -> Tensor:
    """The density [M, G] on a grid [G]: a Gaussian of standard deviation ``width`` a node.

    Source: Ghorbani et al. (2019), section 2.
    """
    gap = (grid - nodes[:, :, None]) / width
    bumps = torch.exp(-0.5 * gap.square()) / (width * (2 * torch.pi) ** 0.5)
    result: Tensor = (weights[:, :, None] * bumps).sum(dim=1)
    return result
