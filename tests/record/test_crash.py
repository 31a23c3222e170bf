"""Real processes: killed while they write, read while they write, stopped by the kernel."""

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from playground.record.checkpoint import load_checkpoint
from playground.record.directory import RunDirectory
from playground.record.reader import Run
from playground.record.writer import Recorder, compact

BLOCK = 200

WRITE = f"""
import sys
import numpy as np
from playground.record.directory import RunDirectory
from playground.record.writer import Recorder
directory = RunDirectory.open(sys.argv[1])
with directory.locked():
    recorder, start = Recorder(directory, int(sys.argv[2])), int(sys.argv[3])
    for i in range(start, start + 10**6):
        rows = np.arange(i * {BLOCK}, (i + 1) * {BLOCK})
        recorder.add("metrics", {{"iteration": rows, "value": rows, "name": "x"}})
        recorder.flush()
        print(i, flush=True)
"""

CHECKPOINT = """
import sys
import torch
from playground.record.checkpoint import save_checkpoint
for i in range(1, 10**6):
    save_checkpoint(sys.argv[1], i, {"x": torch.full((200_000,), i)})
    print(i, flush=True)
"""

LIMITED = """
import resource, signal, sys
import numpy as np
import torch
from playground.record.checkpoint import save_checkpoint
from playground.record.directory import RecordError
from playground.record.writer import Recorder
path = sys.argv[1]
recorder = Recorder(path, 0)
recorder.add("metrics", {"iteration": 1, "value": 1.0})
recorder.flush()
save_checkpoint(path, 1, {"x": torch.zeros(10)})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, resource.RLIM_INFINITY))
recorder.add("metrics", {"iteration": 2, "value": np.random.default_rng(0).random(100_000)})
for action in (recorder.flush, lambda: save_checkpoint(path, 2, {"x": torch.rand(100_000)})):
    try:
        action()
        sys.exit("no error")
    except RecordError as error:
        print(error)
"""


@contextmanager
def worker(
    script: str, environment: dict[str, str], *arguments: object
) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def acknowledged(process: subprocess.Popen[str], seconds: float) -> int:
    """Let it work for some time after its first line, kill -9 it; the last line it wrote."""
    assert process.stdout is not None
    first = process.stdout.readline()
    time.sleep(seconds)
    process.kill()
    lines = [first, *process.stdout.read().split("\n")]
    return int([line for line in lines if line.strip()][-1])


def test_kill_loses_no_flushed_row(directory: RunDirectory, environment: dict[str, str]) -> None:
    """Four attempts, each killed at random and gone on from a checkpoint before its end."""
    chance = random.Random(0)
    starts, begin = [0], 0
    for attempt in range(4):
        with worker(WRITE, environment, directory.path, attempt, begin) as process:
            last = acknowledged(process, chance.uniform(0.0, 0.3))
        rows = Run(directory.path).metrics["iteration"].to_pylist()
        assert rows == list(range(len(rows)))
        assert len(rows) in ((last + 1) * BLOCK, (last + 2) * BLOCK)
        begin = chance.randint(begin, last + 1)
        starts.append(begin * BLOCK - 1)
        directory.update_manifest(attempts=[{"start_iteration": s} for s in starts])
    with directory.locked():
        with Recorder(directory, 4) as recorder:
            recorder.add("metrics", {"iteration": begin * BLOCK})
        assert not list(directory.path.rglob("*.tmp"))
        compact(directory)
    rows = Run(directory.path).metrics["iteration"].to_pylist()
    assert rows == list(range(begin * BLOCK + 1))


def test_live_read_of_another_process(directory: RunDirectory, environment: dict[str, str]) -> None:
    run = Run(directory.path)
    counts: list[int] = []
    with worker(WRITE, environment, directory.path, 0, 0) as process:
        assert process.stdout is not None
        process.stdout.readline()
        deadline = time.monotonic() + 30
        while len(set(counts)) < 10 and time.monotonic() < deadline:
            rows = run.metrics["iteration"].to_pylist()
            assert rows == list(range(len(rows)))
            counts.append(len(rows))
    assert counts == sorted(counts)
    assert len(set(counts)) == 10


def test_live_read_during_compactions(directory: RunDirectory, environment: dict[str, str]) -> None:
    script = """
import sys
from playground.record.reader import Run
for i in range(10**6):
    rows = Run(sys.argv[1]).metrics["iteration"].to_pylist()
    assert rows == list(range(len(rows))), rows
    print(len(rows), flush=True)
"""
    with worker(script, environment, directory.path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        for attempt in range(8):
            attempts = directory.read_manifest()["attempts"]
            attempts.append({"start_iteration": attempt * 10 - 1})
            directory.update_manifest(attempts=attempts)
            with Recorder(directory, attempt + 1) as recorder:
                for i in range(attempt * 10, attempt * 10 + 10):
                    recorder.add("metrics", {"iteration": i})
                    recorder.flush()
            compact(directory)
        counts = [0]
        while counts[-1] < 80:
            counts.append(int(process.stdout.readline() or pytest.fail("the reader failed")))
    assert counts == sorted(counts)


def test_kill_leaves_a_checkpoint(directory: RunDirectory, environment: dict[str, str]) -> None:
    for seconds in (0.03, 0.11):
        with worker(CHECKPOINT, environment, directory.path) as process:
            last = acknowledged(process, seconds)
        found = load_checkpoint(directory)
        assert found is not None
        assert found[0] in (last, last + 1)
        assert (found[1]["x"] == found[0]).all()


def test_file_size_limit_of_the_kernel(
    directory: RunDirectory, environment: dict[str, str]
) -> None:
    """A real short write: no file may grow beyond 64 kB."""
    command = [sys.executable, "-c", LIMITED, str(directory.path)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    assert str(directory.path / "records") in result.stdout
    assert str(directory.path / "checkpoints") in result.stdout
    assert not list(directory.path.rglob("*.tmp"))
    assert Run(directory.path).metrics["value"].to_pylist() == [1.0]
    found = load_checkpoint(directory)
    assert found is not None
    assert found[0] == 1


@pytest.mark.parametrize("number", [28, 30])
def test_a_run_that_cannot_write_is_still_readable(
    directory: RunDirectory, fail, number: int
) -> None:
    with Recorder(directory, 0) as recorder:
        recorder.add("metrics", {"iteration": 1, "value": 1.0})
    for name in ("fsync", "replace", "ftruncate"):
        fail(name, number)
    assert Run(directory.path).metrics.num_rows == 1
