"""A probe of one's own: a function of what an update shows, recorded as ``measurements``.

A probe changes nothing. It is called with an ``Observation`` (gradient, update, parameters and
their layout, all members at once) and returns named values; they stay on the device until the
next flush, and then become rows of the table ``measurements``.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from playground.game import Observation


class Probe(ABC):
    """Measures updates.

    Attributes:
        name: what stands in the column ``probe``.
        every: measures update 1, 1 + every, 1 + 2 every, ... of each player.
    """

    name: str
    every: int = 1

    @abstractmethod
    def measure(self, seen: Observation) -> Mapping[str | tuple[str, str], Tensor]:
        """{quantity: [M]} of one update, {(tensor, quantity): [M]} of one of its tensors.

        What is seen must not be written to. NaN stands for undefined.
        """

    def state(self) -> dict[str, Any]:
        """What a resumed run needs, as tensors and plain containers."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Take back what ``state`` gave."""


Sink = Callable[[dict[str, Any], dict[str, Any]], None]
"""Takes columns of the table ``measurements`` and masks of what is null."""


class Measuring:
    """Calls a probe at its updates and keeps what it returns until the flush.

    Attributes:
        iteration: set by the run before each iteration; stamped on every row.
    """

    def __init__(self, probe: Probe, sink: Sink) -> None:
        self.probe, self.sink = probe, sink
        self.iteration = 0
        self._stamps: list[tuple[int, int, str, str, str, float]] = []
        self._values: list[Tensor] = []

    def __call__(self, seen: Observation) -> None:
        """Measure one update, where it is due."""
        if (seen.index - 1) % self.probe.every:
            return
        begun = time.perf_counter()
        with torch.no_grad():
            measured = self.probe.measure(seen)
        cost = 1e3 * (time.perf_counter() - begun)
        members = seen.gradient.shape[0]
        for key, value in measured.items():
            tensor, name = key if isinstance(key, tuple) else ("", key)
            if value.shape != (members,):
                raise ValueError(
                    f"probe {self.probe.name}: {key} has shape {tuple(value.shape)}, "
                    f"expected ({members},), one value a member"
                )
            self._stamps.append((self.iteration, seen.index, seen.player, tensor, name, cost))
            self._values.append(value.detach().clone())

    def flush(self) -> None:
        """Hand everything measured to the sink."""
        if not self._values:
            return
        stacked = torch.stack([value.to(torch.float64) for value in self._values])
        values = stacked.cpu().numpy()  # [T, M]
        times, members = values.shape
        columns: dict[str, Any] = {
            "value": values.ravel(),
            "member": np.tile(np.arange(members), times),
            "probe": self.probe.name,
            "stderr": np.full(values.size, np.nan),
        }
        names = ("iteration", "update", "player", "tensor", "quantity", "cost_ms")
        for name, column in zip(names, zip(*self._stamps, strict=True), strict=True):
            columns[name] = np.repeat(column, members).tolist()
        self.sink(columns, {"stderr": np.ones(values.size, bool)})
        self._stamps, self._values = [], []
