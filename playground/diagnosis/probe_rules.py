"""Rules on what the noise and curvature probes measured; silent where they did not."""

from collections.abc import Iterable

import numpy as np

from playground.diagnosis.finding import Finding, Rule, findings, held
from playground.record.view import Array, Series, View

NOISY = 10.0
"""Noise scale over the samples of a batch: the gradient is then mostly noise, and of each sample
at most a tenth is wasted by a larger batch, 1 / (1 + B / scale) (McCandlish et al. 2018, eq. 2.11;
the factor is ours)."""

EDGE = (0.95, 1.2)
"""Sharpness over the optimizer's line at the edge of stability: Cohen et al. 2021, figure 1, hover
just above 1; the bounds are ours."""

SADDLE = 3
"""Code of a saddle point in the column of ``kind`` (``probes.critical.KINDS``)."""

LAST = 3
"""Measurements in a row that must agree (ours)."""


def noisy(view: View) -> Iterable[Finding]:
    """The noise scale is far above the batch."""
    for player in view.players:
        found = view.measured(player, "noise")
        if {"noise_scale_low", "samples"} <= set(found):
            low, samples = found["noise_scale_low"], found["samples"]
            yield from _noisy(player, low, _aligned(samples, low.x))


def _noisy(player: str, low: Series, samples: Array) -> list[Finding]:
    ratio = low.values / np.maximum(samples, 1.0)
    where = held(np.nan_to_num(ratio, nan=0.0) > NOISY, low.x, window=LAST, share=1.0)

    def evidence(k: int) -> str:
        return (
            f"the noise scale is at least {low.values[-1, k]:.3g} samples (95 %), the batch has "
            f"{samples[-1, k]:.0f}"
        )

    return findings("noise_dominated", where, ratio[-1], NOISY, evidence, player)


def edge(view: View) -> Iterable[Finding]:
    """The sharpness sits at the optimizer's own stability line."""
    for player in view.players:
        ratio = view.measured(player, "curvature").get("sharpness_ratio")
        if ratio:
            yield from _edge(player, ratio)


def _edge(player: str, ratio: Series) -> list[Finding]:
    met = (ratio.values > EDGE[0]) & (ratio.values < EDGE[1])
    where = held(met, ratio.x, window=LAST, share=1.0)

    def evidence(k: int) -> str:
        return f"the sharpness is {ratio.values[-1, k]:.3g} of the optimizer's stability line"

    return findings("edge_of_stability", where, ratio.values[-1], EDGE[0], evidence, player)


def saddle(view: View) -> Iterable[Finding]:
    """The gradient is as good as zero, and the Hessian has a direction that leads down."""
    for player in view.players:
        found = view.measured(player, "curvature")
        if {"kind", "lambda_min", "lambda_max"} <= set(found):
            yield from _saddle(player, found["kind"], found["lambda_min"], found["lambda_max"])


def _saddle(player: str, kind: Series, low: Series, high: Series) -> list[Finding]:
    where = held(kind.values == SADDLE, kind.x, window=2, share=1.0)

    def evidence(k: int) -> str:
        return (
            f"curvature from {low.values[-1, k]:.3g} to {high.values[-1, k]:.3g} where the "
            "gradient is as good as zero"
        )

    return findings("saddle", where, low.values[-1], 0.0, evidence, player)


def _aligned(series: Series, x: Array) -> Array:
    """The values at positions that another series of the same probe has [T, M]."""
    return series.values[np.searchsorted(series.x, x)]


RULES = (
    Rule(
        "noise_dominated",
        "A batch's gradient is mostly noise: single steps hardly know where to go, and progress "
        "comes from averaging many.",
        "McCandlish et al. 2018, section 2; ten batches are ours",
        "a larger batch that needs as many updates",
        "a larger batch, a smaller learning rate, momentum or averaging",
        noisy,
    ),
    Rule(
        "edge_of_stability",
        "The largest curvature has grown until it stands at the line beyond which the optimizer "
        "oscillates, and stays there; the loss falls all the same. No fault, but the learning "
        "rate now decides how sharp a minimum can be.",
        "Cohen et al. 2021 (gradient descent), 2022 (adaptive methods); the bounds are ours",
        "a sharpness that does not follow when the learning rate is changed",
        "nothing; a smaller learning rate ends in a sharper place",
        edge,
    ),
    Rule(
        "saddle",
        "This is a saddle point: the gradient is gone, but some directions lead down.",
        "Dauphin et al. 2014; Jin et al. 2017 (second-order stationary points)",
        "a smallest eigenvalue whose residual exceeds its size (probes.curvature)",
        "noise (smaller batches), momentum, another start",
        saddle,
    ),
)  # fmt: skip
