"""What the tests of the core share: tiny configurations, quiet runs, comparisons, processes."""

import multiprocessing
import os
import random
import resource
import signal
import sys
import time
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import playground
from playground.assembly import assemble
from playground.config import Config, compose
from playground.engine import Engine
from playground.game import Context, Evaluation, Move, Outcomes, Player, Problem, Round
from playground.optim.optimizer import Optimizer
from playground.optim.steppers.config import STEPPERS, StepperConfig
from playground.parameters import Layout, Parameters
from playground.probes.tier0.probe import Norms
from playground.randomness import Streams
from playground.record.checkpoint import load_checkpoint
from playground.record.reader import Run
from playground.session import Session
from playground.signals import Interrupted

SMALL_GAN = [
    "problem.generator_widths=[8]", "problem.discriminator_widths=[8]", "problem.batch_size=16",
    "problem.evaluation_samples=100",
]  # fmt: skip
SMALL_RL = [
    "problem=rl/cartpole", "problem.num_envs=2", "problem.widths=[8]",
    "problem.evaluation_episodes=2",
]  # fmt: skip
SMALL_PPO = ["algorithm.num_steps=16", "algorithm.batch_size=16", "algorithm.epochs=2"]

TINY: dict[str, list[str]] = {
    "landscape": ["problem=landscape/rosenbrock", "problem.noise=0.1", "problem.start=random"],
    "game": [
        "problem=landscape/quadratic_game", "problem.rounds=alternating", "problem.noise=0.1",
        "optimizer=momentum", "stepper=extragradient",
    ],
    "supervised": [
        "problem=supervised/two_moons", "problem.samples=100", "problem.test_samples=50",
        "problem.widths=[8]", "problem.batch_size=32", "optimizer=momentum", "optimizer.lr=0.1",
        "optimizer.clip_norm=0.5",
    ],
    "gan": [
        "problem=gan/ring", *SMALL_GAN, "penalty.r1=0.5", "optimizer=adam", "optimizer.lr=1e-3",
        "optimizer.schedule=constant",
    ],
    "dirac": ["problem=gan/dirac", "problem.rounds=simultaneous"],
    "ppo": [*SMALL_RL, *SMALL_PPO],
    "reinforce": [*SMALL_RL, "algorithm=reinforce", "algorithm.value_updates=3"],
}  # fmt: skip
"""A small configuration of every domain; together they use every kind of state."""

SPREAD = [
    pytest.param(name, marks=() if name in ("supervised", "gan", "ppo") else pytest.mark.slow)
    for name in TINY
]
"""All of ``TINY``, one a kind without ``slow``: for what ``test_invariants`` holds of all too."""


def quiet(overrides: Sequence[str], path: Path, problem: Problem | None = None) -> Run:
    """A run into ``path`` without a word."""
    return playground.run([*overrides, f"run_dir={path}"], problem, quiet=True)


def resume(path: Path, *overrides: str, problem: Problem | None = None) -> Run:
    """Go on with a run without a word."""
    return playground.run([f"resume={path}", *overrides], problem, quiet=True)


def stop(
    overrides: Sequence[str],
    path: Path,
    at: int,
    number: int = signal.SIGINT,
    problem: Problem | None = None,
    *,
    new: bool = True,
) -> None:
    """A run, or a resumed one, that gets a signal during iteration ``at``."""
    real = Session.iterate

    def iterate(session: Session) -> None:
        if session.iteration + 1 == at:
            signal.raise_signal(number)
        real(session)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "iterate", iterate)
        with pytest.raises(Interrupted):
            playground.run([*overrides, f"run_dir={path}" if new else f"resume={path}"], problem,
                           quiet=True)  # fmt: skip


def final(run: Run) -> dict[str, Any]:
    """The content of a run's newest checkpoint without wall time."""
    found = load_checkpoint(run.path)
    assert found is not None
    del found[1]["session"]["seconds"]
    return found[1]


