"""Runs of a study side by side: a process each, begun, gone on with, or read where finished."""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Self

from playground.schema import ConfigError
from playground.signals import Interrupted, Signals

if TYPE_CHECKING:
    from playground.record.reader import Run

LOOK_SECONDS = 0.5
"""From one look for a signal to the next (ours)."""

Task = tuple[Path, Sequence[str]]
"""A run's folder and overrides."""


def finished(path: Path) -> bool:
    """Whether a folder holds a run that came to its end."""
    from playground.record.directory import RunDirectory

    if not (path / "manifest.json").exists():
        return False
    return RunDirectory.open(path).read_manifest().get("status") == "finished"


def go_on(path: Path, overrides: Sequence[str]) -> "Run":
    """A run in its folder: begun, gone on with, or read where it is finished."""
    from playground.composition import quoted
    from playground.record.reader import Run
    from playground.run import run

    if finished(path):
        return Run(path)
    begun = (path / "manifest.json").exists()
    rest = [f"resume={quoted(path)}"] if begun else [*overrides, f"run_dir={quoted(path)}"]
    return run(rest, quiet=True)


def side_by_side(
    tasks: Mapping[str, Task],
    jobs: int,
    say: Callable[[str], None],
    after: Mapping[str, str] | None = None,
) -> None:
    """Finish all runs, at most ``jobs`` at once; one at a time in this process.

    Args:
        tasks: by name, in the order in which they begin.
        jobs: at least 1.
        say: called with a run's name when it begins.
        after: {run: another that must have ended before}.

    Raises:
        ConfigError, RunFailed, RecordError: a run stopped; those beside it were finished and no
            other was begun.
        Interrupted: by a signal, which the runs got too; they have saved what they had.
    """
    waiting = {name: task for name, task in tasks.items() if not finished(task[0])}
    if min(jobs, len(waiting)) <= 1:
        for name, task in waiting.items():
            say(name)
            go_on(*task)
        return
    crew = Workers(min(jobs, len(waiting)))
    needed, error = dict(after or {}), None
    with Signals() as signals, crew:
        while crew.running or waiting:
            busy = {*waiting, *crew.running.values()}
            for name in [name for name in waiting if needed.get(name) not in busy]:
                if crew.idle:
                    say(name)
                    crew.give(name, waiting.pop(name))
            ended = crew.look()
            error = error or ended
            if signals.number is not None and not isinstance(error, Interrupted):
                error = Interrupted(signals.number)
                crew.signal(signals.number)
            if error is not None:
                waiting.clear()
    if error is not None:
        raise error


class Workers:
    """Processes that each do one run after the other, until this end of their pipes closes.

    They are in sessions of their own, so that Ctrl-C reaches them once, through ``signal``.

    Attributes:
        idle: ends of the pipes of those without a run.
        running: the name of the run of each of the others.
    """

    def __init__(self, size: int) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would share threads and devices
        self.processes: dict[Connection, BaseProcess] = {}
        for _ in range(size):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs,))
            process.start()
            theirs.close()
            self.processes[ours] = process
        self.idle, self.running = list(self.processes), dict[Connection, str]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self.processes:
            pipe.close()
        for process in self.processes.values():
            process.join()

    def give(self, name: str, task: Task) -> None:
        """Let somebody idle begin a run."""
        pipe = self.idle.pop()
        pipe.send(task)
        self.running[pipe] = name

    def look(self) -> Exception | None:
        """Wait a little for a run to end; what stopped it, if anything did."""
        from playground.session import RunFailed

        error: Exception | None = None
        for pipe in wait(list(self.running), LOOK_SECONDS):
            assert isinstance(pipe, Connection)
            name = self.running.pop(pipe)
            try:
                error = pipe.recv() or error
                self.idle.append(pipe)
            except EOFError:
                error = RunFailed(f"{name}: its process was killed; go on with the same folder")
        return error

    def signal(self, number: int) -> None:
        """Let all have a signal that this process got."""
        for process in self.processes.values():
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, number)


def serve(pipe: Connection) -> None:
    """Do the runs that come through a pipe; send what stopped each, None where nothing did.

    It ends when the other end of the pipe closes, also where that process was killed.
    """
    from playground.record.directory import RecordError
    from playground.session import RunFailed

    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM):  # a run has handlers of its own
        signal.signal(number, _interrupt)
    with suppress(EOFError, BrokenPipeError, Interrupted):
        while True:
            task, stopped = pipe.recv(), None
            try:
                go_on(*task)
            except (ConfigError, RunFailed, RecordError, Interrupted) as error:
                stopped = error
            except Exception as error:  # a defect, and not every exception can be sent
                traceback.print_exc()
                stopped = RunFailed(f"{type(error).__name__}: {error}")
            pipe.send(stopped)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    raise Interrupted(number)
