#!/usr/bin/env python
"""Final returns of the shipped defaults over members: scripts/returns.py [CASE...].

Every case is one command; the same folder goes on where it was stopped. Prints the table of
docs/benchmarks.md: the final policy's deterministic raw return, its
mean with the 95 % t interval over members, the interquartile mean with the 95 % bootstrap
interval, and how many members reach the bar. A bar is met when the upper end of the mean's
interval is at or above it.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import playground
from playground.report.comparison.aggregate import stratified_bootstrap
from playground.schema import ConfigError
from playground.study import interval
from playground.workers import go_on


@dataclass(frozen=True)
class Case:
    """One command.

    Attributes:
        overrides: of the command, without members.
        bar: what the mean must not fail to reach; None where there is none.
        source: where the bar comes from, or what was published.
        members: how many by default.
        also: overrides that change what is looked at, not what is trained.
    """

    overrides: tuple[str, ...]
    bar: float | None
    source: str
    members: int = 10
    also: tuple[str, ...] = ()


SHORT = ("problem.evaluation_episodes=20",)  # of 1000 steps each

CASES = {
    "cartpole-ppo": Case(("problem=rl/cartpole", "algorithm=ppo"), 495, "rl-zoo 500.0, 100k"),
    "cartpole-trpo": Case(("problem=rl/cartpole", "algorithm=trpo"), 495, "rl-zoo 500.0, 100k"),
    "cartpole-a2c": Case(("problem=rl/cartpole", "algorithm=a2c"), 495, "rl-zoo 500.0, 500k"),
    "cartpole-reinforce": Case(
        ("problem=rl/cartpole", "algorithm=reinforce", "budget.env_steps=200000"), 483,
        "SLM-Lab 483.3, 200k",
    ),
    "cartpole_no_velocity-ppo": Case(
        ("problem=rl/cartpole_no_velocity",), None, "rl-zoo's LSTM 500.0, 100k", members=5),
    "acrobot-ppo": Case(
        ("problem=rl/acrobot", "budget.env_steps=300000"), -82, "SLM-Lab -81.3, 300k"),
    "pendulum-ppo": Case(("problem=rl/pendulum",), -175, "rl-zoo -172.2, 100k"),
    "mountain_car_continuous-ppo": Case(
        ("problem=rl/mountain_car_continuous",), 88, "rl-zoo 88.3, 20k"),
    "mountain_car_continuous-trpo": Case(
        ("problem=rl/mountain_car_continuous", "algorithm=trpo"), 92, "rl-zoo 92.5, 50k"),
    "lunar_lander-ppo": Case(
        ("problem=rl/lunar_lander",), 220, "rl-zoo 242.1 (v2), 1M", also=("evaluate.every=20",)),
    "half_cheetah-ppo": Case(
        ("problem=rl/half_cheetah", "budget.env_steps=300000"), None,
        "at 1M on v3: rl-zoo 5819, Tianshou 5650; on v4: CleanRL 1443", 5,
        (*SHORT, "evaluate.every=58")),
    "hopper-ppo": Case(
        ("problem=rl/hopper", "budget.env_steps=300000"), None,
        "at 1M on v3: rl-zoo 2410, Tianshou 2483; on v4: CleanRL 2383", 5,
        (*SHORT, "evaluate.every=58")),
    "walker2d-ppo": Case(
        ("problem=rl/walker2d", "budget.env_steps=300000"), None,
        "at 1M on v3: rl-zoo 3479, Tianshou 3410; on v4: CleanRL 2288", 5,
        (*SHORT, "evaluate.every=58")),
}  # fmt: skip


HEAD = (
    "| command | mean [95 % t] | interquartile mean [95 % bootstrap] | members at the bar | bar | "
    "| wall time |\n| --- | --- | --- | --- | --- | --- | --- |"
)


def row(case: str, run: "playground.record.reader.Run") -> str:
    """One line of the table, in Markdown."""
    bar, source = CASES[case].bar, CASES[case].source
    final = run.metric("return")[1][-1]
    mean, low, high = interval(final)
    middle, under, over = stratified_bootstrap([final])
    reached = "" if bar is None else f"{int((final >= bar).sum())} of {len(final)}"
    met = "" if bar is None else "met" if high >= bar else "not met"
    command = " ".join(["playground", *CASES[case].overrides, f"members={len(final)}"])
    wanted = source if bar is None else f"{bar} ({source})"
    return (f"| `{command}` | {mean:.1f} [{low:.1f}, {high:.1f}] | "
            f"{middle:.1f} [{under:.1f}, {over:.1f}] | {reached} | {wanted} | {met} | "
            f"{run.manifest['seconds']:.0f} s |")  # fmt: skip


def main() -> None:
    """Run the cases, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("case", nargs="*", help=f"of {', '.join(CASES)}; all without one")
    parser.add_argument("--out", type=Path, default=Path("runs/returns"), help="folder of the runs")
    parser.add_argument("--members", type=int, help="instead of the case's own")
    given = parser.parse_args()
    unknown = [case for case in given.case if case not in CASES]
    if unknown:
        sys.exit(f"returns: {unknown[0]}: unknown (allowed are {', '.join(CASES)})")
    rows = []
    for case in given.case or CASES:
        path = given.out / case
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            known = CASES[case]
            members = f"members={given.members or known.members}"
            run = go_on(path, [*known.overrides, *known.also, members])
        except ConfigError as error:
            sys.exit(f"returns: {path}: {error}")
        rows.append(row(case, run))
        print(rows[-1], flush=True)
    print(f"\n{HEAD}")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
