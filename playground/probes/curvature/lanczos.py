"""Lanczos: a symmetric matrix on the space that its products span from a start.

The basis stays where the parameters are. The small tridiagonal matrix T is float64 and on the
host, where it is decided whether to go on.

Shape legend: M members, N parameters of a player, K Lanczos steps, E values.

Source: Lanczos and its residuals: Parlett (1998), chapters 4 and 13.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]
"""v [M, N] to H v [M, N]."""


@dataclass(slots=True)
class Krylov:
    """H on the space of start, H start, H^2 start, ...

    Attributes:
        basis: [M, K, N], orthonormal; rows of 0 where a member's space is smaller.
        matrix: [M, K, K], tridiagonal.
        coupling: [M], norm of what H takes out of the space.
    """

    basis: Tensor
    matrix: np.ndarray
    coupling: np.ndarray

    def ritz(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ritz values [M, K], ascending, their vectors in the basis [M, K, K], residuals [M, K].

        A member whose products were not finite has NaN.
        """
        good = np.isfinite(self.matrix).all(axis=(1, 2))[:, None]
        values, vectors = np.linalg.eigh(np.where(good[:, :, None], self.matrix, 0.0))
        residuals = self.coupling[:, None] * np.abs(vectors[:, -1])
        return np.where(good, values, np.nan), vectors, np.where(good, residuals, np.nan)

    def refined(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For values [M, E]: the vectors in the basis [M, E, K] whose residuals [M, E] are least.

        The least |H u - theta u| of all unit vectors u of the space is the smallest singular value
        of T - theta I with the coupling as one more row: at most the Ritz vector's.

        Source: refined Ritz vectors: Jia (1997), Linear Algebra Appl. 259, 1-23.
        """
        members, steps = self.matrix.shape[:2]
        tall = np.zeros((members, values.shape[1], steps + 1, steps))
        tall[:, :, :steps] = self.matrix[:, None]
        tall[:, :, :steps] -= values[:, :, None, None] * np.eye(steps)
        tall[:, :, steps, -1] = self.coupling[:, None]
        good = np.asarray(np.isfinite(tall).all(axis=(2, 3)))
        _, singular, right = np.linalg.svd(np.where(good[:, :, None, None], tall, 0.0), False)
        return right[:, :, -1], np.where(good, singular[:, :, -1], np.nan)


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
    steps, eps = min(steps, size), torch.finfo(start.dtype).eps
    basis = start.new_empty(members, steps, size)
    matrix = np.zeros((members, steps, steps))
    vector = start / torch.linalg.vector_norm(start, dim=1, keepdim=True)
    alive, largest = np.ones(members, bool), np.zeros(members)
    for k in range(steps):
        basis[:, k] = vector
        image = product(vector)
        norms, diagonal = [torch.linalg.vector_norm(image, dim=1)], []
        known = basis[:, : k + 1]
        for _ in range(2):
            parts = torch.bmm(known, image.unsqueeze(2))
            inside = torch.bmm(parts.transpose(1, 2), known)
            image = image - inside.squeeze(1)
            diagonal.append(parts[:, k, 0])
        norms.append(torch.linalg.vector_norm(image, dim=1))
        first, second, before, left = torch.stack([*diagonal, *norms]).double().cpu().numpy()
        matrix[:, k, k] = np.where(alive, first + second, matrix[:, 0, 0])
        largest = np.maximum(largest, before)
        alive &= ~(left <= eps * largest)  # a NaN lives on and shows
        found = Krylov(known, matrix[:, : k + 1, : k + 1], np.where(alive, left, 0.0))
        if k + 1 == steps or (done is not None and done(found)):
            break
        matrix[:, k, k + 1] = matrix[:, k + 1, k] = found.coupling
        scale = np.divide(1.0, left, out=np.zeros(members), where=alive)
        vector = image * torch.from_numpy(scale[:, None]).to(image)
    return found
