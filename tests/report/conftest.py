from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from playground import load
from playground.record.arrays import save_array
from playground.record.directory import RunDirectory
from playground.record.reader import Run
from playground.record.writer import Recorder, compact

PLAYERS = {"model": ["0.weight", "0.bias", "2.weight"]}


def decay(time: np.ndarray, member: np.ndarray) -> np.ndarray:
    """A quantity [T, M] that falls, a little differently for each member."""
    return (1.0 + 0.1 * member[None, :]) * np.exp(-time[:, None] / 20.0)


def write(
    path: Path,
    *,
    problem: str = "supervised/digits",
    metric: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] | None = None,
    higher: bool = False,
    players: Mapping[str, Sequence[str]] = PLAYERS,
    members: Sequence[Mapping[str, Any]] | int = 2,
    iterations: int = 30,
    rounds: int = 2,
    every: int = 1,
    norm: Callable[[np.ndarray, np.ndarray], np.ndarray] = decay,
    config: Mapping[str, Any] | None = None,
    events: Sequence[tuple[int, int]] = (),
    arrays: Mapping[str, Mapping[int, np.ndarray]] | None = None,
    gradients: bool = True,
    status: str = "finished",
) -> Run:
    """Write a run of known numbers with the recorder; the first metric is the main one."""
    if isinstance(members, int):
        members = [{"index": k, "seed": k, "values": {}} for k in range(members)]
    metric = metric or {"accuracy": decay}
    directory = RunDirectory.create("x", path)
    optimizer = {"name": "adam", "lr": 0.001}
    base = {"problem": {"name": problem}, "optimizer": optimizer, "players": {},
            "probes": {"name": "light", "every": every}}  # fmt: skip
    directory.write_config({**base, **(config or {})})
    directory.write_manifest({
        "schema_version": 1, "status": status, "problem": problem, "higher_is_better": higher,
        "main_metric": next(iter(metric)), "players": {p: 10 for p in players},
        "tensors": {p: list(t) for p, t in players.items()}, "members": list(members),
        "attempts": [{"start_iteration": 0}],
    })  # fmt: skip
    recorder = Recorder(directory, 0)
    member, time = np.arange(len(members)), np.arange(iterations + 1)
    for name, function in metric.items():
        add_metric(recorder, "", name, time, function(time, member))
    for player in players:
        add_metric(recorder, player, "loss", time[1:], decay(time[1:], member))
        if gradients:
            add_gradients(
                recorder, player, players[player], iterations, rounds, every, norm, member
            )
    for iteration, index in events:
        row = {"iteration": [iteration], "member": [index], "kind": ["nonfinite"],
               "message": ["non-finite gradient"], "evidence": [""]}  # fmt: skip
        recorder.add("events", row)
    for name, known in (arrays or {}).items():
        for iteration, array in known.items():
            save_array(directory, name, iteration, array)
    recorder.flush()
    if status == "finished":
        recorder.close()
        compact(directory)
    directory.release()
    run = load(path)
    assert isinstance(run, Run)
    return run


def add_metric(
    recorder: Recorder, player: str, name: str, time: np.ndarray, values: np.ndarray
) -> None:
    rows = values.size
    recorder.add("metrics", {
        "iteration": np.repeat(time, values.shape[1]), "value": values.ravel(),
        "env_steps": 100 * np.repeat(time, values.shape[1]),
        "member": np.tile(np.arange(values.shape[1]), len(time)),
        "player": [player] * rows, "name": [name] * rows,
    })  # fmt: skip


def add_gradients(
    recorder: Recorder,
    player: str,
    tensors: Sequence[str],
    iterations: int,
    rounds: int,
    every: int,
    norm: Callable[[np.ndarray, np.ndarray], np.ndarray],
    member: np.ndarray,
) -> None:
    """Whole-player norms at every update, all tensors and taps at one update in ``every``."""
    update = np.arange(1, iterations * rounds + 1)
    full = norm(update, member)
    for place, tensor in enumerate(["", *tensors]):
        kept = np.ones(len(update), bool) if not tensor else update % every == 0
        shape = full[kept].shape
        common = {
            "update": np.repeat(update[kept], shape[1]),
            "iteration": np.repeat((update[kept] - 1) // rounds + 1, shape[1]),
            "member": np.tile(member, shape[0]), "player": player,
            "tensor": tensor,
        }  # fmt: skip
        measured = np.repeat(update[kept] % every == 0, shape[1])
        value = (full[kept] * 0.5**place).ravel()
        cosine = np.cos(np.nan_to_num(value, posinf=0))
        null = {name: ~measured for name in ("cosine_previous", "nonfinite")}
        recorder.add(
            "gradients",
            {**common, "tap": "gradient", "norm": value, "nonfinite": 1.0 * ~np.isfinite(value),
             "cosine_previous": cosine}, null,
        )  # fmt: skip
        part = {key: v[measured] if np.ndim(v) else v for key, v in common.items()}
        recorder.add("gradients", {
            **part, "tap": "update", "norm": 0.01 * value[measured],
            "ratio": 0.001 * value[measured], "alignment": cosine[measured],
            "learning_rate": np.full(int(measured.sum()), 0.001),
        })  # fmt: skip


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., Run]:
    """Writes a run of known numbers below the test's folder: ``record("name", **options)``."""

    def make(name: str = "run", **options: Any) -> Run:
        return write(tmp_path / name, **options)

    return make
