"""Distances between two samples, for every member at once, in float64.

    sliced_wasserstein   mean over directions of W1 between projections (Rabin et al. 2011)
    mmd                  unbiased MMD^2, Gaussian kernel exp(-|x - y|^2 / 2 h^2), h the median
                         distance of the real samples (Gretton et al. 2012, eq. 3, section 8)
    frechet              |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)) of means and covariances
                         (Heusel et al. 2017, eq. 6); biased upward, about as 1/n
    kernel_distance      unbiased MMD^2, kernel (x.y/d + 1)^3 (Binkowski et al. 2018, section 3)
    precision, recall    share of fakes inside a ball around a real sample that reaches to its
                         k-th neighbour, and the reverse (Kynkaanniemi et al. 2019, k = 3)
    density, coverage    how many real balls a fake lies in, over k; share of real balls that
                         hold a fake (Naeem et al. 2020, k = 5)

A sample's distances are taken on blocks of it, which gives their standard errors.

Shape legend: M members (or blocks of members), N fake and R real samples, D dimensions.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

PRECISION_K, DENSITY_K = 3, 5


CHUNK = 32
"""Members whose kernels are in memory at once, some 8 MB each (ours)."""


def chunked(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """``function`` of tensors with the same leading axis, ``CHUNK`` rows at a time."""
    parts = zip(*(torch.split(tensor, CHUNK) for tensor in tensors), strict=True)
    return torch.cat([function(*part) for part in parts])


def directions(dimension: int, count: int, device: torch.device) -> Tensor:
    """Unit vectors [D, count]: one on the line, even angles in the plane, else random, fixed."""
    if dimension == 1:
        return torch.ones(1, 1, dtype=torch.float64, device=device)
    if dimension == 2:
        angle = math.pi * torch.arange(count, dtype=torch.float64, device=device) / count
        return torch.stack((angle.cos(), angle.sin()))
    source = torch.Generator().manual_seed(0)
    drawn = torch.randn(dimension, count, dtype=torch.float64, generator=source)
    return torch.nn.functional.normalize(drawn, dim=0).to(device)


def projections(x: Tensor, along: Tensor) -> Tensor:
    """Sorted projections [M, K, N] of samples [M, N, D] on directions [D, K]."""
    return torch.matmul(x.double(), along).transpose(1, 2).sort(dim=-1).values


def sliced_wasserstein(x: Tensor, y: Tensor) -> Tensor:
    """Mean over directions of W1 [M], of two ``projections`` of as many samples each."""
    return (x - y).abs().mean(dim=(1, 2))


def bandwidth(y: Tensor) -> Tensor:
    """Median distance [M] of different samples among y [M, R, D]."""
    pairs = torch.cdist(y.double(), y.double())
    first, second = torch.triu_indices(y.shape[1], y.shape[1], offset=1, device=y.device)
    return pairs[:, first, second].median(dim=-1).values


def mmd(x: Tensor, y: Tensor, width: Tensor) -> Tensor:
    """Unbiased MMD^2 [M] of x [M, N, D] and y [M, R, D] with a Gaussian kernel of width [M]."""
    x, y = x.double(), y.double()

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return torch.exp(-torch.cdist(a, b).square() / (2 * width.square())[:, None, None])

    return _unbiased(kernel(x, x), kernel(y, y), kernel(x, y))


def kernel_distance(x: Tensor, y: Tensor) -> Tensor:
    """Unbiased MMD^2 [M] of features x [M, N, D] and y [M, R, D] with the cubic kernel."""

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.transpose(1, 2) / a.shape[-1] + 1) ** 3

    x, y = x.double(), y.double()
    return _unbiased(kernel(x, x), kernel(y, y), kernel(x, y))


def _unbiased(xx: Tensor, yy: Tensor, xy: Tensor) -> Tensor:
    """Mean of xx and yy off their diagonals, minus twice the mean of xy."""

    def off_diagonal(k: Tensor) -> Tensor:
        n = k.shape[-1]
        return (k.sum(dim=(1, 2)) - k.diagonal(dim1=1, dim2=2).sum(dim=1)) / (n * (n - 1))

    return off_diagonal(xx) + off_diagonal(yy) - 2 * xy.mean(dim=(1, 2))


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [M, D] and unbiased covariance [M, D, D] of samples [M, N, D]."""
    x = x.double()
    mean = x.mean(dim=1)
    centred = x - mean[:, None]
    return mean, centred.transpose(1, 2) @ centred / (x.shape[1] - 1)


def frechet(x: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor]) -> Tensor:
    """Squared Frechet distance [M] of Gaussians with these ``moments``.

    tr (C C')^(1/2) is the sum of roots of the eigenvalues of the symmetric R C' R, R = C^(1/2).
    """
    (mean, cov), (other_mean, other) = x, y
    values, vectors = torch.linalg.eigh(cov)
    root = (vectors * values.clamp_min(0).sqrt()[:, None]) @ vectors.transpose(1, 2)
    cross = torch.linalg.eigvalsh(root @ other @ root).clamp_min(0).sqrt().sum(dim=-1)
    traces = (cov + other).diagonal(dim1=1, dim2=2).sum(dim=1)
    result: Tensor = (mean - other_mean).square().sum(dim=1) + traces - 2 * cross
    return result


def radii(x: Tensor, k: int) -> Tensor:
    """Distance [N] of every sample [N, D] to its k-th neighbour among the others."""
    distances = torch.cdist(x, x)
    distances.fill_diagonal_(0)
    return distances.kthvalue(min(k + 1, len(x)), dim=-1).values


def manifold_scores(fake: Tensor, real: Tensor) -> dict[str, Tensor]:
    """Precision, recall, density and coverage of one member: fake [N, D], real [R, D]."""
    fake, real = fake.double(), real.double()
    distances = torch.cdist(fake, real)  # [N, R]
    wide = distances <= radii(real, DENSITY_K)
    return {
        "precision": (distances <= radii(real, PRECISION_K)).any(dim=1).double().mean(),
        "recall": (distances <= radii(fake, PRECISION_K)[:, None]).any(dim=0).double().mean(),
        "density": wide.sum(dim=1).double().mean() / DENSITY_K,
        "coverage": wide.any(dim=0).double().mean(),
    }
