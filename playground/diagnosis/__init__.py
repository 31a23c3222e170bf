"""Diagnosis: named rules over a run's records, each with evidence and what would refute it.

    from playground.diagnosis import diagnose
    for finding in diagnose(playground.load("runs/...")):
        print(finding.rule, finding.member, finding.evidence)

Of one member's findings the earliest comes first, since a cause precedes its symptoms; those that
begin within the same twentieth of the run are in the order of ``RULES``. Thresholds are fixed in
the rules' files; ``scripts/faults.py`` measures how often they are right, on planted faults and
healthy runs.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from playground.diagnosis import gradient_rules, player_rules, step_rules
from playground.diagnosis.finding import Finding, Rule

if TYPE_CHECKING:
    from playground.record.reader import Run

__all__ = ["RULES", "Finding", "Rule", "diagnose"]

_KNOWN = {
    rule.name: rule for home in (gradient_rules, step_rules, player_rules) for rule in home.RULES
}

ORDER = (
    "cut_off", "dead_units", "vanishing_gradient", "policy_jump", "step_too_long",
    "discriminator_saturated", "rotation", "step_too_short", "exploding_gradient",
    "gradient_spike", "non_finite", "wrong_critical_point", "mode_collapse", "entropy_collapse",
    "useless_critic", "off_data", "objective_mismatch", "plateau",
)  # fmt: skip
"""Causes before symptoms, where they begin together (ours)."""

PARTS = 20
"""Findings that begin within the same of so many parts of a run begin together (ours)."""

RULES: dict[str, Rule] = {name: _KNOWN[name] for name in ORDER}


def diagnose(run: "Run") -> list[Finding]:
    """The findings in a run's records, member by member, the earliest first.

    Of several places of one rule in one member, such as the layers of a network, the clearest
    is kept.

    Raises:
        RecordError: the records cannot be read.
    """
    from playground.report.view import View

    view = View(run)
    found: dict[tuple[int, str], Finding] = {}
    for rule in RULES.values():
        if rule.domains and view.domain not in rule.domains:
            continue
        for finding in rule.find(view):
            key = (finding.member, finding.rule)
            if key not in found or clearer(finding, found[key]):
                found[key] = finding
    place = {name: k for k, name in enumerate(RULES)}
    iterations = view.metrics["iteration"]
    part = max(1.0, float(iterations.max(initial=1)) / PARTS) if len(iterations) else 1.0
    return sorted(found.values(), key=lambda f: (f.member, f.began // part, place[f.rule]))


def clearer(one: Finding, other: Finding) -> bool:
    """Whether a finding is surer than another, or as sure and earlier."""
    return (-one.confidence, one.iteration) < (-other.confidence, other.iteration)


def words(findings: Iterable[Finding], members: int) -> list[str]:
    """Findings as sentences, one rule a line, with how many members it concerns."""
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(finding.rule, []).append(finding)
    lines = []
    for name in RULES:
        if name in groups:
            lines.append(sentence(RULES[name], groups[name], members))
    return lines


def sentence(rule: Rule, found: list[Finding], members: int) -> str:
    """One rule in words: who, since when, the evidence, what to try."""
    first = min(found, key=lambda f: f.iteration)
    who = "" if members == 1 else f" in {len(found)} of {members} members"
    where = f" ({first.player})" if first.player else ""
    return (
        f"{rule.name}{where}{who}, from iteration {first.iteration:.0f}: {first.evidence}. "
        f"{rule.says} Try: {rule.remedy}. It would be refuted by {rule.refuted}."
    )
