"""The configuration of a run: schemas, composition, cross-checks. Torch-free.

YAML files below ``conf/`` hold values, dataclasses hold types, ranges and defaults. A config
is data: loading one never runs code. ``compose`` turns overrides into a checked ``Config``;
``from_dict`` does the same for a ``config.yaml`` that a run wrote.
"""

import dataclasses
import itertools
import types
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, get_args

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from playground import outside
from playground.crosschecks import validate, varied
from playground.explain import reason, unknown, unknown_field
from playground.optim.config import (
    OPTIMIZERS,
    OptimizerConfig,
)
from playground.optim.steppers.config import STEPPERS, StepperConfig
from playground.outside import CustomConfig
from playground.probes.config import ProbesConfig
from playground.record.sinks.config import SinksConfig, require
from playground.schema import ConfigError, choice, number, text

DOMAINS = ("landscape", "supervised", "gan", "rl")
OPTIONAL_GROUPS = ("algorithm", "loss", "penalty")
BUDGETS = ("iterations", "updates", "env_steps", "samples", "gradient_evaluations")


@dataclasses.dataclass(slots=True)
class BudgetConfig:
    """How long a run lasts, per member; one of these, or the problem's default."""

    iterations: float | None = number(None, minimum=1, doc="iterations")
    updates: float | None = number(None, minimum=1, doc="updates of the most-updated player")
    env_steps: float | None = number(None, minimum=1, doc="environment steps (rl)")
    samples: float | None = number(None, minimum=1, doc="samples")
    gradient_evaluations: float | None = number(None, minimum=1, doc="gradients taken")


@dataclasses.dataclass(slots=True)
class EvaluateConfig:
    """When a run is evaluated, and which generator GANs report."""

    every: int | None = number(None, minimum=1, doc="iterations; null is 20 times a run")
    generator: str | None = choice(None, ("raw", "ema", "average"), "gan: whose metrics")


@dataclasses.dataclass(slots=True)
class CheckpointConfig:
    """When a run is saved."""

    every: int | None = number(None, minimum=1, doc="iterations; null is 10 times a run")
    snapshot_every: int | None = number(
        None,
        minimum=1,
        doc="iterations between snapshots; those after 0, 1, 2, 4, 8, ... are kept anyway",
    )


@dataclasses.dataclass(slots=True)
class SnapshotConfig:
    """Where parameters start, in place of the problem's initialisation."""

    run: str | None = text(None, "a run folder whose parameters to start from")
    iteration: int | None = number(
        None, minimum=0, doc="of a snapshot; null is its last checkpoint"
    )
    players: list[str] = text([], "who starts from it; empty is every player of both")


@dataclasses.dataclass(slots=True)
class BestResponseConfig:
    """How far each player is from its best response, see ``best_response.py``; gan, games."""

    updates: int = number(
        0, minimum=0, doc="that each player is retrained for against the frozen others; 0 is off"
    )
    when: str = choice("end", ("end", "evaluations"), "how often it is measured")


