"""The gradients of an objective's terms: how large each is, and whether they agree.

A player's gradient is the sum of its terms' gradients, g = sum_t g_t. Measured for every player
whose objective has several terms, on the batch of its next move:

    norm/<t>         |g_t|
    share/<t>        <g_t, g> / |g|^2; shares add up to 1, and clipping by norm, which scales all
                     terms alike, leaves them as they are
    cosine/<t>/<u>   <g_t, g_u> / (|g_t| |g_u|); negative where the terms conflict

What is undefined (a cosine with a zero vector) is NaN. Costs one gradient evaluation a term and
one more.

Shape legend: M members, N parameters of a player.

Source: cosines as a measure of conflict: Yu et al. 2020, definition 1.
"""

from dataclasses import replace
from itertools import combinations

import torch
from torch import Tensor

from playground.game import Batch, Move, Objective, Params, Terms
from playground.probes.passes import Key, Pass, Reading, Turn


class TermGradients(Pass):
    """Measures the gradients of terms."""

    name = "terms"

    def __init__(self, every: int | None = None) -> None:
        self.every = every
        self._alone: dict[tuple[Objective, str], Objective] = {}

    def measure(self, seen: Turn) -> Reading:
        """Of every player whose objective has several terms."""
        values: dict[Key, Tensor] = {}
        for player, move in seen.moves.items():
            names = list(seen.gradient(move).terms)
            if len(names) < 2:
                continue
            parts = {name: seen.gradient(self._move(move, name)).value for name in names}
            values |= {(player, quantity): v for quantity, v in compared(parts).items()}
        return Reading(values)

    def _move(self, move: Move, term: str) -> Move:
        """The move with one term, the same function for the same objective before."""
        key = (move.objective, term)
        if key not in self._alone:
            self._alone[key] = alone(move.objective, term)
        return replace(move, objective=self._alone[key])


def alone(objective: Objective, term: str) -> Objective:
    """An objective's term by itself."""

    def only(params: Params, batch: Batch) -> tuple[Terms, Terms]:
        return {term: objective(params, batch)[0][term]}, {}

    return only


def compared(parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """{quantity: [M]} of the terms' gradients [M, N]."""
    total = torch.stack(list(parts.values())).sum(0)
    norms = {name: torch.linalg.vector_norm(value, dim=1) for name, value in parts.items()}
    result = {f"norm/{name}": norm for name, norm in norms.items()}
    for name, value in parts.items():
        result[f"share/{name}"] = (value * total).sum(1) / total.square().sum(1)
    for a, b in combinations(parts, 2):
        result[f"cosine/{a}/{b}"] = (parts[a] * parts[b]).sum(1) / (norms[a] * norms[b])
    return result
