"""Modules that the documentation named and that lie elsewhere now; found for one version."""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "playground.sinks": "playground.record.sinks",
    "playground.domains.rl.mdp": "playground.domains.rl.environments.mdp",
    "playground.domains.rl.moments": "playground.domains.rl.exact.moments",
    "playground.domains.rl.tabular": "playground.domains.rl.environments.tabular",
}
"""{where a module was: where it is}; what lies in a package goes with it."""


def now(name: str) -> str | None:
    """Where a module is that was moved, else None."""
    for old, new in MOVED.items():
        if name == old or name.startswith(f"{old}."):
            return new + name.removeprefix(old)
    return None


class Moved(MetaPathFinder, Loader):
    """Finds modules where they were, with a DeprecationWarning that says where they are."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Of a module that was moved, else None."""
        return ModuleSpec(name, self, is_package=True) if now(name) else None

    def exec_module(self, module: ModuleType) -> None:
        """Put the module that it is now in the place of an empty one."""
        name, place = module.__name__, now(module.__name__)
        assert place is not None
        warnings.warn(f"{name} is now {place}", DeprecationWarning, stacklevel=2)
        sys.modules[name] = import_module(place)


def install() -> None:
    """Once a process, before the finder that would read a package's files a second time."""
    if not any(isinstance(finder, Moved) for finder in sys.meta_path):
        sys.meta_path.insert(0, Moved())
