"""Rules about GANs and policies: what the two players, or the policy and its critic, do."""

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
    median,
    trailing,
)
from playground.record.view import Array, Series, View

CERTAIN = 0.98
"""Accuracy of a discriminator that is right about nearly everything (ours; Arjovsky & Bottou 2017
have accuracy 1 and a generator gradient down by up to five orders of magnitude)."""

LOST = 0.75
"""Share of the modes below which mode collapse is named (ours)."""

POOR = 0.3
"""Share of high-quality samples below which the generator has not found the data (ours)."""

ROTATION = 1.0
"""Median turn over median stretch of the field along itself (``probes.game.along``): beyond 1 the
field turns by more than 45 degrees before it has changed by its own size (ours)."""

KL = 0.1
"""Approximate KL of an iteration, nats: ten times Spinning Up's target of 0.01."""

ENTROPY = 0.05
"""Entropy over the first entropy (ours)."""

EXPLAINED = 0.05
"""Explained variance of a critic that explains nothing (ours; 0 is a constant)."""


def saturated(view: View) -> Iterable[Finding]:
    """The discriminator tells every fake from every real sample."""
    series = view.metric("accuracy", "discriminator")
    ends = trailing(series)
    yield from findings(
        "discriminator_saturated", held(series.values > CERTAIN, series.x), ends, CERTAIN,
        lambda k: f"the discriminator is right about {100 * ends[k]:.1f} % of the samples",
        "discriminator",
    )  # fmt: skip


def collapse(view: View) -> Iterable[Finding]:
    """The generator makes a part of the data only."""
    modes, perfect = view.metric("modes"), view.metric("modes/perfect")
    if not modes or not perfect or len(modes.values) < 3:
        return
    share, quality = modes.values / np.maximum(perfect.values, 1.0), view.metric("high_quality")
    some = quality.values > POOR if quality else modes.values > 0
    where = held((share < LOST) & some, modes.x, window=3, share=1.0)
    yield from findings(
        "mode_collapse", where, share[-1], LOST,
        lambda k: f"{modes.values[-1, k]:.0f} of {perfect.values[-1, k]:.0f} modes", "generator",
    )  # fmt: skip


