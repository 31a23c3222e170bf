import os
from collections.abc import Callable
from pathlib import Path

import pytest

import playground
from playground.record.directory import RunDirectory


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    """A run with one attempt, not locked."""
    result = RunDirectory.create("test", tmp_path / "run")
    result.write_config({"seed": 0})
    result.write_manifest(
        {"schema_version": 1, "status": "running", "members": [{"seed": 0}], "attempts": []}
    )
    result.update_manifest(attempts=[{"start_iteration": 0}])
    result.release()
    return result


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``fail("fsync", 28)`` makes os.fsync raise that error from the n-th call on."""

    def inject(name: str, number: int = 28, after: int = 0) -> None:
        real, calls = getattr(os, name), iter(range(10**9))

        def broken(*arguments: object, **options: object) -> object:
            if next(calls) < after:
                return real(*arguments, **options)
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, name, broken)

    return inject


@pytest.fixture
def environment() -> dict[str, str]:
    """For subprocesses that import the package."""
    return {**os.environ, "PYTHONPATH": str(Path(playground.__file__).parents[1])}
