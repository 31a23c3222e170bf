"""What a user can set about optimizers. Torch-free; steppers have ``stepper_config``.

Defaults are those of ``torch.optim`` (PyTorch 2.13), except where a field says otherwise;
problems set learning rates of their own. ``validate`` refuses what the ranges of single
fields cannot: options without effect, and keyword arguments that the chain owns.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from playground.schema import ConfigError, check, choice, number, text

SCHEDULES = ("constant", "linear", "cosine")

TORCH_CLASSES = (
    "ASGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SGD",
)
"""The elementwise classes of torch.optim: entry i of the update depends on entry i of gradient,
parameters and state only. LBFGS, Adafactor and Muon mix entries; SparseAdam wants sparse
gradients."""

OWNED_KWARGS = ("lr", "maximize", "capturable", "differentiable", "foreach")
"""Arguments of torch.optim classes that the chain sets or that it could not honour."""


@dataclass(slots=True)
class OptimizerConfig:
    """Fields that every optimizer has."""

    name: str = text(doc="which optimizer")
    lr: float = number(above=0.0, doc="learning rate")
    schedule: str = choice(
        "constant", SCHEDULES, doc="how the learning rate changes over the run's budget"
    )
    final: float = number(
        0.0, minimum=0.0, maximum=1.0, doc="share of lr left at the end of the budget"
    )
    warmup: int = number(
        0, minimum=0, doc="linear warm-up, in the player's own updates (Goyal et al. 2017)"
    )
    clip_norm: float | None = number(
        None, above=0.0, doc="largest global gradient norm of a member (Pascanu et al. 2013)"
    )
    clip_value: float | None = number(None, above=0.0, doc="largest absolute gradient entry")
    weight_decay: float = number(0.0, minimum=0.0, doc="L2 penalty added to the gradient")
    project: float | None = number(
        None,
        above=0.0,
        doc="largest absolute parameter; .01 in WGAN (Arjovsky et al. 2017)",
    )

    def direction(self, hyper: Callable[[str], Any]) -> Sequence[Any]:
        """The transforms between clipping and the learning rate, of optimizers from outside.

        Args:
            hyper: from a field's name to its value, a float or [M, 1].
        """
        raise NotImplementedError(f"{type(self).__name__}: no direction")


@dataclass(slots=True)
class SGD(OptimizerConfig):
    """Gradient descent; lr of torch.optim.SGD."""

    name: str = choice("sgd", ("sgd",), doc="gradient descent")
    lr: float = number(1e-3, above=0.0, doc="learning rate")


@dataclass(slots=True)
class Momentum(OptimizerConfig):
    """Heavy ball (Polyak 1964); momentum .9 as Sutskever et al. (2013) and usual since."""

    name: str = choice("momentum", ("momentum",), doc="heavy-ball momentum")
    lr: float = number(1e-3, above=0.0, doc="learning rate")
    momentum: float = number(
        0.9,
        above=-1.0,
        below=1.0,
        doc="share of the velocity kept; negative helps in games (Gidel et al. 2019b)",
    )


@dataclass(slots=True)
class Nesterov(OptimizerConfig):
    """Nesterov momentum as torch.optim.SGD writes it; momentum as in ``Momentum``."""

    name: str = choice("nesterov", ("nesterov",), doc="Nesterov momentum")
    lr: float = number(1e-3, above=0.0, doc="learning rate")
    momentum: float = number(0.9, above=0.0, below=1.0, doc="share of the velocity kept")


@dataclass(slots=True)
class Adagrad(OptimizerConfig):
    """Adagrad (Duchi et al. 2011); defaults of torch.optim.Adagrad."""

    name: str = choice("adagrad", ("adagrad",), doc="Adagrad")
    lr: float = number(1e-2, above=0.0, doc="learning rate")
    eps: float = number(1e-10, minimum=0.0, doc="added to the root of the sum of squares")
    initial_accumulator: float = number(0.0, minimum=0.0, doc="where the sum of squares starts")


@dataclass(slots=True)
class RMSprop(OptimizerConfig):
    """RMSprop (Tieleman and Hinton 2012); defaults of torch.optim.RMSprop."""

    name: str = choice("rmsprop", ("rmsprop",), doc="RMSprop")
    lr: float = number(1e-2, above=0.0, doc="learning rate")
    alpha: float = number(0.99, minimum=0.0, below=1.0, doc="decay of the mean square")
    eps: float = number(1e-8, minimum=0.0, doc="added to the root mean square")
    centered: bool = text(False, doc="divide by the standard deviation (Graves 2013)")
    momentum: float = number(0.0, minimum=0.0, below=1.0, doc="momentum of the scaled gradient")


@dataclass(slots=True)
class AdamFamily(OptimizerConfig):
    """Fields of Adam and its kin (Kingma and Ba 2015, section 2)."""

    lr: float = number(1e-3, above=0.0, doc="learning rate")
    beta1: float = number(0.9, minimum=0.0, below=1.0, doc="decay of the first moment")
    beta2: float = number(0.999, minimum=0.0, below=1.0, doc="decay of the second moment")
    eps: float = number(1e-8, minimum=0.0, doc="added to the root of the second moment")


@dataclass(slots=True)
class Adam(AdamFamily):
    """Adam (Kingma and Ba 2015); defaults of torch.optim.Adam."""

    name: str = choice("adam", ("adam",), doc="Adam")


@dataclass(slots=True)
class AMSGrad(AdamFamily):
    """AMSGrad (Reddi et al. 2018); defaults of torch.optim.Adam(amsgrad=True)."""

    name: str = choice("amsgrad", ("amsgrad",), doc="Adam with a second moment that never falls")


@dataclass(slots=True)
class AdamW(AdamFamily):
    """AdamW (Loshchilov and Hutter 2019); defaults of torch.optim.AdamW."""

    name: str = choice("adamw", ("adamw",), doc="Adam with decoupled weight decay")
    weight_decay: float = number(1e-2, minimum=0.0, doc="decoupled decay, times lr")


@dataclass(slots=True)
class Torch(OptimizerConfig):
    """Any elementwise class of torch.optim; ``class_name`` must be given."""

    name: str = choice("torch", ("torch",), doc="a class of torch.optim")
    lr: float = number(1e-3, above=0.0, doc="learning rate; the default is Adam's")
    class_name: str = choice("", TORCH_CLASSES, doc="which class of torch.optim")
    kwargs: dict[str, Any] = text({}, doc="its other keyword arguments")


@dataclass(slots=True)
class NaturalGradient(OptimizerConfig):
    """Natural gradient (Kakade 2001) in the metric of the move's divergence."""

    name: str = choice("natural_gradient", ("natural_gradient",), doc="natural gradient")
    lr: float = number(1.0, above=0.0, doc="factor on the step; 1 is the published one")
    radius: float = number(
        0.01, above=0.0, doc="divergence of a step, nats (Schulman et al. 2015: 0.01)"
    )
    damping: float = number(0.1, minimum=0.0, doc="added to Fisher's matrix (SB3's TRPO)")
    iterations: int = number(15, minimum=1, doc="of conjugate gradients (SB3's TRPO)")


