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

from playground.diagnosis import gradient_rules, player_rules, probe_rules, step_rules
from playground.diagnosis.finding import Finding, Rule

if TYPE_CHECKING:
    from playground.record.reader import Run

__all__ = ["RULES", "Finding", "Rule", "diagnose", "grouped", "words"]

_KNOWN = {
    rule.name: rule
    for home in (gradient_rules, step_rules, player_rules, probe_rules)
    for rule in home.RULES
}

ORDER = (
    "cut_off", "policy_jump", "step_too_long", "dead_units", "vanishing_gradient",
    "discriminator_saturated", "rotation", "step_too_short", "exploding_gradient",
    "gradient_spike", "non_finite", "noise_dominated", "saddle", "wrong_critical_point",
    "mode_collapse", "entropy_collapse", "useless_critic", "off_data", "objective_mismatch",
    "plateau", "edge_of_stability",
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
    from playground.record.view import View

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


def grouped(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """{rule: its findings}, the rule that began earliest in some member first."""
    groups: dict[str, list[Finding]] = {}
    for finding in sorted(findings, key=lambda f: f.began):
        groups.setdefault(finding.rule, []).append(finding)
    return groups


def words(findings: Iterable[Finding], members: int) -> list[str]:
    """Findings as paragraphs, one a rule: the evidence, what it means, what to try."""
    lines = []
    for name, found in grouped(findings).items():
        rule, first = RULES[name], found[0]
        who = "" if members == 1 else f" in {len(found)} of {members} members"
        where = f" ({first.player})" if first.player else ""
        sure = sum(f.confidence for f in found) / len(found)
        lines.append(
            f"{name}{where}{who}, from iteration {first.began:.0f}, confidence {sure:.2f}\n"
            f"  Seen: {first.evidence}.\n"
            f"  Means: {rule.says}\n"
            f"  Try: {rule.remedy}.\n"
            f"  Would be refuted by {rule.refuted}.\n"
            f"  Source: {rule.source}."
        )
    return lines