def assert_same(left: Any, right: Any, where: str = "") -> None:
    """Equal bit for bit, whatever is nested in what; NaN equals itself."""
    assert type(left) is type(right), where
    if isinstance(left, Tensor):
        assert left.dtype == right.dtype, where
        assert left.shape == right.shape, where
        assert left.numpy().tobytes() == right.numpy().tobytes(), (where, left, right)
    elif isinstance(left, Mapping):
        assert list(left) == list(right), where
        for key in left:
            assert_same(left[key], right[key], f"{where}.{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), where
        for index, (a, b) in enumerate(zip(left, right, strict=True)):
            assert_same(a, b, f"{where}[{index}]")
    else:
        assert left == right or (left != left and right != right), (where, left, right)


def rows(run: Run, table: str) -> list[tuple[str, ...]]:
    """Sorted rows of a table, floats by their bits, without wall time."""
    content = run.table(table)
    names = [n for n in content.schema.names if n not in ("seconds", "cost_ms")]
    columns = [[_bits(value) for value in content[name].to_pylist()] for name in names]
    return sorted(zip(*columns, strict=True))


def _bits(value: object) -> str:
    return value.hex() if isinstance(value, float) else str(value)


def assert_same_records(left: Run, right: Run) -> None:
    """Equal rows in every table; no row twice."""
    for table in ("metrics", "gradients", "measurements", "events"):
        first, second = rows(left, table), rows(right, table)
        assert len(first) == len(second), table
        assert first == second, table
        assert len(set(first)) == len(first), table
    assert left.metrics.num_rows


class Loop:
    """Problem, engine and tier 0 of a configuration, without a run directory.

    Attributes:
        rows: blocks of columns that tier 0 wrote.
    """

    def __init__(self, config: Config) -> None:
        self.parts = assemble(config, None)
        self.problem, self.players = self.parts.problem, self.parts.players
        self.rows: list[dict[str, Any]] = []
        every = config.probes.every
        self.norms = Norms(every, config.seed, self._take) if every else None
        observers = (self.norms,) if self.norms is not None else ()
        self.engine = Engine(
            self.players, self.parts.optimizers, config.stepper.build(), observers,
            held=config.frozen,
        )  # fmt: skip

    def _take(self, columns: dict[str, Any], null: dict[str, np.ndarray]) -> None:
        self.rows.append(columns)

    def iterate(self, times: int = 1) -> "Loop":
        for _ in range(times):
            self.engine.round_index = 0
            rounds = self.problem.iteration(0.0)
            try:
                moves = next(rounds)
                while True:
                    moves = rounds.send(self.engine.play(moves))
            except StopIteration:
                pass
        return self

    def values(self) -> dict[str, Tensor]:
        return {name: p.parameters.values for name, p in self.players.items()}

    def state(self) -> dict[str, Any]:
        counters = {k: v.tolist() for k, v in self.problem.counters.items()}
        return {
            "values": self.values(), "engine": self.engine.state(), "counters": counters,
            "problem": self.problem.state(),
        }  # fmt: skip

    def load_state(self, state: dict[str, Any]) -> "Loop":
        for name, value in state["values"].items():
            self.players[name].parameters.values.copy_(value)
        self.engine.load_state(state["engine"])
        for name, values in state["counters"].items():
            self.problem.counters[name][:] = values
        self.problem.load_state(state["problem"])
        return self


def loop(*overrides: str) -> Loop:
    """A loop of a command's overrides."""
    return Loop(_composed(overrides))


@cache
def _composed(overrides: tuple[str, ...]) -> Config:
    return compose(list(overrides))


def first_round(parts_of: Loop) -> tuple[Move, ...]:
    """The first round of an iteration; the iteration is given up there."""
    return next(parts_of.problem.iteration(0.0))


def player(name: str, **tensors: Tensor) -> Player:
    """A player of tensors [M, *shape]."""
    layout = Layout({key: tuple(value.shape[1:]) for key, value in tensors.items()})
    flat = torch.cat([value.reshape(len(value), -1) for value in tensors.values()], dim=1)
    return Player(name, Parameters(layout, flat.clone()))


def engine(
    players: Sequence[Player],
    optimizer: Any,
    stepper: str | StepperConfig = "direct",
    **options: Any,
) -> Engine:
    """An engine whose players all have the same optimizer settings."""
    named = {p.name: p for p in players}
    method = STEPPERS[stepper]() if isinstance(stepper, str) else stepper
    optimizers = {
        n: Optimizer(optimizer, p.parameters.values, links=method.links()) for n, p in named.items()
    }
    return Engine(named, optimizers, method.build(), **options)


class Planted(Problem):
    """Two tensors descend a noisy quadratic; one gradient entry of one member breaks once.

    1/2 |a - 1|^2 + 1/2 |b + 2|^2 + <noise, a> + <fault, (a, b)>, whose gradient is the fault
    where it is not finite.

    Args:
        faults: {(update, member, tensor): value added to one entry of its gradient}.
    """

    SHAPES: Mapping[str, tuple[int, ...]] = {"a": (3, 2), "b": (4,)}

    def __init__(self, faults: Mapping[tuple[int, int, str], float] | None = None) -> None:
        self.name = "planted"
        self.faults = dict(faults or {})

    def setup(self, context: Context) -> dict[str, Player]:
        self.context = context
        zero = {name: torch.zeros(shape) for name, shape in self.SHAPES.items()}
        parameters = Parameters.build(
            lambda _: zero, context.members, context.device, context.dtype
        )
        self.player = Player("x", parameters)
        self.streams = Streams(context.seeds, "data", context.device)
        self.counters = {"samples": np.zeros(context.members, np.int64)}
        return {"x": self.player}

    def iteration(self, progress: float) -> Generator[Round, Outcomes, None]:
        for _ in range(2):
            update = int(self.counters["samples"][0]) + 1
            batch = {"noise": self.streams.normal(3, 2)}
            for name, shape in self.SHAPES.items():
                batch[f"fault_{name}"] = torch.zeros(self.context.members, *shape)
            for (when, member, tensor), value in self.faults.items():
                if when == update:
                    batch[f"fault_{tensor}"][member].view(-1)[-1] = value
            self.counters["samples"] += 1
            yield (Move("x", planted, batch),)

    def evaluate(self) -> Evaluation:
        return Evaluation({"loss": self.player.parameters.values.norm(dim=1).numpy()})

    def state(self) -> dict[str, Any]:
        return {"streams": self.streams.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.streams.load_state(state["streams"])


def planted(params: Any, batch: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The objective of ``Planted``."""
    a, b = params["x"]["a"], params["x"]["b"]
    quadratic = 0.5 * (a - 1).square().sum() + 0.5 * (b + 2).square().sum()
    fault = (batch["fault_a"] * a).sum() + (batch["fault_b"] * b).sum()
    return {"quadratic": quadratic, "noise": (batch["noise"] * a).sum(), "fault": fault}, {}


SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["playground.run", "playground.domains.landscape.problem", "harness"])


class Command:
    """``playground ARGUMENTS`` in a process of its own, forked from one that has torch loaded.

    Args:
        arguments: of the command.
        log: where its output goes.
        file_bytes: no file may grow beyond (the kernel's limit).
    """

    def __init__(self, arguments: Sequence[str], log: Path, file_bytes: int | None = None) -> None:
        self.log = log
        self.process = SERVER.Process(
            target=_command, args=(list(arguments), str(log), file_bytes), daemon=True
        )
        self.process.start()

    def signal(self, number: int) -> "Command":
        if self.process.pid is not None and self.process.is_alive():
            os.kill(self.process.pid, number)
        return self

    def wait(self, seconds: float = 120.0) -> int:
        """Its exit code."""
        self.process.join(seconds)
        code = self.process.exitcode
        if code is None:
            self.process.kill()
            pytest.fail(f"still running: {self.output()}")
        return code

    def output(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def until(self, holds: Callable[[], bool], seconds: float = 60.0) -> "Command":
        """Wait until something is so, while it runs."""
        end = time.monotonic() + seconds
        while not holds():
            if self.process.exitcode is not None or time.monotonic() > end:
                pytest.fail(f"it never happened: {self.output()}")
            time.sleep(0.002)
        return self


def _command(arguments: list[str], log: str, file_bytes: int | None) -> None:
    """What the process does."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    import playground.report
    from playground.__main__ import command

    playground.report.draw_all = lambda run: []  # pictures are tested elsewhere
    if file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, resource.RLIM_INFINITY))
    sys.exit(command(arguments))


def checkpoints(path: Path) -> int:
    """The newest checkpoint's iteration, -1 without one."""
    return max((int(p.stem) for p in (path / "checkpoints").glob("*.pt")), default=-1)


def load(path: Path) -> Run:
    """The record of a run; broken parts are left out without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = playground.load(path)
    assert isinstance(run, Run)
    return run


def chance(seed: int) -> random.Random:
    """A fixed source of random moments."""
    return random.Random(seed)


PROBED_PPO = [
    "problem=rl/cartpole", "problem.num_envs=6", "problem.widths=[8]", "members=2",
    "problem.evaluation_episodes=2", "algorithm.num_steps=16", "algorithm.batch_size=48",
    "algorithm.epochs=2", "budget.iterations=5", "evaluate.every=2",
]  # fmt: skip
PROBED = {"gan": ["problem=gan/ring", *SMALL_GAN, "members=2", "budget.iterations=9",
                  "evaluate.every=4"], "ppo": PROBED_PPO}  # fmt: skip
"""Runs in which passes are tried: two players, and epochs of minibatches."""


def probed(given: Sequence[str], probes: str, folder: Path) -> tuple[Run, Run]:
    """A run without probes and one with, which trains and resumes bit for bit alike."""
    plain = quiet([*given, "probes=none"], folder / "plain")
    full = [*given, probes, "checkpoint.every=2"]
    whole = quiet(full, folder / "whole")
    stop(full, folder / "parts", 4)
    parts = resume(folder / "parts")
    for key in ("players", "engine", "problem", "counters"):
        assert_same(final(plain)[key], final(whole)[key], key)
    assert_same(final(whole), final(parts))
    assert_same_records(whole, parts)
    return plain, whole
