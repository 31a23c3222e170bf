"""What went wrong in a gradient, named: non-finite tensors and spikes of one update.

Every update's norms, a number a tensor, are kept on the device until the flush and looked at
together. A tensor spikes where its norm exceeds ten times the largest of its 64 norms before, of
which at least 16 are finite and positive (ours). What spiked does not count among those, unless
three updates spiked in a row: that is a new level. Norms are those before clipping.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from playground.probes.tier0.probe import Stamp
from playground.watching.player import Broken

WINDOW, FEWEST, FACTOR, LEVEL = 64, 16, 10.0, 3

MOST = 1000
"""Events of one kind and player, so that a loop that spikes all the time fills no disk (ours)."""


@dataclass(frozen=True, slots=True)
class Event:
    """A row of the table ``events``."""

    iteration: int
    kind: str
    message: str
    evidence: str


class Health:
    """Finds events of one player."""

    def __init__(self, player: str, tensors: Sequence[str]) -> None:
        self.player, self.tensors = player, list(tensors)
        self._stamps: list[Stamp] = []
        self._norms: list[Tensor] = []
        self._broken: list[Broken] = []
        self._before = np.zeros((WINDOW, len(self.tensors)))
        self._spiked = np.zeros((WINDOW, len(self.tensors)), bool)
        self._bad: frozenset[str] = frozenset()
        self._missing: frozenset[str] = frozenset()
        self._counts: dict[str, int] = {}
        self._events: list[Event] = []

    def note(self, stamp: Stamp, norms: Tensor, broken: Broken, missing: Sequence[str]) -> None:
        """Keep one update."""
        self._stamps.append(stamp)
        self._norms.append(norms)
        self._broken.append(broken)
        if missing and not self._missing.issuperset(missing):
            new = [name for name in missing if name not in self._missing]
            self._missing |= set(missing)
            self._add(stamp, "no_gradient", f"no gradient of {listed(new)}", "")

    def add(self, stamp: Stamp, kind: str, message: str) -> None:
        """An event that somebody else found."""
        self._add(stamp, kind, message, "")

    def flush(self) -> list[Event]:
        """Look at what was kept; the events since the last time."""
        if self._norms:
            norms = torch.stack(self._norms).double().cpu().numpy()
            self._nonfinite(norms)
            self._spikes(norms)
            self._stamps, self._norms, self._broken = [], [], []
        events, self._events = self._events, []
        return events

    def _nonfinite(self, norms: np.ndarray) -> None:
        """One event whenever another set of tensors is not finite than the update before."""
        bad = ~np.isfinite(norms)
        some = bad.any(axis=1)
        before = np.concatenate([[bool(self._bad)], some[:-1]])
        for row in np.flatnonzero(some | before):
            names = [self.tensors[index] for index in np.flatnonzero(bad[row])]
            if frozenset(names) != self._bad and names:
                counts = self._broken[row]
                words = [described(name, counts) for name in names]
                evidence = ", ".join(f"norm {norms[row, self.tensors.index(n)]:g}" for n in names)
                text = f"non-finite gradient of {listed(words)}"
                self._add(self._stamps[row], "nonfinite", text, evidence)
            self._bad = frozenset(names)

    def _spikes(self, norms: np.ndarray) -> None:
        """Norms against the largest before them, again and again without what spiked."""
        finite = np.where(np.isfinite(norms), norms, 0.0)
        history = np.concatenate([self._before, finite])
        out = np.concatenate([self._spiked, np.zeros(norms.shape, bool)])
        used = history
        while True:
            windows = sliding_window_view(used[:-1], WINDOW, axis=0)  # [K, T, W]
            largest, known = windows.max(-1), (windows > 0).sum(-1)
            new = (finite > FACTOR * largest) & (known >= FEWEST) & ~out[WINDOW:]
            if not new.any():
                break
            out[WINDOW:] |= new
            level = out.copy()
            for back in range(1, LEVEL):
                level[back:] &= out[:-back]
            level[: LEVEL - 1] = False
            used = np.where(out & ~level, 0.0, history)
        spiked = out[WINDOW:]
        for row in np.flatnonzero(spiked.any(axis=1)):
            columns = np.flatnonzero(spiked[row])
            columns = columns[np.argsort(-(finite[row] / largest[row])[columns])]
            names = [self.tensors[index] for index in columns]
            ratio = finite[row, columns[0]] / largest[row, columns[0]]
            text = f"spike of the gradient of {listed(names)}"
            evidence = (
                f"norm {finite[row, columns[0]]:.4g}, {ratio:.3g} times the largest of "
                f"{int(known[row, columns[0]])} before"
            )
            self._add(self._stamps[row], "spike", text, evidence)
        self._before, self._spiked = used[-WINDOW:], out[-WINDOW:]

    def _add(self, stamp: Stamp, kind: str, message: str, evidence: str) -> None:
        count = self._counts[kind] = self._counts.get(kind, 0) + 1
        if count <= MOST:
            last = "; further ones are not listed" if count == MOST else ""
            text = f"{message} (player {self.player}, update {stamp[1]}){last}"
            self._events.append(Event(stamp[0], kind, text, evidence))


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names in a row, the first of many."""
    text = ", ".join(names[:most])
    return text if len(names) <= most else f"{text} and {len(names) - most} more"


def described(name: str, counts: Broken) -> str:
    """A tensor with how many elements are not finite, where that is known."""
    if name not in counts:
        return name
    nans, infinite = counts[name]
    if not nans and not infinite:
        return f"{name} (finite, its norm overflows)"
    return f"{name} ({nans} NaN, {infinite} infinite)"
