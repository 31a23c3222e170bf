"""Probes that make passes of their own: what one update alone does not show.

A ``Pass`` is called before a round is played, with one move of every player and the gradient
function, and may evaluate as much as it likes: at other points, on parts of a batch, through
graphs. Its evaluations are not counted, it writes nothing, and it draws from its own streams, so
that training is the same bit for bit. Values become rows of the table ``measurements``.

It measures iterations 1, 1 + every, 1 + 2 every, ..., in each before the first round by which
every player has had a move: at once where rounds are simultaneous, else at the last player's
first round, with the moves that the others have just made.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from playground.game import Gradient, Move, Player, Round, Stability
from playground.probes.probe import Sink
from playground.probes.time_budget import Allowance

Key = str | tuple[str, str] | tuple[str, str, str]
"""quantity, (player, quantity) or (player, tensor, quantity)."""


class Differentiate(Protocol):
    """The engine's gradient, uncounted."""

    def __call__(
        self, move: Move, at: Mapping[str, Tensor] | None = None, *, create_graph: bool = False
    ) -> Gradient:
        """The gradient of a move by its mover, here or where ``at`` {player: [M, N]} says."""


Line = Callable[[str], Stability | None]
"""player -> its optimizer's stability line, None where it has none."""


def no_line(player: str) -> None:
    """Of optimizers that nobody knows."""


Whole = Callable[[str], Move | None]
"""player -> its move on all data; None where there is no end of them."""


def no_end(player: str) -> None:
    """Of data that nobody knows."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What a pass sees.

    Attributes:
        moves: {player: its move}, in the players' order; batches are not to be written to.
        gradient: of any of them, anywhere.
        players: {player: parameters and their layout}, not to be written to.
        stability: of a player's optimizer, before its next update.
        whole: a player's move on all of its data.
    """

    moves: Mapping[str, Move]
    gradient: Differentiate
    players: Mapping[str, Player]
    stability: Line = no_line
    whole: Whole = no_end


@dataclass(frozen=True, slots=True)
class Reading:
    """What a pass measured, all [M]; NaN stands for undefined.

    Attributes:
        values: {key: [M]}.
        stderr: {key: [M]}, of those that are estimates.
        arrays: {name: [M, ...]} for pictures.
        notes: what should be known of the values, or why there are none; each becomes an event.
    """

    values: Mapping[Key, Tensor]
    stderr: Mapping[Key, Tensor] = field(default_factory=dict)
    arrays: Mapping[str, Tensor] = field(default_factory=dict)
    notes: Sequence[str] = ()


class Pass(ABC):
    """A probe with passes of its own.

    Attributes:
        name: what stands in the column ``probe``.
        every: iterations between measurements; None is the cadence of evaluations.
    """

    name: str
    every: int | None = None

    def begin(self, seeds: Sequence[int], device: torch.device) -> None:  # noqa: B027
        """Make random streams of one's own, from the members' seeds; once, before the run."""

    @abstractmethod
    def measure(self, seen: Turn) -> Reading:
        """Measure at the current point."""

    def state(self) -> dict[str, Any]:
        """What a resumed run needs, as tensors and plain containers."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Take back what ``state`` gave."""


Keep = Callable[[str, int, np.ndarray], Any]
"""(name, iteration, array): where arrays go."""

Note = Callable[[int, str], Any]
"""(iteration, message): where notes go."""


