"""Which call of a layer another one sees, and what theory says of all of them.

A layer's *source* is the call of whose output an activation makes its input, found by comparing
numbers; a sum's parts are known from the taps. Theory is that of random weights with the mean
square w^2 of the present ones, in a wide network with z normal (q = E z^2):

    layer       q' = n w^2 E phi(q^1/2 Z)^2 + b^2
    sum         q = q_skip + c^2 q_branch, c the branch's factor: weights of mean 0 at the end of
                the branch make the two uncorrelated. A block that keeps its signal doubles it
    backward    E delta^2 = sum over users of n' w'^2 E phi'(q^1/2 Z)^2 E delta'^2, n' a layer's
                outputs; over a sum E delta'^2, times c^2 for the branch

A convolution's q has a value a place, so that borders count, where a kernel hangs over. Forward
starts from the measured mean square of inputs whose source is not known, backward from measured
errors wherever a node's users do not explain all of its error (the last layer, gates, what other
players see). Calls of one weight, as in a recurrent network, count as drawn anew.

Shape legend: M members, R rows (samples, or places of a convolution), U units, N nodes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from playground.nets import ACTIVATIONS
from playground.probes.flow.formulas import agree, matches, slope_of, transmitted
from playground.probes.layers import Layer, Trace

PRINT = 16
"""Numbers of a member by which an input's source is looked for before all are compared (ours)."""

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-8}
"""Of an error that its users explain, relative to the largest (ours)."""


@dataclass(slots=True)
class Node:
    """One call of a player's layer, or a sum of such.

    Attributes:
        layer: with input and output.
        delta: dL/dz.
        weight: its name; a sum's is that of the layer at the end of its branch.
        source: the node whose output the layer sees, through ``activation``; -1 is unknown.
        activation: in front of the layer.
        parts: of a sum: skip and branch, -1 where one is no node.
        users: nodes that see its output.
        known: whether they explain its error.
        returned: |dL/dphi(z)|^2 [M] over rows and units, as its users have it; None without
            layers among them.
    """

    layer: Layer
    delta: Tensor
    weight: str
    source: int = -1
    activation: str = ""
    parts: tuple[int, ...] = ()
    users: list[int] = field(default_factory=list)
    known: bool = False
    returned: Tensor | None = None

    @property
    def is_sum(self) -> bool:
        """Whether it adds a branch."""
        return self.layer.kind == "add"


def nodes(trace: Trace, player: str, tensors: Mapping[str, Tensor]) -> list[Node]:
    """The calls of a player's layers and the sums of their outputs, in order and linked.

    Args:
        trace: of the player's move.
        player: its name.
        tensors: its parameters.
    """
    deltas = trace.deltas()
    result: list[Node] = []
    at: dict[int, int] = {}
    for k, layer in enumerate(trace.layers):
        parts = tuple(at.get(part, -1) for part in layer.parts)
        own = layer.weight and layer.player == player
        if not own and max(parts, default=-1) < 0:
            continue
        at[k] = len(result)
        end = parts[1] if parts else -1
        name = result[end].weight if end >= 0 else layer.weight
        result.append(Node(layer, deltas[k], name, parts=parts))
    _link(result)
    for k, node in enumerate(result):
        node.known = _explain(result, k, tensors)
    return result


def _link(found: Sequence[Node]) -> None:
    """Find every layer's source, the nearest that fits, and everybody's users."""
    if not found:
        return
    outputs = [node.layer.output.flatten(1) for node in found]
    size = min(PRINT, *(output.shape[1] for output in outputs))
    prints = torch.stack([output[:, :size] for output in outputs])  # [N, M, size]
    for k, node in enumerate(found):
        if node.is_sum:
            for part in {*node.parts} - {-1}:
                found[part].users.append(k)
        elif k:
            seen = node.layer.input.flatten(1)
            same = any(output.shape == seen.shape for output in outputs[:k])
            for j in fitting(prints[:k], seen[:, :size]) if same else ():
                names = matches(outputs[j], seen)
                if names:
                    node.source, node.activation = j, names[0]
                    found[j].users.append(k)
                    break


def fitting(outputs: Tensor, seen: Tensor) -> list[int]:
    """Which of outputs [N, M, P] an activation makes seen [M, P] of, the last first."""
    near = torch.stack([agree(function(outputs), seen) for function, _, _ in ACTIVATIONS.values()])
    found: list[int] = near.flatten(2).all(dim=2).any(dim=0).nonzero().flatten().tolist()
    return found[::-1]


