"""Optimal rates and stability lines of gradient descent, heavy ball and Nesterov.

The largest eigenvalue is 1 and the smallest 1 / kappa. Rates are compared as decay exponents
-log(rate) per iteration, which is the sharper number where the rate is near 1.
"""

from collections.abc import Mapping
from math import log, sqrt
from pathlib import Path

import numpy as np
import yaml
from matplotlib.figure import Figure

from playground.record.reader import Run
from playground.study import Claim

CONFIG = yaml.safe_load((Path(__file__).parent / "config.yaml").read_text())
METHODS = {  # the optimizer's name: (label, color)
    "sgd": ("gradient descent", "#0072B2"),
    "momentum": ("heavy ball", "#D55E00"),
    "nesterov": ("Nesterov", "#009E73"),
}


def optimal(method: str, kappa: float) -> tuple[float, float, float]:
    """Learning rate, momentum and rate of the fastest convergence for eigenvalues in [1/kappa, 1].

    Source: Lessard, Recht & Packard 2016, proposition 1; heavy ball by Polyak 1964.
    """
    root, wide = sqrt(kappa), sqrt(3 * kappa + 1)
    if method == "sgd":
        return 2 * kappa / (kappa + 1), 0.0, (kappa - 1) / (kappa + 1)
    if method == "momentum":
        rate = (root - 1) / (root + 1)
        return (2 * root / (root + 1)) ** 2, rate**2, rate
    return 4 * kappa / (3 * kappa + 1), (wide - 2) / (wide + 2), 1 - 2 / wide


def line(method: str, momentum: float) -> float:
    """The learning rate beyond which the mode with eigenvalue 1 diverges."""
    return {
        "sgd": 2.0,
        "momentum": 2 + 2 * momentum,
        "nesterov": (2 + 2 * momentum) / (1 + 2 * momentum),
    }[method]


def growth(method: str, lr: float, momentum: float, kappa: float) -> float:
    """Log of the spectral radius: the largest root of both modes' characteristic polynomials."""
    kept = 0.0 if method == "sgd" else momentum
    roots: list[complex] = []
    for eigenvalue in (1 / kappa, 1.0):
        shrink = 1 - lr * eigenvalue
        inner = (1 + kept) * shrink if method == "nesterov" else kept + shrink
        roots += list(np.roots([1, -inner, kept * shrink if method == "nesterov" else kept]))
    return log(max(abs(root) for root in roots))


def runs(quick: bool) -> dict[str, list[str]]:
    """A run per method and condition number, and one across each stability line."""
    changed = CONFIG["quick" if quick else "full"]
    planned = {}
    for method in METHODS:
        base = [*CONFIG["base"], f"members={changed['members']}", f"optimizer={method}"]
        for kappa in CONFIG["conditions"]:
            lr, momentum, _ = optimal(method, kappa)
            planned[f"{method}-{kappa}"] = [
                *base, f"budget.iterations={changed['iterations']}",
                f"problem.condition={kappa}", f"optimizer.lr={lr!r}", *having(method, momentum),
            ]  # fmt: skip
        edge = line(method, CONFIG["momentum"])
        rates = ",".join(repr(edge * (1 + distance)) for distance in CONFIG["distances"])
        planned[f"{method}-line"] = [
            *base, *CONFIG["across"], f"vary.optimizer.lr=[{rates}]",
            *having(method, CONFIG["momentum"]),
        ]  # fmt: skip
    return planned


def having(method: str, momentum: float) -> list[str]:
    """The override that sets the momentum, where there is one."""
    return [] if method == "sgd" else [f"optimizer.momentum={momentum!r}"]


def distances(run: Run) -> np.ndarray:
    """Distance from the minimum at every iteration [T + 1, M]."""
    chunks = run.arrays["trajectory"]
    points = [chunks[i] if n == 0 else chunks[i][:, 1:] for n, i in enumerate(sorted(chunks))]
    return np.linalg.norm(np.concatenate(points, axis=1), axis=-1).T


