"""What may be watched, and what is refused by name."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from playground.schema import ConfigError


def inner(name: str, optimizer: Any) -> Optimizer:
    """The torch optimizer itself, out of a wrapper that has it as ``.optimizer``.

    Raises:
        ConfigError: it is none.
    """
    for found in (getattr(optimizer, "optimizer", None), optimizer):
        if isinstance(found, Optimizer):
            return found
    kind = type(optimizer).__name__
    raise ConfigError(f"player {name}: {kind} is no torch.optim.Optimizer, which has step hooks")


def named(model: nn.Module) -> Iterable[tuple[str, Tensor]]:
    """Names of a model's parameters without what compiling and wrapping put in front."""
    if type(model).__name__ in ("DataParallel", "DistributedDataParallel"):
        model = model.module  # type: ignore[assignment]
    for name, parameter in model.named_parameters():
        yield name.replace("_orig_mod.", ""), parameter


def check(player: str, names: Sequence[str], parameters: Sequence[Tensor]) -> None:
    """Refuse what cannot be measured.

    Raises:
        ConfigError: naming the tensor and why.
    """
    if not parameters:
        raise ConfigError(f"player {player}: its optimizer holds no parameters")
    reasons: list[tuple[str, Callable[[Tensor], bool]]] = [
        ("has no shape yet: run one batch through the model first", is_lazy),
        ("is complex", torch.is_complex),
        ("is on the meta device", lambda p: p.is_meta),
        ("is sharded over processes", lambda p: type(p).__module__.startswith("torch.distr")),
    ]
    for name, parameter in zip(names, parameters, strict=True):
        for text, is_so in reasons:
            if is_so(parameter):
                raise ConfigError(f"player {player}: {name} {text}; watch cannot measure it")
    devices = sorted({str(p.device) for p in parameters})
    if len(devices) > 1:
        raise ConfigError(f"player {player}: its parameters are on {', '.join(devices)}; "
                          "give each device a player and an optimizer of its own")  # fmt: skip
