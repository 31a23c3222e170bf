"""The noise of a batch's gradient measured in a run; the functions are in ``formulas``."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from playground.game import Move, Player
from playground.probes.layers import Trace, Tracer
from playground.probes.noise.clusters import (
    Attributed,
    Clusters,
    attribute,
    by_products,
    by_taps,
    declared,
)
from playground.probes.noise.estimates import Measured
from playground.probes.noise.formulas import LEAST, agreement, statistics
from playground.probes.passes import Key, Pass, Reading, Turn

METHODS = ("taps", "samples", "chunks")
"""What the quantity ``method`` counts."""

PAIRS = 2**25
"""Inner products of clusters of all tensors up to which the exact ways go (ours)."""


CERTAIN = (
    "clusters", "estimates", "samples", "method", "noise_scale_low", "noise_scale_high", "cosine/2",
)  # fmt: skip
"""Quantities that have no error, or none that could be told."""


class NoiseProbe(Pass):
    """Variance, signal-to-noise, noise scale, tests and agreement on each player's next batch.

    Quantities of every player and tensor: those of ``formulas``, with errors. Of the player:

        clusters     independent ones in the batch
        estimates    what the statistics are computed from: the clusters, or groups of them
        samples      n, see ``formulas``
        method       place in ``METHODS``; the first two are exact
        cosine/<k>   mean cosine between independent gradients of a k-th of the batch

    Below 4 clusters nothing is said, and an event says why.

    Args:
        every: iterations; None is the cadence of evaluations.
        method: ``auto`` takes taps where they apply, then samples where the clusters are at
            most twice K, else chunks.
        chunks: K, groups of clusters.
    """

    name = "noise"

    def __init__(self, every: int | None = None, method: str = "auto", chunks: int = 16) -> None:
        self.every, self.method, self.chunks = every, method, chunks
        self._noted: list[str] = []
        self._tracer: Tracer | None = None
        self._attributed: dict[Any, Attributed] = {}

    def measure(self, seen: Turn) -> Reading:
        """Of every player whose objective has samples."""
        if self._tracer is None:
            self._tracer = Tracer(seen.players)
        values: dict[Key, Tensor] = {}
        errors: dict[Key, Tensor] = {}
        notes: list[str] = []
        for name, move in seen.moves.items():
            found, note = self._player(self._tracer(move), move, seen.players[name])
            tensors = ("", *seen.players[name].parameters.layout.names)
            for quantity, measured in found.items():
                for k, tensor in enumerate(tensors[: measured.value.shape[1]]):
                    key: Key = (name, tensor, quantity) if tensor else (name, quantity)
                    values[key] = measured.value[:, k]
                    if quantity not in CERTAIN:
                        errors[key] = measured.stderr[:, k]
            notes += [f"player {name}: {note}"] if note else []
        fresh = [note for note in notes if note not in self._noted]
        self._noted += fresh
        return Reading(values, errors, notes=tuple(fresh))

    def state(self) -> dict[str, Any]:
        """What has been said already."""
        return {"noted": list(self._noted)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` gave."""
        self._noted = list(state["noted"])

    def _player(
        self, trace: Trace, move: Move, player: Player
    ) -> tuple[Mapping[str, Measured], str]:
        """The quantities of one player, and what should be known of them."""
        if trace.samples is None:
            return {}, "noise is not measured: its terms do not separate into samples"
        batch, layout = move.batch, player.parameters.layout
        if "cluster" in batch and batch["cluster"].shape != trace.samples.shape:
            return {}, "noise is not measured: its batch's clusters are not those of its samples"
        weight = batch.get("weight")
        clusters = declared(batch.get("cluster"), weight, trace.samples)
        counts = clusters.counts
        if int(counts.max()) < LEAST:
            few = f"{int(counts.max())} clusters, at least {LEAST} are needed"
            return {}, f"noise is not measured: {few}"
        method, attributed, note = self._choose(trace, clusters, move, player)
        if not method:
            return {}, note
        used = clusters.grouped(self.chunks) if method == "chunks" else clusters
        if method == "taps":
            gram = by_taps(trace, used, attributed, layout)
        else:
            gram = by_products(trace, used, layout)
        found = statistics(gram, used.share, used.samples)
        found |= {
            name: Measured(m.value[:, None], m.stderr[:, None])
            for name, m in agreement(gram[:, 0], used.counts).items()
        }
        plain = {
            "clusters": counts, "estimates": used.counts, "samples": used.samples,
            "method": torch.full_like(counts, METHODS.index(method)),
        }  # fmt: skip
        return found | {name: _plain(value) for name, value in plain.items()}, note

    def _choose(
        self, trace: Trace, clusters: Clusters, move: Move, player: Player
    ) -> tuple[str, Attributed, str]:
        """The method, how the taps belong, and why it is not the one that was wanted."""
        layout = player.parameters.layout
        none = Attributed()
        pairs = len(trace.leaf) * (1 + len(layout.names)) * clusters.number**2
        if self.method in ("samples", "chunks"):
            return self.method, none, ""
        why = "too many clusters" if pairs > PAIRS else ""
        if not why:
            key = (move.player, move.objective, trace.leaf.shape, clusters.index.shape)
            found = self._attributed.get(key)
            if found is None:
                found = attribute(trace, clusters, move.player, layout)
                if found.sure:
                    self._attributed[key] = found
            if not found.problem:
                return "taps", found, ""
            why = found.problem
        if self.method == "taps":
            return "", none, f"noise is not measured by taps: {why}"
        small = clusters.number <= 2 * self.chunks and pairs <= PAIRS
        method = "samples" if small else "chunks"
        return method, none, f"noise is measured by {method}: {why}"


def _plain(value: Tensor) -> Measured:
    """An exact number of every member's [M]."""
    column = value.double()[:, None]
    return Measured(column, torch.full_like(column, torch.nan))