def off_data(view: View) -> Iterable[Finding]:
    """The generator's samples are not where the data are."""
    quality, perfect = view.metric("high_quality"), view.metric("high_quality/perfect")
    if not quality or not perfect or len(quality.values) < 4:
        return
    late = quality.values.copy()
    late[: len(late) // 2] = np.inf  # it needs time to get there

    def evidence(k: int) -> str:
        return (
            f"{100 * quality.values[-1, k]:.0f} % of the samples are near a mode, where a perfect "
            f"sampler has {100 * perfect.values[-1, k]:.0f} %"
        )

    where = held(late < POOR, quality.x, window=2, share=1.0)
    yield from findings("off_data", where, quality.values[-1], POOR, evidence, "generator")


def rotation(view: View) -> Iterable[Finding]:
    """The field turns more than it stretches, and does not shrink."""
    found = view.measured("", "game")
    if not {"stretch", "turn", "field_norm"} <= set(found) or len(view.players) < 2:
        return
    stretch, turn, norm = (found[name] for name in ("stretch", "turn", "field_norm"))
    if len(norm.values) < 8:
        return
    ratio = median(turn.values) / np.maximum(median(np.abs(stretch.values)), 1e-12)
    stays = median(norm.values[-4:]) > 0.5 * median(norm.values[:4])
    for member in np.flatnonzero((ratio > ROTATION) & stays):
        size = min(float(ratio[member]), 1e6)
        yield Finding(
            "rotation", int(member), float(norm.x[7]), size, ROTATION, 1.0,
            f"along its own direction the field turns {size:.3g} times as much as it stretches, "
            f"and its norm is {norm.values[-1, member]:.3g} after {norm.values[0, member]:.3g} "
            "at the start", began=float(norm.x[0]),
        )  # fmt: skip


def policy_jump(view: View) -> Iterable[Finding]:
    """The policy moves far within one iteration."""
    series = first_metric(view, "approx_kl")
    if not series:
        return
    most, where = largest(series.values), ever(series.values > KL, series.x, window=8)

    def evidence(k: int) -> str:
        return f"the approximate KL is up to {most[k]:.3g} nats an iteration"

    yield from findings("policy_jump", where, most, KL, evidence, view.players[0])


def entropy_collapse(view: View) -> Iterable[Finding]:
    """The policy has become deterministic without having learned the task."""
    series, returns = first_metric(view, "entropy"), view.metric("train/return")
    threshold = view.solved
    if not series or not returns or threshold is None or (series.values < 0).any():
        return  # the entropy of a density has no zero to go to
    poor = trailing(returns) < threshold - 0.5 * abs(threshold)
    share = series.values / series.values[0]
    ends, gained = trailing(series, 8), trailing(returns, 8)

    def evidence(k: int) -> str:
        return (
            f"entropy {ends[k]:.2g} nats of {series.values[0, k]:.2g} at the start, return "
            f"{gained[k]:.4g} where {threshold:.4g} is solved"
        )

    where = held((share < ENTROPY) & poor, series.x, window=8)
    yield from findings("entropy_collapse", where, share[-1], ENTROPY, evidence, view.players[0])


def useless_critic(view: View) -> Iterable[Finding]:
    """The critic explains nothing of returns that are not yet all alike and good."""
    series, returns = first_metric(view, "explained_variance"), view.metric("train/return")
    if len(series.values) < 32:
        return
    half = Series(series.x[len(series.x) // 2 :], series.values[len(series.x) // 2 :])
    threshold, ends = view.solved, trailing(half)
    unsolved = np.ones(len(ends), bool)
    if threshold is not None:
        evaluated = trailing(view.metric("return"), 1)
        unsolved = np.fmax(trailing(returns), evaluated) < threshold

    def evidence(k: int) -> str:
        return f"explained variance {ends[k]:.2g} over the second half of the run"

    where = held((half.values < EXPLAINED) & unsolved, half.x)
    whole = replace(where, now=where.now & (where.since <= half.x[len(half.x) // 2]))
    yield from findings("useless_critic", whole, ends, EXPLAINED, evidence, view.players[-1])


def first_metric(view: View, name: str) -> Series:
    """A metric of the run or of the first player that has it."""
    for player in ("", *view.players):
        if view.has(name, player):
            return view.metric(name, player)
    empty: Array = np.empty((0, len(view.members)))
    return Series(np.empty(0), empty)


RULES = (
    Rule(
        "discriminator_saturated",
        "The discriminator is sure of everything, so its slope at the fakes, and with it what the "
        "generator can learn, is nearly gone or pure noise.",
        "Arjovsky & Bottou 2017, theorem 2.4 and figure 2; the threshold is ours",
        "a generator whose samples improve all the same",
        "penalty.r1, instance noise, a smaller discriminator learning rate, loss=wgan with "
        "penalty.gradient",
        saturated, ("gan",),
    ),
    Rule(
        "mode_collapse",
        "The generator covers a part of the data's modes and has left out the others.",
        "a mode counts with a fifth of its share of high-quality samples; three evaluations and "
        "three quarters are ours",
        "the missing modes in a larger sample of the generator",
        "penalty.r1 or penalty.gradient, packing, a game method (stepper=)",
        collapse, ("gan",),
    ),
    Rule(
        "off_data",
        "Most of the generator's samples lie where there are no data.",
        "high-quality share as in Srivastava et al. 2017; 30 % is ours",
        "quality that rises with more of the same training",
        "see what else was found; else longer training, other learning rates",
        off_data, ("gan",),
    ),
    Rule(
        "rotation",
        "The two players chase each other around the equilibrium instead of approaching it.",
        "Mescheder et al. 2017, section 3; Berard et al. 2020; the ratio is ours",
        "a path-angle without a bump; convergence with a smaller step alone",
        "stepper=extragradient, optimistic or consensus; penalty.r1; alternating rounds",
        rotation,
    ),
    Rule(
        "policy_jump",
        "The policy moves so far in one iteration that the data no longer speak about it.",
        "Schulman et al. 2017; ten times the KL target of Spinning Up",
        "returns that keep improving at this KL",
        "a smaller optimizer.lr, fewer epochs, algorithm.target_kl",
        policy_jump, ("rl",),
    ),
    Rule(
        "entropy_collapse",
        "The policy has become nearly deterministic before it has learned the task, and no longer "
        "explores.",
        "Williams & Peng 1991 (entropy keeps exploring); 5 % is ours",
        "returns that rise again without a change",
        "algorithm.entropy_coefficient, a smaller optimizer.lr",
        entropy_collapse, ("rl",),
    ),
    Rule(
        "useless_critic",
        "The critic predicts no better than a constant.",
        "explained variance as in Stable-Baselines3; 0.05 is ours",
        "a critic that explains returns on evaluation episodes (explained_variance/held_out)",
        "a larger value learning rate or more value updates, normalised rewards, a check that "
        "targets bootstrap at truncation",
        useless_critic, ("rl",),
    ),
)  # fmt: skip
