"""Worker processes, each with a chunk of environments.

A worker is a fresh interpreter: nothing is forked, and a script that starts a run needs no
``if __name__ == "__main__"``. Who restarts when, and with which seed, stays in this process,
so that transitions are those of one process, and a run resumes as exactly.
"""

import contextlib
import itertools
import os
import pickle
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import numpy as np

from playground.domains.rl.environments.protocol import Step
from playground.domains.rl.environments.worker import Env, ObservationSpace

COMMAND = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from playground.domains.rl.environments.worker import serve; serve()"
)


class WorkerFailed(RuntimeError):
    """An environment raised an error in its worker process."""


class Pool:
    """What a ``worker.Chunk`` does, by several processes at once.

    Raises:
        WorkerFailed: with the worker's traceback.
    """

    def __init__(
        self,
        make: Callable[[], Env],
        count: int,
        space: ObservationSpace,
        renew: bool,
        workers: int,
    ) -> None:
        workers = min(workers, count)
        bounds = [count * k // workers for k in range(workers + 1)]
        self.parts = [slice(a, b) for a, b in itertools.pairwise(bounds)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-c", COMMAND], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                env=environment,
            )
            for _ in self.parts
        ]  # fmt: skip
        self._finalizer = weakref.finalize(self, end, self.processes)
        recipe = cloudpickle.dumps(make)
        for process in self.processes:
            send(process, [path or os.getcwd() for path in sys.path])
        self._ask("make", [(recipe, p.stop - p.start, space, renew) for p in self.parts])

    def step(self, actions: np.ndarray, seeds: np.ndarray) -> Step:
        """See ``worker.Chunk.step``."""
        answers = self._ask("step", [(actions[part], seeds[part]) for part in self.parts])
        observation, reward, terminated, truncated = map(np.concatenate, zip(*answers, strict=True))
        return observation, reward, terminated, truncated

    def replay(self, seeds: np.ndarray, actions: Sequence[np.ndarray]) -> np.ndarray:
        """See ``worker.Chunk.replay``."""
        answers = self._ask("replay", [(seeds[part], actions[part]) for part in self.parts])
        return np.concatenate(answers)

    def close(self) -> None:
        """End the processes."""
        self._finalizer()

    def _ask(self, name: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """One request to every worker at once; their answers."""
        for process, own in zip(self.processes, arguments, strict=True):
            send(process, (name, own))
        answers = [receive(process) for process in self.processes]
        for right, answer in answers:
            if not right:
                raise WorkerFailed(answer)
        return [answer for _, answer in answers]


def send(process: "subprocess.Popen[bytes]", message: Any) -> None:
    """A pickled message to a process."""
    assert process.stdin is not None
    try:
        pickle.dump(message, process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
        process.stdin.flush()
    except BrokenPipeError as error:
        raise WorkerFailed(f"an environment worker ended with code {process.wait()}") from error


def receive(process: "subprocess.Popen[bytes]") -> Any:
    """A pickled message from a process."""
    assert process.stdout is not None
    try:
        return pickle.load(process.stdout)
    except EOFError as error:
        raise WorkerFailed(f"an environment worker ended with code {process.wait()}") from error


def end(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Let the processes end: their input does."""
    for process in processes:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
    for process in processes:
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
