"""Runs to compare: which are replicas of each other, and what tells the others apart.

Runs whose configurations agree except for seed and members are one entry, their members
pooled. An entry's label is made of what differs from the other entries, and nothing else.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from playground.record.view import Array, Series, View
from playground.report.drawing.text import title

if TYPE_CHECKING:
    from playground.record.reader import Run

IGNORED = (
    "seed", "members", "name", "run_dir", "resume", "threads", "device", "compile",
    "checkpoint", "evaluate.every", "probes", "problem.tuned", "problem.default_budget",
)  # fmt: skip
"""Keys that make no difference to what was trained."""


@dataclass
class Entry:
    """One thing to compare: a run, or several that differ in their seeds alone.

    Attributes:
        label: what tells it from the others.
        views: its runs.
        values: where something varies along the member axis: only members with these values.
    """

    label: str
    views: list[View]
    values: Mapping[str, float] | None = None

    @property
    def first(self) -> View:
        """The run that stands for what all have in common."""
        return self.views[0]

    @cached_property
    def members(self) -> list[dict[str, Any]]:
        """Members of all runs."""
        return [view.members[k] for view in self.views for k in self._members(view)]

    def metric(self, name: str, x: str = "iteration") -> Series:
        """A metric of all members, at the iterations that every run has."""
        return pooled([self._own(view, view.metric(name, x=x)) for view in self.views])

    def gradient(self, player: str, quantity: str, tap: str = "gradient") -> Series:
        """A tier-0 quantity of all members, where every run has it."""
        return pooled([self._own(v, v.gradient(player, quantity, tap)) for v in self.views])

    def final(self) -> Array:
        """The main metric at the end, of every member."""
        return np.concatenate([self._own(v, v.metric(v.main_metric)).last() for v in self.views])

    def split(self) -> list["Entry"]:
        """One entry a value of what varies; itself where nothing does."""
        groups = {group.label: group.values for view in self.views for group in view.groups}
        if len(groups) == 1:
            return [self]
        return [Entry(f"{self.label}, {label}", self.views, values)
                for label, values in groups.items()]  # fmt: skip

    def _members(self, view: View) -> list[int]:
        if self.values is None:
            return list(range(len(view.members)))
        return [k for k, m in enumerate(view.members) if m.get("values", {}) == self.values]

    def _own(self, view: View, series: Series) -> Series:
        return Series(series.x, series.values[:, self._members(view)])


def pooled(series: Sequence[Series]) -> Series:
    """Series side by side at the positions they share; the first where they share none."""
    if len(series) == 1:
        return series[0]
    x = series[0].x
    for one in series[1:]:
        x = np.intersect1d(x, one.x)
    if not len(x):
        return series[0]
    rows = [one.values[np.searchsorted(one.x, x)] for one in series]
    return Series(x, np.concatenate(rows, axis=1))


def views(paths: Iterable[Path]) -> list[View]:
    """Every run of these run and sweep directories, each once, in order.

    Raises:
        RecordError: nothing is there, or it is neither a run nor a sweep.
    """
    from playground.record.reader import Sweep, load

    found: dict[Path, Run] = {}
    for path in paths:
        record = load(path)
        for run in record.children if isinstance(record, Sweep) else [record]:
            found.setdefault(run.path.resolve(), run)
    return [View(run) for run in found.values()]


def entries(found: Sequence[View], without: Sequence[str] = ()) -> list[Entry]:
    """Pool replicas and label what is left.

    Args:
        found: the runs.
        without: keys that are shown otherwise, such as ``optimizer.lr`` on an axis.
    """
    pools: dict[tuple[tuple[str, str], ...], list[View]] = {}
    for view in found:
        flat = relevant(view.config, without)
        pools.setdefault(tuple(sorted((k, repr(v)) for k, v in flat.items())), []).append(view)
    groups = list(pools.values())
    labels = label([relevant(group[0].config, without) for group in groups])
    return [
        Entry(text or title(group[0]), group) for text, group in zip(labels, groups, strict=True)
    ]


def label(flats: Sequence[Mapping[str, Any]]) -> list[str]:
    """What tells configurations apart: names by themselves, values as ``lr 0.01``.

    A value counts only among configurations with the same names, because other optimizers
    have other keys and other defaults.
    """
    chosen = sorted(
        {key for flat in flats for key in flat if key.endswith(".name") and _differs(key, flats)},
        key=lambda key: (not key.startswith("problem"), key.count("."), key),
    )
    texts = []
    for flat in flats:
        alike = [f for f in flats if all(f.get(k) == flat.get(k) for k in chosen)]
        words = [_named(key, flat[key]) for key in chosen if flat.get(key) is not None]
        keys = [key for key in flat if key not in chosen and _differs(key, alike)]
        words += [_valued(key, flat[key], keys) for key in keys]
        texts.append(", ".join(words))
    return texts


def relevant(config: Mapping[str, Any], without: Sequence[str] = ()) -> dict[str, Any]:
    """{dotted key: value} of what makes a difference."""
    skipped = (*IGNORED, *without)
    return {
        key: value
        for key, value in flatten(config)
        if not any(key == skip or key.startswith(f"{skip}.") for skip in skipped)
        and not any(key == f"vary.{skip}" for skip in without)
    }


def flatten(tree: Mapping[str, Any], path: str = "") -> list[tuple[str, Any]]:
    """Pairs (dotted key, value) of nested mappings."""
    pairs: list[tuple[str, Any]] = []
    for key, value in tree.items():
        full = f"{path}.{key}" if path else str(key)
        pairs += flatten(value, full) if isinstance(value, Mapping) else [(full, value)]
    return pairs


def _differs(key: str, flats: Sequence[Mapping[str, Any]]) -> bool:
    return len({repr(flat.get(key)) for flat in flats}) > 1


def _named(key: str, value: Any) -> str:
    """``adam`` for optimizer.name, ``generator adam`` for players.generator.name."""
    parts = key.split(".")
    return f"{parts[1]} {value}" if parts[0] == "players" else str(value)


def _valued(key: str, value: Any, keys: Sequence[str]) -> str:
    """``lr 0.01``, with the part before it where the last part alone is ambiguous."""
    short = key.rpartition(".")[2]
    if sum(other.rpartition(".")[2] == short for other in keys) > 1:
        short = " ".join(key.split(".")[-2:])
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{short} {text}"
