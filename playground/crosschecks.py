"""What must fit together in a configuration: cross-checks, the budget, what varies. Torch-free."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playground.explain import unknown
from playground.optim.config import NaturalGradient, variable_fields
from playground.optim.config import validate as validate_optimizer
from playground.outside import SAFE_NAME, SAFE_WORDS
from playground.schema import ConfigError, check, check_value

if TYPE_CHECKING:
    from playground.config import Config


def validate(config: "Config") -> None:
    """Check ranges and everything that depends on two keys at once.

    Raises:
        ConfigError: one line that names key, value and what is allowed.
    """
    check(config)
    problem = config.problem
    problem.validate()
    if config.algorithm is not None:
        config.algorithm.validate(problem)
    players = getattr(config.algorithm, "players", None) or problem.players()
    for player, optimizer in config.players.items():
        if players and player not in players:
            raise ConfigError(
                f"optimizer@players.{player}={optimizer.name}: problem {problem.name} has no "
                f"player {player} (allowed are {', '.join(players)})"
            )
        validate_optimizer(optimizer, f"players.{player}")
    validate_optimizer(config.optimizer, "optimizer")
    for player in players or ():
        _validate_geometry(config, player)
    _validate_budget(config)
    varied(config)
    if config.evaluate.generator is not None and not problem.name.startswith("gan/"):
        raise ConfigError(
            f"evaluate.generator={config.evaluate.generator}: problem {problem.name} has no "
            "generator, only gan/*"
        )
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", config.device):
        raise ConfigError(f"device={config.device}: allowed are auto, cpu, cuda, cuda:N")
    if config.compile and getattr(problem, "memory", None) is not None:
        raise ConfigError(
            f"compile=true problem.memory={problem.memory}: a recurrent network's loop over time "
            "takes minutes to compile; leave one of them out"
        )
    if config.compile and not getattr(config.algorithm, "compiles", True):
        name = config.algorithm.name
        raise ConfigError(f"compile=true: the batch shapes of {name} vary, so it cannot compile")
    _validate_sinks(config)
    _validate_stepper(config, players)
    _validate_snapshot(config, players)
    if config.name is not None and not SAFE_NAME.fullmatch(config.name):
        raise ConfigError(f"name={config.name}: allowed are {SAFE_WORDS}")
    if config.run_dir is not None and ".." in Path(config.run_dir).parts:
        raise ConfigError(f"run_dir={config.run_dir}: climbs out with ..; give an absolute path")


def _validate_geometry(config: "Config", player: str) -> None:
    """Trust regions need moves with a divergence."""
    optimizer = config.player_optimizer(player)
    allowed = getattr(config.algorithm, "trust_region", ())
    if isinstance(optimizer, NaturalGradient) and player not in allowed:
        own = player in config.players
        key = f"optimizer@players.{player}" if own else "optimizer"
        raise ConfigError(
            f"{key}={optimizer.name}: the moves of player {player} have no divergence; only "
            f"player policy of algorithm=npg|trpo has, as optimizer@players.policy={optimizer.name}"
        )


def _validate_sinks(config: "Config") -> None:
    """The trackers' step must be counted."""
    step, problem = config.sinks.step, config.problem
    counted = ("iteration", "updates", "gradient_evaluations", *problem.counts)
    if step is not None and step not in counted:
        raise ConfigError(
            f"sinks.step={step}: problem {problem.name} does not count {step} "
            f"(allowed are {', '.join(counted)})"
        )


def _validate_stepper(config: "Config", players: Sequence[str]) -> None:
    """Whether the stepper is defined for the players that train, and for their optimizers."""
    for player in config.frozen:
        if players and player not in players:
            raise ConfigError(unknown(f"frozen=[{player}]", "no such player", player, players))
    free = [player for player in players if player not in config.frozen]
    if players and not free:
        raise ConfigError(f"frozen=[{','.join(config.frozen)}]: nobody is left to train")
    used = {name: config.player_optimizer(name) for name in free} or {"": config.optimizer}
    paths = {f"players.{n}" if n in config.players else "optimizer": o for n, o in used.items()}
    config.stepper.validate(free, getattr(config.problem, "rounds", ""), paths)


def _validate_snapshot(config: "Config", players: Sequence[str]) -> None:
    """Options that need one another, and games that best responses are defined for."""
    given = config.snapshot
    if given.run is None and (given.players or given.iteration is not None):
        raise ConfigError("snapshot.run=null: snapshot.iteration and snapshot.players need a run")
    for player in given.players:
        if players and player not in players:
            path = f"snapshot.players=[{player}]"
            raise ConfigError(unknown(path, "no such player", player, players))
    updates, name = config.best_response.updates, config.problem.name
    if updates and (name.partition("/")[0] not in ("gan", "landscape") or len(players) < 2):
        raise ConfigError(
            f"best_response.updates={updates}: problem {name} is no game of gan/* or landscape/*"
        )


def _validate_budget(config: "Config") -> None:
    problem, given = config.problem, _given_budget(config)
    if len(given) > 1:
        words = " ".join(f"budget.{key}={value:g}" for key, value in given.items())
        raise ConfigError(f"{words}: only one budget may be given")
    path = "budget" if given else "problem.default_budget"
    if not given and len(problem.default_budget) != 1:
        raise ConfigError(f"{path}={problem.default_budget}: must have one counter")
    ((key, value),) = (given or problem.default_budget).items()
    counted = ("iterations", "updates", "gradient_evaluations", *problem.counts)
    if key not in counted:
        raise ConfigError(
            f"{path}.{key}={value}: problem {problem.name} does not count {key} "
            f"(allowed are {', '.join(counted)})"
        )
    if not isinstance(value, int | float) or not float(value).is_integer() or value < 1:
        raise ConfigError(f"{path}.{key}={value}: must be a whole number, at least 1")


def _given_budget(config: "Config") -> dict[str, float]:
    return {k: v for k, v in dataclasses.asdict(config.budget).items() if v is not None}


def budget(config: "Config") -> tuple[str, int]:
    """What ends the run: (counter, amount per member)."""
    source = _given_budget(config) or config.problem.default_budget
    key = next(iter(source))
    return key, int(source[key])


def varied(config: "Config") -> dict[str, list[float]]:
    """{dotted key: values} of ``vary``, checked; several keys form a product.

    Raises:
        ConfigError: for a key that is not an optimizer's number, or values that are none.
    """
    result: dict[str, list[float]] = {}
    for key, values in _flatten(config.vary):
        given = f"vary.{key}={values}".replace(" ", "")
        owner, _, name = key.rpartition(".")
        if owner == "optimizer":
            target = config.optimizer
        elif owner.startswith("players.") and owner[8:] in config.players:
            target = config.players[owner[8:]]
        else:
            raise ConfigError(
                f"{given}: only numbers of optimizer.*, and of players.<player>.* where the "
                "player has an optimizer of its own, may vary"
            )
        allowed = variable_fields(target)
        if name not in allowed:
            raise ConfigError(unknown(given, f"{key} cannot vary", name, allowed))
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{given}: must be a list of numbers, as in [1e-3,1e-2]")
        rule = next(f for f in dataclasses.fields(target) if f.name == name).metadata["rule"]
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ConfigError(f"{given}: {value} is not a number")
            check_value(f"vary.{key}", value, rule)
        result[key] = [float(value) for value in values]
    return result


def _flatten(tree: Mapping[str, Any], path: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in tree.items():
        full = f"{path}.{key}" if path else str(key)
        pairs += _flatten(value, full) if isinstance(value, Mapping) else [(full, value)]
    return pairs
