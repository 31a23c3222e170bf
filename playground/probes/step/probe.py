"""The optimizer's own doing measured in a run; the functions are in ``formulas``."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from playground.game import Gradient, Move, Observation, Round
from playground.parameters import Layout
from playground.probes.passes import Differentiate, Key, Passing, Reading
from playground.probes.step.formulas import QUANTILES, magnitudes, quantiles, step_length


class Divides(Protocol):
    """What the probe asks of an optimizer."""

    def denominator(self) -> tuple[Tensor, float | Tensor] | None:
        """Root [M, N] and epsilon of what the gradient was divided by; None without."""


class StepProbe:
    """One update of every player: what it promised, what it did, how far, at which rates.

    Quantities of a player, see ``formulas``:

        predicted_change, actual_change    of the loss, on the update's own batch
        change_ratio           actual over predicted: 1 for short steps, below 0 where it rose
        alpha, concave, too_short    the step's length
        effective_rate/q<p>    quantiles of the learning rate over the chain's denominator,
                               sqrt(v) + eps, over parameters that had a gradient
        no_gradient_share      share of parameters that never had one, v = 0: left out above
        epsilon_share          share of parameters with sqrt(v) < eps, which eps decides
        preconditioned_norm    of the preconditioned gradient P^-1 g, the clipped gradient over
                               the denominator; also by tensor
        preconditioned_cosine    cosine of P^-1 g and g, 1 where it turns nothing; also by tensor

    The last five where the chain has a denominator (adam, amsgrad, adamw, rmsprop, adagrad).
    Arrays ``magnitudes_<tap>_<player>`` [M, T, bins] of taps gradient, update and parameters,
    and of ``preconditioned``, P^-1 g, where there is a denominator.

    Costs two gradient evaluations a player.

    Args:
        every: iterations; None is the cadence of evaluations.
        optimizers: {player: its optimizer}.
    """

    name = "step"

    def __init__(self, every: int | None, optimizers: Mapping[str, Divides]) -> None:
        self.every, self.optimizers = every, optimizers

    def measure_step(
        self, move: Move, at: Mapping[str, Tensor], seen: Observation, gradient: Differentiate
    ) -> Reading:
        """Measure a player's update, after the chain and before it is applied.

        Args:
            move: that the update is of.
            at: {player: [M, N]} where the round began.
            seen: the update.
            gradient: of moves, anywhere.
        """
        name, update = seen.player, seen.update
        first = gradient(move, at)
        second = gradient(move, {**at, name: at[name] + update})
        start, end = _loss(first), _loss(second)
        slope, slope_end = ((g.value * update).double().sum(1) for g in (first, second))
        found = {
            "predicted_change": slope,
            "actual_change": end - start,
            "change_ratio": (end - start) / slope,
            **step_length(start, end, slope, slope_end, torch.finfo(update.dtype).eps),
        }
        values: dict[Key, Tensor] = {(name, quantity): v for quantity, v in found.items()}
        taps = {"gradient": seen.gradient, "update": update, "parameters": seen.parameters}
        divided = self.optimizers[name].denominator()
        if divided is not None:
            values |= rates(seen, *divided)
            clipped = seen.gradient if seen.clipped is None else seen.clipped
            taps["preconditioned"] = clipped / (divided[0] + divided[1])
            values |= turned(name, clipped, taps["preconditioned"], seen.layout)
        arrays = {
            f"magnitudes_{tap}_{name}": magnitudes(value, seen.layout)
            for tap, value in taps.items()
        }
        return Reading(values, arrays=arrays)

    def state(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Nothing."""


def rates(seen: Observation, root: Tensor, eps: float | Tensor) -> dict[Key, Tensor]:
    """What a chain's denominator, root + eps, makes of the learning rate."""
    without = root == 0  # they do not move, and their rate would be lr / eps
    found = quantiles(seen.learning_rate / (root + eps), without)
    named: dict[Key, Tensor] = {
        (seen.player, f"effective_rate/q{round(100 * q):02d}"): rate
        for q, rate in zip(QUANTILES, found, strict=True)
    }
    named[seen.player, "no_gradient_share"] = without.double().mean(1)
    return {**named, (seen.player, "epsilon_share"): (root < eps).double().mean(1)}


def turned(
    player: str, gradient: Tensor, preconditioned: Tensor, layout: Layout
) -> dict[Key, Tensor]:
    """Norm of a preconditioned gradient and its cosine to the gradient, whole and by tensor."""
    found: dict[Key, Tensor] = {}
    whole = {"": slice(None)} | layout.slices
    for tensor, place in whole.items():
        before, after = gradient[:, place].double(), preconditioned[:, place].double()
        norm = after.norm(dim=1)
        cosine = (before * after).sum(1) / (before.norm(dim=1) * norm)  # NaN where one is zero
        found[player, tensor, "preconditioned_norm"] = norm
        found[player, tensor, "preconditioned_cosine"] = cosine
    return found


def _loss(found: Gradient) -> Tensor:
    """The objective [M] in float64."""
    return torch.stack([term.double() for term in found.terms.values()]).sum(0)


class Following(Passing):
    """Calls a step probe at every player's first update of an iteration that is due.

    It stands among the engine's ``before``, to see the move and where the round begins, and its
    ``observe`` among the observers.
    """

    probe: Any

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._pending: dict[str, tuple[Move, dict[str, Tensor]]] = {}
        self._measured: set[str] = set()

    def __call__(self, moves: Round) -> None:
        """Remember the moves of players that are due, and the point."""
        if not self.due():
            return
        if self._done != self.iteration:
            self._done, self._measured = self.iteration, set()
        due = [move for move in moves if move.player not in self._measured]
        if due:
            at = {name: p.parameters.values.clone() for name, p in self.players.items()}
            self._pending = {move.player: (move, at) for move in due}

    def observe(self, seen: Observation) -> None:
        """Measure an update whose move was remembered."""
        pending = self._pending.pop(seen.player, None)
        if pending is None:
            return
        self._measured.add(seen.player)
        self._timed(lambda: self.probe.measure_step(*pending, seen, self.gradient), seen.index)
