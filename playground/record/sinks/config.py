"""Configuration of the sinks: which trackers a run is mirrored into, and how. Torch-free."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from playground.schema import ConfigError, choice, number, text

if TYPE_CHECKING:
    from playground.record.sinks.sink import Sink


@dataclass(slots=True)
class TensorBoardConfig:
    """TensorBoard's event files."""

    dir: str | None = text(None, "where to, a folder for each run; null is RUN/tensorboard")

    def needs(self) -> tuple[str, ...]:
        """Modules that must be installed."""
        return ("tensorboard",)

    def build(self) -> "Sink":
        """The sink."""
        from playground.record.sinks.tensorboard import TensorBoard

        return TensorBoard(self.dir)


@dataclass(slots=True)
class MLflowConfig:
    """An MLflow store."""

    uri: str | None = text(
        None, "as sqlite:///mlflow.db; null is MLFLOW_TRACKING_URI, or mlflow.db here"
    )
    experiment: str = text("playground", "the experiment, made where it is not there")

    def needs(self) -> tuple[str, ...]:
        """Modules that must be installed; the slim MLflow brings none for databases."""
        uri = self.uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:"
        return ("mlflow", *(("sqlalchemy", "alembic") if uri.startswith("sqlite:") else ()))

    def build(self) -> "Sink":
        """The sink."""
        from playground.record.sinks.mlflow import MLflow

        return MLflow(self.uri, self.experiment)


@dataclass(slots=True)
class WandBConfig:
    """Weights & Biases, offline unless WANDB_MODE is set, or trackio."""

    project: str = text("playground", "the project")
    module: str = choice("wandb", ("wandb", "trackio"), "trackio has the same calls")

    def needs(self) -> tuple[str, ...]:
        """Modules that must be installed."""
        return (self.module,)

    def build(self) -> "Sink":
        """The sink."""
        from playground.record.sinks.wandb import WandB

        return WandB(self.project, self.module)


@dataclass(slots=True)
class SinksConfig:
    """What every sink gets, and the sinks that were chosen."""

    members: str | None = choice(
        None, ("each", "mean"), "a curve each, or their mean; null is each up to 16 members"
    )
    step: str | None = text(
        None, "the trackers' step, a counter; null is environment steps in rl, else iterations"
    )
    tensors: list[str] = text([], "tensors whose gradients are mirrored too, as ['*.0.weight']")
    aliases: bool = text(True, "CleanRL's and Stable-Baselines3's names beside ours (rl)")
    patience: float = number(30.0, above=0, doc="seconds that a run waits for a sink at its end")
    tensorboard: TensorBoardConfig | None = None
    mlflow: MLflowConfig | None = None
    wandb: WandBConfig | None = None

    @property
    def chosen(self) -> dict[str, Any]:
        """{name: its configuration} of the sinks."""
        every = {name: getattr(self, name) for name in NAMES}
        return {name: own for name, own in every.items() if own is not None}

    def build(self) -> "list[Sink]":
        """The sinks."""
        return [own.build() for own in self.chosen.values()]


KINDS: dict[str, type] = {
    "tensorboard": TensorBoardConfig,
    "mlflow": MLflowConfig,
    "wandb": WandBConfig,
}
NAMES = tuple(field.name for field in fields(SinksConfig) if field.name in KINDS)


def require(config: SinksConfig) -> None:
    """Refuse a sink whose library is not installed.

    Raises:
        ConfigError: naming the extra that brings it.
    """
    for name, own in config.chosen.items():
        for module in own.needs():
            if find_spec(module) is None:
                extra = module if module == "trackio" else f"'gradient-playground[{name}]'"
                raise ConfigError(f"sinks=[{name}]: {module} is not installed; pip install {extra}")


def named(names: str | Iterable[Any], kind: type) -> "tuple[SinksConfig, list[Any]]":
    """Sinks given by name, checked, and the objects among them.

    Raises:
        ConfigError: neither a name nor a ``kind``, or a library that is not installed.
    """
    given = [names] if isinstance(names, str) else list(names)
    config, objects = SinksConfig(), []
    for item in given:
        if isinstance(item, kind):
            objects.append(item)
        elif isinstance(item, str) and item in KINDS:
            setattr(config, item, KINDS[item]())
        else:
            raise ConfigError(
                f"sinks={item}: allowed are {', '.join(KINDS)}, or objects of "
                "playground.record.sinks.Sink"
            )
    require(config)
    return config, objects


def check_tensors(patterns: Sequence[str], tensors: Mapping[str, Sequence[str]]) -> None:
    """Refuse patterns that no tensor of a player has.

    Raises:
        ConfigError: naming the pattern and the tensors.
    """
    names = [name for own in tensors.values() for name in own]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(
                f"sinks.tensors=[{pattern}]: no such tensor (allowed are {', '.join(names)})"
            )
