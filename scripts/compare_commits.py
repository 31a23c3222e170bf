#!/usr/bin/env python
"""Compare what two commits compute: scripts/compare_commits.py [OLD] [NEW] [--only NAME].

Both are cloned into temporary folders and run the same short commands, side by side. What their
run folders hold is compared bit for bit: parameters, optimizer states and streams, snapshots,
records, events, arrays, resolved configurations, findings, names of figures, and exit codes. Times,
versions and paths are left out. OLD is release 0.1.1 by default, NEW is HEAD; a dot is the working
tree. Commands are in the keys of 0.1.1.

Exit codes: 0 nothing differs but what is explained, 1 something differs, 2 wrong command.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import yaml

ROOT = Path(__file__).resolve().parents[1]
RELEASE = "df519d532f8dcf63ff64a1aa1b915d428fd04803"
"""The commit "Release 0.1.1"."""

RL = "problem.num_envs=4 problem.evaluation_episodes=3"
PPO = f"problem=rl/cartpole {RL} algorithm.num_steps=64 algorithm.batch_size=64 budget.iterations=6"
GAN = "problem=gan/ring problem.evaluation_samples=500"
DIGITS = "problem=supervised/digits"
WATCH = """
import torch, playground
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
def loss(net, batch):
    return torch.nn.functional.cross_entropy(net(batch[0]), batch[1], reduction="none")
with playground.watch(net, optimizer, run_dir="watched", objective=loss, probes="full",
                      passes_every=8) as watcher:
    for _ in range(40):
        x = torch.randn(16, 5)
        batch = (x, x[:, :3].argmax(1))
        watcher.batch(batch)
        optimizer.zero_grad()
        value = loss(net, batch).mean()
        value.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        optimizer.step()
        watcher.log(loss=value)
