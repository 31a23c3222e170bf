"""Turns what Hydra and OmegaConf raise into one line: key, value and what is allowed."""

import dataclasses
import difflib
import re
from collections.abc import Iterable
from typing import Any

from playground.schema import describe

KINDS = (
    ("Integer", "a whole number"),
    ("Float", "a number"),
    ("valid bool", "true or false"),
    ("Cannot convert 'str' to string", "text"),
    ("ListConfig", "a list, as in [64,64]"),
    ("Invalid type assigned", "a group of keys"),
    ("Cannot assign", "a group of keys"),
    ("is not a subclass", "a group of keys"),
)
"""Words in OmegaConf's messages, and what the key wants."""


def one_line(error: BaseException) -> str:
    """The first meaningful line of an error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


def unknown(given: str, what: str, name: str, known: Iterable[str]) -> str:
    """``given: what; did you mean ...? (known are ...)``."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"{given}: {what}{hint} (allowed are {', '.join(known)})"


def reason(error: BaseException) -> str:
    """What a typed field wants, in words, with its range."""
    message = one_line(error)
    rule = _rule(error)
    allowed = f" ({describe(rule)})" if rule and describe(rule) else ""
    if "not Optional" in message or "Incompatible value 'None'" in message:
        return f"must not be null{allowed}"
    for words, kind in KINDS:
        if words in message:
            return f"must be {kind}{allowed}"
    return message


def unknown_field(error: BaseException, path: str) -> str | None:
    """One line for a key that a dataclass does not have, None for other errors."""
    cls = getattr(error, "object_type", None)
    if "not in '" not in one_line(error) or not dataclasses.is_dataclass(cls):
        return None
    name = path.rpartition(".")[2]
    return unknown(path, "no such key", name, [f.name for f in dataclasses.fields(cls)])


def explain(error: BaseException, overrides: list[str]) -> str:
    """One line for a failed composition."""
    message = str(error)
    for item in overrides:
        sink = re.match(r"sinks\.(\w+)\.", item)
        if sink and "root: NoneType" in message:
            return f"{item}: choose the sink too, as in sinks=[{sink.group(1)}]"
        if item == "sinks=null" and "must be a string or a list" in message:
            return f"{item}: must be a list, as in sinks=[tensorboard] or sinks=[]"
    missing = re.search(r"Could not (?:find|load) '([^']+)'", message)
    if missing:
        return _unknown_option(missing.group(1), overrides)
    key = re.search(r"Could not (?:override|append|delete)[^']*'([^']+)'", message)
    if key:
        return _unknown_key(key.group(1), overrides)
    merging = re.search(r"Error merging override (.+)", message)
    cause = error.__cause__
    if merging and cause is not None:
        return f"{merging.group(1).lstrip('+')}: {reason(cause)}"
    full_key = getattr(error, "full_key", None)
    return f"{full_key}: {one_line(error)}" if full_key else one_line(error)


def _rule(error: BaseException) -> dict[str, Any]:
    """The rule of the field at fault."""
    cls, key = getattr(error, "object_type", None), str(getattr(error, "key", ""))
    if not isinstance(cls, type) or not dataclasses.is_dataclass(cls):
        return {}
    rules = {f.name: f.metadata.get("rule", {}) for f in dataclasses.fields(cls)}
    rule: dict[str, Any] = rules.get(key, {})
    return rule


def _given(key: str, overrides: list[str]) -> str:
    """The override that a key comes from, as typed."""
    matches = (item for item in overrides if item.partition("=")[0].lstrip("+") == key)
    return next(matches, key)


def _unknown_option(path: str, overrides: list[str]) -> str:
    from playground.composition import options
    from playground.outside import broken

    head, _, value = path.partition("/")
    given = next(
        (item for item in overrides
         if item.partition("=")[0].partition("@")[0].lstrip("+") == head), f"{head}={value}"
    )  # fmt: skip
    reason_broken = broken(head, value)
    if reason_broken:
        return f"{given}: {reason_broken}"
    if head == "problem" and value == "custom":
        return CUSTOM
    known = options(head)
    if not known:
        return f"{given}: unknown; there is nothing to choose from yet"
    return unknown(given, "unknown", value, known)


CUSTOM = (
    "problem=custom: stands for an object in Python; playground.run([...], problem=MyProblem())"
)


def _unknown_key(key: str, overrides: list[str]) -> str:
    """Name what exists where the given key does not."""
    from playground.config import OPTIONAL_GROUPS

    clean = key.lstrip("+~")
    given = _given(clean, overrides)
    problem, players, tree = _surroundings([item for item in overrides if item != given])
    if "@" in clean or clean.startswith("players."):
        player = re.split(r"[.@]", clean.partition("players.")[2])[0]
        if player not in players and problem:
            return _no_player(given, problem, player, players)
        if clean.startswith("players.") and tree.get("players", {}).get(player) is None:
            own = f"optimizer@players.{player}=adam"
            return f"{given}: give the player an optimizer of its own first, as in {own}"
    if "/" in clean:
        group, _, folder = clean.partition("/")
        return f"{given}: no such group; did you mean {group}={folder}/{given.partition('=')[2]}?"
    node: Any = tree
    for part in clean.split("."):
        if isinstance(node, dict) and part in node:
            node = node[part]
            if node is None and part in OPTIONAL_GROUPS:
                return f"{given}: problem {problem} has no {part}"
            continue
        if isinstance(node, dict) and node:
            return unknown(given, "no such key", part, sorted(node))
        break
    return f"{given}: no such key"


def _no_player(given: str, problem: str, player: str, players: Iterable[str]) -> str:
    return f"{given}: problem {problem} has no player {player} (allowed are {', '.join(players)})"


def _surroundings(overrides: list[str]) -> tuple[str, tuple[str, ...], dict[str, Any]]:
    """Problem, players and tree of the configuration without the override at fault."""
    from omegaconf import OmegaConf

    from playground.composition import raw
    from playground.config import players_of

    try:
        tree: Any = OmegaConf.to_container(raw(overrides), resolve=True)
        return tree["problem"]["name"], players_of(tree), tree
    except Exception:  # another override is wrong too: less can be said
        return "", (), {}
