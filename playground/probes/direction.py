"""Where training goes: does it keep its direction, how far does it get, do members agree.

For a player's gradients g_t and updates u_t, at parameters x_t with x_0 the start:

    cosine_gradient/<l>, cosine_update/<l>    cosine of the newest with that l updates before
    effective_directions/<gradient|update>    of the last 32: W^2 / sum_ij cos(v_i, v_j)^2, the
                        participation ratio of their directions' inner products: 1 where all are
                        on one line, 32 where every two are orthogonal
    distance            |x_t - x_0|, of every tensor too
    path_length         sum |u_s|
    straightness        distance / path_length: 1 on a straight line, 1/sqrt(t) for a random walk
    agreement/<gradient|update|displacement>  a member's mean cosine with the other members
    entries             numbers a vector was compared by: all N, or those of its sketch

Above a size limit vectors are kept as sketches: every entry is added, with a random sign, to one
of k random places. Inner products of sketches are unbiased, and a cosine c has a standard error of
about sqrt((1 + c^2) / k). Distance and path are always exact.

Shape legend: M members, N parameters, W vectors kept.

Sources: participation ratio of a spectrum: Bell & Dean (1970), of the eigenvalues here; sketch:
Charikar et al. (2002), Weinberger et al. (2009), theorem 2.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from playground.game import Observation
from playground.parameters import Layout
from playground.probes.probe import Probe
from playground.randomness import stream_seed

LAGS = (1, 2, 4, 8, 16, 32)
"""Updates between two that are compared (ours)."""

WINDOW = 32
"""Vectors whose directions are counted (ours)."""

KEPT = max(*LAGS, WINDOW - 1) + 1

LEAST = 64
"""Entries of a sketch at least (ours)."""


def effective_directions(vectors: Tensor) -> Tensor:
    """W^2 / sum_ij cos^2 [M] of vectors [W, M, N]; NaN where one is 0."""
    unit = vectors / torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    gram = torch.einsum("wmn,vmn->mwv", unit, unit).double()
    alike: Tensor = gram.square().sum((1, 2))
    return len(vectors) ** 2 / alike


def agreement(value: Tensor) -> Tensor:
    """Each member's mean cosine [M] with the others, of values [M, N], M > 1; NaN with a 0."""
    unit = value / torch.linalg.vector_norm(value, dim=1, keepdim=True)
    gram = (unit @ unit.T).double()
    others: Tensor = gram.sum(1) - gram.diagonal()
    return others / (len(value) - 1)


def tensor_norms(value: Tensor, layout: Layout) -> dict[str, Tensor]:
    """{tensor: L2 norm [M]} of values [M, N]."""
    return {
        name: torch.linalg.vector_norm(value[:, piece], dim=1)
        for name, piece in layout.slices.items()
    }


@dataclass(frozen=True, slots=True)
class Sketch:
    """Entries of [M, N] added to [M, k] with signs.

    Attributes:
        place: [N], int64.
        sign: [N].
        size: k.
    """

    place: Tensor
    sign: Tensor
    size: int

    @classmethod
    def drawn(cls, entries: int, size: int, seed: int, like: Tensor) -> "Sketch":
        """Of k places for N entries, the same for a seed."""
        generator = torch.Generator().manual_seed(stream_seed(seed, f"probe/direction/{entries}"))
        place = torch.randint(size, (entries,), generator=generator)
        sign = 2 * torch.randint(2, (entries,), generator=generator) - 1
        return cls(place.to(like.device), sign.to(like), size)

    def __call__(self, value: Tensor) -> Tensor:
        """The sketch [M, k] of values [M, N]."""
        return value.new_zeros(len(value), self.size).index_add_(1, self.place, value * self.sign)


@dataclass(slots=True)
class _Player:
    """What the probe keeps of one player.

    Attributes:
        start: x_0 [M, N].
        path: sum |u| [M], float64.
        kept: {gradient, update: [KEPT, M, N or k]}, a ring.
        count: updates seen.
        sketch: None where whole vectors fit.
    """

    start: Tensor
    path: Tensor
    kept: dict[str, Tensor]
    count: int = 0
    sketch: Sketch | None = field(default=None)


