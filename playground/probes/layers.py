"""A move's objective with every layer's input, output and error signal, for all members at once.

    trace = Tracer(players)(move)
    trace.layers[0].input, .output          # x [M, ..., in], z [M, ..., out] before the activation
    trace.deltas()[0]                       # dL/dz of the objective, [M, ..., out]
    trace.deltas(c)                         # of sum_i c_i l_i, l_i what sample i adds to L

Nothing is counted or written. Shape legend: M members, B samples, N parameters of a player.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from playground.game import Batch, Move, Player, Terms
from playground.taps import Call, tapped

TINY = {dtype: torch.finfo(dtype).tiny for dtype in (torch.float32, torch.float64)}

Views = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True, slots=True)
class Layer:
    """One call of a layer.

    Attributes:
        kind: ``linear``, ``conv``, ``deconv`` or ``add``.
        player, weight, bias: whose tensors it applied; "" where the weight is no player's tensor
            but made from one (spectral normalisation), or there is none.
        parts: of a sum: the calls whose outputs it adds, the skip and the branch; -1 where one is
            no call's.
        input: x [M, ..., in]; a sum's branch, without its factor.
        output: z [M, ..., out].
    """

    kind: str
    player: str
    weight: str
    bias: str
    parts: tuple[int, ...]
    input: Tensor
    output: Tensor


@dataclass(frozen=True, slots=True)
class Trace:
    """One evaluation of an objective; its graph lives as long as it does.

    Attributes:
        layers: in the order of their calls.
        hidden: calls inside a differentiation of the objective's own.
        samples: l [M, B], what every sample adds to the objective (its terms times its share of
            the weights); None where a term is a scalar or their lengths differ.
        total: the objective [M].
        zeros: the taps.
        leaf: the mover's parameters [M, N].
    """

    layers: list[Layer]
    hidden: int
    samples: Tensor | None
    total: Tensor
    zeros: list[Tensor]
    leaf: Tensor

    def deltas(self, cotangent: Tensor | None = None) -> list[Tensor]:
        """dL/dz of every layer, or that of sum_i c_i l_i for c [M, B]."""
        if not self.zeros:
            return []
        value, weights = self.total, torch.ones_like(self.total)
        if cotangent is not None:
            assert self.samples is not None
            value, weights = self.samples, cotangent.to(self.samples)
        return list(
            torch.autograd.grad(
                value, self.zeros, weights, retain_graph=True, materialize_grads=True
            )
        )

    def products(self, cotangents: Tensor) -> Tensor:
        """The gradients [K, M, N] of sum_i c_i l_i for K vectors c [K, M, B]."""
        assert self.samples is not None
        (found,) = torch.autograd.grad(
            self.samples, self.leaf, cotangents.to(self.samples), retain_graph=True,
            is_grads_batched=True, materialize_grads=True,
        )  # fmt: skip
        return found


class Tracer:
    """Evaluates objectives with their layers tapped.

    Args:
        players: all of them; their present parameters are used.
    """

    def __init__(self, players: Mapping[str, Player]) -> None:
        self.players = players
        self._shapes: dict[Any, list[torch.Size]] = {}

    def __call__(self, move: Move) -> Trace:
        """Evaluate a move's objective; the mover's parameters are a leaf of the graph."""
        flats = {name: player.parameters.values for name, player in self.players.items()}
        leaf = flats[move.player].detach().requires_grad_()
        members = len(leaf)
        notes: list[tuple[str, str, str, str, tuple[int, ...]]] = []
        hidden = [0]

        def evaluate(flats: dict[str, Tensor], batch: Batch, zeros: list[Tensor]) -> dict[str, Any]:
            views = {n: p.parameters.layout.views(flats[n]) for n, p in self.players.items()}
            with tapped(zeros or None) as seen:
                terms, _ = move.objective(views, batch)
            notes[:] = _named(views, seen.calls)
            hidden[0] = seen.hidden
            return {
                **separated(terms, batch.get("weight")),
                "inputs": [call.input for call in seen.calls],
                "outputs": [call.output for call in seen.calls],
            }

        key = (move.player, move.objective, *((k, v.shape) for k, v in move.batch.items()))
        if key not in self._shapes:
            with torch.no_grad():
                found = over_members(evaluate, members, flats, move.batch, [])
            self._shapes[key] = [output.shape for output in found["outputs"]]
        with torch.enable_grad():
            zeros = [leaf.new_zeros(shape).requires_grad_() for shape in self._shapes[key]]
            flats[move.player] = leaf
            found = over_members(evaluate, members, flats, move.batch, zeros)
        layers = [
            Layer(*note, x.detach(), z.detach())
            for note, x, z in zip(notes, found["inputs"], found["outputs"], strict=True)
        ]
        return Trace(layers, hidden[0], found.get("samples"), found["total"], zeros, leaf)


def separated(terms: Terms, weight: Tensor | None) -> dict[str, Tensor]:
    """One member's terms as their sum, ``total`` [], and what every sample adds, ``samples`` [B].

    Without the latter where no term has samples, some term has none, or their numbers differ.
    """
    rows = [term for term in terms.values() if term.ndim]
    share = 1.0 if weight is None else weight / weight.sum().clamp_min(TINY[weight.dtype])
    parts = [share * term if weight is not None else term / len(term) for term in rows]
    scalars = [term for term in terms.values() if not term.ndim]
    total = reduce(torch.add, [part.sum() for part in parts] + scalars)
    if scalars or len({len(part) for part in parts}) > 1:
        return {"total": total}
    return {"total": total, "samples": reduce(torch.add, parts)}


def over_members(function: Callable[..., Any], members: int, *arguments: Any) -> Any:
    """A function of one member over the leading axis of all tensors; a plain call for one."""
    if members > 1:
        return torch.func.vmap(function)(*arguments)
    return _each(lambda t: t.unsqueeze(0), function(*_each(lambda t: t.squeeze(0), arguments)))


def _each(f: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """Map every tensor in nested containers."""
    if isinstance(tree, Tensor):
        return f(tree)
    if isinstance(tree, dict):
        return {key: _each(f, value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_each(f, value) for value in tree)
    return tree


def _named(views: Views, calls: Sequence[Call]) -> list[tuple[str, str, str, str, tuple[int, ...]]]:
    """Kind, player, weight, bias and parts of every call, told by identity."""
    owners = {id(t): (player, name) for player, own in views.items() for name, t in own.items()}
    places = {id(call.output): k for k, call in enumerate(calls)}
    found = []
    for call in calls:
        player, weight = owners.get(id(call.weight), ("", ""))
        bias = "" if call.bias is None else owners.get(id(call.bias), ("", ""))[1]
        both = () if call.skip is None else (call.skip, call.input)
        parts = tuple(places.get(id(part), -1) for part in both)
        found.append((call.kind, player, weight, bias, parts))
    return found
