"""Tier 0: size, direction and health of gradients and updates, per tensor and per player.

Every update leaves one whole-player row of tap ``gradient`` (its norm, which the finite check
computes anyway) and, where the chain clips, one of tap ``clipped`` (its coefficient). One
update in ``every``, at a place drawn inside each window, is measured in full: its values are
copied into a ring on the device and measured together when the ring is full, so that nothing
waits for the host and nothing runs per tensor and update.

Quantities, for a value v of n elements, its value w one update earlier, parameters p:

    norm ||v||_2, mean_abs ||v||_1 / n, max_abs ||v||_inf, zero_share #{v_i = 0} / n,
    nonfinite #{v_i not finite}, cosine_previous <v, w> / (||v|| ||w||)
    update only: parameter_norm ||p||_2, ratio ||u|| / ||p||, alignment <u, -g> / (||u|| ||g||)

What is undefined (a cosine with a zero vector, a ratio to zero parameters) is null.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from playground.game import Observation
from playground.parameters import Layout
from playground.probes.tier0.formulas import VALUES, Table, measure, measure_in_place

Stamp = tuple[int, int, int]
"""Iteration, update, round."""

Sink = Callable[[dict[str, Any], dict[str, np.ndarray]], None]
"""Takes columns of the table ``gradients`` and masks of what is null."""

SLOTS = 64
QUANTITIES = (
    "norm", "mean_abs", "max_abs", "zero_share", "nonfinite", "parameter_norm", "ratio",
    "cosine_previous", "alignment", "learning_rate", "clip_coefficient",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Clip:
    """What clipping did to one update, each [M]; None where it is not known.

    ``norm`` is what it left, and is None where that follows from the coefficient.
    """

    coefficient: Tensor | None
    norm: Tensor | None = None


@dataclass(slots=True)
class _Player:
    """What the probe holds of one player between flushes."""

    layout: Layout
    ring: Tensor | None = None  # [K, M, 5, N]
    slots: list[int] = field(default_factory=list)  # positions in ``stamps`` of the ring's rows
    reads: list[str] = field(default_factory=list)  # where the gradient of each was read
    stamps: list[Stamp] = field(default_factory=list)
    norms: list[Tensor] = field(default_factory=list)
    clips: dict[int, Clip] = field(default_factory=dict)  # by position in ``stamps``
    rates: list[float | Tensor] = field(default_factory=list)
    previous: tuple[Tensor, Tensor] | None = None
    read: str = "gradient"  # where the previous gradient was read


class Norms:
    """The tier-0 probe.

    Attributes:
        iteration: set by the run before each iteration; stamped on every row.
        own: {player: its cadence} of those that have another than ``every``.
    """

    def __init__(self, every: int, seed: int, sink: Sink, megabytes: int = 64) -> None:
        self.every = every
        self.seed = seed
        self.sink = sink
        self.capacity = megabytes * 2**20
        self.iteration = 0
        self._players: dict[str, _Player] = {}
        self.own: dict[str, int] = {}
        self._window, self._place = (-1, 0), 0  # where a window's measured update is

    def __call__(self, seen: Observation) -> None:
        """Take note of one update."""
        player = self._players.get(seen.player)
        if player is None:
            player = self._players[seen.player] = _Player(seen.layout)
        if seen.clip_coefficient is not None or seen.read == "clipped":
            left = (
                torch.linalg.vector_norm(seen.gradient, dim=1) if seen.read == "clipped" else None
            )
            player.clips[len(player.stamps)] = Clip(seen.clip_coefficient, left)
        player.stamps.append((self.iteration, seen.index, seen.round_index))
        player.norms.append(seen.norm)
        previous, read = player.previous, player.read
        player.previous, player.read = (seen.gradient, seen.update), seen.read
        if self.due(seen.index, seen.player):
            if previous is not None and read != seen.read:  # another tap: nothing to compare with
                previous = (torch.zeros_like(seen.gradient), previous[1])
            self._copy(player, seen, previous)

    def due(self, index: int, player: str = "") -> bool:
        """Whether a player's update is one of those that are measured in full."""
        every = self.own.get(player, self.every)
        window, place = divmod(index, every)
        if (window, every) != self._window:
            self._window, self._place = (window, every), pick(self.seed, window, every)
        return place == self._place

    def note(
        self, name: str, layout: Layout, stamp: Stamp, norm: Tensor, clip: Clip | None = None
    ) -> None:
        """Take note of an update whose values nobody has: the raw gradient's norm [M] alone."""
        player = self._players.setdefault(name, _Player(layout))
        player.previous = None
        if clip is not None:
            player.clips[len(player.stamps)] = clip
        player.stamps.append(stamp)
        player.norms.append(norm)

    def emit(
        self, name: str, layout: Layout, stamp: Stamp, table: Table, tensors: Sequence[str] = ()
    ) -> None:
        """Rows that were measured elsewhere, of one update: quantities [1, M, 1 + tensors]."""
        stamps = np.array([stamp], dtype=np.int64)
        for tap, columns in table.items():
            members = next(iter(columns.values())).shape[1]
            self._emit(name, stamps, members, [tap], list(tensors) or ["", *layout.names], columns)

    def flush(self) -> None:
        """Measure what the rings hold and hand all rows to the sink."""
        for name, player in self._players.items():
            self._flush(name, player)

    def state(self) -> dict[str, Any]:
        """The previous gradient and update of every player; call after ``flush``."""
        return {
            name: list(player.previous)
            for name, player in self._players.items()
            if player.previous is not None
        }

    def load_state(self, state: dict[str, Any], layouts: Mapping[str, Layout]) -> None:
        """Take back what ``state`` gave."""
        for name, (gradient, update) in state.items():
            self._players[name] = _Player(layouts[name], previous=(gradient, update))

    def _copy(
        self, player: _Player, seen: Observation, previous: tuple[Tensor, Tensor] | None
    ) -> None:
        """Copy one update's values into the ring, or measure in place above the size limit."""
        device = seen.gradient.device
        old = previous or (torch.zeros_like(seen.gradient), torch.zeros_like(seen.update))
        v, w = (value.to(device) for value in old)
        values = (v, seen.gradient, seen.update, w, seen.parameters)
        player.slots.append(len(player.stamps) - 1)
        player.reads.append(seen.read)
        player.rates.append(seen.learning_rate)
        size = seen.gradient.numel() * seen.gradient.element_size() * len(VALUES)
        if size > self.capacity:
            self._flush(seen.player, player, measure_in_place(values, player.layout))
            return
        if player.ring is None:
            members, elements = seen.gradient.shape
            slots = max(1, min(SLOTS, self.capacity // size))
            player.ring = seen.gradient.new_zeros(slots, members, len(VALUES), elements)
        torch.stack(values, dim=1, out=player.ring[len(player.slots) - 1])
        if len(player.slots) == len(player.ring):
            self._flush(seen.player, player)

    def _flush(self, name: str, player: _Player, table: Table | None = None) -> None:
        """Rows of everything since the last flush; ``table`` is of values not in the ring."""
        if not player.stamps:
            return
        stamps = np.array(player.stamps, dtype=np.int64)
        norms = torch.stack(player.norms).cpu().numpy()
        measured = np.zeros(len(stamps), dtype=bool)
        measured[player.slots] = True
        members = norms.shape[1]
        clipped = np.array([read == "clipped" for read in player.reads], dtype=bool)
        raw = measured.copy()
        raw[player.slots] = ~clipped | self._known(player)
        self._emit(name, stamps[~raw], members, ["gradient"], [""], {"norm": norms[~raw]})
        merged = set(np.array(player.slots, dtype=int)[clipped].tolist())
        self._clips(name, player, stamps, merged)
        if table is None and player.ring is not None and player.slots:
            # torch's threads split the sum of one row otherwise than the sums of several, and
            # when a flush comes must not change a bit: one row is measured with a neighbour.
            count = len(player.slots)
            found = measure(player.ring[: max(count, 2)].unbind(2), player.layout)
            table = {tap: {key: rows[:count] for key, rows in columns.items()}
                     for tap, columns in found.items()}  # fmt: skip
        if table is not None:
            self._measured(name, player, table, stamps[measured], norms[measured], clipped)
        player.slots, player.reads, player.stamps, player.norms = [], [], [], []
        player.clips, player.rates = {}, []

    def _clips(self, name: str, player: _Player, stamps: np.ndarray, merged: set[int]) -> None:
        """Whole-player rows of tap ``clipped`` where that tap was not measured in full."""
        kinds: dict[tuple[bool, bool], list[int]] = {}
        for place, clip in player.clips.items():
            if place not in merged:
                kind = (clip.coefficient is not None, clip.norm is not None)
                kinds.setdefault(kind, []).append(place)
        for places in kinds.values():
            clips = [player.clips[place] for place in places]
            values = {
                "clip_coefficient": [c.coefficient for c in clips if c.coefficient is not None],
                "norm": [c.norm for c in clips if c.norm is not None],
            }
            columns = {key: torch.stack(v).cpu().numpy() for key, v in values.items() if v}
            members = player.norms[0].shape[0]
            self._emit(name, stamps[places], members, ["clipped"], [""], columns)

    def _measured(
        self,
        name: str,
        player: _Player,
        table: Table,
        stamps: np.ndarray,
        norms: np.ndarray,
        clipped: np.ndarray,
    ) -> None:
        """Rows of the updates that were measured."""
        members = norms.shape[1]
        table["gradient"]["norm"][~clipped, :, 0] = norms[~clipped]
        table["update"]["learning_rate"] = _rates(player.rates, members)
        tensors = ["", *player.layout.names]
        for tap, coefficients, rows in self._taps(player, clipped):
            columns = {key: kept[rows] for key, kept in table["gradient"].items()}
            if coefficients:
                factor = columns["clip_coefficient"] = torch.stack(coefficients).cpu().numpy()
                raw = unclipped(columns, factor)
                raw["norm"][..., 0] = norms[rows]
                self._emit(name, stamps[rows], members, ["gradient"], tensors, raw)
            self._emit(name, stamps[rows], members, [tap], tensors, columns)
        self._emit(name, stamps, members, ["update"], tensors, table["update"])

    def _taps(
        self, player: _Player, clipped: np.ndarray
    ) -> Iterator[tuple[str, list[Tensor], np.ndarray]]:
        """Where the ring's gradients were read: (tap, clip coefficients, bool [K])."""
        yield "gradient", [], ~clipped
        known = clipped & self._known(player)
        found = [player.clips[player.slots[row]].coefficient for row in np.flatnonzero(known)]
        yield "clipped", [factor for factor in found if factor is not None], known
        yield "clipped", [], clipped & ~known

    def _known(self, player: _Player) -> np.ndarray:
        """Whether what clipping multiplied with is known, bool [K] of the ring's rows."""
        clips = [player.clips.get(place) for place in player.slots]
        return np.array([c is not None and c.coefficient is not None for c in clips], dtype=bool)

    def _emit(
        self,
        player: str,
        stamps: np.ndarray,
        members: int,
        tap: list[str],
        tensors: list[str],
        quantities: dict[str, np.ndarray],
    ) -> None:
        """Rows for every (update, member, tensor); quantities are [updates, M(, tensors)]."""
        if not len(stamps):
            return
        shape = (len(stamps), members, len(tensors))
        columns: dict[str, Any] = {"player": player, "tap": tap[0]}
        for i, key in enumerate(("iteration", "update", "round")):
            columns[key] = np.broadcast_to(stamps[:, i, None, None], shape).ravel()
        columns["member"] = np.broadcast_to(np.arange(members)[None, :, None], shape).ravel()
        codes = np.broadcast_to(np.arange(len(tensors), dtype=np.int32)[None, None, :], shape)
        columns["tensor"] = (codes.ravel(), tensors)
        null = {}
        for key, values in quantities.items():
            full = values if values.ndim == 3 else values[..., None]
            with np.errstate(over="ignore"):  # beyond float32 is a measured infinity
                columns[key] = np.broadcast_to(full, shape).ravel().astype(np.float32)
            if key in ("ratio", "cosine_previous", "alignment", "learning_rate"):
                null[key] = np.isnan(columns[key])
        self.sink(columns, null)


def unclipped(columns: Mapping[str, np.ndarray], factor: np.ndarray) -> dict[str, np.ndarray]:
    """Tier 0 of the gradient that clipping by norm multiplied with a factor [K, M]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        sizes = {key: columns[key] / factor[..., None] for key in ("norm", "mean_abs", "max_abs")}
    same = ("zero_share", "nonfinite", "cosine_previous")
    return {**sizes, **{key: columns[key] for key in same}}


def _rates(rates: list[float | Tensor], members: int) -> np.ndarray:
    """Learning rates [K, M, 1], or [K, M, 1 + tensors] where one update's differ by tensor."""
    rows = [
        np.full((members, 1), rate) if isinstance(rate, float) else
        rate.reshape(members, -1).cpu().numpy()
        for rate in rates
    ]  # fmt: skip
    width = max(row.shape[1] for row in rows)
    return np.stack([np.broadcast_to(row, (members, width)) for row in rows])


def pick(seed: int, window: int, every: int) -> int:
    """A place in [0, every), drawn by hashing (seed, window): no state to save.

    Source: the finaliser of splitmix64 (Steele et al. 2014).
    """
    mask = (1 << 64) - 1
    x = (seed * 0x9E3779B97F4A7C15 + (window + 1) * 0xD1342543DE82EF95) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return (x ^ (x >> 31)) % every
