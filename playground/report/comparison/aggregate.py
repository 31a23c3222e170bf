"""One number for many runs, with its uncertainty: interquartile means and bootstrap intervals.

Shape legend: M runs (members, seeds) of a task.
"""

from collections.abc import Callable, Sequence

import numpy as np

Statistic = Callable[[np.ndarray], np.ndarray]
"""From values [..., all runs of all tasks] to one number [...]."""


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the middle half over the last axis: 25 % cut off at either end, rounded down.

    Source: Agarwal et al. 2021, section 4.3; the cut of ``scipy.stats.trim_mean``.
    """
    count = values.shape[-1]
    cut = int(0.25 * count)
    middle = np.sort(values, axis=-1)[..., cut : count - cut]
    return np.asarray(middle.mean(axis=-1))


def stratified_bootstrap(
    tasks: Sequence[np.ndarray],
    statistic: Statistic = interquartile_mean,
    *,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """A statistic over the runs of all tasks, and its percentile interval: (value, low, high).

    Runs are drawn with replacement inside each task, never across tasks.

    Args:
        tasks: values [M] of every task, each normalised by the caller.
        statistic: of all values together.
        resamples: bootstrap draws (rliable: 50,000; ours 10,000, whose ends move by a
            hundredth of the interval's width).
        level: of the interval.
        seed: of the draws.

    Raises:
        ValueError: a task without values, or with values that are not finite.

    Source: Agarwal et al. 2021, section 4.1; percentile interval: Efron 1979.
    """
    arrays = [np.asarray(task, float) for task in tasks]
    for task in arrays:
        if task.ndim != 1 or not task.size or not np.isfinite(task).all():
            raise ValueError("every task needs a vector of finite values")
    rng = np.random.default_rng(seed)
    drawn = [task[rng.integers(len(task), size=(resamples, len(task)))] for task in arrays]
    estimates = statistic(np.concatenate(drawn, axis=-1))
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(estimates, [tail, 100 - tail])
    return float(statistic(np.concatenate(arrays))), float(low), float(high)
