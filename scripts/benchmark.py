#!/usr/bin/env python
"""Timings, interleaved in one process: scripts/benchmark.py rl|gan|steppers|probes|...

Machines are shared and noisy, so both sides of a comparison take turns (A B A B ...) and the
median of the pairwise ratios is quoted with its quartiles. One thread each.

  rl      PPO on CartPole with CleanRL's hyperparameters against Stable-Baselines3 (extra bench)
  gan     the ring GAN against a hand-written PyTorch loop with fused Adam
  steppers  every game method on the ring GAN: gradient evaluations a second against direct's
  probes  every domain with tier 0 on against off; what the noise probe adds to an update of a
          784-1000-500-100-10 network, batch 128, with BackPACK beside it where it is installed
  curvature  both ends of a Hessian's spectrum against curvlinops and eigsh (extra oracles)
  watch   a plain PyTorch loop that is watched against one that is not
  start   seconds until help, an error, and the first update
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

CLEANRL = ["experiment=cleanrl_cartpole", "budget.env_steps=500000000"]

Work = Callable[[], float]
"""Does a slice of work; returns units of work done (environment steps, iterations)."""


def session(overrides: Sequence[str], folder: Path) -> "object":
    """A running session with records and tier 0, as the command builds it."""
    from playground.assembly import assemble, build_session
    from playground.config import compose
    from playground.progress import Reporter
    from playground.provenance import manifest
    from playground.record.directory import RunDirectory
    from playground.record.writer import Recorder

    directory = RunDirectory.create("benchmark", folder / f"run{len(list(folder.iterdir()))}")
    parts = assemble(compose([*overrides, "evaluate.every=1000000000",
                              "checkpoint.every=1000000000"]), None)  # fmt: skip
    directory.write_manifest(
        manifest(parts.config, parts.problem, parts.players, parts.members, parts.device)
    )
    recorder = Recorder(directory, attempt=0)
    return build_session(parts, directory, recorder, Reporter(quiet=True))


def ours(overrides: Sequence[str], folder: Path, iterations: int, units: float) -> Work:
    """A slice of our iterations; ``units`` per iteration."""
    running = session(overrides, folder)

    def work() -> float:
        for _ in range(iterations):
            running.iterate()  # type: ignore[attr-defined]
        return iterations * units

    return work


def interleave(sides: dict[str, Work], pairs: int, slices: int = 1) -> dict[str, list[float]]:
    """{side: units per second of each turn}, sides taking turns after one warm-up.

    A turn of several slices alternates them with the other sides' slices, so that what slows the
    machine for less than a turn slows all.
    """
    for work in sides.values():
        work()
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(pairs):
        done, spent = dict.fromkeys(sides, 0.0), dict.fromkeys(sides, 0.0)
        for _ in range(slices):
            for name, work in sides.items():
                began = time.perf_counter()
                done[name] += work()
                spent[name] += time.perf_counter() - began
        for name in sides:
            rates[name].append(done[name] / spent[name])
    return rates


def show(title: str, rates: dict[str, list[float]], reference: str, unit: str) -> None:
    """One line a side: median rate, median pairwise ratio to the reference and quartiles."""
    print(f"\n{title} ({len(rates[reference])} interleaved turns, one thread)")
    for name, values in rates.items():
        ratios = [a / b for a, b in zip(values, rates[reference], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"  {name:<28} {statistics.median(values):>12,.0f} {unit}   "
              f"x{middle:.2f} [{low:.2f}, {high:.2f}]")  # fmt: skip


def rl(pairs: int, folder: Path, compiled: bool) -> None:
    """PPO on CartPole against Stable-Baselines3."""
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    torch.set_num_threads(1)
    model = PPO(
        "MlpPolicy", make_vec_env("CartPole-v1", 8), n_steps=128, batch_size=256, n_epochs=4,
        learning_rate=2.5e-4, gamma=0.99, gae_lambda=0.95, clip_range=0.2, clip_range_vf=0.2,
        ent_coef=0.01, vf_coef=0.25, max_grad_norm=0.5, device="cpu", verbose=0,
    )  # fmt: skip

    def sb3() -> float:
        model.learn(total_timesteps=8 * 128 * 20, reset_num_timesteps=False)
        return 8 * 128 * 20

    sides: dict[str, Work] = {"stable-baselines3": sb3}
    for flag in (False, True) if compiled else (False,):
        word = "compiled" if flag else "eager"
        for members, iterations in ((1, 40), (16, 6)):
            overrides = [*CLEANRL, f"members={members}", f"compile={str(flag).lower()}"]
            sides[f"ours, {members} members, {word}"] = ours(
                overrides, folder, iterations, 1024 * members
            )
    show("PPO on CartPole, CleanRL's hyperparameters, tier 0 and records on",
         interleave(sides, pairs), "stable-baselines3", "env steps/s")  # fmt: skip


def plain_gan(r1: float) -> Work:
    """The ring GAN as one would write it by hand: two modules, fused Adam, no records."""
    import math

    import torch
    from torch import nn
    from torch.nn import functional as F  # noqa: N812

    from playground.config import compose

    problem = compose(["problem=gan/ring"]).problem
    latent = problem.latent
    torch.manual_seed(0)

    def net(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(inputs, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(),
                             nn.Linear(128, outputs))  # fmt: skip

    generator, discriminator = net(latent, 2), net(2, 1)
    g_opt = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.0, 0.99), fused=True)
    d_opt = torch.optim.Adam(discriminator.parameters(), lr=1e-3, betas=(0.0, 0.99), fused=True)
    angles = torch.arange(8) * (2 * math.pi / 8)
    centers = 2 * torch.stack([angles.cos(), angles.sin()], dim=1)

    def work() -> float:
        for _ in range(100):
            real = centers[torch.randint(8, (256,))] + 0.02 * torch.randn(256, 2)
            fake = generator(torch.randn(256, latent)).detach()
            if r1:
                real.requires_grad_()
            on_real = discriminator(real)
            loss = F.softplus(-on_real).mean() + F.softplus(discriminator(fake)).mean()
            if r1:
                (slope,) = torch.autograd.grad(on_real.sum(), real, create_graph=True)
                loss = loss + r1 / 2 * slope.square().sum(1).mean()
            d_opt.zero_grad()
            loss.backward()
            d_opt.step()
            discriminator.requires_grad_(False)
            loss = F.softplus(-discriminator(generator(torch.randn(256, latent)))).mean()
            g_opt.zero_grad()
            loss.backward()
            g_opt.step()
            discriminator.requires_grad_(True)
        return 100

    return work


def gan(pairs: int, folder: Path, compiled: bool) -> None:
    """The ring GAN against a plain loop, without penalty and with R1."""
    import torch

    torch.set_num_threads(1)
    for r1 in (0.0, 1.0):
        sides = {"plain PyTorch": plain_gan(r1)}
        for flag in (False, True) if compiled else (False,):
            for members, iterations in ((1, 100), (8, 12)):
                overrides = ["problem=gan/ring", "loss=nonsaturating", f"penalty.r1={r1}",
                             f"members={members}", f"compile={str(flag).lower()}",
                             "budget.iterations=100000000"]  # fmt: skip
                word = "compiled" if flag else "eager"
                sides[f"ours, {members} members, {word}"] = ours(
                    overrides, folder, iterations, members
                )
        show(f"Ring GAN, 2x128, batch 256, R1 weight {r1:g}, tier 0 and records on",
             interleave(sides, pairs), "plain PyTorch", "iterations/s")  # fmt: skip


def steppers(pairs: int, folder: Path, compiled: bool) -> None:
    """Game methods on the ring, in gradient evaluations a second: the bar is 1/1.3 of direct's."""
    from playground.optim.steppers.config import STEPPERS

    def side(overrides: Sequence[str], iterations: int) -> Work:
        running = session(overrides, folder)
        engine = running.engine  # type: ignore[attr-defined]

        def work() -> float:
            before = engine.gradient_evaluations[0]
            for _ in range(iterations):
                running.iterate()  # type: ignore[attr-defined]
            return float(engine.gradient_evaluations[0] - before)

        return work

    for members in (1, 8):
        base = ["problem=gan/ring", "problem.rounds=simultaneous", f"members={members}",
                "optimizer=sgd", "optimizer.lr=1e-4", "budget.iterations=100000000"]  # fmt: skip
        sides = {}
        for name in STEPPERS:
            work = {"direct": 20, "cgd": 1, "unrolled": 2}.get(name, 6)
            sides[name] = side([*base, f"stepper={name}"], -(-work // members))
        show(f"Game methods, ring GAN as shipped, {members} members", interleave(sides, pairs),
             "direct", "evaluations/s")  # fmt: skip


def probes(pairs: int, folder: Path, compiled: bool) -> None:
    """Tier 0 at its default cadence, and at every update, against none."""
    cases = {
        "CartPole PPO": (CLEANRL, 2),
        "ring GAN": (["problem=gan/ring", "budget.iterations=100000000"], 20),
        "digits": (["problem=supervised/digits", "budget.iterations=100000000"], 150),
        "landscape (rosenbrock)": (
            ["problem=landscape/rosenbrock", "budget.iterations=100000000"], 200),
    }  # fmt: skip
    for title, (overrides, iterations) in cases.items():
        extra = [f"compile={str(compiled).lower()}"]
        sides = {
            f"probes={name}": ours([*overrides, *extra, f"probes={name}"], folder, iterations, 1)
            for name in ("none", "light", "standard")
        }
        show(f"{title}, {'compiled' if compiled else 'eager'}", interleave(sides, pairs, 10),
             "probes=none", "iterations/s")  # fmt: skip
    noise(4 * pairs)


def noise(pairs: int) -> None:
    """Norm, inner-product and orthogonality tests and noise scale, in updates of Adam's."""
    import torch
    from torch import nn

    from playground.domains.supervised.objectives import classify
    from playground.engine import Engine
    from playground.game import Move, Player
    from playground.nets import MLP
    from playground.optim.config import Adam
    from playground.optim.optimizer import Optimizer
    from playground.parameters import Parameters
    from playground.probes.noise.probe import NoiseProbe
    from playground.probes.passes import Turn

    torch.set_num_threads(1)
    net = MLP((784, 1000, 500, 100, 10), "relu")
    cpu = torch.device("cpu")
    values = Parameters.build(lambda k: net.init(k, "model"), 1, cpu, torch.float32)
    players = {"model": Player("model", values, net.module)}
    engine = Engine(players, {"model": Optimizer(Adam(lr=1e-4), values.values)})
    draw = torch.Generator().manual_seed(0)
    x, y = torch.rand(128, 784, generator=draw), torch.randint(10, (128,), generator=draw)
    move = Move("model", classify(net), {"input": x[None], "target": y[None]})
    probe, turn = NoiseProbe(), Turn({"model": move}, engine.differentiate, players)

    def update() -> float:
        engine.play((move,))
        return 1

    def measured() -> float:
        probe.measure(turn)
        return 1

    sides: dict[str, Work] = {"an update": update, "the noise probe": measured}
    try:
        from backpack import backpack, extend
        from backpack.extensions import BatchGrad, BatchL2Grad
    except ImportError:
        print("BackPACK is not installed: pip install backpack-for-pytorch")
    else:
        module, loss = extend(net.module()), extend(nn.CrossEntropyLoss())

        def norms() -> float:
            module.zero_grad()
            with backpack(BatchL2Grad()):
                loss(module(x), y).backward()
            return 1

        def products() -> float:  # what the inner-product and orthogonality tests need besides
            module.zero_grad()
            with backpack(BatchGrad()):
                loss(module(x), y).backward()
            for tensor in module.parameters():
                each = tensor.grad_batch.flatten(1)
                each.square().sum(1), each @ tensor.grad.flatten()
                del tensor.grad_batch
            return 1

        sides["BackPACK, norm test alone"] = norms
        sides["BackPACK, all three tests"] = products
    rates = interleave(sides, pairs)
    print(f"\nNoise on an MLP of 1.3 million parameters, batch 128, one thread ({pairs} turns)")
    for name, each in rates.items():
        costs = [b / a for a, b in zip(each, rates["an update"], strict=True)]
        low, middle, high = statistics.quantiles(costs, n=4)
        print(f"  {name:<28} {1e3 / statistics.median(each):>8.1f} ms   "
              f"{middle:.2f} updates [{low:.2f}, {high:.2f}]")  # fmt: skip


def curvature(pairs: int, folder: Path, compiled: bool) -> None:
    """Extreme eigenvalues of the digits MLP against curvlinops with SciPy's eigsh."""
    from benchmark_curvature import compare

    compare(pairs)


def plain_loop(widths: Sequence[int], batch: int, updates: int) -> "tuple[object, object, Work]":
    """An MLP, fused Adam and a slice of forward-backward-Adam updates."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
    model = nn.Sequential(*[m for layer in layers for m in (layer, nn.ReLU())][:-1])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    x, y = torch.randn(batch, widths[0]), torch.randn(batch, widths[-1])

    def work() -> float:
        for _ in range(updates):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
        return updates

    return model, optimizer, work


def watch(pairs: int, folder: Path, compiled: bool) -> None:
    """A watched loop at the default cadence against the same loop alone: the bar is x0.97."""
    import torch

    import playground
    from playground.watching.watcher import Watcher

    torch.set_num_threads(1)
    guarded, hooks = Watcher._guarded, [0.0]

    def timed(*arguments: object) -> None:
        began = time.process_time()
        guarded(*arguments)  # type: ignore[arg-type]
        hooks[0] += time.process_time() - began

    Watcher._guarded = timed  # type: ignore[method-assign]
    cases = {
        "MLP 20-64-64-1, batch 64": ((20, 64, 64, 1), 64, 128),
        "MLP 784-1000-500-100-10, batch 128": ((784, 1000, 500, 100, 10), 128, 8),
        "MLP of 100M parameters, batch 256": ((5000,) * 5, 256, 2),
    }
    for number, (title, case) in enumerate(cases.items()):
        sides = {"alone": plain_loop(*case)[2]}
        model, optimizer, sides["watched"] = plain_loop(*case)
        slices = 32 if case[0][0] > 4000 else 16  # 64 updates: one is measured in full
        with playground.watch(model, optimizer, run_dir=folder / f"watch{number}"):
            rates = interleave(sides, pairs, slices)
        show(title, rates, "alone", "updates/s")
        each = hooks[0] / (case[2] * (1 + slices * pairs))
        share = each * statistics.median(rates["alone"])
        print(f"  hooks {1e3 * each:.3g} ms of CPU time an update, {share:.1%} of one alone")
        hooks[0] = 0.0


FIRST_UPDATE = """
import sys
import playground.engine as engine
apply = engine.Engine._apply
def first(self, *arguments):
    apply(self, *arguments)
    sys.stdout.flush()
    import os
    os._exit(0)
engine.Engine._apply = first
from playground.__main__ import main
main(sys.argv[1:])
"""


def start(pairs: int, folder: Path, compiled: bool) -> None:
    """Wall time of whole processes: help, an error, and until the first update."""
    python = sys.executable
    commands = {
        "help": [python, "-m", "playground", "--help"],
        "error": [python, "-m", "playground", "problem=gan/rong"],
        "error in a key": [python, "-m", "playground", "optimizer.lrr=1"],
        "first update, landscape": [python, "-c", FIRST_UPDATE, "problem=landscape/rosenbrock"],
        "first update, digits": [python, "-c", FIRST_UPDATE, "problem=supervised/digits"],
        "first update, ring": [python, "-c", FIRST_UPDATE, "problem=gan/ring"],
        "first update, cartpole": [python, "-c", FIRST_UPDATE, "problem=rl/cartpole"],
    }
    print(f"\nSeconds from the start of the process ({pairs} turns)")
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(pairs + 1):
        for name, arguments in commands.items():
            began = time.perf_counter()
            ended = subprocess.run(arguments, capture_output=True, check=False, cwd=folder)
            times[name].append(time.perf_counter() - began)
            if ended.returncode != (2 if name.startswith("error") else 0):
                raise SystemExit(f"{name}: {ended.stderr.decode()}")
    for name, values in times.items():
        low, middle, high = statistics.quantiles(values[1:], n=4)
        print(f"  {name:<28} {middle:.2f} s [{low:.2f}, {high:.2f}]")


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = {"rl": rl, "gan": gan, "steppers": steppers, "probes": probes,
             "curvature": curvature, "watch": watch, "start": start}  # fmt: skip
    parser.add_argument("kind", choices=kinds)
    parser.add_argument("--pairs", type=int, default=9, help="turns of every side (9)")
    parser.add_argument("--eager-only", action="store_true", help="rl, gan: do not compile")
    parser.add_argument("--compiled", action="store_true", help="probes: compile the gradients")
    given = parser.parse_args()
    compiled = given.compiled if given.kind == "probes" else not given.eager_only
    with tempfile.TemporaryDirectory() as folder:
        kinds[given.kind](given.pairs, Path(folder), compiled)


if __name__ == "__main__":
    main()
