"""Where a run starts when it is not the problem's initialisation: at another run's parameters."""

from collections.abc import Mapping

from torch import Tensor

from playground.config import SnapshotConfig
from playground.game import Player, Problem
from playground.record.checkpoint import load_checkpoint, load_snapshot
from playground.record.directory import RecordError, RunDirectory
from playground.schema import ConfigError


def begin(given: SnapshotConfig, problem: Problem, players: Mapping[str, Player]) -> None:
    """Put players at the parameters of another run, where ``snapshot.run`` names one.

    Raises:
        ConfigError: no such run or snapshot, or players and members that do not fit.
    """
    if given.run is None:
        return
    path = f"snapshot.run={given.run}"
    try:
        directory = RunDirectory.open(given.run)
        if given.iteration is not None:
            saved = load_snapshot(directory, given.iteration)[1]
        else:
            content = load_checkpoint(directory)
            if content is None:
                raise RecordError(f"{given.run}: no checkpoint")
            saved = {name: value["parameters"] for name, value in content[1]["players"].items()}
    except RecordError as error:
        raise ConfigError(f"{path}: {str(error).removeprefix(f'{given.run}: ')}") from error
    chosen = given.players or [name for name in players if name in saved]
    if not chosen or any(name not in saved for name in chosen):
        wanted = ", ".join(given.players or players)
        raise ConfigError(f"{path}: it has the players {', '.join(saved)}, not {wanted}")
    for name in chosen:
        here = players[name].parameters.values
        if saved[name].shape[1] != here.shape[1] or len(saved[name]) not in (1, len(here)):
            raise ConfigError(
                f"{path}: its {name} is {list(saved[name].shape)}, members and parameters, not "
                f"{list(here.shape)}"
            )
    place(problem, players, {name: saved[name] for name in chosen})


def place(problem: Problem, players: Mapping[str, Player], values: Mapping[str, Tensor]) -> None:
    """Put players at these parameters [M, N], before anything was played."""
    for name, value in values.items():
        players[name].parameters.values.copy_(value)
    problem.replaced()
