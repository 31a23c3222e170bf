"""Flow through each player's networks measured in a run; the functions are in ``formulas``."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from playground.game import Player
from playground.probes.flow.formulas import (
    BOUNDED,
    DYING,
    dormant,
    inactive,
    mean_square,
    silent,
    singular,
    trend,
)
from playground.probes.flow.propagation import (
    Node,
    backward_theory,
    forward_theory,
    nodes,
    returning,
)
from playground.probes.layers import Layer, Tracer
from playground.probes.passes import Key, Pass, Reading, Turn

Values = dict[tuple[str, str], Tensor]
"""{(weight, quantity): [M]}."""


class FlowProbe(Pass):
    """Signals, units and weights of every player that applies its weights in layers.

    Quantities of each layer, under the name of its weight:

        forward, backward                  mean squares of z and dL/dz, standard errors over rows
        forward_theory, backward_theory    for random weights of that size, see ``propagation``
        forward_sum, backward_sum and      the same of the sum that the layer's output is added
        their theory                       to: a residual stream, a recurrent unit's two inputs
        inactive                           share of its numbers where the activation is flat
        dead, or saturated                 share of its units that nearly always are
        dormant                            share of its units that hardly speak, by score
        sigma_max, condition               singular values of the weight, of every tensor of two
                                           or more axes

    and of each chain of layers, under the name of its last weight:

        forward_slope     change of log forward a layer, towards the output
        backward_slope    change of log E |dL/dz|^2 a layer, all units together, towards the
                          input: below 0 vanishing, above 0 exploding

    What follows a layer is found by comparing its output, through every activation, with the
    inputs of later layers: where nothing matches (gates) a chain ends, and what needs an
    activation is left out. Along sums a chain goes from sum to sum: a step is a residual block,
    or a time step. Where a layer's output is activated only after a sum, shares are those of the
    sum. Convolutions have channels as units. A player with a recurrent layer h_t also has the
    array ``gradient_by_step-<player>`` [M, 2, T]: |dL/dh_t| of the batch, measured and theory.
    An identity (IRNN) is not random weights: theory is then what it is meant to avoid.

    Args:
        every: iterations; None is the cadence of evaluations.
        threshold: tau of dormant units.
        largest: smaller side of a weight up to which its singular values are found.
    """

    name = "flow"

    def __init__(
        self, every: int | None = None, threshold: float = 0.025, largest: int = 1024
    ) -> None:
        self.every, self.threshold, self.largest = every, threshold, largest
        self._tracer: Tracer | None = None

    def measure(self, seen: Turn) -> Reading:
        """Every player's own layers, on its next batch."""
        if self._tracer is None:
            self._tracer = Tracer(seen.players)
        values: dict[Key, Tensor] = {}
        errors: dict[Key, Tensor] = {}
        arrays: dict[str, Tensor] = {}
        for name, move in seen.moves.items():
            tensors = seen.players[name].parameters.views
            found = nodes(self._tracer(move), name, tensors)
            forward = forward_theory(found, tensors)
            backward = backward_theory(found, forward, tensors)
            passed, error = passing(found, forward, backward)
            passed |= self._units(found)
            values |= {(name, *key): value for key, value in passed.items()}
            errors |= {(name, *key): value for key, value in error.items()}
            values |= self._weights(seen.players[name])
            steps = by_step(found, backward, tensors)
            if steps is not None:
                arrays[f"gradient_by_step-{name}"] = steps
        return Reading(values, errors, arrays)

    def _units(self, found: Sequence[Node]) -> Values:
        """Shares of layers whose activation is known."""
        values: Values = {}
        for weight in dict.fromkeys(node.weight for node in found):
            own = [node for node in found if node.weight == weight]
            acted = [(n, found[u].activation) for n in own for u in n.users if not found[u].is_sum]
            kinds = {kind for _, kind in acted}
            kind = min(kinds, default="")
            if len(kinds) != 1 or kind == "linear":
                continue
            z = torch.cat([rows(n.layer, n.layer.output) for n, _ in acted], dim=1)
            units = {"dormant": dormant(kind, z, self.threshold)}
            if kind in DYING + BOUNDED:
                units["inactive"] = inactive(kind, z).double().mean(dim=(1, 2))
                units["dead" if kind in DYING else "saturated"] = silent(kind, z)
            bad = ~torch.isfinite(z).flatten(1).all(dim=1)
            values |= {(weight, k): v.masked_fill(bad, torch.nan) for k, v in units.items()}
        return values

    def _weights(self, player: Player) -> dict[Key, Tensor]:
        """Singular values of one player's weights."""
        found: dict[Key, Tensor] = {}
        for tensor, value in player.parameters.views.items():
            if value.ndim < 3 or min(value.flatten(2).shape[1:]) > self.largest:
                continue
            high, condition = singular(value)
            found |= {
                (player.name, tensor, "sigma_max"): high,
                (player.name, tensor, "condition"): condition,
            }
        return found


