"""Rules about the gradient itself: not finite, spiking, exploding, vanishing, dead units."""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from playground.diagnosis.finding import (
    Finding,
    Rule,
    findings,
    held,
    leading,
    rolling,
    trailing,
)
from playground.record.view import Array, Series, View

SPIKE, SPIKE_EARLY, BEFORE = 50.0, 10.0, 64
"""A spike is so many times the median of the 64 updates before and that of the first 64.
Pascanu et al. (2013) clip at up to 10 times the average norm; 50 and 10 are ours, since the norms
of minibatches are heavy-tailed."""

GROWTH = 1e3
"""Growth of the norm over a run that counts as exploding (ours)."""

TINY = 1e-7
"""Mean absolute gradient below which a tensor counts as without one (SageMaker Debugger's rule
VanishingGradient)."""

DECAY = 1e-4
"""Mean absolute error signal of the first layer over the last layer's (ours: a factor 10 a layer
over four layers)."""

DEAD = 0.8
"""Share of a hidden layer's units without any gradient in a batch (ours: SageMaker Debugger's
DeadRelu has half of a layer over all data; in one batch that happens in healthy networks)."""


def non_finite(view: View) -> Iterable[Finding]:
    """A gradient or update that is not a number."""
    for event in view.events:
        if event["kind"] in ("nonfinite", "frozen"):
            yield Finding("non_finite", int(event["member"]), float(event["iteration"]),
                          float("nan"), 0.0, 1.0, str(event["message"]),
                          began=float(event["iteration"]))  # fmt: skip


def spike(view: View) -> Iterable[Finding]:
    """One update's norm far above those before it, where nothing clips it."""
    for player in view.players:
        series = view.gradient(player, "norm")
        norms = finite_norms(series)
        if len(norms) <= BEFORE or view.gradient(player, "clip_coefficient", "clipped"):
            continue
        ratio = norms / np.maximum(rolling(norms, BEFORE), 1e-30)
        early = norms / np.maximum(np.median(norms[:BEFORE], axis=0), 1e-30)
        large = (ratio > SPIKE) & (early > SPIKE_EARLY)
        for member in np.flatnonzero(large.any(axis=0)):
            first = int(large[:, member].argmax())
            factor = float(ratio[first, member])
            yield Finding(
                "gradient_spike", int(member), float(series.x[first]), factor, SPIKE, 1.0,
                f"norm {norms[first, member]:.3g} is {factor:.0f} times the median of the "
                f"{BEFORE} updates before", player, began=float(series.x[first]),
            )  # fmt: skip


def exploding(view: View) -> Iterable[Finding]:
    """The norm grows by orders of magnitude and stays there."""
    for player in view.players:
        yield from _exploding(view, player)


def _exploding(view: View, player: str) -> list[Finding]:
    series = view.gradient(player, "norm")
    if not series:
        return []
    start, end = leading(series), trailing(series)
    where = held(finite_norms(series) > GROWTH * start, series.x)

    def evidence(k: int) -> str:
        return f"norm {start[k]:.3g} at the start, {end[k]:.3g} at the end"

    growth = end / np.maximum(start, 1e-37)
    return findings("exploding_gradient", where, growth, GROWTH, evidence, player)


def vanishing(view: View) -> Iterable[Finding]:
    """The gradient fades from the last layer to the first, or is too small anywhere."""
    for player in view.players:
        yield from _vanishing(view, player)


def _vanishing(view: View, player: str) -> list[Finding]:
    layers = first_network(view, player)
    if len(layers) < 2:
        return []
    first = view.gradient(player, "mean_abs", tensor=layers[0])
    last = view.gradient(player, "mean_abs", tensor=layers[-1])
    if not first or first.values.shape != last.values.shape:
        return []
    ratio = first.values / np.maximum(last.values, 1e-37)
    met = (ratio < DECAY) | ((first.values < TINY) & (last.values > 10 * TINY))
    ends = trailing(Series(first.x, ratio))

    def evidence(k: int) -> str:
        return (
            f"mean absolute gradient of {layers[0]} is {ends[k]:.2g} of that of {layers[-1]}, "
            f"{len(layers) - 1} layers on"
        )

    where = held(met, first.x)
    return findings("vanishing_gradient", where, ends, DECAY, evidence, player, layers[0])


def dead_units(view: View) -> Iterable[Finding]:
    """Hidden units that are 0 for a whole batch: no gradient by their bias, nor beyond them."""
    for player in view.players:
        for tensor, beyond in hidden(view, player):
            yield from _dead(view, player, tensor, beyond)


def _dead(view: View, player: str, tensor: str, beyond: str) -> list[Finding]:
    own, after = (view.gradient(player, "zero_share", tensor=name) for name in (tensor, beyond))
    if not own or own.values.shape != after.values.shape:
        return []
    silent = np.minimum(own.values, after.values)
    shares = trailing(Series(own.x, silent))

    def evidence(k: int) -> str:
        return f"{100 * shares[k]:.0f} % of the units of {tensor} are off for the whole batch"

    last = [name for name in tensors(view, player) if stem(name) == stem(tensor)][-1]
    used = ~(view.gradient(player, "zero_share", tensor=last).values == 1).all(axis=0)
    where = held((silent >= DEAD) & used, own.x)
    return findings("dead_units", where, shares, DEAD, evidence, player, tensor)


