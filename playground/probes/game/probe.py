"""The game's vector field measured in a run; the functions are in ``formulas``."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from playground.probes.game.formulas import (
    Field,
    Point,
    along,
    dense,
    estimated_share,
    linearise,
    ritz,
    shares,
    spectrum,
    stable_rate,
)
from playground.probes.passes import Key, Pass, Reading, Turn
from playground.products import Products
from playground.randomness import Streams

GRID, MARGIN = 17, 0.35
"""Points a side of the drawn field, and its reach beyond the points seen (ours)."""


def of_turn(seen: Turn) -> Field:
    """The field of a round's moves."""

    def field(at: Point) -> Point:
        return {
            name: seen.gradient(move, at, create_graph=True).value
            for name, move in seen.moves.items()
        }

    return field


class GameProbe(Pass):
    """Spectrum, shares and stable step where J is small; estimates without J beyond.

    Quantities of the whole game:

        field_norm            |F|
        stretch, turn         of F along itself, see ``along``
        antisymmetric_share   exact, or estimated with its standard error
        spectral_radius       largest |lambda|; beyond ``dense`` a Ritz value, its residual as
                              the standard error
        real_min, real_max, imaginary_max    of the eigenvalues, or of the Ritz values
        largest_stable_rate   where J is small

    of each player: ``curvature_min`` and ``curvature_max``, the extreme eigenvalues of its own
    block, where J is small. Arrays: ``spectrum`` [M, n, 2], and ``vector_field`` of 2 parameters.

    Args:
        every: iterations; None is the cadence of evaluations.
        dense: parameters of all players up to which J is formed.
        vectors: random vectors for the share.
        steps: of Arnoldi.
    """

    name = "game"

    def __init__(self, every: int | None, dense: int, vectors: int, steps: int) -> None:
        self.every, self.dense, self.vectors, self.steps = every, dense, vectors, steps
        self.window: list[list[float]] = []

    def begin(self, seeds: Sequence[int], device: torch.device) -> None:
        """Streams of the random vectors."""
        self.streams = Streams(seeds, "probe/game", device)

    def measure(self, seen: Turn) -> Reading:
        """Measure at the current point."""
        at = {name: player.parameters.values for name, player in seen.players.items()}
        value, products = linearise(of_turn(seen), at)
        stretch, turn = along(products, value)
        found: dict[Key, Tensor] = {
            "field_norm": value.norm(dim=1), "stretch": stretch, "turn": turn,
        }  # fmt: skip
        if value.shape[1] <= self.dense:
            return self._exact(seen, products, found)
        signs = [
            torch.where(self.streams.uniform(value.shape[1]) < 0.5, -1.0, 1.0).to(value)
            for _ in range(self.vectors)
        ]
        share, error = estimated_share(products, signs)
        outer, residual = ritz(products, value, self.steps)
        index = outer.abs().nan_to_num(-1.0).argmax(dim=1, keepdim=True)
        radius = outer.abs().gather(1, index).squeeze(1)
        found |= {"antisymmetric_share": share, "spectral_radius": radius, **_extremes(outer)}
        errors: dict[Key, Tensor] = {
            "antisymmetric_share": error,
            "spectral_radius": residual.gather(1, index).squeeze(1),
        }
        return Reading(found, errors)

    def state(self) -> dict[str, Any]:
        """The streams, and the window of the vector field."""
        return {"streams": self.streams.state(), "window": self.window}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` gave."""
        self.streams.load_state(state["streams"])
        self.window = state["window"]

    def _exact(self, seen: Turn, products: Products, found: dict[Key, Tensor]) -> Reading:
        """Everything that needs J itself."""
        matrix = dense(products)
        values = spectrum(matrix)
        found |= {
            "antisymmetric_share": shares(matrix)[1],
            "spectral_radius": values.abs().amax(dim=1),
            "largest_stable_rate": stable_rate(values),
            **_extremes(values),
        }
        start = 0
        for name, player in seen.players.items():
            stop = start + player.parameters.layout.size
            block = matrix[:, start:stop, start:stop].nan_to_num(0.0)
            own = torch.linalg.eigvalsh((block + block.transpose(1, 2)) / 2)
            found |= {(name, "curvature_min"): own[:, 0], (name, "curvature_max"): own[:, -1]}
            start = stop
        arrays = {"spectrum": torch.view_as_real(values)}
        if matrix.shape[1] == len(seen.players) == 2:
            arrays |= self._picture(seen)
        return Reading(found, arrays=arrays)

    def _picture(self, seen: Turn) -> dict[str, Tensor]:
        """-F on a grid around all points seen so far, anew whenever one leaves the window."""
        at = {name: player.parameters.values for name, player in seen.players.items()}
        here = torch.cat(list(at.values()), dim=1)
        here = here[torch.isfinite(here).all(dim=1)]
        if not len(here):
            return {}
        low, high = here.amin(0), here.amax(0)
        if self.window:
            seen_low, seen_high = here.new_tensor(self.window)
            if bool((low >= seen_low).all() and (high <= seen_high).all()):
                return {}
            low, high = torch.minimum(low, seen_low), torch.maximum(high, seen_high)
        margin = (MARGIN * (high - low).amax()).clamp_min(MARGIN * here.abs().amax().clamp_min(1.0))
        self.window = [(low - margin).tolist(), (high + margin).tolist()]
        axes = torch.stack(
            [torch.linspace(a, b, GRID) for a, b in zip(*self.window, strict=True)]
        ).to(here)
        points = torch.cartesian_prod(axes[1], axes[0]).flip(1)  # rows along the second player
        members = len(next(iter(at.values())))
        flows = []
        for chunk in torch.split(points, members):
            filled = torch.cat([chunk, chunk[:1].expand(members - len(chunk), 2)])
            z = dict(zip(at, filled.unbind(1), strict=True))
            there = {name: column[:, None].contiguous() for name, column in z.items()}
            moved = [seen.gradient(move, there).value for move in seen.moves.values()]
            flows.append(-torch.cat(moved, dim=1)[: len(chunk)])
        field = torch.cat(flows).view(GRID, GRID, 2)
        return {"vector_field": field[None], "vector_field_axes": axes[None]}


def _extremes(values: Tensor) -> dict[Key, Tensor]:
    """Of eigenvalues [M, n]: the ends of the real parts, and the largest imaginary part."""
    return {
        "real_min": values.real.amin(dim=1),
        "real_max": values.real.amax(dim=1),
        "imaginary_max": values.imag.amax(dim=1),
    }
