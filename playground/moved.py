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
    "playground.sinks.export": "playground.record.sinks.export",
    "playground.domains.rl.mdp": "playground.domains.rl.environments.mdp",
    "playground.domains.rl.moments": "playground.domains.rl.exact.moments",
    "playground.domains.rl.tabular": "playground.domains.rl.environments.tabular",
}
"""{where a module was: where it is}."""


class Moved(MetaPathFinder, Loader):
    """Finds modules where they were, with a DeprecationWarning that says where they are."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Of a module that was moved, else None."""
        return ModuleSpec(name, self, is_package=True) if name in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        """Put the module that it is now in the place of an empty one."""
        name = module.__name__
        warnings.warn(f"{name} is now {MOVED[name]}", DeprecationWarning, stacklevel=2)
        sys.modules[name] = import_module(MOVED[name])


def install() -> None:
    """Once a process, behind all other finders."""
    if not any(isinstance(finder, Moved) for finder in sys.meta_path):
        sys.meta_path.append(Moved())
