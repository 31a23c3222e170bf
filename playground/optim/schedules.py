"""The factor on the learning rate: annealing over the budget, after a linear warm-up."""

import math

from torch import Tensor


def factor(
    schedule: str,
    final: float | Tensor,
    warmup: int,
    progress: float,
    count: int | Tensor,
) -> float | Tensor:
    """Factor by which one update's learning rate is multiplied.

    With p the progress, f the final share, t the count and w the warm-up:

        constant: 1
        linear:   1 + (f - 1) p
        cosine:   f + (1 - f) (1 + cos(pi p)) / 2
        warm-up:  all of these times min(1, t / w)

    Args:
        schedule: ``constant``, ``linear`` or ``cosine``.
        final: f, a float or [M, 1].
        warmup: w, in updates; 0 for none.
        progress: share of the budget used so far, in [0, 1].
        count: t, the number of this update, from 1; an int or [M, 1].

    Returns:
        A float, or [M, 1] where ``final`` or ``count`` is a tensor that matters.

    Raises:
        ValueError: the schedule is unknown.

    Source: cosine is equation 5 of Loshchilov and Hutter (2017) with one period; the warm-up is
    section 2.2 of Goyal et al. (2017), which reaches the full rate at update w.
    """
    if schedule == "constant":
        annealed: float | Tensor = 1.0
    elif schedule == "linear":
        annealed = 1.0 + (final - 1.0) * progress
    elif schedule == "cosine":
        annealed = final + (1.0 - final) * (0.5 * (1.0 + math.cos(math.pi * progress)))
    else:
        raise ValueError(f"schedule={schedule}: allowed are constant, linear, cosine")
    if warmup == 0:
        return annealed
    if isinstance(count, Tensor):
        return annealed * (count / warmup).clamp(max=1.0)
    return annealed * min(1.0, count / warmup)
