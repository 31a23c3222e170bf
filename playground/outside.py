"""Problems and optimizers that are not the playground's own, as config dataclasses. Torch-free.

A package offers them under the entry points ``playground.problems`` and
``playground.optimizers``; a program hands optimizers to ``playground.run(optimizers=[...])``.
A package that cannot be loaded is named when its option is chosen, and disturbs nobody else.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

from playground.optim.config import OPTIMIZERS, OptimizerConfig
from playground.schema import ConfigError, text

PROBLEMS, OPTIMIZER_GROUP = "playground.problems", "playground.optimizers"
PROBLEM_NEEDS = ("name", "default_budget", "tuned", "counts", "groups", "dtype",
                 "players", "validate", "build")  # fmt: skip
"""What a problem's config dataclass must have, as ``LandscapeConfig``."""

SAFE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
SAFE_WORDS = "letters, digits, dot, dash and underscore, no dot at the start"

_offered: ContextVar[dict[str, type[OptimizerConfig]]] = ContextVar("offered")


@dataclass(slots=True)
class CustomConfig:
    """Stands for a problem object given to ``playground.run(..., problem=...)``."""

    name: str = text("custom")
    default_budget: dict[str, Any] = field(default_factory=lambda: {"iterations": 1000})
    tuned: dict[str, Any] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    counted: list[str] = field(default_factory=list)
    rounds: str = ""

    groups = ()
    dtype = "float32"

    def players(self) -> tuple[str, ...]:
        """Names of the players, filled in from the object; empty before."""
        return tuple(self.names)

    @property
    def counts(self) -> tuple[str, ...]:
        """What the problem counts, filled in from the object; anything before."""
        return tuple(self.counted) if self.names else ("samples", "env_steps")

    def validate(self) -> None:
        """Nothing to check."""

    def describe(
        self, name: str, players: list[str], counters: list[str], rounds: str = ""
    ) -> "CustomConfig":
        """This configuration with what the object says of itself.

        Raises:
            ConfigError: an unsafe name, or another object than the run began with.
        """
        full = f"custom/{name.rpartition('/')[2]}"
        if not SAFE_NAME.fullmatch(full.partition("/")[2]):
            raise ConfigError(f"problem.name={name}: allowed are {SAFE_WORDS}")
        if self.names and (self.name, self.names) != (full, players):
            raise ConfigError(
                f"problem: the object is {full} with players {', '.join(players)}, the run is of "
                f"{self.name} with players {', '.join(self.names)}"
            )
        return dataclasses.replace(self, name=full, names=players, counted=counters, rounds=rounds)

    def build(self, config: Any) -> Any:
        """There is nothing to build.

        Raises:
            ConfigError: always; the object must be given.
        """
        raise ConfigError(f"problem={self.name}: give the object, playground.run(..., problem=...)")


def problems() -> dict[str, type]:
    """{option: config dataclass} of the problems that can be loaded."""
    return _load(PROBLEMS)[0]


def optimizers() -> dict[str, type[OptimizerConfig]]:
    """{option: config dataclass} of the optimizers that are not the playground's own."""
    return {**_load(OPTIMIZER_GROUP)[0], **_offered.get({})}


def broken(group: str, name: str) -> str | None:
    """Why an option of another package cannot be loaded, None where that is not so."""
    kind = {"problem": PROBLEMS, "optimizer": OPTIMIZER_GROUP}.get(group)
    return _load(kind)[1].get(name) if kind else None


@contextmanager
def offered(classes: Iterable[type[OptimizerConfig]]) -> Iterator[None]:
    """Make optimizers choosable by their names for a while.

    Raises:
        ConfigError: not an optimizer's dataclass, or a name that is taken.
    """
    named = {}
    for cls in classes:
        reason = _unfit(OPTIMIZER_GROUP, cls)
        if reason:
            raise ConfigError(f"optimizers: {reason}")
        name = str(cls().name)
        if name in OPTIMIZERS:
            raise ConfigError(f"optimizers: {name} is the playground's own; choose another name")
        named[name] = cls
    token = _offered.set({**_offered.get({}), **named})
    try:
        yield
    finally:
        _offered.reset(token)


def _load(group: str) -> tuple[dict[str, type], dict[str, str]]:
    """What an entry-point group offers, and what is wrong with the rest."""
    good: dict[str, type] = {}
    bad: dict[str, str] = {}
    for entry in entry_points(group=group):
        try:
            cls = entry.load()
            reason = _unfit(group, cls)
        except Exception as error:  # somebody else's code
            reason = f"{type(error).__name__}: {error}"
        if reason:
            bad[entry.name] = f"{entry.value} cannot be loaded ({reason})"
        else:
            good[entry.name] = cls
    return good, bad


def _unfit(group: str, cls: object) -> str:
    """What keeps a class from being a problem's or an optimizer's configuration."""
    if not isinstance(cls, type) or not dataclasses.is_dataclass(cls):
        return f"{cls!r} is not a dataclass"
    if group == OPTIMIZER_GROUP:
        return "" if issubclass(cls, OptimizerConfig) else f"{cls.__name__} is no OptimizerConfig"
    known = {item.name for item in dataclasses.fields(cls)}
    missing = [name for name in PROBLEM_NEEDS if name not in known and not hasattr(cls, name)]
    return f"{cls.__name__} lacks {', '.join(missing)}" if missing else ""
