"""Each player's curvature measured in a run; the functions are in ``formulas``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from playground.game import Gradient, Stability
from playground.probes.config import CurvatureConfig
from playground.probes.curvature.critical import kind
from playground.probes.curvature.formulas import (
    TRUSTED,
    Extremes,
    extremes,
    of,
    preconditioned,
    quadrature,
    trace,
    warm,
)
from playground.probes.curvature.lanczos import Product
from playground.probes.game.formulas import dense
from playground.probes.passes import Key, Pass, Reading, Turn
from playground.products import Products
from playground.randomness import Streams


@dataclass(slots=True)
class Spectrum:
    """What is known of one player's Hessian, all float64.

    Attributes:
        ends: [M, 2], smallest and largest eigenvalue.
        errors: [M, 2], their residuals; 0 where exact.
        zero: [M], what counts as 0: rounding where exact, a share elsewhere.
        whole: [M, N], every eigenvalue, where exact.
        found: the Lanczos run, where not.
    """

    ends: Tensor
    errors: Tensor
    zero: Tensor
    whole: Tensor | None = None
    found: Extremes | None = None


class CurvatureProbe(Pass):
    """Hessians of all players, each of its own objective by its own parameters.

    On its next batch, or with ``data: all`` on all the data that batches are drawn from.

    Quantities of each player:

        lambda_min, lambda_max    of H; beyond ``dense`` parameters Ritz values, whose standard
                                  error is the residual
        lambda_min_converged, lambda_max_converged    1 where the residual is at most a tenth of
                                  the value, else 0
        products                  Hessian products that the two took; 0 where H is formed
        trace                     of H; an estimate has its standard error
        sharpness                 largest eigenvalue of P^-1 (H + weight decay), P the optimizer's
                                  preconditioner; lambda_max for those without
        sharpness_limit           where the optimizer starts to oscillate, 2 / eta for gradient
                                  descent; see ``optim.stability``
        sharpness_ratio           sharpness / sharpness_limit: above 1 is beyond the edge
        kind                      a code of ``critical.KINDS``
        index                     negative eigenvalues, where H is formed

    The middle three only where the optimizer has such a line; in a game they tell of each player
    alone, the game's own limit is ``game``'s ``largest_stable_rate``. Arrays, one a player:
    ``hessian-<player>`` [M, N], all eigenvalues, where H is formed, and ``density-<player>``
    [M, V K, 2], nodes and weights, elsewhere.

    Lanczos starts at the last vectors; they are part of the state, 3 N numbers a member at most.

    Args:
        config: its settings.
        density: random vectors of the density; 0 is none.
    """

    name = "curvature"

    def __init__(self, config: CurvatureConfig, density: int = 0) -> None:
        self.config, self.density = config, density
        self.every = config.every or None
        self._last: dict[str, Tensor] = {}

    def begin(self, seeds: Sequence[int], device: torch.device) -> None:
        """Streams of the random vectors."""
        self.streams = Streams(seeds, "probe/curvature", device)

    def measure(self, seen: Turn) -> Reading:
        """Every player's Hessian, one after the other."""
        values: dict[Key, Tensor] = {}
        errors: dict[Key, Tensor] = {}
        arrays: dict[str, Tensor] = {}
        for player, move in seen.moves.items():
            if self.config.data == "all":
                move = seen.whole(player) or move
            leaf = seen.players[player].parameters.values.detach().requires_grad_()
            gradient = seen.gradient(move, {player: leaf}, create_graph=True)
            products = Products([gradient.value], [leaf])
            reading = self._player(player, gradient, products, seen.stability(player))
            values |= {(player, str(name)): value for name, value in reading.values.items()}
            errors |= {(player, str(name)): value for name, value in reading.stderr.items()}
            arrays |= {f"{name}-{player}": array for name, array in reading.arrays.items()}
        return Reading(values, errors, arrays)

    def state(self) -> dict[str, Any]:
        """The streams, and the vectors that the next runs start from."""
        last = {name: vectors.clone() for name, vectors in self._last.items()}
        return {"streams": self.streams.state(), "last": last}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` gave."""
        self.streams.load_state(state["streams"])
        self._last = {k: v.to(self.streams.device, copy=True) for k, v in state["last"].items()}

    def _player(
        self, player: str, gradient: Gradient, products: Products, line: Stability | None
    ) -> Reading:
        """One player's quantities, by name alone."""
        at = products.leaves[0]
        product = of(products)
        matrix = symmetric(products) if at.shape[1] <= self.config.dense else None
        known = self._spectrum(player, product, matrix, at)
        found, errors, arrays = described(known)
        found["kind"] = self._kind(gradient, at, known)
        if matrix is None:
            signs = [self._signs(at) for _ in range(self.config.vectors)]
            space = None if known.found is None else known.found.space
            found["trace"], errors["trace"] = trace(product, signs, space)
            if self.density:
                starts = [self._noise(at) for _ in range(self.density)]
                pairs = quadrature(product, starts, self.config.density_steps)
                arrays["density"] = torch.stack(pairs, dim=2)
        if line is not None:
            sharp, error = self._sharpness(player, product, matrix, known, line)
            found |= {
                "sharpness": sharp, "sharpness_limit": line.limit,
                "sharpness_ratio": sharp / line.limit,
            }  # fmt: skip
            errors |= {"sharpness": error, "sharpness_ratio": error / line.limit.abs()}
        return Reading(found, errors, arrays)

    def _spectrum(
        self, player: str, product: Product, matrix: Tensor | None, at: Tensor
    ) -> Spectrum:
        """All eigenvalues of a matrix, or both ends by Lanczos."""
        if matrix is not None:
            whole = eigenvalues(matrix)
            ends = whole[:, [0, -1]]
            share = at.shape[1] * torch.finfo(at.dtype).eps  # as numpy.linalg.matrix_rank's
            zero = share * ends.abs().amax(dim=1)
            return Spectrum(ends, torch.zeros_like(ends), zero, whole)
        found = self._lanczos(player, product, at, top=False)
        zero = self.config.critical**0.5 * found.values.abs().amax(dim=1)
        return Spectrum(found.values, found.residuals, zero, None, found)

    def _lanczos(self, key: str, product: Product, at: Tensor, *, top: bool) -> Extremes:
        """From the last vectors of this key, which it replaces."""
        start = self._noise(at)
        if key in self._last:
            start = warm(self._last[key], start)
        config = self.config
        found = extremes(product, start, config.products, config.tolerance, top=top)
        self._last[key] = found.vectors[:, 1:] if top else found.vectors
        return found

    def _sharpness(
        self,
        player: str,
        product: Product,
        matrix: Tensor | None,
        known: Spectrum,
        line: Stability,
    ) -> tuple[Tensor, Tensor]:
        """Largest eigenvalue [M] under the optimizer's preconditioner, and its residual."""
        if line.scale is None:
            return known.ends[:, 1] + line.decay, known.errors[:, 1]
        if matrix is not None:
            root = line.scale.double().rsqrt()
            shift = torch.diag_embed(line.decay[:, None].expand_as(root))
            top = eigenvalues(root[:, :, None] * (matrix + shift) * root[:, None, :])[:, -1]
            return top, torch.zeros_like(top)
        scaled = preconditioned(product, line.scale, line.decay.to(line.scale))
        found = self._lanczos(f"{player}/scaled", scaled, line.scale, top=True)
        return found.values[:, 1], found.residuals[:, 1]

    def _kind(self, gradient: Gradient, at: Tensor, known: Spectrum) -> Tensor:
        """Code [M] of the point."""
        return kind(
            torch.linalg.vector_norm(gradient.value.detach(), dim=1),
            torch.linalg.vector_norm(at.detach(), dim=1),
            torch.stack(list(gradient.terms.values())).sum(0).detach(),
            known.ends, known.errors, known.zero, self.config.critical,
        )  # fmt: skip

    def _noise(self, like: Tensor) -> Tensor:
        """Standard normal, shaped like [M, N]."""
        return self.streams.normal(like.shape[1], dtype=like.dtype)

    def _signs(self, like: Tensor) -> Tensor:
        """Independent signs, shaped like [M, N]."""
        return torch.where(self.streams.uniform(like.shape[1]) < 0.5, -1.0, 1.0).to(like)


def symmetric(products: Products) -> Tensor:
    """H [M, N, N] float64, its rounding made symmetric."""
    matrix = dense(products).detach().double()
    result: Tensor = (matrix + matrix.transpose(1, 2)) / 2
    return result


def eigenvalues(matrix: Tensor) -> Tensor:
    """[M, N], ascending; NaN where a member's matrix is not finite."""
    good = torch.isfinite(matrix).flatten(1).all(dim=1)
    values = torch.linalg.eigvalsh(torch.where(good[:, None, None], matrix, 0.0))
    result: Tensor = values.masked_fill(~good[:, None], torch.nan)
    return result


def described(known: Spectrum) -> tuple[dict[Key, Tensor], dict[Key, Tensor], dict[str, Tensor]]:
    """Quantities of the ends, their errors, and the array of all, where all are known."""
    sides = ("lambda_min", "lambda_max")
    found: dict[Key, Tensor] = dict(zip(sides, known.ends.unbind(1), strict=True))
    good = known.errors <= TRUSTED * known.ends.abs()
    good = torch.where(torch.isfinite(known.ends), good.double(), torch.nan)
    found |= {f"{n}_converged": v for n, v in zip(sides, good.unbind(1), strict=True)}
    count = 0 if known.found is None else known.found.products
    found["products"] = torch.full_like(known.ends[:, 0], count)
    if known.whole is None:
        return found, dict(zip(sides, known.errors.unbind(1), strict=True)), {}
    negative = known.whole < -known.zero[:, None]
    undefined = torch.isnan(known.whole).any(dim=1)
    found["index"] = negative.sum(dim=1).double().masked_fill(undefined, torch.nan)
    found["trace"] = known.whole.sum(dim=1)
    return found, {}, {"hessian": known.whole}
