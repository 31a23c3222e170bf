"""Gradients of objectives: one member's pure function, batched over members.

Eager mode differentiates one flat leaf that is split once, so that the backward pass ends in
one concatenation; members are batched with ``torch.func.vmap`` when M > 1 and by a plain call
when M = 1. Compiled mode differentiates inside the graph, ``vmap(grad(has_aux=True))``, and
wants constant batch shapes.
"""

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from playground.game import Gradient, Move, Objective, Player, Terms, reduce_term

GRAPHS = 256
"""Graphs of one process before torch falls back to eager without an error (its default is 8)."""

TINY = {dtype: torch.finfo(dtype).tiny for dtype in (torch.float32, torch.float64)}


class Differentiator:
    """Evaluates gradients for a fixed set of players."""

    def __init__(self, players: Mapping[str, Player], *, compiled: bool = False) -> None:
        self.players = dict(players)
        self.compiled = compiled
        self.members = next(iter(self.players.values())).parameters.values.shape[0]
        self._graphs: dict[Any, Callable[..., Any]] = {}

    def __call__(
        self, move: Move, at: Mapping[str, Tensor] | None = None, *, create_graph: bool = False
    ) -> Gradient:
        """The gradient of a move's objective with respect to its mover.

        Args:
            move: player, objective and batch.
            at: {player: [M, N]} to evaluate elsewhere than at the current parameters. Where the
                mover's point requires a gradient, the derivative by it is the total one: it
                follows every other point that was computed from it (LOLA, unrolling).
            create_graph: keep the graph, so that the result is differentiable in every
                player's parameters given in ``at`` (game Jacobian, consensus).
        """
        flats = {
            name: at[name] if at is not None and name in at else player.parameters.values
            for name, player in self.players.items()
        }
        mover = flats[move.player]
        through = mover.requires_grad  # somebody else's graph, which may be walked again
        if self.compiled and not (create_graph or through):
            return self._compiled_gradient(move, flats)
        if not through:
            mover = mover.detach().requires_grad_()
        flats[move.player] = mover
        totals, terms, diagnostics = self._evaluate(move, flats)
        (value,) = torch.autograd.grad(
            totals.sum(), mover, create_graph=create_graph, retain_graph=create_graph or through,
            materialize_grads=True,
        )  # fmt: skip
        if not create_graph:
            terms = {name: term.detach() for name, term in terms.items()}
        return Gradient(value, terms, diagnostics)

    def value(self, move: Move, at: Mapping[str, Tensor]) -> Tensor:
        """The objective [M] where ``at`` {player: [M, N]} says, without a graph."""
        flats = {
            name: at.get(name, player.parameters.values) for name, player in self.players.items()
        }
        with torch.no_grad():
            return self._evaluate(move, flats)[0]

    def _evaluate(self, move: Move, flats: dict[str, Tensor]) -> tuple[Tensor, Terms, Terms]:
        """The objective, reduced terms and diagnostics, each [M]."""
        if self.members == 1:
            views = {name: self._single(name, flat) for name, flat in flats.items()}
            batch = {name: value.squeeze(0) for name, value in move.batch.items()}
            total, (terms, diagnostics) = reduced(move.objective, views, batch)
            return (
                total.unsqueeze(0),
                {name: term.unsqueeze(0) for name, term in terms.items()},
                {name: value.unsqueeze(0) for name, value in diagnostics.items()},
            )
        stacked = {name: self._stacked(name, flat) for name, flat in flats.items()}
        batched = torch.func.vmap(lambda views, batch: reduced(move.objective, views, batch))
        totals, (terms, diagnostics) = batched(stacked, move.batch)
        return totals, terms, diagnostics

    def _single(self, name: str, flat: Tensor) -> dict[str, Tensor]:
        """Views [*shape] of the only member, made once where the values are the stored ones."""
        parameters = self.players[name].parameters
        if flat is parameters.values:
            return parameters.only
        return parameters.layout.views(flat.squeeze(0))

    def _stacked(self, name: str, flat: Tensor) -> dict[str, Tensor]:
        """Views [M, *shape], made once where the values are the stored ones."""
        parameters = self.players[name].parameters
        return parameters.views if flat is parameters.values else parameters.layout.views(flat)

    def _compiled_gradient(self, move: Move, flats: dict[str, Tensor]) -> Gradient:
        """The same through ``torch.compile``: one graph per (player, objective)."""
        key = (move.player, move.objective)
        if key not in self._graphs:
            limits = torch._dynamo.config  # one code object serves all graphs of a process
            limits.recompile_limit = max(limits.recompile_limit, GRAPHS)
            layouts = {name: player.parameters.layout for name, player in self.players.items()}

            def loss(
                mover: Tensor, others: dict[str, Tensor], batch: dict[str, Tensor]
            ) -> tuple[Tensor, tuple[Terms, Terms]]:
                flat = {**others, move.player: mover}
                views = {name: layout.views(flat[name]) for name, layout in layouts.items()}
                return reduced(move.objective, views, batch)

            gradient = torch.func.vmap(torch.func.grad(loss, has_aux=True))
            self._graphs[key] = torch.compile(gradient, dynamic=False)
        others = {name: flat for name, flat in flats.items() if name != move.player}
        value, (terms, diagnostics) = self._graphs[key](flats[move.player], others, move.batch)
        return Gradient(value, terms, diagnostics)


class MoveGeometry:
    """The neighbourhood of a move, for trust regions; see ``optim.transforms.Geometry``.

    Attributes:
        evaluations: gradient evaluations so far: one for the graph of the divergence's
            gradient, one for every product.
    """

    def __init__(self, differentiate: Differentiator, move: Move) -> None:
        if move.divergence is None:
            raise ValueError(f"player {move.player}: its move has no divergence")
        self._differentiate, self._move = differentiate, move
        self._divergence = Move(move.player, move.divergence, move.batch)
        values = differentiate.players[move.player].parameters.values
        with torch.enable_grad():
            self._at = values.detach().clone().requires_grad_()
            self._slope = differentiate(
                self._divergence, {move.player: self._at}, create_graph=True
            ).value
        self.evaluations = 1

    def product(self, vector: Tensor) -> Tensor:
        """The Hessian of the mean divergence, times v [M, N]."""
        self.evaluations += 1
        (result,) = torch.autograd.grad(
            self._slope, self._at, vector, retain_graph=True, materialize_grads=True
        )
        return result

    def evaluate(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Objective and mean divergence [M] at other parameters [M, N]."""
        at = {self._move.player: parameters}
        value = self._differentiate.value
        return value(self._move, at), value(self._divergence, at)


def reduced(
    objective: Objective, views: Mapping[str, Mapping[str, Tensor]], batch: dict[str, Tensor]
) -> tuple[Tensor, tuple[Terms, Terms]]:
    """One member's objective: the sum of its reduced terms, with terms and diagnostics."""
    terms, diagnostics = objective(views, batch)
    weight = batch.get("weight")
    share = None if weight is None else weight / weight.sum().clamp_min(TINY[weight.dtype])
    terms = {name: reduce_term(term, share) for name, term in terms.items()}
    diagnostics = {name: reduce_term(d.detach(), share) for name, d in diagnostics.items()}
    return reduce(torch.add, terms.values()), (terms, diagnostics)