class Direction(Probe):
    """Follows every update and measures every so many.

    Args:
        every: updates.
        seed: of the sketch.
        megabytes: of one player's kept vectors above which they are sketched.
    """

    name = "direction"
    every = 1

    def __init__(self, every: int, seed: int, megabytes: int) -> None:
        self.due, self.seed, self.capacity = every, seed, megabytes * 2**20
        self._players: dict[str, _Player] = {}

    def measure(self, seen: Observation) -> Mapping[str | tuple[str, str], Tensor]:
        """Keep the update; measure where it is due."""
        player = self._players.get(seen.player)
        if player is None:
            player = self._players[seen.player] = self._begin(seen)
        values = {"gradient": seen.gradient, "update": seen.update}
        slot = player.count % KEPT
        for name, value in values.items():
            player.kept[name][slot] = value if player.sketch is None else player.sketch(value)
        player.count += 1
        player.path += torch.linalg.vector_norm(seen.update, dim=1).double()
        if player.count % self.due:
            return {}
        values["displacement"] = seen.parameters + seen.update - player.start
        return {
            **_lagged(player),
            **_travelled(player, values["displacement"], seen.layout),
            **_agreeing(values),
        }

    def state(self) -> dict[str, Any]:
        """Start, path and kept vectors of every player."""
        return {
            name: {
                "start": player.start, "path": player.path.clone(), "count": player.count,
                "kept": {key: ring.clone() for key, ring in player.kept.items()},
            }
            for name, player in self._players.items()
        }  # fmt: skip

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` gave."""
        for name, saved in state.items():
            start, kept = saved["start"], dict(saved["kept"])
            sketch = self._sketch(start, kept["gradient"].shape[2])
            self._players[name] = _Player(start, saved["path"], kept, saved["count"], sketch)

    def _begin(self, seen: Observation) -> _Player:
        """Before a player's first update."""
        like = seen.gradient
        room = self.capacity // (2 * KEPT * len(like) * like.element_size())
        size = min(like.shape[1], max(LEAST, room))
        kept = {name: like.new_zeros(KEPT, len(like), size) for name in ("gradient", "update")}
        path = torch.zeros(len(like), dtype=torch.float64, device=like.device)
        return _Player(seen.parameters.clone(), path, kept, sketch=self._sketch(like, size))

    def _sketch(self, like: Tensor, size: int) -> Sketch | None:
        """Of k entries; None where that is all."""
        entries = like.shape[1]
        return None if size == entries else Sketch.drawn(entries, size, self.seed, like)


def _lagged(player: _Player) -> dict[str | tuple[str, str], Tensor]:
    """Cosines with earlier vectors, and the number of directions."""
    found: dict[str | tuple[str, str], Tensor] = {}
    newest = player.count - 1
    for name, ring in player.kept.items():
        now = ring[newest % KEPT]
        for lag in LAGS:
            if lag <= newest:
                then = ring[(newest - lag) % KEPT]
                norms = torch.linalg.vector_norm(now, dim=1) * torch.linalg.vector_norm(then, dim=1)
                found[f"cosine_{name}/{lag}"] = (now * then).sum(1) / norms
        if player.count >= WINDOW:
            places = torch.arange(newest - WINDOW + 1, newest + 1, device=ring.device) % KEPT
            found[f"effective_directions/{name}"] = effective_directions(ring[places])
    first = player.kept["gradient"]
    found["entries"] = torch.full(first.shape[1:2], float(first.shape[2]), device=first.device)
    return found


def _travelled(
    player: _Player, displacement: Tensor, layout: Layout
) -> dict[str | tuple[str, str], Tensor]:
    """Distances, path and their ratio."""
    distance = torch.linalg.vector_norm(displacement, dim=1)
    return {
        "distance": distance,
        **{(t, "distance"): norm for t, norm in tensor_norms(displacement, layout).items()},
        "path_length": player.path,
        "straightness": distance / player.path,
    }


def _agreeing(values: Mapping[str, Tensor]) -> dict[str | tuple[str, str], Tensor]:
    """Agreement between members, where there are several."""
    if len(values["gradient"]) < 2:
        return {}
    return {f"agreement/{name}": agreement(value) for name, value in values.items()}
