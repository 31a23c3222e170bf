"""The page of instruments and the records name the same quantities."""

import re
from collections import defaultdict
from pathlib import Path

import pytest
from harness import PROBED, TINY, quiet

from playground.probes.curvature.critical import KINDS
from playground.probes.noise.probe import METHODS
from playground.record.columns import QUANTITIES

pytestmark = pytest.mark.usefixtures("without_figures")
PAGE = (Path(__file__).parents[1] / "docs" / "instruments.md").read_text()
FEW = ["budget.iterations=2"]
RUNS = {
    "classifier": [
        "problem=supervised/digits",
        "problem.widths=[8]",
        "members=2",
        "budget.iterations=34",
        "evaluate.every=16",
    ],
    "tanh": [*TINY["supervised"], *FEW],
    "residual": ["problem=supervised/adding", *FEW],
    "gan": [*PROBED["gan"]],
    "game": ["problem=landscape/quadratic_game", *FEW],
    "landscape": ["problem=landscape/saddle", *FEW],
    "ppo": [*PROBED["ppo"], "budget.iterations=9"],
}


def described() -> dict[str, list[str]]:
    """{probe: names in the first column of its table}; tier 0's is ``quantity``."""
    found: dict[str, list[str]] = {}
    table = ""
    for line in PAGE.splitlines():
        head = re.match(r"\| (?:`(\w+)`|(quantity)) \| formula", line)
        if head:
            table = head[1] or head[2]
            found[table] = []
        elif not line.startswith("|"):
            table = ""
        elif table and not line.startswith("| ---"):
            found[table] += re.findall(r"`([^`]+)`", line.split(" | ")[0])
    return found


def pattern(name: str) -> str:
    """A name whose ``<...>`` stand for anything but a slash, as a regular expression."""
    return re.sub(r"<[^>]+>", "[^/]+", name)


def test_tier_0_is_whole():
    assert sorted(described()["quantity"]) == sorted(QUANTITIES)


def test_codes_are_those_of_the_probes():
    kinds = ", ".join(f"{code} {kind}" for code, kind in enumerate(KINDS))
    assert kinds in PAGE
    assert ", ".join(f"{code} {method}" for code, method in enumerate(METHODS)) in PAGE


@pytest.mark.slow
def test_every_quantity_is_described_and_every_description_measured(tmp_path):
    emitted: dict[str, set[str]] = defaultdict(set)
    for name, given in RUNS.items():
        run = quiet([*given, "probes=full", "probes.direction.every=8"], tmp_path / name)
        for row in run.measurements.to_pylist():
            emitted[row["probe"]].add(row["quantity"])
    page = described()
    page.pop("quantity")
    assert set(page) == set(emitted)
    for probe, names in page.items():
        missing = {q for q in emitted[probe]
                   if not any(re.fullmatch(pattern(name), q) for name in names)}  # fmt: skip
        assert not missing, f"{probe}: docs/instruments.md does not name {sorted(missing)}"
        never = {name for name in names
                 if not any(re.fullmatch(pattern(name), q) for q in emitted[probe])}  # fmt: skip
        assert not never, f"{probe}: nothing measures {sorted(never)}"
