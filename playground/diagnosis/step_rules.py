"""Rules about the step: too long, too short, and where it leads."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from playground.diagnosis.finding import (
    Finding,
    Rule,
    ever,
    findings,
    held,
    largest,
    leading,
    median,
    trailing,
)
from playground.record.view import Array, Series, View

BOUNCE = -0.5
"""Cosine of consecutive gradients below which a step crosses the valley (ours; on a quadratic it
is -1 where lr lambda > 1, and the step diverges beyond 2)."""

LONG = 0.1
"""Update norm over parameter norm that is too long (ours; CS231n wants about 1e-3)."""

SHORT = 1e-5
"""Update norm over parameter norm that is too short (ours: a hundredth of CS231n's 1e-3)."""

WORSE = 3.0
"""Times the first loss (ours)."""

FLAT, HIGH = 0.02, 0.5
"""A loss that changed by less than 2 % over half of a run, and is above half of the first one
(ours; SageMaker Debugger's LossNotDecreasing compares ten steps)."""

MARGIN = 0.05
"""Share of its first value by which a metric must have become worse, a loss better (ours)."""

CRITICAL = 1e-3
"""Gradient norm over the first gradient norm at a critical point (ours)."""


def too_long(view: View) -> Iterable[Finding]:
    """Bouncing between the walls of a valley, moving too far, or a loss that grows."""
    for player in view.players:
        if single(view):
            yield from bouncing(view, player)
            yield from grown(view, player)
        if view.domain != "landscape":
            yield from large_ratio(view, player)


def large_ratio(view: View, player: str) -> list[Finding]:
    """Updates of a tenth of the parameters' norm."""
    ratio = view.gradient(player, "ratio", "update")
    if not ratio:
        return []
    most = largest(ratio.values)

    def evidence(k: int) -> str:
        return f"an update is up to {100 * most[k]:.3g} % of the parameters' norm"

    where = ever(ratio.values > LONG, ratio.x)
    return findings("step_too_long", where, most, LONG, evidence, player)


def bouncing(view: View, player: str) -> list[Finding]:
    """Consecutive gradients that point against each other."""
    cosine = view.gradient(player, "cosine_previous")
    if not cosine:
        return []
    ends = trailing(cosine)

    def evidence(k: int) -> str:
        return f"consecutive gradients have cosine {ends[k]:.2f}: steps cross the valley"

    where = held(cosine.values < BOUNCE, cosine.x)
    return findings("step_too_long", where, ends, BOUNCE, evidence, player)


def grown(view: View, player: str) -> list[Finding]:
    """A loss above three times the first one."""
    loss = view.metric("loss", player)
    start, ends = leading(loss, 1), trailing(loss)
    if not loss or not (start > 0).any():
        return []
    values = np.nan_to_num(loss.values, nan=np.inf)
    met = (values > WORSE * start) & (start > 0)

    def evidence(k: int) -> str:
        return f"the loss went from {start[k]:.3g} to {ends[k]:.3g}"

    return findings("step_too_long", held(met, loss.x), ends / start, WORSE, evidence, player)


def too_short(view: View) -> Iterable[Finding]:
    """Updates that hardly move the parameters for half of the run, far from the end."""
    for player in view.players:
        if player not in (view.config.get("frozen") or ()):
            yield from _too_short(view, player)


def _too_short(view: View, player: str) -> list[Finding]:
    ratio = view.gradient(player, "ratio", "update")
    if not ratio:
        return []
    ends = trailing(ratio)
    where = held((ratio.values < SHORT) & unfinished(view, player), ratio.x)
    long = where.since <= (ratio.x[0] + ratio.x[-1]) / 2  # a schedule that ends at 0 is none

    def evidence(k: int) -> str:
        return f"an update is {ends[k]:.1e} of the parameters' norm"

    where = replace(where, now=where.now & long)
    return findings("step_too_short", where, ends, SHORT, evidence, player)


def plateau(view: View) -> Iterable[Finding]:
    """Nothing has changed for half of the run, and not because it is done."""
    series, high = progress(view)
    if not series or len(series.values) < 8:
        return
    half = len(series.values) // 2
    quarter = max(1, half // 2)
    before, after = median(series.values[half : half + quarter]), median(series.values[-quarter:])
    first = median(series.values[: max(1, len(series.values) // 50)])
    change = np.abs(after - before) / np.maximum(np.abs(first), 1e-30)
    flat = (change < FLAT) & high
    for member in np.flatnonzero(flat):
        yield Finding(
            "plateau", int(member), float(series.x[half]), float(change[member]), FLAT,
            1 - float(change[member]) / FLAT,
            f"{first[member]:.4g} at the start, {before[member]:.4g} at half of the run, "
            f"{after[member]:.4g} at its end", began=float(series.x[half]),
        )  # fmt: skip


def elsewhere(view: View) -> Iterable[Finding]:
    """The gradient has vanished, far from any known minimum."""
    norm, distance = view.gradient(view.players[0], "norm"), view.metric("distance")
    if not norm or not distance:
        return
    start, ends = leading(norm, 1), trailing(norm)
    far = trailing(distance, 1) > 0.1 * np.maximum(leading(distance, 1), 1e-12)
    met = (norm.values <= CRITICAL * start) & far  # also where it starts at 0

    def evidence(k: int) -> str:
        return (
            f"gradient norm {ends[k]:.2g} of {start[k]:.2g} at the start, at a distance of "
            f"{distance.values[-1, k]:.3g} from the nearest minimiser"
        )

    where = held(met, norm.x)
    yield from findings(
        "wrong_critical_point",
        where,
        ends / np.maximum(start, 1e-30),
        CRITICAL,
        evidence,
        view.players[0],
    )


def mismatch(view: View) -> Iterable[Finding]:
    """The loss falls while what is evaluated gets worse."""
    if len(view.players) != 1:
        return
    loss, metric = view.metric("loss", view.players[0]), view.metric(view.main_metric)
    if len(metric.values) < 6 or not loss:
        return
    sign = 1.0 if view.manifest.get("higher_is_better") else -1.0
    first, last = metric.values[0], median(metric.values[-3:])
    start, end = leading(loss, 1), trailing(loss)
    worse = sign * (first - last) > MARGIN * np.abs(first)
    falls = start - end > MARGIN * np.abs(start)
    for member in np.flatnonzero(worse & falls):
        change = float(sign * (first - last)[member] / max(abs(first[member]), 1e-30))
        yield Finding(
            "objective_mismatch", int(member), float(metric.x[-3]), change, MARGIN, 1.0,
            f"the loss went from {start[member]:.4g} to {end[member]:.4g}, but {view.main_metric} "
            f"from {first[member]:.4g} to {last[member]:.4g}", view.players[0],
            began=float(metric.x[-3]),
        )  # fmt: skip


def single(view: View) -> bool:
    """Whether one player minimises one function of its own parameters."""
    return len(view.players) == 1 and view.domain in ("supervised", "landscape", "custom")


def unfinished(view: View, player: str) -> Array:
    """Whether there is still much to do [M]; true where the loss does not tell."""
    if not single(view):
        return np.ones(len(view.members), bool)
    if view.has("distance"):
        distance = view.metric("distance")
        result: Array = trailing(distance, 1) > 0.1 * leading(distance, 1)
        return result
    loss = view.metric("loss", player)
    late: Array = trailing(loss) > HIGH * leading(loss, 1)
    return late


def progress(view: View) -> tuple[Series, Array]:
    """What should improve, and whether it is still far from good [M]."""
    everyone = np.ones(len(view.members), bool)
    if view.domain == "rl":
        series = view.metric("train/return")
        if view.solved is None:
            return series, ~everyone
        return series, trailing(series) < view.solved - 0.1 * abs(view.solved)
    if single(view) and not view.has("distance"):
        series = view.metric("loss", view.players[0])
        return series, trailing(series) > HIGH * leading(series, 1)
    return Series(np.empty(0), np.empty((0, len(view.members)))), everyone


RULES = (
    Rule(
        "step_too_long",
        "Updates overshoot: they jump across the valley, move a tenth of the parameters at once, "
        "or make the loss larger.",
        "cosine -1 where lr times curvature exceeds 1 (quadratic); CS231n, neural networks 3, for "
        "the ratio; the thresholds are ours",
        "a smaller learning rate that does no better",
        "a smaller optimizer.lr, a warm-up, optimizer.clip_norm",
        too_long,
    ),
    Rule(
        "step_too_short",
        "Updates hardly move the parameters while there is still much to learn.",
        "CS231n, neural networks 3 (about 1e-3 wanted); 1e-5 is ours",
        "a larger learning rate that does no better",
        "a larger optimizer.lr, an optimizer that scales by coordinate (adam, rmsprop)",
        too_short,
    ),
    Rule(
        "objective_mismatch",
        "The loss falls while what is evaluated gets worse: what is minimised is not what is "
        "wanted, or its sign is wrong.",
        "ours",
        "a metric that improves later at the same objective",
        "check the objective's sign and labels; if training and test part, less capacity or "
        "weight decay",
        mismatch, ("supervised",),
    ),
    Rule(
        "wrong_critical_point",
        "The gradient is gone, but this is not a minimum that the problem knows: a poorer local "
        "minimum, a saddle point or a flat region.",
        "Dauphin et al. 2014; the ratio 1e-3 is ours",
        "a negative curvature along which the loss falls tells a saddle from a minimum "
        "(probes.curvature)",
        "another start, noise, momentum",
        elsewhere, ("landscape",),
    ),
    Rule(
        "plateau",
        "What should improve has not changed for half of the run.",
        "SageMaker Debugger LossNotDecreasing; 2 % over half of a run is ours",
        "improvement after more of the same training",
        "see what else was found: a plateau is a symptom; else a larger learning rate, another "
        "start, a check of labels, rewards and the sign of the loss",
        plateau,
    ),
)  # fmt: skip
