"""Config fields that know what they allow. Torch-free, so that help and errors are instant.

A config is a tree of dataclasses. ``number``, ``choice`` and ``text`` make fields whose
metadata say the allowed range; ``check`` walks a tree and raises ``ConfigError`` with the
dotted key, the value and what is allowed.
"""

import dataclasses
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any


class ConfigError(ValueError):
    """A configuration is wrong: one line that names key, value and what is allowed."""


def number(
    default: Any = dataclasses.MISSING,
    *,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    above: float | None = None,
    below: float | None = None,
    doc: str = "",
) -> Any:
    """A finite number (or None where the type allows) with inclusive or strict bounds."""
    return _field(
        default, {"minimum": minimum, "maximum": maximum, "above": above, "below": below}, doc
    )


def choice(default: Any, options: Sequence[str], doc: str = "") -> Any:
    """One of several names."""
    return _field(default, {"options": tuple(options)}, doc)


def text(default: Any = dataclasses.MISSING, doc: str = "") -> Any:
    """A field without a range."""
    return _field(default, {}, doc)


def _field(default: Any, rule: dict[str, Any], doc: str) -> Any:
    metadata = {"rule": rule, "doc": doc}
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def check(config: Any, path: str = "") -> None:
    """Check every field of a tree of config dataclasses.

    Raises:
        ConfigError: naming the first field outside its range.
    """
    for field in dataclasses.fields(config):
        key = f"{path}.{field.name}" if path else field.name
        value = getattr(config, field.name)
        check_value(key, value, field.metadata.get("rule", {}))
        if isinstance(value, dict):
            for name, item in value.items():
                if dataclasses.is_dataclass(item):
                    check(item, f"{key}.{name}")
        elif dataclasses.is_dataclass(value):
            check(value, key)


def check_value(key: str, value: Any, rule: dict[str, Any]) -> None:
    """Check one value against one field's rule."""
    if isinstance(value, list):
        for item in value:
            check_value(key, item, rule)
        return
    if "options" in rule and value is not None and value not in rule["options"]:
        raise ConfigError(f"{key}={value}: allowed are {', '.join(rule['options'])}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if not math.isfinite(value):
        raise ConfigError(f"{key}={value}: must be finite")
    bounds: dict[str, tuple[str, Callable[[float, float], bool]]] = {
        "at least": ("minimum", operator.ge),
        "at most": ("maximum", operator.le),
        "greater than": ("above", operator.gt),
        "less than": ("below", operator.lt),
    }
    for words, (name, holds) in bounds.items():
        bound = rule.get(name)
        if bound is not None and not holds(value, bound):
            raise ConfigError(f"{key}={value}: must be {words} {bound:g}")


def describe(rule: dict[str, Any]) -> str:
    """A few words on what a rule allows, for help."""
    if "options" in rule:
        return " | ".join(rule["options"])
    low, high = rule.get("minimum", -math.inf), rule.get("maximum", math.inf)
    words = [f">={low:g}"] if math.isfinite(low) else []
    words += [f">{rule['above']:g}"] if rule.get("above") is not None else []
    words += [f"<={high:g}"] if high < 2**53 else []
    words += [f"<{rule['below']:g}"] if rule.get("below") is not None else []
    return " and ".join(words)
