"""Where a run comes from: versions, machine, commit, members; the content of its manifest."""

import dataclasses
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from playground.config import Config, Member
from playground.game import Player, Problem
from playground.record.columns import SCHEMA_VERSION

PACKAGES = ("torch", "numpy", "gymnasium", "hydra-core", "pyarrow", "gradient-playground")


def manifest(
    config: Config,
    problem: Problem,
    players: Mapping[str, Player],
    members: Sequence[Member],
    device: torch.device,
) -> dict[str, Any]:
    """What is worth knowing of a run besides its configuration."""
    return {
        "schema_version": SCHEMA_VERSION,
        "status": "running",
        "reason": "",
        "problem": config.problem.name,
        "main_metric": problem.main_metric,
        "higher_is_better": problem.higher_is_better,
        "players": {n: p.parameters.layout.size for n, p in players.items()},
        "tensors": {n: list(p.parameters.layout.names) for n, p in players.items()},
        "members": [dataclasses.asdict(m) for m in members],
        "resume": getattr(problem, "resume", "exact"),
        "device": str(device),
        "threads": config.threads,
        **environment(),
        "attempts": [],
    }


def environment() -> dict[str, Any]:
    """Versions, commit, machine and the time."""
    return {
        "versions": {"python": platform.python_version(), **_versions(PACKAGES)},
        "commit": _commit(),
        "machine": platform.machine(),
        "started": now(),
    }


def now() -> str:
    """The time, UTC, ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")  # noqa: UP017


def _versions(packages: Sequence[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def _commit() -> str:
    """The checkout's commit, empty where there is none."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:  # no git on this machine
        return ""
    return result.stdout.strip()
