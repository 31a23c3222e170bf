"""The two text formats of a run: YAML for what people write, JSON for what programs write."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from playground.record.atomic import RecordError


def dump_json(content: Mapping[str, Any]) -> bytes:
    """A mapping as JSON; NumPy numbers become Python's, non-finite ones strings."""
    return json.dumps(_plain(content), indent=1, allow_nan=False).encode()


def load_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file.

    Raises:
        RecordError: it is missing or unreadable.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RecordError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise RecordError(f"cannot read {path}: not a mapping")
    return content


def dump_yaml(content: Mapping[str, Any]) -> bytes:
    """A mapping as YAML."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(dict(content))).encode()


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, interpolations left as they are.

    Raises:
        RecordError: it is missing or unreadable.
    """
    from omegaconf import OmegaConf

    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except Exception as error:  # the YAML library's errors share no base class
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RecordError(f"cannot read {path}: {reason}") from error
    if not isinstance(content, dict):
        raise RecordError(f"cannot read {path}: not a mapping")
    return content


def _plain(value: Any) -> Any:
    """What JSON can hold: NumPy numbers become Python's, NaN and infinities strings."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)
