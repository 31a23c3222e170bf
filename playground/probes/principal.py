"""Principal directions of a path through parameter space, and those of a random walk.

For points theta_0 ... theta_n of a path, X = theta_t - theta_n [T, N] with its mean taken off is
U S V^T; the principal directions are the rows of V^T, the share of variance of the k-th is
s_k^2 / sum s^2 (Li et al. 2018, section 7.2). They are found from X X^T [T, T] in float64, so
nothing of size N x N is made. The plane is drawn through theta_n, where the path ends.

A random walk explains much too: in many dimensions its shares tend to 6 / (pi^2 k^2), 61 % and
15 % (Antognini & Sohl-Dickstein 2018), so shares say something only beside its own.

Shape legend: T points of a path, N parameters, D directions, K = min(T - 1, N) shares.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

TINY = 1e-12
"""Share of the largest variance below which a direction is rounding (ours: float32's, squared)."""

MANY, WALKS = 256, 200
"""Parameters from which a walk's shares are taken in the limit, and walks drawn below (ours: there
the two differ by a quarter of a percentage point)."""


@dataclass(frozen=True)
class Principal:
    """A path seen along its principal directions, float64.

    Attributes:
        directions: [D, N], orthonormal; the path begins where coordinates are not positive.
        coordinates: of theta_t - theta_n, [T, D].
        outside: distance of theta_t from the plane through theta_n, [T], L2.
        explained: share of variance [K], descending.
    """

    directions: Tensor
    coordinates: Tensor
    outside: Tensor
    explained: Tensor


def principal(path: Tensor, count: int = 2) -> Principal:
    """The first principal directions of points [T, N], fewer where the path has fewer.

    Raises:
        ValueError: the points do not differ.
    """
    x = path.double() - path[-1].double()
    values, vectors = torch.linalg.eigh(_centred(x @ x.T))
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    if not values[0] > 0:
        raise ValueError(f"the {len(path)} points of the path are all the same")
    found = int((values[:count] > TINY * values[0]).sum())
    raw = (x - x.mean(0)).T @ vectors[:, :found]
    directions = torch.linalg.qr(raw).Q.T  # once more orthogonal: rounding is squared in x x^T
    directions = directions * torch.where(directions @ x[0] > 0, -1.0, 1.0).unsqueeze(1)
    coordinates = x @ directions.T
    outside = torch.linalg.vector_norm(x - coordinates @ directions, dim=1)
    shares = values[: min(len(path) - 1, path.shape[1])] / values.sum()
    return Principal(directions, coordinates, outside, shares)


def random_walk(times: Tensor, size: int, seed: int = 0) -> Tensor:
    """Expected shares of variance [K] of a random walk in ``size`` dimensions seen at times [T].

    Its steps are independent, of one variance and no preferred direction. In many dimensions the
    Gram matrix of the walk is its expectation, min(t_i, t_j), centred; for equal steps its
    eigenvalues are 1 / (4 sin^2(pi k / 2T)), k = 1 ... T - 1. In few, walks are drawn.
    """
    t = (times - times[0]).double()
    if size >= MANY:
        gram = torch.minimum(t.unsqueeze(0), t.unsqueeze(1)).unsqueeze(0)
    else:
        draw = torch.Generator().manual_seed(seed)
        steps = torch.randn(WALKS, len(t) - 1, size, generator=draw, dtype=torch.float64)
        walks = (steps * t.diff().sqrt().unsqueeze(1)).cumsum(1)
        walks = torch.cat([torch.zeros_like(walks[:, :1]), walks], dim=1)
        gram = walks @ walks.mT
    values = torch.linalg.eigvalsh(_centred(gram)).flip(-1).clamp_min(0)
    shares = values / values.sum(-1, keepdim=True)
    expected: Tensor = shares.mean(0)[: min(len(t) - 1, size)]
    return expected


def _centred(gram: Tensor) -> Tensor:
    """The Gram matrix [..., T, T] of points with their mean taken off."""
    rows = gram - gram.mean(-1, keepdim=True)
    return rows - rows.mean(-2, keepdim=True)
