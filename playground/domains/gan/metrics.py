"""How well samples cover a mixture: modes, high-quality share, reverse KL.

A sample is of high quality within 3 sigma of the nearest centre (Lin et al. 2018, PacGAN;
Srivastava et al. 2017). With n_k such samples of mode k out of N:

    modes                 number of k with n_k / N >= .2 / K (ours: coverage by one sample,
                          ``modes/any``, is too weak)
    high_quality          sum_k n_k / N
    reverse_kl            KL(n_k / sum n || uniform), nats; log K, its maximum, where sum n = 0
    reverse_kl/off_mode   KL with a further bin of all other samples, || what a perfect
                          sampler gives: P shared by the modes, the rest off

A perfect sampler has high_quality P, the chi-square distribution of D degrees of freedom at 9
(.98889 in the plane, .99730 on the line), and reverse_kl of about (K - 1) / 2N, not 0: its own
scores stand beside every result.

Shape legend: M members, N samples, K modes.
"""

import math

import numpy as np
import torch
from torch import Tensor

PERFECT = {1: math.erf(3 / math.sqrt(2)), 2: 1 - math.exp(-4.5)}
"""{D: P}, the high-quality share of a perfect sampler."""

SHARE = 0.2
"""A mode counts from this share of 1/K on."""

Scores = dict[str, np.ndarray]


def count(samples: Tensor, centres: Tensor, sigma: float) -> Tensor:
    """High-quality samples of every mode [M, K] among samples [M, N, D]."""
    distance, nearest = torch.cdist(samples, centres.expand(len(samples), -1, -1)).min(dim=-1)
    good = (distance <= 3 * sigma).to(torch.int64)
    counts = torch.zeros(len(samples), len(centres), dtype=torch.int64, device=samples.device)
    return counts.scatter_add_(1, nearest, good)


def score(counts: np.ndarray, samples: int, perfect: float = PERFECT[2]) -> tuple[Scores, Scores]:
    """The metrics above and their standard errors, each [M], of counts [M, K] among N samples.

    Args:
        counts: [M, K].
        samples: N.
        perfect: P.

    Errors: binomial for ``high_quality``; for the divergences the delta method,
    sqrt((sum p log(p/q)^2 - KL^2) / n), which misses their upward bias.
    """
    modes = counts.shape[1]
    share = counts / samples
    good = counts.sum(axis=1)
    quality = good / samples
    histogram = counts / np.maximum(good, 1)[:, None]
    divergence, error = kl(histogram, np.full(modes, 1 / modes), np.maximum(good, 1))
    bins = np.concatenate([share, 1 - quality[:, None]], axis=1)
    ideal = np.append(np.full(modes, perfect / modes), 1 - perfect)
    off, off_error = kl(bins, ideal, np.full(len(counts), samples))
    scores = {
        "modes": (share >= SHARE / modes).sum(axis=1).astype(np.float64),
        "modes/any": (counts > 0).sum(axis=1).astype(np.float64),
        "high_quality": quality,
        "reverse_kl": np.where(good > 0, divergence, math.log(modes)),
        "reverse_kl/off_mode": off,
    }
    errors = {
        "high_quality": np.sqrt(quality * (1 - quality) / samples),
        "reverse_kl": error,
        "reverse_kl/off_mode": off_error,
    }
    return scores, errors


def kl(p: np.ndarray, q: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """KL(p || q) of histograms p [M, K] of n [M] samples, and its standard error, each [M]."""
    ratio = np.log(np.where(p > 0, p, 1) / q) * (p > 0)
    divergence = (p * ratio).sum(axis=1)
    variance = (p * ratio**2).sum(axis=1) - divergence**2
    return divergence, np.sqrt(np.maximum(variance, 0) / n)