torch.save(net.state_dict(), "watched/net.pt")
"""

COMMANDS: dict[str, list[str]] = {
    "ppo": [f"{PPO} members=2 run_dir=a", "replay=a at=30 probes=full run_dir=b",
            "fork=a at=30 optimizer.lr=1e-4 run_dir=c"],
    "ppo, full": [f"{PPO} algorithm.target_kl=0.003 members=3 probes=full run_dir=a"],
    "recurrent ppo": [f"{PPO} problem=rl/cartpole_no_velocity run_dir=a"],
    "pendulum": [f"problem=rl/pendulum {RL} budget.iterations=3 run_dir=a"],
    "trpo": [f"problem=rl/cartpole algorithm=trpo {RL} budget.iterations=3 run_dir=a"],
    "reinforce": [f"problem=rl/cartpole algorithm=reinforce {RL} budget.iterations=3 probes=none "
                  "run_dir=a"],
    "a2c in workers": [f"problem=rl/acrobot algorithm=a2c {RL} problem.vectorization=async "
                       "budget.iterations=20 run_dir=a"],
    "exact": ["problem=rl/chain algorithm=npg budget.iterations=5 probes=full run_dir=a"],
    "ring": [f"{GAN} budget.iterations=60 members=2 run_dir=a"],
    "ring, full": [f"{GAN} budget.iterations=12 probes=full run_dir=a"],
    "ring, compiled": [f"{GAN} loss=wgan penalty.gradient=10 penalty.r1=0 budget.iterations=30 "
                       "compile=true run_dir=a"],
    "dirac": ["problem=gan/dirac problem.rounds=simultaneous stepper=consensus "
              "budget.iterations=50 probes=full run_dir=a",
              "problem=gan/dirac problem.rounds=simultaneous stepper=unrolled "
              "budget.iterations=20 run_dir=b"],
    "digits": [f"{DIGITS} optimizer.schedule=constant budget.iterations=40 members=2 run_dir=a",
               "resume=a budget.iterations=80"],
    "digits, full": [f"{DIGITS} budget.iterations=40 vary.optimizer.lr=[1e-4,1e-2] members=2 "
                     "probes=full run_dir=a"],
    "digits, compiled": [f"{DIGITS} budget.iterations=60 members=3 compile=true run_dir=a"],
    "a member freezes": [f"{DIGITS} optimizer=sgd vary.optimizer.lr=[0.1,1e6] "
                         "on_nonfinite=freeze budget.iterations=60 run_dir=a"],
    "adding": ["problem=supervised/adding budget.iterations=20 probes=full run_dir=a"],
    "rosenbrock": ["problem=landscape/rosenbrock optimizer=rmsprop members=10 "
                   "problem.start=random budget.iterations=200 run_dir=a"],
    "steppers": ["-m problem=landscape/quadratic_game stepper=extragradient,past_extragradient,"
                 "optimistic,lookahead,lookahead_minimax,consensus,sga,cgd,lola "
                 "budget.iterations=20 run_dir=a"],
    "watch": [WATCH],
    "wrong": ["problem=gan/rings", "optimizer.lr=fast", "resume=nowhere", "-m seed=x,y"],
}  # fmt: skip
"""{name: commands given one after the other in one folder}; text of several lines is a program."""

RENAMED: dict[str, str] = {}
"""{name of 0.1.1: today's} of columns, keys and files."""

EXPLAINED: dict[tuple[str, str], str] = {}
"""{(command, kind): why it differs from 0.1.1}."""

TIMES = {"seconds", "cost_ms"}
MANIFEST = ("status", "reason", "problem", "main_metric", "players", "tensors", "members",
            "resume", "counters", "measured")  # fmt: skip
"""Keys of a manifest that say what was computed."""


def main() -> int:
    """Run both commits and print what differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("old", nargs="?", default=RELEASE, metavar="OLD")
    parser.add_argument("new", nargs="?", default="HEAD", metavar="NEW")
    parser.add_argument("--only", action="append", metavar="NAME",
                        help=f"one of: {', '.join(COMMANDS)}")  # fmt: skip
    given = parser.parse_args()
    for name in given.only or ():
        if name not in COMMANDS:
            parser.error(f"--only {name}: must be one of {', '.join(COMMANDS)}")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        trees = [cloned(commit, work / side, parser)
                 for commit, side in ((given.old, "old"), (given.new, "new"))]  # fmt: skip
        found: dict[str, Counter[str]] = {}
        for name in given.only or COMMANDS:
            folders = [work / "runs" / tree.name / name.replace(" ", "_") for tree in trees]
            with ThreadPoolExecutor(2) as pool:
                codes = list(pool.map(run, [COMMANDS[name]] * 2, trees, folders))
            found[name] = Counter(kind for kind, _ in _told(name, codes, folders))
            files = sum(_kind(path) is not None for path in folders[0].rglob("*"))
            exits = " ".join(map(str, codes[0]))
            print(f"{name} (exit {exits}; {files} files): {_line(name, found[name])}", flush=True)
    unexplained = sum(
        count for name, kinds in found.items() for kind, count in kinds.items()
        if (name, kind) not in EXPLAINED
    )  # fmt: skip
    print(f"{len(found)} commands, {given.old} against {given.new}: "
          f"{'equal' if not unexplained else f'{unexplained} differences'}")  # fmt: skip
    return int(unexplained > 0)


def cloned(commit: str, tree: Path, parser: argparse.ArgumentParser) -> Path:
    """The tree of a commit; a link to the checkout for ``.``."""
    if commit == ".":
        tree.symlink_to(ROOT)
        return tree
    subprocess.run(["git", "clone", "-q", "--shared", "--no-checkout", ROOT, tree], check=True)
    checkout = ["git", "checkout", "-q", commit]
    if subprocess.run(checkout, cwd=tree, capture_output=True, check=False).returncode:
        parser.error(f"{commit}: no such commit here")
    return tree


def run(commands: Sequence[str], tree: Path, folder: Path) -> list[int]:
    """Exit codes of commands given one after the other in a folder, by a tree's package."""
    folder.mkdir(parents=True)
    environment = os.environ | {"PYTHONPATH": str(tree), "COLUMNS": "100"}
    codes = []
    with (folder / "output.txt").open("w") as output:
        for command in commands:
            program = ["-c", command] if "\n" in command else ["-m", "playground", *command.split()]
            codes.append(subprocess.run(
                [sys.executable, *program], cwd=folder, env=environment, stdout=output,
                stderr=subprocess.STDOUT, check=False,
            ).returncode)  # fmt: skip
    return codes


def _told(
    name: str, codes: Sequence[Sequence[int]], folders: Sequence[Path]
) -> Iterator[tuple[str, str]]:
    """What differs, each with its first lines printed."""
    expected = [2 if name == "wrong" else 0] * len(codes[0])
    if not codes[0] == codes[1] == expected:
        print(f"  {name}: exit codes {codes[0]} and {codes[1]}, expected {expected}")
        print((folders[1] / "output.txt").read_text()[-2000:])
        yield "exit codes", ""
    for count, (kind, where) in enumerate(differences(*folders)):
        if count < 12:
            print(f"  {name}: {kind}: {where}")
        yield kind, where


def _line(name: str, kinds: Mapping[str, int]) -> str:
    words = [
        f"{kind} {count}" + (f" ({EXPLAINED[name, kind]})" if (name, kind) in EXPLAINED else "")
        for kind, count in kinds.items()
    ]  # fmt: skip
    return "; ".join(words) or "equal"


def differences(old: Path, new: Path) -> Iterator[tuple[str, str]]:
    """(kind, where) of everything that two folders with runs in them hold differently."""
    files = [{_renamed(str(p.relative_to(side))): p for p in sorted(side.rglob("*"))
              if p.is_file()} for side in (old, new)]  # fmt: skip
    for name in sorted(files[0].keys() | files[1].keys()):
        kind = _kind(Path(name))
        if kind is None:
            continue
        if any(name not in side for side in files):
            yield kind, f"{name} is on one side only"
            continue
        left, right = (_read(side[name]) for side in files)
        for where in unequal(left, right):
            part = "parameters" if kind == "state" and where.endswith(".parameters") else kind
            yield part, f"{name}{where}"


KINDS = {
    ".pt": "state", ".npy": "arrays", ".npz": "arrays", ".parquet": "records",
    "events.parquet": "events", "config.yaml": "configuration", "sweep.yaml": "configuration",
    "manifest.json": "manifest", "diagnosis.json": "findings", ".png": "figures",
}  # fmt: skip


def _kind(path: Path) -> str | None:
    """What a file's differences are called; None where it is not compared."""
    if path.suffix == ".pt" and path.parent.name == "snapshots":
        return "snapshots"
    return KINDS.get(path.name, KINDS.get(path.suffix))


def _read(path: Path) -> Any:
    """What a file holds, as plain containers, tensors and arrays."""
    if path.suffix == ".pt":
        return torch.load(path, weights_only=True)
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".npz":
        return dict(np.load(path))
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        names = [name for name in table.column_names if name not in TIMES]
        columns = [[_bits(value) for value in table[name].to_pylist()] for name in names]
        return {"columns": list(map(_renamed, names)),
                "rows": sorted(zip(*columns, strict=True))}  # fmt: skip
    if path.suffix == ".yaml":
        return yaml.safe_load(path.read_text())
    if path.name == "manifest.json":
        content = json.loads(path.read_text())
        return {key: content.get(key) for key in MANIFEST}
    return json.loads(path.read_text()) if path.suffix == ".json" else None


def unequal(left: Any, right: Any, where: str = "") -> Iterator[str]:
    """Places where two contents differ; floats and tensors by their bits."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        left, right = ({_renamed(key): value for key, value in side.items()}
                       for side in (left, right))  # fmt: skip
        for key in {**left, **right}:
            if key in TIMES:
                continue
            if key not in left or key not in right:
                yield f"{where}.{key}"
            else:
                yield from unequal(left[key], right[key], f"{where}.{key}")
    elif isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        yield from unequal(left.numpy(), right.numpy(), where)
    elif isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        same = left.dtype == right.dtype and left.shape == right.shape
        if not same or left.tobytes() != right.tobytes():
            yield where
    elif isinstance(left, list | tuple) and type(left) is type(right) and len(left) == len(right):
        for place, (a, b) in enumerate(zip(left, right, strict=True)):
            yield from unequal(a, b, f"{where}[{place}]")
    elif type(left) is not type(right) or _bits(left) != _bits(right):
        yield where


def _bits(value: object) -> str:
    return value.hex() if isinstance(value, float) else str(value)


def _renamed(name: Any) -> Any:
    return RENAMED.get(name, name)


if __name__ == "__main__":
    sys.exit(main())
