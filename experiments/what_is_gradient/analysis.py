"""The article "What is Gradient?", claim by claim: its words, a measurement, a picture, a verdict.

A part is a file: ``judge(runs)`` reads the part's runs and returns its checks and its page. A check
stands for the words (``holds``), or for a case in which they are wrong (``breaks``). Where all
checks of a part pass, its verdict is

    HOLDS                       every check stands for the words
    HOLDS UNDER A CONDITION     some break them: the config names what makes the difference
    DOES NOT HOLD               all break them

and OPEN where any of them does not pass.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from playground.record.reader import Run
from playground.report.drawing.style import save
from playground.study import PASS, Claim

from .common import CONFIG, Check, badge

PARTS = tuple(CONFIG)


def runs(quick: bool) -> dict[str, list[str]]:
    """Every part's runs, ``part/run``."""
    return {
        f"{part}/{name}": [*given["common"], *own, *given["quick" if quick else "full"]]
        for part, given in CONFIG.items()
        for name, own in given["runs"].items()
    }


def claims(runs: Mapping[str, Run], folder: Path) -> list[Claim]:
    """The checks of every part that was run; its page is drawn with the verdict on it."""
    made: list[Claim] = []
    for part in dict.fromkeys(name.partition("/")[0] for name in runs):
        own = {name.partition("/")[2]: run for name, run in runs.items()
               if name.startswith(f"{part}/")}  # fmt: skip
        checks, sheet = import_module(f".{part}", __package__).judge(own)
        badge(sheet, verdict(checks))
        save(sheet.figure, folder / f"{part}.png")
        made += [check.of(part) for check in checks]
    return made


def verdict(checks: Sequence[Check]) -> str:
    """What the checks of one part come to."""
    if any(check.verdict != PASS for check in checks):
        return "OPEN"
    roles = {check.role for check in checks}
    if len(roles) == 2:
        return "HOLDS UNDER A CONDITION"
    return "HOLDS" if roles == {"holds"} else "DOES NOT HOLD"


def conclusions(claims: Sequence[Check]) -> dict[str, str]:
    """{part: verdict, with the condition where there is one}."""
    found: dict[str, str] = {}
    for part in dict.fromkeys(check.part for check in claims):
        words = verdict([check for check in claims if check.part == part])
        condition = CONFIG[part].get("condition", "")
        found[part] = f"{words}: {condition}" if words.endswith("CONDITION") else words
    return found