@dataclass(slots=True)
class TrustRegion(NaturalGradient):
    """Trust region (Schulman et al. 2015): the natural gradient with a line search."""

    name: str = choice("trust_region", ("trust_region",), doc="TRPO's step")
    backtracks: int = number(10, minimum=1, doc="steps of the line search (SB3's TRPO)")
    shrink: float = number(0.8, above=0.0, below=1.0, doc="factor between them (SB3's TRPO)")


OPTIMIZERS: dict[str, type[OptimizerConfig]] = {
    "sgd": SGD,
    "momentum": Momentum,
    "nesterov": Nesterov,
    "adagrad": Adagrad,
    "rmsprop": RMSprop,
    "adam": Adam,
    "amsgrad": AMSGrad,
    "adamw": AdamW,
    "torch": Torch,
    "natural_gradient": NaturalGradient,
    "trust_region": TrustRegion,
}


def variable_fields(config: OptimizerConfig) -> tuple[str, ...]:
    """Names of the fields that may differ between members: the real-valued ones in use."""
    names = [
        field.name for field in dataclasses.fields(config) if field.type in (float, float | None)
    ]
    if config.schedule == "constant":
        names.remove("final")
    if isinstance(config, Torch):
        names.remove("weight_decay")
    return tuple(names)


def uses_budget(config: OptimizerConfig) -> bool:
    """Whether the learning rate depends on the budget, so that the budget cannot grow."""
    return config.schedule != "constant"


def validate(config: OptimizerConfig, path: str) -> None:
    """Check the ranges of all fields, then what depends on several fields.

    Raises:
        ConfigError: naming ``path.key``, its value and what is allowed.
    """
    check(config, path)
    if config.schedule == "constant" and config.final != 0.0:
        raise ConfigError(
            f"{path}.final={config.final}: has no effect while {path}.schedule is constant"
        )
    if isinstance(config, Torch):
        _validate_torch(config, path)


def _validate_torch(config: Torch, path: str) -> None:
    """Refuse what the wrapped class would ignore or what the chain does itself."""
    for key in OWNED_KWARGS:
        if key in config.kwargs:
            hint = f"use {path}.lr" if key == "lr" else "is not supported"
            raise ConfigError(f"{path}.kwargs.{key}={config.kwargs[key]}: {hint}")
    if config.weight_decay != 0.0:
        raise ConfigError(
            f"{path}.weight_decay={config.weight_decay}: give it to the class, as"
            f" {path}.kwargs.weight_decay"
        )
    if config.class_name == "Rprop" and (config.schedule != "constant" or config.warmup):
        key = "schedule" if config.schedule != "constant" else "warmup"
        raise ConfigError(
            f"{path}.{key}={getattr(config, key)}: Rprop reads lr at its first update only"
        )