def _explain(found: Sequence[Node], place: int, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a node's users give its error; notes what its layers return."""
    node = found[place]
    z, total = node.layer.output, torch.zeros_like(node.delta)
    for user in (found[k] for k in node.users):
        if user.is_sum:
            factors = (1.0, _factor(user.layer, tensors))
            for part, factor in zip(user.parts, factors, strict=True):
                if part == place:
                    total = total + user.delta * _like(factor, user.delta)
            continue
        back = returned(user.layer, user.delta, tensors[user.layer.weight]).reshape(z.shape)
        own = back.double().square().flatten(1).sum(dim=1)
        node.returned = own if node.returned is None else node.returned + own
        total = total + back * slope_of(user.activation, z)
    if not node.users:
        return False
    error, size = ((v.nan_to_num(0.0, 0.0, 0.0)).abs().max() for v in (total - node.delta, total))
    return bool(error <= TOLERANCE.get(z.dtype, TOLERANCE[torch.float32]) * size)


def returned(layer: Layer, delta: Tensor, weight: Tensor) -> Tensor:
    """dL/dx of a layer's own use of its input, [M, ..., in] for weights [M, ...]."""
    if layer.kind == "linear":
        return (delta.flatten(1, -2) @ weight).reshape(layer.input.shape)
    back = F.conv_transpose2d if layer.kind == "conv" else F.conv2d
    each = [back(d, w, stride=2, padding=1) for d, w in zip(delta, weight, strict=True)]
    return torch.stack(each)


def forward_theory(found: Sequence[Node], tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """E z^2 of every node: [M], of convolutions [M, h, w]."""
    result: list[Tensor] = []
    for node in found:
        layer = node.layer
        if node.is_sum:
            factor = _factor(layer, tensors)
            skip = layer.output - _like(factor, layer.input) * layer.input
            pieces = [
                result[part] if part >= 0 else places(layer, value)
                for part, value in zip(node.parts, (skip, layer.input), strict=True)
            ]
            result.append(pieces[0] + _like(factor, pieces[1]) ** 2 * pieces[1])
            continue
        if node.source < 0:
            incoming = places(layer, layer.input)
        else:
            incoming = transmitted(node.activation, result[node.source])[0]
        square = _square(tensors[layer.weight])
        shift = _square(tensors[layer.bias]) if layer.bias else torch.zeros_like(square)
        value = _spread(layer, incoming)
        result.append(_like(square * _ends(layer)[0], value) * value + _like(shift, value))
    return result


def backward_theory(
    found: Sequence[Node], forward: Sequence[Tensor], tensors: Mapping[str, Tensor]
) -> list[Tensor]:
    """E delta^2 of every node, in the shapes of ``forward_theory``."""
    result: list[Tensor] = list(forward)
    for k in reversed(range(len(found))):
        node = found[k]
        if not node.known:
            result[k] = places(node.layer, node.delta)
            continue
        total = torch.zeros_like(forward[k])
        for user, value in ((found[j], result[j]) for j in node.users):
            if user.is_sum:
                factors = (1.0, _factor(user.layer, tensors))
                for part, factor in zip(user.parts, factors, strict=True):
                    if part == k:
                        total = total + value * _like(factor, value) ** 2
                continue
            back = returning(user.layer, value, tensors[user.layer.weight])
            back = back if back.ndim <= total.ndim else back.flatten(1).mean(dim=1)
            total = total + _like(back, total) * transmitted(user.activation, forward[k])[1]
        result[k] = total
    return result


def returning(layer: Layer, square: Tensor, weight: Tensor) -> Tensor:
    """E (dL/dx)^2 of a layer's input by E delta^2: n' w^2 E delta^2, a value a place."""
    gain = _square(weight) * _ends(layer)[1]
    if layer.kind == "linear":
        return gain * square.flatten(1).mean(dim=1) if square.ndim > 1 else gain * square
    back = F.conv_transpose2d if layer.kind == "conv" else F.conv2d
    return _like(gain, square) * _kernel(back, square)


def places(layer: Layer, value: Tensor) -> Tensor:
    """Mean square over samples and units [M], of convolutions a value a place [M, h, w]."""
    square = value.double().square()
    if square.ndim == 5:  # members, samples, maps, height, width
        return square.mean(dim=(1, 2))
    return square.flatten(1).mean(dim=1)


def _spread(layer: Layer, incoming: Tensor) -> Tensor:
    """What of E x^2 meets in a number: its sum over the kernel's places inside, else its mean."""
    if layer.kind == "linear":
        return incoming.flatten(1).mean(dim=1) if incoming.ndim > 1 else incoming
    if incoming.ndim == 1:
        incoming = _like(incoming, layer.input[:, 0, 0]).expand(-1, *layer.input.shape[-2:])
    return _kernel(F.conv2d if layer.kind == "conv" else F.conv_transpose2d, incoming)


def _kernel(function: object, value: Tensor) -> Tensor:
    """A kernel of ones over maps [M, h, w]."""
    ones = torch.ones(1, 1, 4, 4, dtype=value.dtype, device=value.device)
    found: Tensor = function(value.unsqueeze(1), ones, stride=2, padding=1)  # type: ignore[operator]
    return found.squeeze(1)


def _ends(layer: Layer) -> tuple[int, int]:
    """Units of a layer's input and output, maps of a convolution's."""
    axis = -1 if layer.kind == "linear" else 2
    return layer.input.shape[axis], layer.output.shape[axis]


def _square(tensor: Tensor) -> Tensor:
    return tensor.double().square().flatten(1).mean(dim=1)


def _factor(layer: Layer, tensors: Mapping[str, Tensor]) -> Tensor | float:
    """Of a sum's branch: a number, or [M]."""
    return tensors[layer.weight].flatten(1)[:, 0] if layer.weight else 1.0


def _like(value: Tensor | float, other: Tensor) -> Tensor:
    """[M] with as many axes as another tensor."""
    if not isinstance(value, Tensor):
        return torch.full((), value, dtype=other.dtype, device=other.device)
    return value.view(*value.shape, *[1] * (other.ndim - value.ndim))
