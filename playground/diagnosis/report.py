"""Where findings go: events while a run runs, ``diagnosis.json`` and words when it has ended."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow

from playground.diagnosis import RULES, Finding, diagnose, grouped
from playground.record.atomic import write_atomic
from playground.record.formats import dump_json

if TYPE_CHECKING:
    from playground.record.reader import Run

KIND = "diagnosis"
"""Of the rows in ``events``."""

EVERY, DOUBLING = 4, 8
"""Evaluations from one look to the next while a run runs, and looks while its length doubles: a
look reads all records, so that a run of any length reads them some 12 times in all (ours)."""


def due(iteration: int, every: int) -> bool:
    """Whether to look after an iteration, with an evaluation every so many."""
    look, rest = divmod(iteration, EVERY * every)
    stride = max(1, 2 ** (look.bit_length() - 1) // DOUBLING)
    return rest == 0 and look % stride == 0


def look(path: Path) -> list[tuple[str, str]]:
    """The news of a run that is still written; Arrow's pool gives back what the records took."""
    from playground.record.reader import Run

    found = news(Run(path))
    pyarrow.default_memory_pool().release_unused()  # when the records are gone: else it grows
    return found


def news(run: "Run") -> list[tuple[str, str]]:
    """(message, evidence) of the rules that have findings and were not yet an event."""
    known = {
        str(row["message"]).partition(":")[0]
        for row in run.events.to_pylist()
        if row["kind"] == KIND
    }
    members = len(run.members)
    return [
        (short(rule, found, members), "; ".join(f.evidence for f in found[:3]))
        for rule, found in grouped(diagnose(run)).items()
        if rule not in known
    ]


def conclude(run: "Run") -> list[str]:
    """Write ``diagnosis.json`` and give the findings as short lines."""
    found = diagnose(run)
    write_atomic(run.path / "diagnosis.json", dump_json(content(found)))
    members = len(run.members)
    return [short(rule, of_rule, members) for rule, of_rule in grouped(found).items()]


def content(found: list[Finding]) -> dict[str, Any]:
    """The findings as plain containers, and the rules that were asked."""
    return {"rules": list(RULES), "findings": [dataclasses.asdict(finding) for finding in found]}


def short(rule: str, found: list[Finding], members: int) -> str:
    """One line: the rule, whom it concerns, since when, the evidence of the earliest."""
    first = min(found, key=lambda f: f.began)
    who = [f"in {len(found)} of {members} members"] if members > 1 else []
    player = [first.player] if first.player else []
    words = " ".join([", ".join([*who, *player]), f"from iteration {first.began:.0f}"]).strip()
    return f"{rule}: {words}: {first.evidence}"
