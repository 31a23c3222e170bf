"""Training metrics on their way to the records: kept as they come, turned into rows together.

Nothing here waits for the device: tensors are appended and fetched at the flush.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from playground.game import Outcomes

COUNTERS = ("updates", "samples", "env_steps", "gradient_evaluations")


@dataclass(frozen=True, slots=True)
class Stamp:
    """When a value was taken: iteration, seconds since the start, counters {name: [M]}."""

    iteration: int
    seconds: float
    counters: Mapping[str, np.ndarray]


@dataclass(slots=True)
class MetricLog:
    """Collects values [M] by (player, name) and makes rows of the table ``metrics``."""

    members: int
    _keys: list[tuple[str, str]] = field(default_factory=list)
    _stamps: list[Stamp] = field(default_factory=list)
    _places: list[int] = field(default_factory=list)  # of each value's stamp in ``_stamps``
    _values: list[Tensor | np.ndarray] = field(default_factory=list)
    _errors: list[np.ndarray | None] = field(default_factory=list)
    _rounds: dict[tuple[str, str], list[Tensor]] = field(default_factory=dict)

    def round(self, outcomes: Outcomes) -> None:
        """Keep a round's terms and diagnostics until the iteration ends."""
        for player, outcome in outcomes.items():
            for name, value in outcome.terms.items():
                self._rounds.setdefault((player, f"loss/{name}"), []).append(value)
            for name, value in outcome.diagnostics.items():
                self._rounds.setdefault((player, name), []).append(value)

    def iteration(self, stamp: Stamp) -> None:
        """Close an iteration: means over its rounds; ``loss`` is the sum of its terms."""
        losses: dict[str, Tensor] = {}
        for (player, name), values in self._rounds.items():
            value = values[0] if len(values) == 1 else torch.stack(values).mean(dim=0)
            self.add(stamp, player, name, value)
            if name.startswith("loss/"):
                losses[player] = losses[player] + value if player in losses else value
        for player, value in losses.items():
            self.add(stamp, player, "loss", value)
        self._rounds.clear()

    def add(
        self,
        stamp: Stamp,
        player: str,
        name: str,
        value: Tensor | np.ndarray,
        stderr: np.ndarray | None = None,
    ) -> None:
        """Keep one value [M]."""
        if not self._stamps or self._stamps[-1] is not stamp:
            self._stamps.append(stamp)
        self._keys.append((player, name))
        self._places.append(len(self._stamps) - 1)
        self._values.append(value)
        self._errors.append(stderr)

    def rows(self) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        """Columns of everything kept since the last call, with the mask of null cells."""
        if not self._keys:
            return None
        shape = (len(self._keys), self.members)
        columns: dict[str, Any] = {"value": _fetch(self._values, shape).ravel()}
        places = np.array(self._places)
        for name in ("iteration", "seconds"):
            times = np.array([getattr(stamp, name) for stamp in self._stamps])
            columns[name] = np.repeat(times[places], self.members)
        columns["member"] = np.tile(np.arange(self.members), shape[0])
        null: dict[str, np.ndarray] = {}
        for name in COUNTERS:
            present = [name in s.counters for s in self._stamps]
            zero = np.zeros(self.members, np.int64)
            counts = np.stack([s.counters.get(name, zero) for s in self._stamps])
            columns[name] = counts[places].ravel()
            null[name] = np.repeat(~np.array(present)[places], self.members)
        for i, name in enumerate(("player", "name")):
            names = sorted({key[i] for key in self._keys})
            code = {text: index for index, text in enumerate(names)}
            codes = np.array([code[key[i]] for key in self._keys], np.int32)
            columns[name] = (np.repeat(codes, self.members), names)
        errors = np.full(shape, np.nan)
        for i, error in enumerate(self._errors):
            if error is not None:
                errors[i] = error
        columns["stderr"] = errors.ravel()
        null["stderr"] = np.repeat([e is None for e in self._errors], self.members)
        self._keys, self._stamps, self._places = [], [], []
        self._values, self._errors = [], []
        return columns, null


def _fetch(values: Sequence[Tensor | np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Values [T, M] in float64, tensors fetched from the device together."""
    out = np.empty(shape, np.float64)
    where = [i for i, value in enumerate(values) if isinstance(value, Tensor)]
    if where:
        tensors = [value for value in values if isinstance(value, Tensor)]
        out[where] = torch.stack(tensors).to(torch.float64).cpu().numpy()
    for i, value in enumerate(values):
        if not isinstance(value, Tensor):
            out[i] = value
    return out