def exponent(distance: np.ndarray, *, double_root: bool) -> np.ndarray:
    """Decay exponent -d log(distance) / dt of each member [M], fitted on the later half.

    At the optimum of heavy ball and Nesterov the characteristic polynomial of the slow mode has
    a double root, so that the distance decays as t rate^t: the factor t is divided out.
    """
    usable = (distance > 1e-280).all(axis=1)  # before it underflows
    end = len(distance) if usable.all() else int(usable.argmin())
    t = np.arange(end // 2, end)
    values = np.log(distance[t]) - (np.log(t)[:, None] if double_root else 0.0)
    return -np.polyfit(t, values, 1)[0]


def measured(runs: Mapping[str, Run], method: str) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """Exponents {kappa: [M]} at the optimum, and growth [distances, M] across the line."""
    found = {
        kappa: exponent(distances(runs[f"{method}-{kappa}"]), double_root=method != "sgd")
        for kappa in CONFIG["conditions"]
    }
    across = -exponent(distances(runs[f"{method}-line"]), double_root=False)
    return found, across.reshape(len(CONFIG["distances"]), -1)


def claims(runs: Mapping[str, Run], folder: Path) -> list[Claim]:
    """Optimal exponents to 1 %; convergence 1 % below each stability line, divergence above."""
    results = {method: measured(runs, method) for method in METHODS}
    made = []
    for method, (found, _) in results.items():
        for kappa, values in found.items():
            theory = -log(optimal(method, kappa)[2])
            name = f"{METHODS[method][0]}, condition {kappa}: decay exponent"
            made.append(Claim(name, f"{theory:.6g}", values, 0.99 * theory, 1.01 * theory))
    for method, (_, across) in results.items():
        below, above = (
            across[CONFIG["distances"].index(sign * CONFIG["margin"])] for sign in (-1, 1)
        )
        name = f"{METHODS[method][0]}, growth exponent 1 %"
        made.append(Claim(f"{name} below the line", "< 0", below, high=0.0))
        made.append(Claim(f"{name} above the line", "> 0", above, low=0.0))
    draw(runs, results, folder / "quadratic_rates.png")
    return made


def descent(method: str, kappa: float, length: int) -> np.ndarray:
    """Slow mode at the optimal tuning, relative to its start: (1 + a t) rate^t, a by step one."""
    lr, momentum, rate = optimal(method, kappa)
    first = 1 - lr / kappa * (1 + momentum if method == "nesterov" else 1)
    t = np.arange(length)
    return (1 + t * (first / rate - 1)) * rate**t


def draw(runs: Mapping[str, Run], results: Mapping[str, tuple], path: Path) -> None:
    """Descent, exponents against the condition number, growth across the stability lines."""
    figure = Figure(figsize=(13.5, 4.2), layout="constrained", dpi=130)
    left, middle, right = figure.subplots(1, 3)
    shown, momentum = CONFIG["conditions"][1], CONFIG["momentum"]
    kappas, offsets = np.geomspace(5, 2000, 100), np.linspace(-0.11, 0.11, 221)
    for method, (label, color) in METHODS.items():
        found, across = results[method]
        style = {"color": color, "label": label}
        curve = np.exp(np.log(distances(runs[f"{method}-{shown}"])[:301]).mean(axis=1))
        theory = descent(method, shown, len(curve))
        left.semilogy(curve, **style)
        late = np.arange(40, len(curve))  # when the fast mode is gone
        left.semilogy(late, theory[late] * curve[100] / theory[100], "--", color="0.2", lw=0.9)
        middle.loglog(kappas, [-log(optimal(method, k)[2]) for k in kappas], color=color, lw=1)
        middle.loglog(list(found), [v.mean() for v in found.values()], "o", **style)
        edge = line(method, momentum)
        exact = [growth(method, edge * (1 + x), momentum, 10) for x in offsets]
        right.plot(100 * offsets, exact, color=color, lw=1)
        right.plot(100 * np.array(CONFIG["distances"]), across.mean(axis=1), "o", **style)
    left.set(xlabel="iteration", ylabel="distance from the minimum", ylim=(1e-16, 10),
             title=f"Descent, condition {shown} (dashed: theory)")  # fmt: skip
    middle.set(xlabel="condition number", ylabel="decay exponent per iteration",
               title="Optimal tuning (lines: theory)")  # fmt: skip
    right.set(xlabel="learning rate from the stability line (%)", ylabel="growth exponent",
              title=f"Stability, momentum {momentum} (lines: theory)")  # fmt: skip
    right.axhline(0, color="0.6", lw=0.8)
    right.axvline(0, color="0.6", lw=0.8)
    for axes in (left, middle, right):
        axes.grid(alpha=0.2)
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False)
    figure.savefig(path)
