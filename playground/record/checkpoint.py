"""Checkpoints and snapshots: whole or absent, never executed, checked before they are trusted.

``checkpoints/<iteration>.sum`` is written before ``<iteration>.pt``, so a file that stands there
has its checksum. ``torch.save`` into a path leaves a truncated file on a full disk; here it
writes to memory, and the bytes take their name when they are on the disk.
"""

import hashlib
import io
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from playground.record.atomic import RecordError, StrPath, remove, write_atomic

KEPT: Final = 2
PLAIN: Final = (bool, int, float, str, bytes, type(None))
"""What ``torch.load(weights_only=True)`` takes back besides tensors and containers."""


def save_checkpoint(
    directory: StrPath, iteration: int, content: dict[str, Any], *, keep: bool = False
) -> Path:
    """Write ``checkpoints/<iteration>.pt`` and its checksum; the newest two and kept ones stay.

    Flush the recorder first: a run resumed here repeats nothing that came before.

    Args:
        directory: the run's.
        iteration: completed iterations; files of later ones are superseded and removed.
        content: nested dicts, lists and tuples of tensors and plain Python values.
        keep: for good, by the empty file ``<iteration>.keep``.

    Raises:
        TypeError: a value that a checkpoint cannot hold, by its key; nothing was written.
        RecordError: the disk is full or the like; earlier checkpoints are untouched.
    """
    folder = Path(directory) / "checkpoints"
    _check_content(content, "")
    data = _to_bytes(content)
    path = folder / f"{iteration}.pt"
    digests = [hashlib.sha256(data).hexdigest()]
    if path.exists():  # until the rename, the file that is replaced must stay readable
        digests += _digests(path)[:1]
    lines = "".join(f"{digest}  {path.name}\n" for digest in digests)
    write_atomic(path.with_suffix(".sum"), lines.encode())
    if keep:
        write_atomic(path.with_suffix(".keep"), b"")
    write_atomic(path, data)
    found = _numbered(folder)
    before = [number for number in found if number <= iteration]
    kept = [n for n in before if n in before[-KEPT:] or (folder / f"{n}.keep").exists()]
    for number in found:
        if number not in kept:
            remove(folder / f"{number}.pt")
            remove(folder / f"{number}.sum")
            remove(folder / f"{number}.keep")
    return path


def load_checkpoint(
    directory: StrPath, latest: int | None = None
) -> tuple[int, dict[str, Any]] | None:
    """The newest checkpoint that is whole, as (iteration, content) on the CPU; None without any.

    With ``latest``, the newest of at most that many iterations.

    A broken one is skipped with a warning that names it.

    Raises:
        RecordError: there are checkpoints and none is readable.
    """
    folder = Path(directory) / "checkpoints"
    reasons = []
    numbers = [n for n in _numbered(folder) if latest is None or n <= latest]
    for number in reversed(numbers):
        path = folder / f"{number}.pt"
        try:
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() not in _digests(path):
                raise ValueError("its checksum does not hold")
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load raises what the broken bytes make it raise
            reasons.append(f"{path.name}: {_first_line(error)}")
            continue
        for reason in reasons:
            warnings.warn(f"broken checkpoint {folder / reason}; using {path.name}", stacklevel=2)
        return number, content
    if reasons:
        raise RecordError(f"no readable checkpoint in {folder} ({'; '.join(reasons)})")
    return None


def save_snapshot(
    directory: StrPath, iteration: int, players: Mapping[str, Tensor], best: bool = False
) -> Path:
    """Write the parameters {player: [M, N]} to ``snapshots/<iteration>.pt`` or ``best.pt``.

    Raises:
        RecordError: the disk is full or the like; an earlier best is untouched.
    """
    name = "best" if best else str(iteration)
    path = Path(directory) / "snapshots" / f"{name}.pt"
    # A view would be saved with the whole tensor that it looks at.
    values = {player: value.detach().cpu().clone() for player, value in players.items()}
    write_atomic(path, _to_bytes({"iteration": iteration, "players": values}))
    return path


def load_snapshot(directory: StrPath, iteration: int | None) -> tuple[int, dict[str, Tensor]]:
    """A snapshot as (iteration, {player: [M, N]}) on the CPU; ``None`` asks for the best one.

    Raises:
        RecordError: it is missing or broken.
    """
    name = "best" if iteration is None else str(iteration)
    path = Path(directory) / "snapshots" / f"{name}.pt"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        return int(content["iteration"]), dict(content["players"])
    except FileNotFoundError:
        raise RecordError(f"{path}: no such snapshot") from None
    except Exception as error:  # as in load_checkpoint
        raise RecordError(f"cannot read {path}: {_first_line(error)}") from error


def _numbered(folder: Path) -> list[int]:
    """Iterations of the checkpoints in a folder, ascending."""
    if not folder.is_dir():
        return []
    return sorted(int(path.stem) for path in folder.glob("*.pt") if path.stem.isdecimal())


def _digests(path: Path) -> list[str]:
    """The checksums that a checkpoint may have; empty where they are missing."""
    try:
        lines = path.with_suffix(".sum").read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return [line.split()[0] for line in lines if line.strip()]


def _to_bytes(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _check_content(value: Any, key: str) -> None:
    """Refuse at saving what could not be loaded: a NumPy value would spoil the checkpoint."""
    if isinstance(value, Tensor) or type(value) in PLAIN:
        return
    if type(value) in (dict, OrderedDict):
        for name, item in value.items():
            _check_content(name, f"{key} (key)")
            _check_content(item, f"{key}.{name}" if key else str(name))
    elif type(value) in (list, tuple, set):
        for index, item in enumerate(value):
            _check_content(item, f"{key}[{index}]")
    else:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise TypeError(f"checkpoint content {key or 'itself'}: {kind} cannot be stored")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
