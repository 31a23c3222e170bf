#!/usr/bin/env python
"""How often the diagnosis is right: scripts/faults.py [NAME...] [--members 10] [--out FOLDER].

Plants one fault a run, and none in the healthy controls, on problems that no threshold was chosen
on (those were digits, the ring, CartPole, Pendulum, LunarLander, Rosenbrock, bilinear). Prints for
each fault how many members have it named, how many have it named first, after what share of the
run, and in how many a rule that sees the loss curve alone (for games and agents: the main metric)
reports anything. A member of a control with any finding is a false alarm.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

import playground
from playground.composition import quoted
from playground.diagnosis import Finding, diagnose
from playground.game import Objective
from playground.record.reader import Run
from playground.session import RunFailed

Wraps = Mapping[str, Callable[[Objective], Objective]]


@dataclass(frozen=True)
class Case:
    """A planted fault, or a healthy control.

    Attributes:
        overrides: of the run.
        expected: rules of which one should be named; empty for a control.
        objectives: what the bug makes of the players' objectives.
        what: in words.
    """

    overrides: str
    expected: tuple[str, ...] = ()
    what: str = ""
    objectives: Wraps = field(default_factory=dict)


def terms_of(change: Callable[[dict, dict, dict], dict]) -> Callable[[Objective], Objective]:
    """A bug that changes the terms: ``change(terms, params, batch)``."""

    def wrap(objective: Objective) -> Objective:
        def broken(params, batch):  # type: ignore[no-untyped-def]
            terms, diagnostics = objective(params, batch)
            return change(dict(terms), params, batch), diagnostics

        return broken

    return wrap


def params_of(player: str, change: Callable[[dict], dict]) -> Callable[[Objective], Objective]:
    """A bug that changes one player's tensors on their way into the network."""

    def wrap(objective: Objective) -> Objective:
        def broken(params, batch):  # type: ignore[no-untyped-def]
            return objective({**params, player: change(dict(params[player]))}, batch)

        return broken

    return wrap


def scaled(factor: float, *names: str) -> Callable[[Objective], Objective]:
    """A factor before some terms, or all."""
    return terms_of(lambda terms, _p, _b: {
        name: factor * term if not names or name in names else term
        for name, term in terms.items()
    })  # fmt: skip


def rarely(value: float) -> Callable[[Objective], Objective]:
    """A factor when an outlier is in the batch: a corrupted sample."""

    def change(terms, _params, batch):  # type: ignore[no-untyped-def]
        odd = (batch["input"][:, 0] > 2.35).to(batch["input"].dtype)
        return {name: term * (1 + value * odd) for name, term in terms.items()}

    return terms_of(change)


def behind_where(terms, params, batch):  # type: ignore[no-untyped-def]
    """The root of a negative number behind torch.where: not its value, but its slope is used."""
    margin = terms["cross_entropy"] - 0.05
    extra = torch.where(margin > 0, margin.sqrt(), torch.zeros_like(margin))
    return {"cross_entropy": terms["cross_entropy"] + 1e-6 * extra}


def without(prefix: str) -> Callable[[dict], dict]:
    """Tensors whose names begin so are cut off from the gradient."""
    return lambda tensors: {
        name: value.detach() if name.startswith(prefix) else value
        for name, value in tensors.items()
    }


def shifted(name: str, amount: float) -> Callable[[dict], dict]:
    """A tensor moved by a constant."""
    return lambda tensors: {**tensors, name: tensors[name] + amount}


MOONS = "problem=supervised/two_moons"
LINEAR = "problem=supervised/linear_regression"
GRID = "problem=gan/grid budget.iterations=1500 evaluate.every=150"
MIX = "problem=gan/random_mixture evaluate.every=150"
ACROBOT = (
    "problem=rl/acrobot budget.env_steps=60000 evaluate.every=10 problem.evaluation_episodes=5"
)
GRIDWORLD = "problem=rl/gridworld algorithm=a2c budget.env_steps=30000 evaluate.every=200"
WIDE = "optimizer=sgd problem.widths=[32,32,32,32,32,32,32,32,32,32]"
DEEP = f"optimizer=sgd problem.widths=[{','.join(['32'] * 16)}]"

LONG, SHORT, VANISH = ("step_too_long",), ("step_too_short",), ("vanishing_gradient",)

