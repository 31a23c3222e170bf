"""``playground.watch`` as a callback of other libraries, each imported when it is asked for.

from playground.callbacks import StableBaselines3
model.learn(100_000, callback=StableBaselines3())

from playground.callbacks import Lightning
Trainer(callbacks=[Lightning()])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playground.watching.lightning import Lightning
    from playground.watching.stable_baselines3 import StableBaselines3

__all__ = ["Lightning", "StableBaselines3"]


def __getattr__(name: str) -> Any:
    """Import a callback with its library.

    Raises:
        AttributeError: no such callback.
        ImportError: the library is not installed; the message names the extra that has it.
    """
    if name not in __all__:
        raise AttributeError(f"module 'playground.callbacks' has no attribute {name!r}")
    module, extra = {
        "Lightning": ("lightning", "lightning"),
        "StableBaselines3": ("stable_baselines3", "bench"),
    }[name]
    try:
        return getattr(import_module(f"playground.watching.{module}"), name)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"playground.callbacks.{name} needs {error.name}: "
            f"pip install 'gradient-playground[{extra}]'"
        ) from error