def passing(
    found: Sequence[Node], forward: Sequence[Tensor], backward: Sequence[Tensor]
) -> tuple[Values, Values]:
    """Mean squares, theory and slopes, and their standard errors."""
    values: Values = {}
    errors: Values = {}
    groups: dict[tuple[str, str], list[int]] = {}
    for k, node in enumerate(found):
        groups.setdefault((node.weight, "_sum" if node.is_sum else ""), []).append(k)
    for (weight, end), places in groups.items():
        for way, theory, pieces in (
            ("forward", forward, [found[k].layer.output for k in places]),
            ("backward", backward, [found[k].delta for k in places]),
        ):
            parts = [rows(found[k].layer, p) for k, p in zip(places, pieces, strict=True)]
            key = (weight, f"{way}{end}")
            values[key], errors[key] = mean_square(torch.cat(parts, dim=1))
            shares = [part.shape[1] / sum(p.shape[1] for p in parts) for part in parts]
            means = [theory[k].flatten(1).mean(dim=1) if theory[k].ndim > 1 else theory[k]
                     for k in places]  # fmt: skip
            values[weight, f"{way}_theory" if not end else f"{way}_sum_theory"] = sum(
                (share * mean for share, mean in zip(shares, means, strict=True)),
                torch.zeros_like(means[0]),
            )
    for names, alike in joined(found).items():
        if len(names) > 1:
            for way, found_slope in slopes(found, alike).items():
                values[names[-1], way], errors[names[-1], way] = found_slope
    return values, errors


def slopes(
    found: Sequence[Node], alike: Sequence[Sequence[int]]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Trends along chains of the same weights, taken together, with their errors."""
    signals, lengths = [], []
    for places in zip(*alike, strict=True):
        own = [found[k] for k in places]
        z = torch.cat([rows(node.layer, node.layer.output) for node in own], dim=1)
        delta = torch.cat([rows(node.layer, node.delta) for node in own], dim=1)
        signals.append(mean_square(z)[0])
        lengths.append(delta.shape[2] * mean_square(delta)[0])
    return {"forward_slope": trend(signals), "backward_slope": trend(lengths[::-1])}


def joined(found: Sequence[Node]) -> dict[tuple[str, ...], list[list[int]]]:
    """{names of its weights: chains}, from every node that nobody leads to.

    From a node a chain goes to the sum that adds a branch to it, else to its first user; of what
    goes into one sum only, that sum stands for both.
    """
    result: dict[tuple[str, ...], list[list[int]]] = {}
    for k, node in enumerate(found):
        if node.source >= 0 or max(node.parts, default=-1) >= 0:
            continue
        chain = [k]
        while (last := found[chain[-1]]).users:
            sums = [u for u in last.users if found[u].is_sum and found[u].parts[0] == chain[-1]]
            chain.append((sums or last.users)[0])
        inner = [[found[u].is_sum for u in found[place].users] == [True] for place in chain]
        kept = [p for p, drop in zip(chain, inner, strict=True) if found[p].is_sum or not drop]
        result.setdefault(tuple(found[place].weight for place in kept), []).append(kept)
    return result


def by_step(
    found: Sequence[Node], backward: Sequence[Tensor], tensors: Mapping[str, Tensor]
) -> Tensor | None:
    """|dL/dh_t| of a recurrent layer's steps, measured and theory [M, 2, T]; None without one."""
    for chain in (chain for chains in joined(found).values() for chain in chains):
        steps = [k for k in chain if found[k].is_sum]
        if len(steps) < 2 or len({found[k].weight for k in steps}) > 1:
            continue
        pairs = []
        for node in (found[k] for k in steps):
            if node.returned is None:
                break
            expected = torch.zeros_like(node.returned)
            for user, square in (
                (found[u], backward[u]) for u in node.users if not found[u].is_sum
            ):
                expected = expected + returning(user.layer, square, tensors[user.layer.weight])
            numbers = node.delta[0].numel()
            pairs.append(torch.stack([node.returned, numbers * expected], dim=1).sqrt())
        else:
            return torch.stack(pairs, dim=2)
    return None


def rows(layer: Layer, value: Tensor) -> Tensor:
    """A layer's outputs or deltas as [M, R, U]."""
    if value.ndim == 5:  # members, samples, maps, height, width
        value = value.movedim(2, -1)
    return value.reshape(value.shape[0], -1, value.shape[-1])
