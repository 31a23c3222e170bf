"""Modules are found where the documentation of 0.1 named them, with a warning."""

import importlib
import sys

import pytest

from playground.moved import MOVED, now

DEEPER = ("playground.sinks.export", "playground.sinks.mlflow")


@pytest.mark.parametrize("name", [*MOVED, *DEEPER])
def test_an_old_path_leads_to_the_module(name, monkeypatch):
    for known in [module for module in sys.modules if now(module)]:
        monkeypatch.delitem(sys.modules, known)
    with pytest.warns(DeprecationWarning, match="is now playground"):
        module = importlib.import_module(name)
    assert module is importlib.import_module(now(name))
    assert module.__name__ == now(name)
    assert importlib.import_module(name) is module


def test_the_warning_is_at_the_user_s_line():
    from playground.record.sinks import Sink as Now

    sys.modules.pop("playground.sinks", None)
    with pytest.warns(DeprecationWarning, match="playground.record.sinks") as told:
        from playground.sinks import Sink
    assert Sink is Now
    assert told[-1].filename == __file__


def test_what_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("playground.sinkz")