FAULTS = {
    "moons-lr": Case(f"{MOONS} optimizer=sgd optimizer.lr=20", LONG, "learning rate 200 x"),
    "moons-slow": Case(f"{MOONS} optimizer=sgd optimizer.lr=1e-6", SHORT, "learning rate 1e-5 x"),
    "moons-sigmoid": Case(f"{MOONS} {WIDE} problem.activation=sigmoid", VANISH,
                          "ten sigmoid layers"),
    "moons-relu": Case(f"{MOONS} {DEEP} problem.activation=relu problem.initialisation=torch",
                       VANISH, "sixteen relu layers, nn.Linear's default initialisation"),
    "moons-dead": Case(f"{MOONS} problem.activation=relu problem.initialisation=he",
                       ("dead_units",), "a bias of -20",
                       {"model": params_of("model", shifted("0.bias", -20.0))}),
    "moons-detached": Case(MOONS, ("cut_off",), "first layer detached",
                           {"model": params_of("model", without("0."))}),
    "moons-sign": Case(f"{MOONS} optimizer=sgd", ("objective_mismatch", *LONG), "ascent",
                       {"model": scaled(-1.0)}),
    "moons-sum": Case(f"{MOONS} optimizer=sgd", LONG, "sum over 500 in place of the mean",
                      {"model": scaled(500.0)}),
    "moons-outlier": Case(f"{MOONS} optimizer=adam", ("gradient_spike",), "a corrupted sample",
                          {"model": rarely(3e5)}),
    "moons-nan": Case(f"{MOONS} on_nonfinite=freeze", ("non_finite",), "sqrt behind where",
                      {"model": terms_of(behind_where)}),
    "linear-lr": Case(f"{LINEAR} optimizer=sgd optimizer.lr=3", LONG, "lr beyond 2 / curvature"),
    "linear-slow": Case(f"{LINEAR} optimizer=adam optimizer.lr=1e-8", SHORT, "lr 1e-8"),
    "quadratic-diverges": Case("problem=landscape/quadratic problem.start=random optimizer=sgd "
                               "optimizer.lr=2.2 budget.iterations=100", LONG, "lr beyond 2 / L"),
    "quadratic-bounces": Case("problem=landscape/quadratic problem.start=random optimizer=sgd "
                              "optimizer.lr=1.98", LONG, "lr between 1 / L and 2 / L"),
    "beale-slow": Case("problem=landscape/beale problem.start=random optimizer=adam "
                       "optimizer.lr=1e-8", SHORT, "learning rate 1e-8"),
    "rastrigin-minimum": Case("problem=landscape/rastrigin optimizer=sgd optimizer.lr=1e-3",
                              ("wrong_critical_point",), "starts in poorer minima"),
    "pennies-circle": Case("problem=landscape/matching_pennies problem.start=random optimizer=sgd "
                           "probes.game.every=20", ("rotation",), "simultaneous descent"),
    "grid-saturated": Case(f"{GRID} loss=minimax penalty.r1=0 optimizer@players.generator=adam "
                           "optimizer@players.discriminator=adam players.discriminator.lr=2e-3 "
                           "players.generator.lr=2e-6",
                           ("discriminator_saturated",), "a discriminator far ahead"),
    "grid-lr": Case(f"{GRID} optimizer.lr=0.5", (*LONG, "discriminator_saturated"), "lr 250 x"),
    "mix-collapse": Case(f"{MIX} budget.iterations=1500 penalty.r1=0", ("mode_collapse",),
                         "no penalty"),
    "mix-sign": Case(f"{MIX} budget.iterations=1500", ("discriminator_saturated", "off_data"),
                     "generator ascends", {"generator": scaled(-1.0)}),
    "mix-cut": Case(f"{MIX} budget.iterations=1500", ("cut_off",), "generator cut off",
                    {"generator": params_of("generator", lambda tensors: {
                        name: value.detach() + 0 * value for name, value in tensors.items()})}),
    "acrobot-lr": Case(f"{ACROBOT} optimizer.lr=0.1", ("policy_jump",), "learning rate 300 x"),
    "acrobot-slow": Case(f"{ACROBOT} optimizer.lr=1e-9", SHORT, "learning rate 1e-9"),
    "acrobot-critic": Case(f"{ACROBOT}", ("cut_off", "useless_critic"), "critic not trained",
                           {"agent": scaled(0.0, "value")}),
    "acrobot-sign": Case(f"{ACROBOT}", ("plateau", "entropy_collapse"), "policy descends",
                         {"agent": scaled(-1.0, "policy")}),
    "acrobot-entropy": Case(f"{ACROBOT} algorithm.entropy_coefficient=0.5",
                            ("entropy_collapse", "plateau"), "sign of the entropy bonus",
                            {"agent": scaled(-1.0, "entropy")}),
}  # fmt: skip

