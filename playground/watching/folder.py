"""What the run directory of a watched loop says of it: the same files as a run's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch

from playground.provenance import environment, now
from playground.record.columns import SCHEMA_VERSION
from playground.record.directory import RecordError, RunDirectory, RunExists, RunLocked
from playground.schema import ConfigError
from playground.watching.player import Watched

INTERNAL = ("foreach", "capturable", "differentiable", "fused", "decoupled_weight_decay")
"""Arguments of optimizers that change nothing but how they compute."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a loop is watched; see ``playground.watch``."""

    probes: str = "light"
    every: int = 8
    passes_every: int = 64
    metric: str = "loss"
    higher_is_better: bool = False
    seed: int = 0
    megabytes: int = 64


def create(
    name: str, run_dir: str | None, players: Mapping[str, Watched], settings: Settings
) -> RunDirectory:
    """A locked directory with configuration and manifest.

    Raises:
        ConfigError: the directory or the name cannot be used.
    """
    try:
        directory = RunDirectory.create(name, run_dir)
    except (RunExists, RunLocked) as error:
        raise ConfigError(f"run_dir={error}") from error
    except RecordError as error:
        raise ConfigError(str(error)) from error
    if directory._lock is None:
        directory.lock()
    directory.write_config(config(name, players, settings))
    directory.write_manifest(manifest(name, players, settings))
    return directory


def config(name: str, players: Mapping[str, Watched], settings: Settings) -> dict[str, Any]:
    """The watched optimizers and how they are watched."""
    return {
        "problem": {"name": name},
        "watch": True,
        "seed": settings.seed,
        "members": 1,
        "players": {player: optimizer(watched) for player, watched in players.items()},
        "probes": {"name": settings.probes, "every": settings.every},
    }


def optimizer(watched: Watched) -> dict[str, Any]:
    """Name and arguments of an optimizer, of its first group where they differ."""
    found = watched.optimizer
    values = {
        key: plain(value)
        for key, value in found.param_groups[0].items()
        if key != "params" and key not in INTERNAL
    }
    if "initial_lr" in values:  # under a scheduler: the rate that it multiplies
        values["lr"] = values.pop("initial_lr")
    return {"name": type(found).__name__.lower(), **values}


def plain(value: Any) -> Any:
    """A value that YAML holds: a number, word, or list of them."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, Real):
        return int(value) if isinstance(value, int) else float(value)
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return repr(value)


def manifest(name: str, players: Mapping[str, Watched], settings: Settings) -> dict[str, Any]:
    """As a run's."""
    return {
        "schema_version": SCHEMA_VERSION,
        "status": "running",
        "reason": "",
        "problem": name,
        "main_metric": settings.metric,
        "higher_is_better": settings.higher_is_better,
        "players": {n: w.layout.size for n, w in players.items()},
        "tensors": {n: list(w.layout.names) for n, w in players.items()},
        "members": [{"seed": settings.seed, "values": {}}],
        "resume": "none",
        "device": ", ".join(sorted({str(w.device) for w in players.values()})),
        "threads": torch.get_num_threads(),
        "measured": {n: w.mode for n, w in players.items()},
        **environment(),
        "attempts": [{"start_iteration": 0, "started": now()}],
    }


def chosen(probes: Any, objects: type | tuple[type, ...]) -> tuple[str, Sequence[Any]]:
    """The name of a set of probes, and probes of one's own.

    Raises:
        ConfigError: neither a name nor a probe.
    """
    given = [probes] if isinstance(probes, str) else list(probes)
    names = [item for item in given if isinstance(item, str)]
    own = [item for item in given if not isinstance(item, str)]
    allowed = ("none", "light", "standard", "full")
    for item in names:
        if item not in allowed:
            raise ConfigError(f"probes={item}: allowed are {', '.join(allowed)}, or probe objects")
    for item in own:
        if not isinstance(item, objects):
            kind = type(item).__name__
            raise ConfigError(f"probes={kind}: allowed are names, playground.Probe objects and "
                              "playground.Pass objects")  # fmt: skip
    if len(names) > 1:
        raise ConfigError(f"probes={', '.join(names)}: give one name")
    return (names[0] if names else "light"), own
