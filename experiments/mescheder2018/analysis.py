"""Which training methods converge on the Dirac-GAN, and at the rates that eigenvalues say.

The flow is v = -F; near the equilibrium v = J z with J = ((-a, -s), (s, -b)) in the paper's sign
of psi, s = f'(0), and a, b the damping of either player.
"""

from collections.abc import Mapping
from math import log
from pathlib import Path

import numpy as np
import yaml
from matplotlib.figure import Figure

from playground.record.reader import Run
from playground.study import Claim

CONFIG = yaml.safe_load((Path(__file__).parent / "config.yaml").read_text())
METHODS = CONFIG["methods"]
SCHEDULES = ("simultaneous", "alternating")


def jacobian(linear: list[float]) -> np.ndarray:
    """J [2, 2] of v at the equilibrium, from (s, a, b)."""
    s, a, b = linear
    return np.array([[-a, -s], [s, -b]])


def exponent(linear: list[float], schedule: str) -> float:
    """Decay exponent -log(spectral radius) of one iteration; alternating moves theta first."""
    step, one = CONFIG["rate"] * jacobian(linear), np.eye(2)
    if schedule == "simultaneous":
        move = one + step
    else:
        first, second = one.copy(), one.copy()
        first[0] += step[0]
        second[1] += step[1]
        move = second @ first
    return -log(np.abs(np.linalg.eigvals(move)).max())


def cases() -> list[tuple[str, str]]:
    """Every method under every schedule that it has."""
    return [
        (method, schedule)
        for method in METHODS
        for schedule in SCHEDULES
        if schedule == "simultaneous" or method not in CONFIG["simultaneous_only"]
    ]


def runs(quick: bool) -> dict[str, list[str]]:
    """A run per method and schedule, and one iteration at the equilibrium per method.

    A quick run is the same: nothing here is random, and all of it takes a minute.
    """
    planned = {}
    for method, schedule in cases():
        planned[f"{method}, {schedule}"] = [
            *CONFIG["base"], *METHODS[method]["overrides"], f"problem.rounds={schedule}",
            f"budget.iterations={CONFIG['iterations']}", "probes.game.every=25",
        ]  # fmt: skip
    for method in METHODS:
        if METHODS[method]["linear"] is None:
            continue
        planned[f"{method}, equilibrium"] = [
            *CONFIG["base"], *METHODS[method]["overrides"], "problem.rounds=simultaneous",
            "problem.start=[0,0]", "budget.iterations=1", "probes.game.every=1",
        ]  # fmt: skip
    return planned


def trail(run: Run) -> np.ndarray:
    """(theta, psi) at every iteration [T + 1, 2], psi in the paper's sign."""
    chunks = run.arrays["trajectory"]
    points = [chunks[i] if n == 0 else chunks[i][:, 1:] for n, i in enumerate(sorted(chunks))]
    return np.concatenate(points, axis=1)[0] * [1, -1]


def fitted(points: np.ndarray, *, power: bool = False) -> float:
    """Minus the slope of log distance over the last iterations, or over their logarithm."""
    distance = np.linalg.norm(points, axis=1)
    t = np.arange(int(len(points) * (1 - CONFIG["fitted"])), len(points))
    return float(-np.polyfit(np.log(t) if power else t, np.log(distance[t]), 1)[0])


def measured(run: Run) -> dict[str, float]:
    """{quantity: value} of the game probe at the first iteration."""
    return {
        row["quantity"]: row["value"]
        for row in run.measurements.to_pylist()
        if row["probe"] == "game" and row["iteration"] == 1
    }


def claims(runs: Mapping[str, Run], folder: Path) -> list[Claim]:
    """Eigenvalues at the equilibrium; exponents of what converges; the rest does not."""
    made = []
    for method, content in METHODS.items():
        if content["linear"] is None or method == "consensus":
            continue
        found = measured(runs[f"{method}, equilibrium"])
        values = np.linalg.eigvals(jacobian(content["linear"]))
        for name, ours, theory in (
            ("real part", -found["real_min"], values.real.max()),
            ("imaginary part", found["imaginary_max"], values.imag.max()),
        ):
            title = f"{method}: eigenvalue, {name}"
            made.append(Claim(title, f"{theory:.6g}", [ours], theory - 1e-6, theory + 1e-6))
    for method, schedule in cases():
        points = trail(runs[f"{method}, {schedule}"])
        title = f"{method}, {schedule}: "
        if method in CONFIG["converging"]:
            theory = exponent(METHODS[method]["linear"], schedule)
            slack = CONFIG["tolerance"] * theory
            made.append(Claim(f"{title}decay exponent", f"{theory:.4g}", [fitted(points)],
                              theory - slack, theory + slack))  # fmt: skip
        elif [method, schedule] == CONFIG["sublinear"]:
            slope = -fitted(points, power=True)
            made.append(Claim(f"{title}power of the iteration", "-0.5", [slope], -0.55, -0.45))
        else:
            last = np.linalg.norm(points[-50:], axis=1).mean()
            made.append(Claim(f"{title}distance, last 50", "stays away", [last], low=0.2))
    draw(runs, folder / "mescheder2018.png")
    return made


def draw(runs: Mapping[str, Run], path: Path) -> None:
    """A panel a method: both schedules' paths, and the eigenvalue of the flow in words."""
    figure = Figure(figsize=(14.5, 6.4), layout="constrained", dpi=130)
    colors = {"simultaneous": "#0072B2", "alternating": "#D55E00"}
    for axes, method in zip(figure.subplots(2, 5).flat, METHODS, strict=True):
        for schedule in SCHEDULES:
            run = runs.get(f"{method}, {schedule}")
            if run is None:
                continue
            points = trail(run)
            axes.plot(*points.T, color=colors[schedule], lw=0.9, label=schedule)
            axes.plot(*points[-1], "o", color=colors[schedule], ms=5, mec="white")
        axes.plot(0, 0, "*", color="#F2C14E", ms=13, mec="0.2", mew=0.7, zorder=1)
        linear = METHODS[method]["linear"]
        words = "no eigenvalues: discontinuous"
        if linear is not None:
            value = max(np.linalg.eigvals(jacobian(linear)), key=lambda v: v.imag)
            words = f"eigenvalues {value.real:.3g} +- {value.imag:.3g} i"
        verdict = "converges" if method in CONFIG["converging"] else "does not converge"
        verdict = (
            "cycles, or converges as 1/sqrt(t)" if method == CONFIG["sublinear"][0] else verdict
        )
        axes.set_title(f"{method}: {verdict}\n{words}", fontsize=9.5)
        axes.set(aspect="equal", xlim=(-2.1, 2.1), ylim=(-2.1, 2.1))
        axes.grid(alpha=0.2)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(fontsize=8, loc="lower left", framealpha=0.9, edgecolor="none")
    figure.supxlabel("generator theta", fontsize=10)
    figure.supylabel("discriminator psi, the paper's sign", fontsize=10)
    figure.savefig(path)
