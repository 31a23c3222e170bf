"""How the gradient turns while an algorithm passes over the same data again.

Where an iteration is E epochs of minibatches, as in PPO, each epoch's gradient is the mean over
its minibatches, at the parameters of each:

    cosine_first/epoch_<k>   cosine of epoch k's gradient with the first epoch's
    norm/epoch_<k>           L2 norm of epoch k's gradient

Early epochs agree where the data still say the same at the new parameters; where clipping and
steps have used them up, the cosine falls and turns negative.

Shape legend: M members, N parameters of a player.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from playground.game import Observation
from playground.probes.probe import Probe

EVERY = 8
"""Iterations between two that are measured (ours: tier 0's cadence)."""


class EpochGradients(Probe):
    """Measures one iteration's epochs at its last update, one iteration in eight.

    Args:
        rounds: of one epoch.
        epochs: of one iteration.
    """

    name = "epochs"

    def __init__(self, rounds: int, epochs: int) -> None:
        self.rounds, self.epochs = rounds, epochs
        self._iterations: dict[str, int] = {}
        self._sums: dict[str, list[Tensor]] = {}

    def measure(self, seen: Observation) -> Mapping[str | tuple[str, str], Tensor]:
        """Nothing but at the last update of an iteration."""
        epoch, place = divmod(seen.round_index, self.rounds)
        if seen.round_index == 0:
            count = self._iterations.get(seen.player, 0)
            self._iterations[seen.player] = count + 1
            self._sums.pop(seen.player, None)
            if count % EVERY == 0:
                self._sums[seen.player] = []
        sums = self._sums.get(seen.player)
        if sums is None:
            return {}
        if place == 0:
            sums.append(torch.zeros_like(seen.gradient))
        sums[-1].add_(seen.gradient)
        if (epoch, place) != (self.epochs - 1, self.rounds - 1):
            return {}
        del self._sums[seen.player]
        return turned(sums, self.rounds)

    def state(self) -> dict[str, Any]:
        """Iterations so far; a run is saved between two of them."""
        return {"iterations": dict(self._iterations)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` gave."""
        self._iterations = dict(state["iterations"])


def turned(sums: list[Tensor], rounds: int) -> dict[str | tuple[str, str], Tensor]:
    """{quantity: [M]} of every epoch's summed gradients [M, N]."""
    norms = [torch.linalg.vector_norm(total, dim=1) for total in sums]
    result: dict[str | tuple[str, str], Tensor] = {}
    for number, (total, norm) in enumerate(zip(sums, norms, strict=True), start=1):
        result[f"norm/epoch_{number}"] = norm / rounds
        if number > 1:
            cosine = (total * sums[0]).sum(1) / (norm * norms[0])
            result[f"cosine_first/epoch_{number}"] = cosine
    return result
