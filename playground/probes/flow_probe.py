"""Flow through each player's networks measured in a run; the functions are in ``flow``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from playground.game import Player
from playground.probes.flow import (
    BOUNDED,
    DYING,
    backward_theory,
    dormant,
    forward_theory,
    inactive,
    mean_square,
    recognise,
    silent,
    singular,
    trend,
)
from playground.probes.layers import Layer, Trace, Tracer
from playground.probes.passes import Key, Pass, Reading, Turn

FANS = {"linear": (1.0, 1.0), "conv": (16.0, 4.0), "deconv": (4.0, 16.0)}
"""Weights of one input, and of one output, that meet in a number: kernel 4, stride 2, inside."""


@dataclass(slots=True)
class Station:
    """All calls of one weight: its rows one after the other.

    Attributes:
        weight: its name.
        kind: of layer.
        bias: its bias's name, or "".
        source: [M], mean square of the inputs.
        z: [M, R, U], outputs.
        delta: [M, R, U], dL/dz.
        activation: after it, "" where it is not known or nothing follows.
        following: the weight that sees it, or "".
    """

    weight: str
    kind: str
    bias: str
    source: Tensor
    z: Tensor
    delta: Tensor
    activation: str = ""
    following: str = ""


class FlowProbe(Pass):
    """Signals, units and weights of every player that applies its weights in layers.

    Quantities of each layer, under the name of its weight:

        forward, backward                  mean squares of z and dL/dz, standard errors over rows
        forward_theory, backward_theory    for random weights of that size, see ``flow``
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
    inputs of later layers: where nothing matches (gates, sums of branches) a chain ends, and what
    needs an activation is left out. Convolutions have channels as units, and theory away from
    their borders.

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
        for name, move in seen.moves.items():
            stations = along(self._tracer(move), name)
            parameters = seen.players[name].parameters
            for chain in chains(stations):
                found, error = passing(chain, parameters.views)
                values |= {(name, *key): value for key, value in found.items()}
                errors |= {(name, *key): value for key, value in error.items()}
            for station in stations.values():
                units = self._units(station)
                values |= {(name, station.weight, key): value for key, value in units.items()}
            values |= self._weights(seen.players[name])
        return Reading(values, errors)

    def _units(self, station: Station) -> dict[str, Tensor]:
        """Shares of one layer, where its activation is known."""
        kind, z = station.activation, station.z
        if not kind or kind == "linear":
            return {}
        bad = ~torch.isfinite(z).flatten(1).all(dim=1)
        found = {"dormant": dormant(kind, z, self.threshold)}
        if kind in DYING + BOUNDED:
            found["inactive"] = inactive(kind, z).double().mean(dim=(1, 2))
            found["dead" if kind in DYING else "saturated"] = silent(kind, z)
        return {name: value.masked_fill(bad, torch.nan) for name, value in found.items()}

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


def along(trace: Trace, player: str) -> dict[str, Station]:
    """{weight: station} of a player's layers, in the order of their first calls."""
    calls: dict[str, list[int]] = {}
    for k, layer in enumerate(trace.layers):
        if layer.weight and layer.player == player:
            calls.setdefault(layer.weight, []).append(k)
    deltas = trace.deltas()
    result = {}
    for weight, places in calls.items():
        layers = [trace.layers[k] for k in places]
        sources = torch.cat([layer.input.flatten(1) for layer in layers], dim=1)
        result[weight] = Station(
            weight, layers[0].kind, layers[0].bias, sources.double().square().mean(dim=1),
            torch.cat([rows(layer, layer.output) for layer in layers], dim=1),
            torch.cat([rows(layer, deltas[k]) for layer, k in zip(layers, places, strict=True)], 1),
            *after(trace.layers, places[0], player),
        )  # fmt: skip
    return result


def after(layers: Sequence[Layer], place: int, player: str) -> tuple[str, str]:
    """The activation after a call and the weight that sees it; ("", "") where it is not found."""
    for later in layers[place + 1 :]:
        if later.weight and later.player == player and later.weight != layers[place].weight:
            activation = recognise(layers[place].output, later.input)
            if activation:
                return activation, later.weight
    return "", ""


def chains(stations: Mapping[str, Station]) -> list[list[Station]]:
    """Stations one after the other, from those that nobody leads to."""
    led = {station.following for station in stations.values()}
    result = []
    for station in stations.values():
        if station.weight in led:
            continue
        chain = [station]
        while chain[-1].following in stations:
            chain.append(stations[chain[-1].following])
        result.append(chain)
    return result


def passing(
    chain: Sequence[Station], tensors: Mapping[str, Tensor]
) -> tuple[dict[tuple[str, str], Tensor], dict[tuple[str, str], Tensor]]:
    """Mean squares, theory and slopes of a chain, {(weight, quantity): [M]}, and their errors."""
    gains, back, biases = [], [], []
    for station in chain:
        weight = tensors[station.weight]
        square = weight.double().square().flatten(1).mean(dim=1)
        ins, outs = weight.shape[2], weight.shape[1]
        if station.kind == "deconv":
            ins, outs = outs, ins
        gains.append(FANS[station.kind][0] * ins * square)
        back.append(FANS[station.kind][1] * outs * square)
        shift = torch.zeros_like(square)
        if station.bias:
            shift = tensors[station.bias].double().square().mean(dim=1)
        biases.append(shift)
    activations = [station.activation for station in chain[:-1]]
    forward = [mean_square(station.z) for station in chain]
    backward = [mean_square(station.delta) for station in chain]
    expected = forward_theory(chain[0].source, gains, biases, activations)
    behind = backward_theory(backward[-1][0], back, expected, activations)
    found, errors = {}, {}
    for k, station in enumerate(chain):
        key = station.weight
        found[key, "forward"], errors[key, "forward"] = forward[k]
        found[key, "backward"], errors[key, "backward"] = backward[k]
        found[key, "forward_theory"], found[key, "backward_theory"] = expected[k], behind[k]
    if len(chain) > 1:
        last = chain[-1].weight
        lengths = [s.delta.shape[2] * v for s, (v, _) in zip(chain, backward, strict=True)]
        ways = {"forward_slope": [v for v, _ in forward], "backward_slope": lengths[::-1]}
        for name, way in ways.items():
            found[last, name], errors[last, name] = trend(way)
    return found, errors


def rows(layer: Layer, value: Tensor) -> Tensor:
    """A layer's outputs or deltas as [M, R, U]."""
    if layer.kind != "linear":
        value = value.movedim(2, -1)
    return value.reshape(value.shape[0], -1, value.shape[-1])
