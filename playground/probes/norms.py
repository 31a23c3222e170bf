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

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from playground.game import Observation
from playground.parameters import Layout

Sink = Callable[[dict[str, Any], dict[str, np.ndarray]], None]
"""Takes columns of the table ``gradients`` and masks of what is null."""

SLOTS = 64
QUANTITIES = (
    "norm", "mean_abs", "max_abs", "zero_share", "nonfinite", "parameter_norm", "ratio",
    "cosine_previous", "alignment", "learning_rate", "clip_coefficient",
)  # fmt: skip
VALUES = ("gradient", "previous_gradient", "update", "previous_update", "parameters")


@dataclass(slots=True)
class _Player:
    """What the probe holds of one player between flushes."""

    layout: Layout
    ring: dict[str, Tensor] = field(default_factory=dict)
    slots: list[int] = field(default_factory=list)  # positions in ``stamps`` of the ring's rows
    stamps: list[tuple[int, int, int]] = field(default_factory=list)
    norms: list[Tensor] = field(default_factory=list)
    coefficients: list[Tensor] = field(default_factory=list)
    rates: list[float | Tensor] = field(default_factory=list)
    previous: tuple[Tensor, Tensor] | None = None


class Norms:
    """The tier-0 probe.

    Attributes:
        iteration: set by the run before each iteration; stamped on every row.
    """

    def __init__(self, every: int, seed: int, sink: Sink, megabytes: int = 64) -> None:
        self.every = every
        self.seed = seed
        self.sink = sink
        self.capacity = megabytes * 2**20
        self.iteration = 0
        self._players: dict[str, _Player] = {}

    def __call__(self, seen: Observation) -> None:
        """Take note of one update."""
        player = self._players.get(seen.player)
        if player is None:
            player = self._players[seen.player] = _Player(seen.layout)
        player.stamps.append((self.iteration, seen.index, seen.round_index))
        player.norms.append(seen.norm)
        if seen.clip_coefficient is not None:
            player.coefficients.append(seen.clip_coefficient)
        previous = player.previous
        player.previous = (seen.gradient, seen.update)
        window, place = divmod(seen.index, self.every)
        if place == pick(self.seed, window, self.every):
            self._copy(player, seen, previous)

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
        values = {"gradient": seen.gradient, "update": seen.update, "parameters": seen.parameters}
        old = previous or (torch.zeros_like(seen.gradient), torch.zeros_like(seen.update))
        values["previous_gradient"], values["previous_update"] = old
        player.slots.append(len(player.stamps) - 1)
        player.rates.append(seen.learning_rate)
        size = seen.gradient.numel() * seen.gradient.element_size() * len(VALUES)
        if size > self.capacity:
            player.ring = {n: value.to(seen.gradient.device)[None] for n, value in values.items()}
            self._flush(seen.player, player)
            player.ring = {}
            return
        if not player.ring:
            shape = (max(1, min(SLOTS, self.capacity // size)), *seen.gradient.shape)
            player.ring = {name: torch.zeros(shape, **_like(seen.gradient)) for name in VALUES}
        slot = len(player.slots) - 1
        for name in VALUES:
            player.ring[name][slot].copy_(values[name])
        if len(player.slots) == len(player.ring["gradient"]):
            self._flush(seen.player, player)

    def _flush(self, name: str, player: _Player) -> None:
        if not player.stamps:
            return
        stamps = np.array(player.stamps, dtype=np.int64)
        norms = torch.stack(player.norms).cpu().numpy()
        measured = np.zeros(len(stamps), dtype=bool)
        measured[player.slots] = True
        members = norms.shape[1]
        self._emit(name, stamps[~measured], members, ["gradient"], [""], {"norm": norms[~measured]})
        if player.coefficients:
            coefficients = torch.stack(player.coefficients).cpu().numpy()
            self._emit(name, stamps, members, ["clipped"], [""], {"clip_coefficient": coefficients})
        if player.slots:
            count = len(player.slots)
            # torch's threads split the sum of one row otherwise than the sums of several, and
            # when a flush comes must not change a bit: one row is measured with a neighbour.
            ring = {key: value[: max(count, 2)] for key, value in player.ring.items()}
            table = {
                tap: {key: rows[:count] for key, rows in columns.items()}
                for tap, columns in measure(ring, player.layout).items()
            }
            table["gradient"]["norm"][..., 0] = norms[measured]
            table["update"]["learning_rate"] = _rates(player.rates, members)
            tensors = ["", *player.layout.names]
            for tap, columns in table.items():
                self._emit(name, stamps[measured], members, [tap], tensors, columns)
        player.slots, player.stamps, player.norms = [], [], []
        player.coefficients, player.rates = [], []

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
            if key in ("ratio", "cosine_previous", "alignment"):
                null[key] = np.isnan(columns[key])
        self.sink(columns, null)


def measure(ring: Mapping[str, Tensor], layout: Layout) -> dict[str, dict[str, np.ndarray]]:
    """Measure values [K, M, N]; {tap: {quantity: [K, M, 1 + tensors]}}, whole player first."""
    g, u, p = ring["gradient"], ring["update"], ring["parameters"]
    v, w = ring["previous_gradient"], ring["previous_update"]
    scratch = torch.empty_like(g)  # one buffer: fresh pages cost more than the arithmetic
    squares = {
        name: _per_tensor(torch.mul(a, b, out=scratch), layout)
        for name, (a, b) in {
            "gg": (g, g), "uu": (u, u), "pp": (p, p), "vv": (v, v), "ww": (w, w),
            "gv": (g, v), "uw": (u, w), "ug": (u, g),
        }.items()
    }  # fmt: skip
    root = {key: np.sqrt(squares[key]) for key in ("gg", "uu", "pp", "vv", "ww")}
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return {
            "gradient": {
                **_sizes(g, root["gg"], layout, scratch),
                "cosine_previous": squares["gv"] / (root["gg"] * root["vv"]),
            },
            "update": {
                **_sizes(u, root["uu"], layout, scratch),
                "parameter_norm": root["pp"],
                "ratio": np.where(root["pp"] > 0, root["uu"] / root["pp"], np.nan),
                "cosine_previous": squares["uw"] / (root["uu"] * root["ww"]),
                "alignment": -squares["ug"] / (root["uu"] * root["gg"]),
            },
        }


def _sizes(
    value: Tensor, norm: np.ndarray, layout: Layout, scratch: Tensor
) -> dict[str, np.ndarray]:
    """Quantities of one tap that need the value alone."""
    sizes = np.array([layout.size, *layout.sizes])
    absolute = torch.abs(value, out=scratch)
    peaks = [part.amax(-1) for part in torch.split(absolute, list(layout.sizes), dim=-1)]
    top = torch.stack(peaks, dim=-1).cpu().numpy()
    top = np.concatenate([top.max(-1, keepdims=True), top], axis=-1)
    mean = _per_tensor(absolute, layout) / sizes
    if np.isfinite(norm[..., 0]).all():
        nonfinite = np.zeros_like(norm)
        zeros = sizes - _per_tensor(
            torch.sign(absolute, out=scratch), layout
        )  # far faster than counting
    else:
        nonfinite = _per_tensor((~torch.isfinite(value)).to(value.dtype), layout)
        zeros = _per_tensor((value == 0).to(value.dtype), layout)
    return {
        "norm": norm,
        "mean_abs": mean,
        "max_abs": top,
        "zero_share": zeros / sizes,
        "nonfinite": nonfinite,
    }


def _per_tensor(value: Tensor, layout: Layout) -> np.ndarray:
    """Sums per tensor [K, M, 1 + tensors] in float64, the whole player's first."""
    parts = [part.sum(-1) for part in torch.split(value, list(layout.sizes), dim=-1)]
    values = torch.stack(parts, dim=-1).to(torch.float64).cpu().numpy()
    return np.concatenate([values.sum(-1, keepdims=True), values], axis=-1)


def _rates(rates: list[float | Tensor], members: int) -> np.ndarray:
    """Learning rates [K, M, 1]."""
    rows = [np.full(members, rate) if isinstance(rate, float) else rate for rate in rates]
    return np.stack(
        [row.reshape(-1).cpu().numpy() if isinstance(row, Tensor) else row for row in rows]
    )[..., None]


def pick(seed: int, window: int, every: int) -> int:
    """A place in [0, every), drawn by hashing (seed, window): no state to save.

    Source: the finaliser of splitmix64 (Steele et al. 2014).
    """
    mask = (1 << 64) - 1
    x = (seed * 0x9E3779B97F4A7C15 + (window + 1) * 0xD1342543DE82EF95) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return (x ^ (x >> 31)) % every


def _like(value: Tensor) -> dict[str, Any]:
    return {"dtype": value.dtype, "device": value.device}
