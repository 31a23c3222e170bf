"""Hooks before and after an optimizer's step, whether or not it calls a closure.

Torch calls the hooks in ``step`` of every class that has an instance: where a class of one's own
calls ``super().step()`` they are called twice. The outermost call counts, known by its frame.
"""

import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import torch
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

HOME = sys.modules[Optimizer.__module__].__file__
"""Where torch calls hooks from."""


def attach(
    optimizer: Optimizer, before: Callable[[], None], after: Callable[[int], None]
) -> list[RemovableHandle]:
    """Hang two functions on the optimizer's public hooks.

    Args:
        optimizer: whose ``step`` is watched.
        before: called when the gradient is there: before the step, or after the first call of
            the closure that the step is given.
        after: called after the step, with how often it called the closure.
    """
    calls = [0]
    outermost: list[FrameType | None] = [None]

    def pre(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if outermost[0] is not None and outermost[0] in stack():
            return None
        outermost[0] = next(frame for frame in stack() if frame.f_code.co_filename == HOME)
        calls[0] = 0
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if not callable(closure):
            before()
            return None

        def looked(*given: Any, **options: Any) -> Any:
            value = closure(*given, **options)
            calls[0] += 1
            if calls[0] == 1:
                before()
            return value

        if "closure" in kwargs:
            return args, {**kwargs, "closure": looked}
        return (args[0], looked, *args[2:]), kwargs

    def post(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if next(frame for frame in stack() if frame.f_code.co_filename == HOME) is outermost[0]:
            outermost[0] = None
            after(calls[0])

    apart = torch.compiler.disable  # where somebody compiles the step
    return [
        optimizer.register_step_pre_hook(apart(pre)),  # type: ignore[no-untyped-call]
        optimizer.register_step_post_hook(apart(post)),  # type: ignore[no-untyped-call]
    ]


def stack() -> Iterator[FrameType]:
    """Frames from the caller's outwards."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back
