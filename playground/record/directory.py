"""The directory of a run: made exclusively, written atomically, locked while a run writes it.

    config.yaml  manifest.json  records/  checkpoints/  snapshots/  arrays/  figures/

The lock belongs to the process, not to a file that may go stale: the kernel releases it when
the process dies, so a killed run can be resumed at once and a live one cannot be.
"""

import fcntl
import os
import re
import secrets
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from playground.record.atomic import (
    RecordError,
    StrPath,
    sweep_temporary,
    sync_folder,
    write_atomic,
)
from playground.record.formats import dump_json, dump_yaml, load_json, load_yaml

__all__ = [
    "RecordError",
    "RunDirectory",
    "RunExists",
    "RunLocked",
    "check_name",
    "check_run_dir",
    "write_atomic",
]

FOLDERS = ("records", "checkpoints", "snapshots", "arrays", "figures")
SAFE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


class RunLocked(RecordError):
    """Another process writes this run."""


class RunExists(RecordError):
    """The directory asked for is already in use."""


def check_name(name: str) -> str:
    """Return a name that is safe as a file name.

    Raises:
        RecordError: it has other characters than letters, digits, ``.``, ``_`` and ``-``, or
            starts with a dot.
    """
    if not SAFE_NAME.fullmatch(name):
        raise RecordError(
            f"name {name!r}: allowed are letters, digits, '.', '_' and '-', no dot at the start"
        )
    return name


class RunDirectory:
    """A run's directory; every path function of this package takes it.

    Attributes:
        path: the directory.
    """

    def __init__(self, path: StrPath) -> None:
        self.path = Path(path)
        self._lock: weakref.finalize[[int], RunDirectory] | None = None

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"RunDirectory({str(self.path)!r})"

    @classmethod
    def create(
        cls, name: str, run_dir: StrPath | None = None, root: StrPath = "runs"
    ) -> "RunDirectory":
        """Make ``<root>/<date>/<time>-<name>-<id>``, or ``run_dir``, and lock it.

        A slash in the name (``gan/ring``) becomes a dash. The lock is handed over to the
        first ``locked()``.

        Raises:
            RunExists: ``run_dir`` exists and is not empty.
            RecordError: an unsafe name, or the directory cannot be made.
        """
        directory = cls(_make_unique(name, root) if run_dir is None else _make_given(run_dir))
        directory.lock()
        if not _is_vacant(directory.path):  # another process was between check and lock
            directory.release()
            raise RunExists(f"{directory.path}: exists and is not empty")
        with _os_errors(directory.path):
            for folder in FOLDERS:
                (directory.path / folder).mkdir(exist_ok=True)
            sync_folder(directory.path.parent)
        return directory

    @classmethod
    def create_sweep(
        cls,
        run_dir: StrPath | None,
        overrides: Sequence[str],
        jobs: Sequence[Sequence[str]] | None = None,
        root: StrPath = "runs",
    ) -> Path:
        """Make the folder of a sweep with its ``sweep.yaml``, or return the same sweep's folder.

        Args:
            run_dir: the folder, or None for a unique one below ``root``.
            overrides: the command's, with their lists of values.
            jobs: each job's own overrides; what ``Sweep.runs`` shows.
            root: where unique folders are made.

        Raises:
            RunExists: ``run_dir`` holds something else, or a sweep of another command.
        """
        given = dict(item.split("=", 1) for item in overrides if "=" in item)
        name = given.get("name") or given.get("problem") or "sweep"
        if not SAFE_NAME.fullmatch(_dashed(name)):
            name = "sweep"
        path = _make_unique(name, root) if run_dir is None else _make_given(run_dir, "sweep.yaml")
        if (path / "sweep.yaml").exists():
            before = load_yaml(path / "sweep.yaml").get("overrides")
            if before != list(overrides):
                raise RunExists(f"{path}: holds the sweep {' '.join(before or [])}")
            return path
        content: dict[str, Any] = {"overrides": list(overrides)}
        if jobs is not None:
            content["jobs"] = [list(job) for job in jobs]
        write_atomic(path / "sweep.yaml", dump_yaml(content))
        return path

    @classmethod
    def open(cls, path: StrPath) -> "RunDirectory":
        """An existing run's directory, not locked.

        Raises:
            RecordError: there is no such directory, or it is not a run's.
        """
        directory = cls(path)
        if not directory.path.is_dir():
            raise RecordError(f"{directory.path}: no such run")
        if not (directory.path / "manifest.json").is_file():
            raise RecordError(f"{directory.path}: not a run (it has no manifest.json)")
        return directory

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write ``config.yaml``, atomically."""
        write_atomic(self.path / "config.yaml", dump_yaml(config))

    def read_config(self) -> dict[str, Any]:
        """The content of ``config.yaml``.

        Raises:
            RecordError: it is missing or unreadable.
        """
        return load_yaml(self.path / "config.yaml")

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write ``manifest.json``, atomically; non-finite numbers become strings."""
        write_atomic(self.path / "manifest.json", dump_json(manifest))

    def read_manifest(self) -> dict[str, Any]:
        """The content of ``manifest.json``.

        Raises:
            RecordError: it is missing or unreadable.
        """
        return load_json(self.path / "manifest.json")

    def update_manifest(self, **changes: Any) -> dict[str, Any]:
        """Change some keys of ``manifest.json`` and return the whole."""
        manifest = {**self.read_manifest(), **changes}
        self.write_manifest(manifest)
        return manifest

    @contextmanager
    def locked(self) -> Iterator[Self]:
        """Hold the lock for a block; takes over the lock that ``create`` left.

        Raises:
            RunLocked: another process writes this run.
        """
        if self._lock is None:
            self.lock()
        try:
            yield self
        finally:
            self.release()

    def lock(self) -> None:
        """Take the exclusive lock and clean up what a killed writer left.

        Raises:
            RunLocked: another process, or another object in this one, holds it.
        """
        with _os_errors(self.path):
            descriptor = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        except BlockingIOError:
            writer = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise RunLocked(f"{self.path}: process {writer or '?'} writes this run") from None
        except OSError as error:
            os.close(descriptor)
            raise RecordError(f"cannot lock {self.path}: {error.strerror}") from error
        self._lock = weakref.finalize(self, os.close, descriptor)
        _HELD.add(self)
        for folder in (".", *FOLDERS[:-1]):  # figures may be drawn by others at any time
            sweep_temporary(self.path / folder)

    def release(self) -> None:
        """Give the lock back; without one, nothing happens."""
        if self._lock is not None:
            self._lock()
            self._lock = None
            _HELD.discard(self)


