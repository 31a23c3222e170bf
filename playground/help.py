"""``playground --help``: what can be chosen and set, with the values that are in force.

Values come from composing the overrides that stand beside ``--help``, so that what a problem
or an option changes is shown as it is.
"""

import dataclasses
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from playground.composition import options
from playground.config import OPTIONAL_GROUPS, Config, compose
from playground.crosschecks import budget
from playground.record.sinks.config import KINDS as SINKS
from playground.schema import describe

WIDTH, INDENT = 100, 2

USAGE = """\
playground [group=option ...] [key=value ...]       one run
playground -m [group=option,option ...] [key=value,value ...]       a sweep: every combination
playground resume=RUN_DIR [budget.*=...]            go on with a run, bit for bit
playground replay=RUN_DIR at=UPDATE probes=full     measure an update of a run that has passed it
playground fork=RUN_DIR at=UPDATE optimizer.lr=...  the same run up to there, then other settings
playground --help problem=gan/ring optimizer=sgd    the keys of these options

Examples
  playground                                                    PPO on CartPole
  playground problem=gan/ring loss=minimax members=10           ten GANs at once
  playground problem=supervised/digits optimizer=sgd optimizer.lr=0.1
  playground problem=supervised/digits vary.optimizer.lr=[1e-4,1e-3,1e-2] members=5
  playground problem=landscape/rosenbrock optimizer=rmsprop members=100 problem.start=random
  playground problem=gan/ring optimizer@players.discriminator=sgd players.discriminator.lr=4e-4
  playground -m problem=gan/ring optimizer=adam,sgd seed=0,100"""

GROUPS = {
    "problem": "",
    "algorithm": "(rl)",
    "loss": "(gan)",
    "optimizer": "(optimizer@players.PLAYER=... for one player)",
    "stepper": "",
    "probes": "(measured in every run)",
    "sinks": "(sinks=[a,b]: other trackers that mirror the records)",
    "experiment": "",
}

END = """\
Flags: --help, --version, -m (sweep), --cfg job (the composed configuration), --resolve, --info
Exit codes: 0 finished, 1 failed, 2 wrong command, 130 or 143 interrupted (saved)"""

HIDDEN = ("tuned", "default_budget")

GROUPED = ("evaluate", "checkpoint", "probes", "snapshot", "best_response", "sinks")
"""Groups of keys that every run has."""

Row = tuple[str, str, str]
"""Key, value in force, what it is."""


def show(overrides: Sequence[str]) -> int:
    """Print help; beside ``problem=...`` and the like, the keys of these options.

    Raises:
        ConfigError: an option or a key that does not exist.
    """
    config = compose(overrides)
    lines = _problem(config) if overrides else [USAGE, "", "Groups", *_groups(tuple(GROUPS))]
    given = " ".join(overrides) or f"problem={config.problem.name}"
    lines += ["", f"Keys, with their values for {given}", *table(_root(config))]
    if not overrides:
        lines += ["", f"Keys of optimizer={config.optimizer.name}",
                  *table(rows(config.optimizer, "optimizer."))]  # fmt: skip
        lines += ["", "playground --help problem=... lists the keys of a problem."]
    sys.stdout.write("\n".join([*lines, "", END]) + "\n")
    return 0


def _problem(config: Config) -> list[str]:
    """The chosen problem: what it is, what can be chosen, and its keys."""
    problem = config.problem
    counter, amount = budget(config)
    players = getattr(config.algorithm, "players", None) or problem.players()
    what = (type(problem).__doc__ or "").strip().splitlines()[0].rstrip(".")
    lines = [f"{problem.name}: {what}", f"  players {', '.join(players)}; "
             f"budget.{counter}={amount}; dtype {config.dtype or problem.dtype}"]  # fmt: skip
    own = (group for group in GROUPS if group not in OPTIONAL_GROUPS or group in problem.groups)
    lines += ["", "Groups", *_groups(own)]
    chosen = {"problem": problem, "algorithm": config.algorithm, "loss": config.loss,
              "penalty": config.penalty, "optimizer": config.optimizer,
              "stepper": config.stepper}  # fmt: skip
    nodes = {**chosen, **{f"players.{name}": own for name, own in config.players.items()}}
    for group, node in nodes.items():
        body = rows(node, f"{group}.") if node is not None else []
        if body:
            option = getattr(node, "name", "")
            lines += ["", f"Keys of {group}{f'={option}' if option else ''}", *table(body)]
    return lines


def _groups(groups: Iterable[str]) -> list[str]:
    """One paragraph a group: its options."""
    lines = []
    for group in groups:
        found, note = options(group), GROUPS[group]
        if not found:
            continue
        text = ", ".join(found) + (f"  {note}" if note else "")
        lines += textwrap.wrap(text, WIDTH, initial_indent=f"  {group:<11}",
                               subsequent_indent=" " * 13, break_on_hyphens=False)  # fmt: skip
    return lines


def _root(config: Config) -> Iterator[Row]:
    """Keys that every run has, without what has no effect on this problem."""
    counter, amount = budget(config)
    counted = ("iterations", "updates", "gradient_evaluations", *config.problem.counts)
    for key, value, about in rows(config.budget, "budget."):
        if key.partition(".")[2] in counted:
            yield key, str(amount) if key == f"budget.{counter}" else value, about
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name == "vary":
            yield (
                "vary.KEY=[...]",
                "",
                "numbers of an optimizer's key, all trained at once",
            )
        elif field.name in GROUPED:
            for row in rows(value, f"{field.name}."):
                if row[0].partition(".")[2] in SINKS:
                    continue
                if row[0] != "evaluate.generator" or "loss" in config.problem.groups:
                    yield row
        elif field.metadata.get("doc"):
            yield field.name, _text(value), _about(field)


def rows(node: Any, prefix: str) -> list[Row]:
    """Every key of a config dataclass with its value and what it is."""
    found = []
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            found += rows(value, f"{prefix}{field.name}.")
        elif field.name not in HIDDEN and field.name != "name":
            found.append((prefix + field.name, _text(value), _about(field)))
    return found


def table(body: Iterable[Row]) -> list[str]:
    """Aligned lines of at most ``WIDTH`` characters."""
    body = list(body)
    left = max(len(f"{key}={value}" if value else key) for key, value, _ in body)
    left = INDENT + min(left, 44) + 2
    lines = []
    for key, value, about in body:
        start = f"{' ' * INDENT}{key}={value}" if value else f"{' ' * INDENT}{key}"
        pieces = textwrap.wrap(about, WIDTH - left) or [""]
        if len(start) + 2 > left:
            lines.append(start)
            start = ""
        lines.append(f"{start:<{left}}{pieces[0]}".rstrip())
        lines += [" " * left + piece for piece in pieces[1:]]
    return lines


def _about(field: Any) -> str:
    """What a key is, and what it allows."""
    rule = field.metadata.get("rule") or {}
    allowed = describe(rule)
    return f"{field.metadata.get('doc', '')} ({allowed})".strip() if allowed else (
        str(field.metadata.get("doc", "")))  # fmt: skip


def _text(value: Any) -> str:
    """A value as it would be typed."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{_text(v)}" for k, v in value.items()) + "}"
    return str(value) or "''"