@dataclasses.dataclass(slots=True)
class Config:
    """Everything that a run depends on."""

    problem: Any
    optimizer: Any
    algorithm: Any = None
    loss: Any = None
    penalty: Any = None
    players: dict[str, Any] = dataclasses.field(default_factory=dict)
    stepper: Any = None
    probes: Any = None
    seed: int = number(0, minimum=0, maximum=2**53, doc="of member 0; member k has seed + k")
    members: int = number(1, minimum=1, maximum=100_000, doc="independent replicas in one run")
    frozen: list[str] = text([], "players that do not train")
    snapshot: SnapshotConfig = dataclasses.field(default_factory=SnapshotConfig)
    best_response: BestResponseConfig = dataclasses.field(default_factory=BestResponseConfig)
    sinks: SinksConfig = dataclasses.field(default_factory=SinksConfig)
    vary: dict[str, Any] = dataclasses.field(default_factory=dict)
    budget: BudgetConfig = dataclasses.field(default_factory=BudgetConfig)
    evaluate: EvaluateConfig = dataclasses.field(default_factory=EvaluateConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    device: str = text("auto", "auto|cpu|cuda|cuda:N")
    dtype: str | None = choice(None, ("float32", "float64"), "null is the problem's own")
    threads: int = number(1, minimum=1, doc="of torch on the CPU")
    compile: bool = text(False, "compile gradients (5 to 19 s once)")
    on_nonfinite: str | None = choice(
        None, ("raise", "freeze"), "null raises for one member, freezes for several"
    )
    name: str | None = text(None, "part of the run folder's name")
    run_dir: str | None = text(None, "the run folder; null is runs/<date>/<time>-<name>-<id>")
    resume: str | None = text(None, "a run folder to go on with")

    def player_optimizer(self, player: str) -> OptimizerConfig:
        """The optimizer of one player: its own, or the common one."""
        own = self.players.get(player)
        result: OptimizerConfig = self.optimizer if own is None else own
        return result


@dataclasses.dataclass(frozen=True)
class Member:
    """One replica: its index, seed and the values that vary along the member axis."""

    index: int
    seed: int
    values: dict[str, float]


def domain_of(name: str) -> types.ModuleType | None:
    """The config module of a built-in problem's domain, None for a problem from outside."""
    domain = name.split("/", 1)[0]
    return _domain(domain) if domain in DOMAINS else None


def _domain(domain: str) -> types.ModuleType:
    return import_module(f"playground.domains.{domain}.config")


def compose(overrides: Sequence[str]) -> Config:
    """A checked configuration from overrides such as ``problem=gan/ring``.

    Raises:
        ConfigError: one line that names key, value and what is allowed.
    """
    from playground.composition import composed

    config = from_dict(composed(overrides))
    require(config.sinks)
    return config


def from_dict(data: Mapping[str, Any]) -> Config:
    """A checked configuration from plain containers, such as a run's ``config.yaml``.

    Raises:
        ConfigError: one line that names key, value and what is allowed.
    """
    if data.get("watch"):
        raise ConfigError("a watched loop: its model, data and course are in its own program")
    nodes = dict(data)
    plain = [field.name for field in dataclasses.fields(Config)]
    for key in nodes:
        if key not in plain:
            raise ConfigError(unknown(str(key), "no such key", str(key), plain))
    problem = nodes.get("problem") or {}
    cls, groups = _problem_class(problem)
    nodes["problem"] = _structured(cls, problem, "problem")
    for group in OPTIONAL_GROUPS:
        nodes[group] = _group(group, nodes.get(group), groups, nodes["problem"])
    nodes["optimizer"] = _optimizer(nodes.get("optimizer"), "optimizer")
    nodes["players"] = {
        name: _optimizer(value, f"players.{name}")
        for name, value in (nodes.get("players") or {}).items()
        if value is not None
    }
    nodes["stepper"] = _stepper(nodes.get("stepper") or {"name": "direct"})
    parts = {"probes": ProbesConfig, "budget": BudgetConfig,
             "evaluate": EvaluateConfig, "checkpoint": CheckpointConfig,
             "snapshot": SnapshotConfig, "best_response": BestResponseConfig,
             "sinks": SinksConfig}  # fmt: skip
    for key, part in parts.items():
        nodes[key] = _structured(part, nodes.get(key) or {}, key)
    config = Config(**{**nodes, **_scalars(nodes)})
    validate(config)
    return config


def to_dict(config: Config) -> dict[str, Any]:
    """Plain containers, enough to run it again."""
    return dataclasses.asdict(config)


def _problem_class(problem: Any) -> tuple[type, Mapping[str, Any]]:
    """The problem's config dataclass, and the groups of its domain."""
    name = str(problem.get("name", "")) if isinstance(problem, Mapping) else ""
    outside_problems = outside.problems()
    if name in outside_problems:
        return outside_problems[name], {}
    module = domain_of(name)
    if module is not None:
        return module.CONFIG, module.GROUPS
    if name.partition("/")[0] == "custom":
        return CustomConfig, {}
    why = outside.broken("problem", name) or "no such problem"
    raise ConfigError(f"problem={name}: {why}")


def players_of(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the players of a composed configuration that is not checked yet."""
    cls, groups = _problem_class(data["problem"])
    problem = _structured(cls, data["problem"], "problem")
    algorithm = _group("algorithm", data.get("algorithm"), groups, problem)
    return tuple(getattr(algorithm, "players", None) or problem.players())


def _structured(cls: type, data: Any, path: str) -> Any:
    """A typed object from plain containers, or one line on what is wrong."""
    if not isinstance(data, Mapping):
        raise ConfigError(f"{path}={data}: must be a group of keys")
    try:
        base = OmegaConf.structured(cls)
        for field in dataclasses.fields(cls):
            kinds = (field.type, *get_args(field.type))
            plain = not any(dataclasses.is_dataclass(kind) for kind in kinds)
            if plain and isinstance(data.get(field.name), dict):
                base[field.name] = {}  # given dictionaries replace, they do not add
        return OmegaConf.to_object(OmegaConf.merge(base, dict(data)))
    except OmegaConfBaseException as error:
        key = ".".join(part for part in (path, error.full_key) if part)
        value: Any = data
        for name in str(error.full_key).split("."):
            value = value.get(name, "") if isinstance(value, Mapping) else ""
        raise ConfigError(unknown_field(error, key) or f"{key}={value}: {reason(error)}") from error


def _scalars(nodes: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of the root that are single values, with their types checked."""
    kinds = (int, bool, str, str | None)
    names = [f.name for f in dataclasses.fields(Config) if f.type in kinds and f.name in nodes]
    base = OmegaConf.structured(Config)
    for name in names:
        try:
            base[name] = nodes[name]
        except OmegaConfBaseException as error:
            raise ConfigError(f"{name}={nodes[name]}: {reason(error)}") from error
    return {name: base[name] for name in names}


def _group(group: str, value: Any, groups: Mapping[str, Any], problem: Any) -> Any:
    """A group that only some problems have."""
    chosen = value.get("name", group) if isinstance(value, Mapping) else value
    if group not in problem.groups:
        if value is None:
            return None
        owners = [name for name in DOMAINS if group in _domain(name).GROUPS]
        raise ConfigError(
            f"{group}={chosen}: problem {problem.name} has no {group}, only {', '.join(owners)}/*"
        )
    options = groups[group]
    if chosen not in options:
        raise ConfigError(unknown(f"{group}={chosen}", "unknown", str(chosen), options))
    return _structured(options[chosen], value, group)


def _optimizer(value: Any, path: str) -> OptimizerConfig:
    name = value.get("name") if isinstance(value, Mapping) else value
    known = {**OPTIMIZERS, **outside.optimizers()}
    if name not in known:
        raise ConfigError(unknown(f"{path}={name}", "unknown", str(name), known))
    result: OptimizerConfig = _structured(known[name], value, path)
    return result


def _stepper(value: Any) -> StepperConfig:
    name = value.get("name") if isinstance(value, Mapping) else value
    if name not in STEPPERS:
        raise ConfigError(unknown(f"stepper={name}", "unknown", str(name), STEPPERS))
    result: StepperConfig = _structured(STEPPERS[name], value, "stepper")
    return result


def members(config: Config) -> list[Member]:
    """Every replica: index = value_index * members + replica, seed = seed + replica."""
    values = varied(config)
    combinations = list(itertools.product(*values.values()))
    result: list[Member] = []
    for combination in combinations:
        for replica in range(config.members):
            chosen = dict(zip(values, combination, strict=True))
            result.append(Member(len(result), config.seed + replica, chosen))
    return result