class Passing:
    """Calls a pass when it is due and keeps what it returns until the flush.

    Attributes:
        iteration: set by the run before each iteration; stamped on every row.
        cadence: of evaluations, set by the run, for passes without one of their own.
        only: the one iteration that is measured, None for all that the cadence names.
        allowance: what it may take of wall time, None for all that it needs.
    """

    def __init__(
        self,
        probe: Pass,
        players: Mapping[str, Player],
        gradient: Differentiate,
        updates: Callable[[str], int],
        sink: Sink,
        keep: Keep,
        note: Note = lambda iteration, message: None,
        stability: Line = no_line,
        whole: Whole = no_end,
    ) -> None:
        self.probe, self.players, self.gradient = probe, players, gradient
        self.note, self.stability, self.whole = note, stability, whole
        self.updates, self.sink, self.keep = updates, sink, keep
        self.iteration, self.cadence = 0, 1
        self.only: int | None = None
        self.allowance: Allowance | None = None
        self._asked, self._granted = 0, True  # the last iteration that the allowance was asked of
        self._seen: dict[str, Move] = {}
        self._seen_at = 0
        self._done = 0  # the last iteration that was measured
        self._stamps: list[tuple[int, int, str, str, str, float]] = []
        self._values: list[tuple[Tensor, Tensor | None]] = []

    def __call__(self, moves: Round) -> None:
        """Measure before this round, where it is due."""
        if self._done == self.iteration or not self.due():
            return
        if self._seen_at != self.iteration:
            self._seen, self._seen_at = {}, self.iteration
        for move in moves:
            self._seen.setdefault(move.player, move)
        if len(self._seen) < len(self.players):
            return
        self._done = self.iteration
        seen = {name: self._seen[name] for name in self.players}
        self._seen = {}
        turn = Turn(seen, self.gradient, self.players, self.stability, self.whole)
        self._timed(lambda: self.probe.measure(turn))

    def due(self) -> bool:
        """Whether this iteration is measured."""
        if self.only is not None:
            return self.iteration == self.only
        if (self.iteration - 1) % (self.probe.every or self.cadence):
            return False
        if self.allowance is not None and self._asked != self.iteration:
            self._asked, self._granted = self.iteration, self.allowance.grants(self.probe.name)
        return self._granted

    def _timed(self, measure: Callable[[], Reading], update: int | None = None) -> None:
        """Keep what a measurement returns; of an update where it is not the coming one."""
        begun = time.perf_counter()
        reading = measure()
        device = next(iter(self.players.values())).parameters.values.device
        if device.type != "cpu":
            torch.accelerator.synchronize(device)  # else the cost is that of the launch
        seconds = time.perf_counter() - begun
        if self.allowance is not None:
            self.allowance.spend(self.probe.name, seconds)
        cost = 1e3 * seconds
        for key, value in reading.values.items():
            self._take(key, value, reading.stderr.get(key), cost, update)
        for name, array in reading.arrays.items():
            self.keep(name, self.iteration, array.detach().cpu().numpy())
        for message in reading.notes:
            self.note(self.iteration, message)

    def flush(self) -> None:
        """Hand everything measured to the sink."""
        if not self._values:
            return
        nothing = torch.full_like(self._values[0][0], torch.nan, dtype=torch.float64)
        pairs = [
            torch.stack([value.double(), nothing if error is None else error.double()])
            for value, error in self._values
        ]
        values, errors = torch.stack(pairs, dim=1).cpu().numpy()  # [T, M] each
        times, members = values.shape
        columns: dict[str, Any] = {
            "value": values.ravel(),
            "member": np.tile(np.arange(members), times),
            "probe": self.probe.name,
            "stderr": errors.ravel(),
        }
        names = ("iteration", "update", "player", "tensor", "quantity", "cost_ms")
        for name, column in zip(names, zip(*self._stamps, strict=True), strict=True):
            columns[name] = np.repeat(column, members).tolist()
        self.sink(columns, {"stderr": np.isnan(errors.ravel())})
        self._stamps, self._values = [], []

    def _take(
        self, key: Key, value: Tensor, error: Tensor | None, cost: float, update: int | None
    ) -> None:
        """Stamp one quantity; its update is the one that the player is about to make, or given."""
        whole = (key,) if isinstance(key, str) else key
        player = "" if len(whole) == 1 else whole[0]
        tensor = whole[1] if len(whole) == 3 else ""
        quantity = whole[-1]
        members = (next(iter(self.players.values())).parameters.values.shape[0],)
        if value.shape != members or (error is not None and error.shape != members):
            raise ValueError(
                f"probe {self.probe.name}: {key} has shape {tuple(value.shape)}, "
                f"expected {members}, one value a member"
            )
        ahead = self.players if not player else (player,)
        update = update or 1 + max(self.updates(name) for name in ahead)
        self._stamps.append((self.iteration, update, player, tensor, quantity, cost))
        self._values.append((value.detach().clone(), None if error is None else error.detach()))
