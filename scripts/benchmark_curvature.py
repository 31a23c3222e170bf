"""Both ends of a Hessian's spectrum, against curvlinops with SciPy's eigsh: benchmark.py curvature.

Ours is one Lanczos run, the gradient's graph included, from a random start and from the vectors of
ten updates earlier; theirs is two calls, as eigsh has no mode for both ends that serves here. Two
rules for stopping: residuals at most 1e-2 of the largest |lambda| (eigsh's own rule is relative to
each eigenvalue, so that it is given the tolerance that amounts to this), and 1e-2 of each. Every
turn has random starts of its own.
"""

import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

TOLERANCE = 1e-2


def point(batch: str, updates: int) -> tuple[Any, Any, Any]:
    """The move and two points of the digits MLP: after some updates, and ten before."""
    from playground.assembly import assemble
    from playground.config import compose
    from playground.engine import Engine

    parts = assemble(compose(["problem=supervised/digits", "optimizer=momentum",
                              f"problem.batch_size={batch}"]), None)  # fmt: skip
    engine = Engine(parts.players, parts.optimizers)
    values = parts.players["model"].parameters.values
    before = values.clone()
    for update in range(updates):
        if update == updates - 10:
            before = values.clone()
        for moves in parts.problem.iteration(0.0):
            engine.play(moves)
            break
    return engine, next(parts.problem.iteration(0.0))[0], before


def ours(
    engine: Any, move: Any, at: Any, last: Any, relative: str, products: int, seed: int
) -> Any:
    """One run, from nothing but the parameters, the batch and perhaps earlier vectors."""
    import torch

    from playground.probes.curvature.formulas import extremes, linearise, warm

    def gradient(leaf: Any) -> Any:
        return engine.differentiate(move, {"model": leaf}, create_graph=True).value

    start = torch.randn(at.shape, generator=torch.Generator().manual_seed(seed))
    start = start if last is None else warm(last, start)
    _, product = linearise(gradient, at)
    return extremes(product, start, products, TOLERANCE, relative=relative)


def theirs(engine: Any, move: Any) -> tuple[Callable[..., Any], list[int]]:
    """``solve(tolerances of LA and SA, seed) -> (low, high)`` and a counter of its products."""
    import numpy as np
    from curvlinops import HessianLinearOperator
    from scipy.sparse.linalg import LinearOperator, eigsh
    from torch import nn

    player = engine.players["model"]
    module = player.module()
    module.load_state_dict(player.parameters.only)
    data = [(move.batch["input"][0], move.batch["target"][0])]
    count = [0]

    def solve(high: float, low: float, seed: int = 0) -> Any:
        whole = HessianLinearOperator(
            module,
            nn.CrossEntropyLoss(),
            list(module.parameters()),
            data,
            check_deterministic=False,
        ).to_scipy()

        def product(vector: Any) -> Any:
            count[0] += 1
            return whole @ vector

        counted = LinearOperator(whole.shape, matvec=product, dtype=whole.dtype)
        start = np.random.default_rng(seed).normal(size=whole.shape[0]).astype(whole.dtype)
        return [
            eigsh(counted, k=1, which=which, tol=tolerance, v0=start, return_eigenvectors=False)[0]
            for which, tolerance in (("SA", low), ("LA", high))
        ]

    return solve, count


def compare(pairs: int) -> None:
    """Four points, two rules, sides in turn."""
    import torch

    if importlib.util.find_spec("curvlinops") is None:
        sys.exit("benchmark: curvature needs curvlinops: EXTRAS=dev,oracles scripts/setup")
    torch.set_num_threads(1)
    for batch in ("64", "full"):
        for updates in (0, 300):
            at_point(batch, updates, pairs)


def at_point(batch: str, updates: int, pairs: int) -> None:
    """Both rules, at one point."""
    engine, move, before = point(batch, updates)
    at = engine.players["model"].parameters.values
    starts = {"random start": None}
    if updates:
        starts["warm start"] = ours(engine, move, before, None, "largest", 15, 0).vectors
    solve, count = theirs(engine, move)
    exact = solve(0, 0)
    print(f"\ndigits MLP, {at.shape[1]:,} parameters, batch {batch}, {updates} updates:"
          f" eigenvalues {exact[0]:.4f}, {exact[1]:.4f}")  # fmt: skip
    for relative, most in (("largest", 15), ("each", 200)):
        low = TOLERANCE * (exact[1] / abs(exact[0]) if relative == "largest" else 1)
        sides = {
            f"ours, {name}": partial(ours, engine, move, at, last, relative, most)
            for name, last in starts.items()
        }
        race(pairs, relative, solve, count, low, sides)


def race(
    pairs: int,
    relative: str,
    solve: Callable[..., Any],
    count: list[int],
    low: float,
    sides: dict[str, Callable[[int], Any]],
) -> None:
    """Times in turn; a line a side: milliseconds, ratio with quartiles, products, the last ends."""
    times: dict[str, list[float]] = {name: [] for name in ("curvlinops + eigsh", *sides)}
    notes: dict[str, str] = {}
    counts: dict[str, list[int]] = {name: [] for name in times}
    for turn in range(pairs + 1):
        count[0], began = 0, time.perf_counter()
        found = solve(TOLERANCE, low, turn)
        times["curvlinops + eigsh"].append(time.perf_counter() - began)
        counts["curvlinops + eigsh"].append(count[0])
        notes["curvlinops + eigsh"] = f"{found[0]:8.4f} {found[1]:8.4f}"
        for name, work in sides.items():
            began = time.perf_counter()
            ends = work(turn)
            times[name].append(time.perf_counter() - began)
            values, errors = ends.values[0].tolist(), ends.residuals[0].tolist()
            counts[name].append(ends.products)
            notes[name] = (
                f"{values[0]:8.4f} {values[1]:8.4f}  residuals {errors[0]:.1e} {errors[1]:.1e}"
            )
    print(f"  residuals at most {TOLERANCE:g} of {relative} ({pairs} turns)")
    reference = times["curvlinops + eigsh"][1:]
    for name, values in times.items():
        ratios = [a / b for a, b in zip(reference, values[1:], strict=True)]
        low_, middle, high = statistics.quantiles(ratios, n=4)
        products = statistics.median(counts[name][1:])
        print(f"    {name:<20} {1e3 * statistics.median(values[1:]):>8.1f} ms"
              f"   x{middle:.1f} [{low_:.1f}, {high:.1f}]"
              f"  {products:>5.1f} products; last {notes[name]}")  # fmt: skip
