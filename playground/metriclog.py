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
        self._keys.append((player, name))
        self._stamps.append(stamp)
        self._values.append(value)
        self._errors.append(stderr)

    def rows(self) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        """Columns of everything kept since the last call, with the mask of null cells."""
        if not self._keys:
            return None
        shape = (len(self._keys), self.members)
        columns: dict[str, Any] = {"value": _fetch(self._values, shape).ravel()}
        columns["iteration"] = np.repeat([s.iteration for s in self._stamps], self.members)
        columns["seconds"] = np.repeat([s.seconds for s in self._stamps], self.members)
        columns["member"] = np.tile(np.arange(self.members), shape[0])
        null: dict[str, np.ndarray] = {}
        for name in COUNTERS:
            present = [name in s.counters for s in self._stamps]
            zero = np.zeros(self.members, np.int64)
            columns[name] = np.stack([s.counters.get(name, zero) for s in self._stamps]).ravel()
            null[name] = np.repeat(~np.array(present), self.members)
        for i, name in enumerate(("player", "name")):
            names = sorted({key[i] for key in self._keys})
            code = {text: index for index, text in enumerate(names)}
            codes = np.array([code[key[i]] for key in self._keys], np.int32)
            columns[name] = (np.repeat(codes, self.members), names)
        blank = np.full(self.members, np.nan)
        errors = [blank if e is None else e for e in self._errors]
        columns["stderr"] = np.stack(errors).ravel()
        null["stderr"] = np.repeat([e is None for e in self._errors], self.members)
        self._keys, self._stamps, self._values, self._errors = [], [], [], []
        return columns, null


def _fetch(values: Sequence[Tensor | np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Values [T, M] in float64, tensors fetched from the device together."""
    out = np.empty(shape, np.float64)
    where = [i for i, value in enumerate(values) if isinstance(value, Tensor)]
    if where:
        tensors = [value for value in values if isinstance(value, Tensor)]
        out[where] = torch.stack([t.to(torch.float64) for t in tensors]).cpu().numpy()
    for i, value in enumerate(values):
        if not isinstance(value, Tensor):
            out[i] = value
    return out