def cut_off(view: View) -> Iterable[Finding]:
    """A layer, or a whole network, without any gradient from the first update on."""
    for player in view.players:
        networks: dict[str, list[Array]] = {}
        for tensor in tensors(view, player):
            share = view.gradient(player, "zero_share", tensor=tensor)
            if share:
                networks.setdefault(stem(tensor), []).append((share.values == 1).all(axis=0))
        for network, silent in networks.items():
            evidence = f"no tensor of {network or player} ever had a gradient"
            yield from _never(view, player, network, np.all(silent, axis=0), evidence)
        for tensor, beyond in hidden(view, player):
            own, after = (
                view.gradient(player, "zero_share", tensor=name) for name in (tensor, beyond)
            )
            if own and own.values.shape == after.values.shape:
                alone = (own.values == 1).all(axis=0) & (after.values < DEAD).all(axis=0)
                evidence = f"{tensor} never had a gradient, {beyond} behind it has one"
                yield from _never(view, player, tensor, alone, evidence)


def _never(view: View, player: str, tensor: str, which: Array, evidence: str) -> Iterable[Finding]:
    if not which.any() or player in (view.config.get("frozen") or ()):
        return
    for member in np.flatnonzero(which):
        yield Finding(
            "cut_off", int(member), 1.0, 1.0, 1.0, 1.0, evidence, player, tensor, began=1.0
        )


def hidden(view: View, player: str) -> list[tuple[str, str]]:
    """Hidden layers' biases, each with the weights behind it in the same network."""
    names = tensors(view, player)
    pairs = pairwise(names)
    return [(a, b) for a, b in pairs if a.endswith("bias") and b.endswith("weight")
            and stem(a) == stem(b)]  # fmt: skip


def stem(tensor: str) -> str:
    """The network of a tensor: ``policy`` of ``policy.0.bias``."""
    return tensor.rpartition(".")[0].rpartition(".")[0]


def finite_norms(series: Series) -> Array:
    """Norms [T, M] with 0 for what is missing and the largest float for what is not finite."""
    result: Array = np.nan_to_num(series.values, nan=0.0, posinf=3e38)
    return result


def tensors(view: View, player: str) -> list[str]:
    """The player's tensors in the order of its layers."""
    return list(view.manifest.get("tensors", {}).get(player, []))


def first_network(view: View, player: str) -> list[str]:
    """Biases of the player's first network in the order of its layers, or its weights.

    A bias's gradient is the layer's error signal; a weight's is that times the layer's input,
    which may shrink from layer to layer as well and hide it.
    """
    names = tensors(view, player)
    own = [name for name in names if stem(name) == stem(names[0])]
    biases = [name for name in own if name.endswith("bias")]
    return biases or [name for name in own if name.endswith("weight")]


RULES = (
    Rule(
        "cut_off",
        "A layer gets no gradient at all though what it computes is used: it is cut off from the "
        "loss.",
        "a fact, not an estimate",
        "nothing, unless it is held on purpose",
        "look for detach, no_grad, argmax or a copy between this layer and the loss",
        cut_off,
    ),
    Rule(
        "dead_units",
        "Most units of a hidden layer are off for every sample, so nothing that passes through "
        "them is learned any more.",
        "SageMaker Debugger DeadRelu; CS231n, neural networks 1; 80 % of a layer is ours",
        "a larger batch in which the same units have a gradient",
        "a smaller learning rate, leaky_relu, or He initialisation",
        dead_units,
    ),
    Rule(
        "vanishing_gradient",
        "The gradient shrinks by orders of magnitude on its way from the last layer to the first: "
        "early layers hardly learn.",
        "Glorot & Bengio 2010, section 4; SageMaker Debugger VanishingGradient for 1e-7; the "
        "ratio 1e-4 is ours",
        "early layers whose update-to-parameter ratio is as large as the last layer's",
        "an initialisation that keeps the variance (he for relu, glorot for tanh), an activation "
        "that does not saturate, fewer layers",
        vanishing,
    ),
    Rule(
        "exploding_gradient",
        "The gradient has grown by a factor of a thousand or more and stays there.",
        "Pascanu et al. 2013; the factor is ours",
        "a loss that falls at the same time",
        "a smaller learning rate, or optimizer.clip_norm",
        exploding,
    ),
    Rule(
        "gradient_spike",
        "One update's gradient stands far above all before it: a bad batch, a cliff, or a bug in "
        "the data.",
        "Pascanu et al. 2013, section 3.2 (cliffs); the factors are ours",
        "the same batch giving an ordinary gradient at the same parameters",
        "optimizer.clip_norm at a few times the usual norm; look at that batch",
        spike,
    ),
    Rule(
        "non_finite",
        "A gradient or an update was not a number; it was not applied.",
        "a fact, not an estimate",
        "nothing",
        "look at what was found before it, at the named tensor, and at the objective there",
        non_finite,
    ),
)  # fmt: skip