HEALTHY = {
    "moons": Case(MOONS),
    "moons-sgd": Case(f"{MOONS} optimizer=sgd"),
    "moons-deep": Case(f"{MOONS} problem.widths=[32,32,32,32,32] problem.activation=relu "
                       "problem.initialisation=he"),
    "linear": Case(f"{LINEAR} optimizer=sgd"),
    "quadratic": Case("problem=landscape/quadratic problem.start=random"),
    "himmelblau": Case("problem=landscape/himmelblau problem.start=random optimizer=momentum"),
    "mixture-1d": Case("problem=gan/mixture_1d evaluate.every=250"),
    "mix": Case(f"{MIX} budget.iterations=3000"),
    "acrobot": Case(ACROBOT),
    "gridworld": Case(GRIDWORLD),
    "game": Case("problem=landscape/quadratic_game problem.start=random "
                 "stepper=extragradient probes.game.every=50"),
}  # fmt: skip


def measured(folder: Path, name: str, case: Case, members: int) -> Run:
    """The run of a case, made or read."""
    path = folder / name
    if (path / "manifest.json").exists():
        found = playground.load(path)
        if isinstance(found, Run) and found.manifest["status"] != "running":
            return found
    overrides = [*case.overrides.split(), f"members={members}", f"run_dir={quoted(path)}"]
    if "on_nonfinite" not in case.overrides:
        overrides.append("on_nonfinite=freeze")
    try:
        return playground.run(overrides, objectives=case.objectives or None, quiet=True)
    except RunFailed:
        found = playground.load(path)
        assert isinstance(found, Run)
        return found


def loss_only(run: Run) -> int:
    """Members that a look at one curve calls ill: it grew threefold, stopped, or never moved."""
    name = run.manifest["main_metric"]
    domain = run.manifest["problem"].partition("/")[0]
    if domain == "supervised":
        values = run.metric("loss", player="model")[1]
        first = values[0]
        bad = ~np.isfinite(values[-1]) | (values[-1] > 3 * first) | (values[-1] > 0.5 * first)
        return int(bad.sum())
    values = run.metric(name)[1]
    if not run.manifest.get("higher_is_better"):
        values = -values
    gain = values[-1] - values[0]
    spread = np.nanmax(np.abs(values), axis=0) + 1e-12
    return int((~np.isfinite(values[-1]) | (gain < 0.1 * spread)).sum())


def judged(run: Run, case: Case, found: list[Finding]) -> tuple[int, int, float]:
    """Members with an expected rule, members with it first, and median share of the run before."""
    named, first, when = 0, 0, []
    last = max(1, int(np.nanmax(run.metrics["iteration"].to_numpy())))
    for member in range(len(run.manifest["members"])):
        own = [finding for finding in found if finding.member == member]
        hits = [finding for finding in own if finding.rule in case.expected]
        named += bool(hits)
        first += bool(own) and own[0].rule in case.expected
        when += [min(finding.iteration for finding in hits) / last] if hits else []
    return named, first, float(np.median(when)) if when else float("nan")


def main() -> None:
    """Run the cases, print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="*", help="of the faults and controls; all without one")
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("runs/faults"))
    given = parser.parse_args()
    everything = {**FAULTS, **{f"healthy-{name}": case for name, case in HEALTHY.items()}}
    unknown = [name for name in given.name if name not in everything]
    if unknown:
        sys.exit(f"faults: {unknown[0]}: unknown (allowed are {', '.join(everything)})")
    given.out.mkdir(parents=True, exist_ok=True)
    totals = np.zeros(4, int)
    print("| planted fault | expected | named | first | after | curve alone | also named |\n"
          "| --- | --- | --- | --- | --- | --- | --- |")  # fmt: skip
    for name, case in everything.items():
        if given.name and name not in given.name:
            continue
        run = measured(given.out, name, case, given.members)
        found = diagnose(run)
        members, curve = len(run.manifest["members"]), loss_only(run)
        others = {f.rule: 0 for f in found if f.rule not in case.expected}
        for finding in found:
            if finding.rule in others:
                others[finding.rule] += 1
        also = ", ".join(f"{rule} {count}" for rule, count in others.items())
        if case.expected:
            named, first, when = judged(run, case, found)
            totals += (named, first, curve, members)
            print(f"| {name}: {case.what} | {', '.join(case.expected)} | {named} of {members} | "
                  f"{first} | {100 * when:.0f} % | {curve} | {also} |", flush=True)  # fmt: skip
        else:
            alarms = len({f.member for f in found})
            print(f"| {name} | nothing | {alarms} false alarms of {members} | | | {curve} | "
                  f"{also} |", flush=True)  # fmt: skip
    named, first, curve, members = totals
    print(f"\nall faults: named {named} of {members}, first {first}, curve alone {curve}")


if __name__ == "__main__":
    main()
