"""Which curves a run has in a tracker."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from playground.record.sinks.sink import Opening, Track

EACH = 16
"""Members up to which each has a curve of its own where nothing else is asked for (ours)."""


def tracks(members: Sequence[Mapping[str, Any]], mode: str | None) -> tuple[Track, ...]:
    """One a member, or one for all members of the same values.

    Args:
        members: the manifest's.
        mode: ``each``, ``mean``, or None for each up to ``EACH`` members.
    """
    members = members or [{"seed": 0, "values": {}}]
    if mode == "each" or (mode is None and len(members) <= EACH):
        several = len(members) > 1
        return tuple(
            Track(f"member-{k}" if several else "", (k,), (int(own["seed"]),), dict(own["values"]))
            for k, own in enumerate(members)
        )
    groups: dict[tuple[tuple[str, float], ...], list[int]] = {}
    for k, own in enumerate(members):
        groups.setdefault(tuple(own["values"].items()), []).append(k)
    return tuple(
        Track(
            ",".join(f"{key}={value:g}" for key, value in values), tuple(group),
            tuple(int(members[k]["seed"]) for k in group), dict(values),
        )
        for values, group in groups.items()
    )  # fmt: skip


def opening(
    path: Path,
    config: Mapping[str, Any],
    manifest: Mapping[str, Any],
    mode: str | None,
    attempt: int = 0,
    stands: int = -1,
) -> Opening:
    """A run as its sinks meet it; a sweep's jobs are named after the sweep too."""
    whole = path.resolve()
    name = f"{whole.parent.name}-{whole.name}" if whole.name.isdecimal() else whole.name
    own = tracks(manifest.get("members", []), mode)
    return Opening(path, name, config, manifest, own, attempt, stands)


def began(manifest: Mapping[str, Any]) -> float:
    """When a run started, in seconds since 1970."""
    started = str(manifest.get("started", ""))
    return datetime.fromisoformat(started).timestamp() if started else 0.0