_HELD: "weakref.WeakSet[RunDirectory]" = weakref.WeakSet()


def _release_in_child() -> None:
    """A forked worker that outlives its parent must not keep the parent's run locked."""
    for directory in list(_HELD):
        directory.release()


os.register_at_fork(after_in_child=_release_in_child)


@contextmanager
def _os_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RecordError(f"cannot make {path}: {error.strerror or error}") from error


def _dashed(name: str) -> str:
    return name.replace("/", "-")


def _make_unique(name: str, root: StrPath) -> Path:
    name = check_name(_dashed(name))
    parent = Path(root) / time.strftime("%Y-%m-%d")
    with _os_errors(parent):
        parent.mkdir(parents=True, exist_ok=True)
        while True:
            path = parent / f"{time.strftime('%H-%M-%S')}-{name}-{secrets.token_hex(3)}"
            try:
                path.mkdir()
            except FileExistsError:
                continue
            return path


def _make_given(path: StrPath, marker: str | None = None) -> Path:
    path = Path(path)
    if path.exists() and not (marker and (path / marker).exists()) and not _is_vacant(path):
        raise RunExists(f"{path}: exists and is not empty")
    with _os_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def check_run_dir(path: StrPath) -> None:
    """Refuse a folder for a new run without touching it.

    Raises:
        RunExists: it exists and is not empty.
    """
    path = Path(path)
    if path.exists() and not _is_vacant(path):
        raise RunExists(f"{path}: exists and is not empty")


def _is_vacant(path: Path) -> bool:
    """Empty, or left by a run that was killed before it had a manifest."""
    if not path.is_dir():
        return False
    names = {entry.name for entry in path.iterdir() if not entry.name.endswith(".tmp")}
    if not names:
        return True
    ours = ".lock" in names and names <= {".lock", "config.yaml", *FOLDERS}
    return ours and not any(any((path / f).iterdir()) for f in FOLDERS if f in names)
