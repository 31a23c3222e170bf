"""What a resumed run may change, decided before anything heavy is imported. Torch-free."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from playground.config import Config, from_dict, to_dict
from playground.crosschecks import budget
from playground.optim.config import uses_budget
from playground.record.directory import RecordError, RunDirectory
from playground.record.sinks.config import require
from playground.schema import ConfigError

if TYPE_CHECKING:
    from playground.game import Player

RESUMABLE = ("budget", "evaluate", "checkpoint", "sinks")


def split(overrides: Sequence[str]) -> tuple[str | None, list[str]]:
    """The run to go on with, None for a new one, and the other overrides.

    Raises:
        ConfigError: two runs, or a path that cannot be read.
    """
    from playground.composition import parse

    mine = [item for item in overrides if item.partition("=")[0] == "resume"]
    if not mine:
        return None, list(overrides)
    if len(mine) > 1:
        raise ConfigError(f"{' '.join(mine)}: only one run can be gone on with")
    path = parse(mine)[0].value()
    return str(path), [item for item in overrides if item not in mine]


def check(path: str, overrides: Sequence[str]) -> tuple[RunDirectory, Config]:
    """The directory of a run and the configuration to go on with.

    Raises:
        ConfigError: no such run, an override that changes the experiment, or nothing left.
    """
    try:
        directory = RunDirectory.open(path)
        before = from_dict(directory.read_config())
        manifest = directory.read_manifest()
        status = manifest.get("status")
    except (RecordError, ConfigError) as error:
        raise ConfigError(f"resume={path}: {str(error).removeprefix(f'{path}: ')}") from error
    if "replay" in manifest:
        raise ConfigError(f"resume={path}: a replay ends where it measures; replay again")
    config = changed(before, overrides)
    require(config.sinks)
    if status == "finished" and budget(config) == budget(before):
        key, amount = budget(config)
        raise ConfigError(
            f"resume={path}: the run is finished; give a larger budget, as in "
            f"budget.{key}={2 * amount}"
        )
    return directory, config


def changed(config: Config, overrides: Sequence[str]) -> Config:
    """The configuration with what a resume may change.

    Raises:
        ConfigError: any other key, a smaller budget, or one that a schedule anneals over.
    """
    from playground.composition import composed

    data = to_dict(config)
    key, amount = budget(config)
    sinks = [item for item in overrides if item.partition("=")[0].partition(".")[0] == "sinks"]
    if sinks:
        data["sinks"] = composed(sinks)["sinks"]
    for item in overrides:
        if item in sinks:
            continue
        name, _, value = item.partition("=")
        group, _, field = name.partition(".")
        if group not in RESUMABLE or field not in data[group]:
            allowed = ", ".join(f"{g}.*" for g in RESUMABLE)
            raise ConfigError(f"{item}: a resumed run takes {allowed} only")
        if group == "budget":
            if field != key:
                raise ConfigError(f"{item}: the run's budget is in {key}")
            data["budget"] = dict.fromkeys(data["budget"])
        data[group][field] = _value(item, value)
    result = from_dict(data)
    new = budget(result)[1]
    if new < amount:
        raise ConfigError(f"budget.{key}={new}: smaller than the run's {amount}")
    optimizers = {"optimizer": config.optimizer, **config.players}
    annealed = [name for name, opt in optimizers.items() if uses_budget(opt)]
    owners = (config.algorithm, config.problem)
    annealed += [owner.name for owner in owners if getattr(owner, "anneals", False)]
    if new > amount and annealed:
        raise ConfigError(
            f"budget.{key}={new}: {annealed[0]} anneals over the budget, so a longer run differs"
        )
    return result


def _value(item: str, value: str) -> float | str | None:
    """A number, null, or a name as typed."""
    if value == "null" and not item.startswith("budget."):
        return None
    if item.startswith("evaluate.generator"):
        return value
    try:
        return int(value) if value.lstrip("+-").isdigit() else float(value)
    except ValueError:
        raise ConfigError(f"{item}: must be a number") from None


def check_layout(name: str, written: Sequence[str], players: Mapping[str, "Player"]) -> None:
    """Values are saved without names: in another order they would be read as other tensors.

    Raises:
        ConfigError: the player is not there, or is laid out otherwise than when it was saved.
    """
    now = list(players[name].parameters.layout.names) if name in players else []
    if now != list(written):
        raise ConfigError(
            f"player {name}: the run has the tensors {', '.join(written)}, this version "
            f"{', '.join(now) or 'has no such player'}"
        )
