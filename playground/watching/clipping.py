"""Seeing gradients being clipped: torch's clip functions, wrapped while a watcher is open.

Clipping overwrites ``.grad``: who wants the raw gradient's norm must look before it. The wrappers
call torch's own functions with the same arguments and return what they return. They are put in
place of the originals in ``torch.nn.utils`` and in every module that imported them by name, when
the first watcher opens, and taken out when the last one closes. A wrapper that somebody kept
goes on working as the original does.
"""

import functools
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils import clip_grad

NAMES = ("clip_grad_norm_", "clip_grad_value_")

Originals = dict[str, Callable[..., Any]]


class Listener(Protocol):
    """Who wants to know."""

    def clipping(self, parameters: frozenset[int]) -> None:
        """Before the gradients of these parameters (by id) are clipped."""

    def clipped(self, parameters: frozenset[int], coefficient: Tensor | None) -> None:
        """Afterwards: what all were multiplied by; None where they were clipped by value."""


_listeners: list[Listener] = []
_originals: Originals = {}


def listen(listener: Listener) -> None:
    """Tell a listener from now on."""
    if not _listeners:
        _originals.update({name: getattr(clip_grad, name) for name in NAMES})
        _replace(_originals, _wrappers)
    _listeners.append(listener)


def ignore(listener: Listener) -> None:
    """Tell it no longer."""
    if listener in _listeners:
        _listeners.remove(listener)
        if not _listeners:
            _replace(_wrappers, _originals)


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0,
    *arguments: Any, **options: Any,
) -> Tensor:  # fmt: skip
    """``torch.nn.utils.clip_grad_norm_``, seen by the playground."""
    original = _original("clip_grad_norm_")
    if not _listeners or torch.compiler.is_compiling():
        return original(parameters, max_norm, norm_type, *arguments, **options)  # type: ignore[no-any-return]
    parameters, known = _known(parameters)
    listeners = tuple(_listeners)
    for listener in listeners:
        listener.clipping(known)
    total: Tensor = original(parameters, max_norm, norm_type, *arguments, **options)
    for listener in listeners:
        listener.clipped(known, (max_norm / (total.detach() + 1e-6)).clamp(max=1.0))
    return total


def clip_grad_value_(
    parameters: Tensor | Iterable[Tensor], *arguments: Any, **options: Any
) -> None:
    """``torch.nn.utils.clip_grad_value_``, seen by the playground."""
    original = _original("clip_grad_value_")
    if not _listeners or torch.compiler.is_compiling():
        original(parameters, *arguments, **options)
        return
    parameters, known = _known(parameters)
    listeners = tuple(_listeners)
    for listener in listeners:
        listener.clipping(known)
    original(parameters, *arguments, **options)
    for listener in listeners:
        listener.clipped(known, None)


_wrappers: Originals = {
    name: functools.wraps(getattr(clip_grad, name))(globals()[name]) for name in NAMES
}


def _original(name: str) -> Callable[..., Any]:
    """Torch's function, whether or not a watcher is open."""
    return _originals.get(name) or getattr(clip_grad, name)


def _known(parameters: Tensor | Iterable[Tensor]) -> tuple[Tensor | list[Tensor], frozenset[int]]:
    """The parameters, walked once where they are a generator, and their ids."""
    if isinstance(parameters, Tensor):
        return parameters, frozenset((id(parameters),))
    listed = list(parameters)
    return listed, frozenset(map(id, listed))


def _replace(old: Originals, new: Originals) -> None:
    """Put functions in place of others wherever a module holds them under their names."""
    for module in list(sys.modules.values()):
        if not isinstance(module, types.ModuleType) or module.__name__ == __name__:
            continue
        space = vars(module)
        for name in NAMES:
            if space.get(name) is old[name]:
                space[name] = new[name]
