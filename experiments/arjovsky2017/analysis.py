"""What a held generator's gradient becomes as its discriminator approaches the optimum.

g = grad_theta E loss(D(G(z))), by the loss of the generator, after every update of D. Along the
same discriminators: minimax vanishes with E sigmoid(D(G(z))), nonsaturating is divided by it. A
Wasserstein critic's slopes stay near 1.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import yaml
from matplotlib.figure import Figure

from playground.estimates import gradient_estimates
from playground.record.reader import Run
from playground.study import Claim

CONFIG = yaml.safe_load((Path(__file__).parent / "config.yaml").read_text())
COLORS = {"minimax": "#D55E00", "nonsaturating": "#0072B2", "wgan": "#009E73"}


def runs(quick: bool) -> dict[str, list[str]]:
    """The generator's training, then a run a loss and moment against it, held."""
    size = CONFIG["quick" if quick else "full"]
    common = [*CONFIG["problem"], f"members={size['members']}"]
    planned = {"generator": [*common, *CONFIG["generator"]]}
    for at in size["moments"]:
        for loss, chosen in CONFIG["losses"].items():
            planned[f"{loss}, {at}"] = [
                *common, *CONFIG["held"], *chosen, f"snapshot.iteration={at}",
                f"budget.iterations={size['iterations']}",
            ]  # fmt: skip
    return planned


def norms(run: Run, player: str) -> np.ndarray:
    """Norm of a player's raw gradient at every iteration [T, M]."""
    table = run.gradients.select(["iteration", "member", "player", "tensor", "tap", "norm"])
    for column, value in (("player", player), ("tensor", ""), ("tap", "gradient")):
        table = table.filter(pc.equal(table[column], value))
    values = np.full((run.manifest["counters"]["iterations"], len(run.members)), np.nan)
    values[table["iteration"].to_numpy() - 1, table["member"].to_numpy()] = table["norm"]
    return values


def decades(values: np.ndarray) -> np.ndarray:
    """log10 of the last iterations over the first, by their geometric means, [T, M] to [M]."""
    logs = np.log10(values)
    return logs[-CONFIG["last"] :].mean(axis=0) - logs[: CONFIG["first"]].mean(axis=0)


def variance(run: Run, member: int, at: str | int) -> float:
    """Trace of the covariance of a batch's generator gradient."""
    found = gradient_estimates(
        run, at, member=member, seed=member, estimates=CONFIG["estimates"]
    ).noise("generator")  # fmt: skip
    return found["variance"].value[0, 0].item()


def claims(runs: Mapping[str, Run], folder: Path) -> list[Claim]:
    """Decades that norms and variances rise or fall by, with criteria of the config."""
    cells = [name.split(", ") for name in runs if name != "generator"]
    curves = {(loss, int(at)): norms(runs[f"{loss}, {at}"], "generator") for loss, at in cells}
    made = []
    for at in sorted({at for _, at in curves}):
        same = [norms(runs[f"{loss}, {at}"], "discriminator") for loss in list(COLORS)[:2]]
        made.append(Claim(f"after {at}: discriminators of both logistic losses differ by", "0",
                          [np.abs(same[0] - same[1]).max()], high=0))  # fmt: skip
        for loss in COLORS:
            stated = CONFIG["decades"][loss]
            stated = stated[at] if isinstance(stated, dict) else stated
            made.append(claim(f"after {at}: {loss}, norm", decades(curves[loss, at]), stated))
        run = runs[f"nonsaturating, {at}"]
        rise = [
            np.log10(variance(run, m, "final") / variance(run, m, CONFIG["early"]))
            for m in range(len(run.members))
        ]
        made.append(
            claim(f"after {at}: nonsaturating, variance", rise, CONFIG["decades"]["variance"])
        )
    draw(curves, folder / "arjovsky2017.png")
    return made


def claim(name: str, values: np.ndarray | list[float], stated: list) -> Claim:
    """A claim in decades."""
    published, low, high = stated
    return Claim(name, published, values, -np.inf if low is None else low,
                 np.inf if high is None else high, "decades")  # fmt: skip


def draw(curves: Mapping[tuple[str, int], np.ndarray], path: Path) -> None:
    """A panel a moment: every member thin, the geometric mean thick."""
    moments = sorted({at for _, at in curves})
    figure = Figure(figsize=(4.6 * len(moments) + 0.6, 4.2), layout="constrained", dpi=130)
    panels = figure.subplots(1, len(moments), sharey=True, squeeze=False)[0]
    for axes, at in zip(panels, moments, strict=True):
        for loss, color in COLORS.items():
            values = curves[loss, at]
            t = np.arange(1, len(values) + 1)
            axes.plot(t, values, color=color, lw=0.4, alpha=0.25)
            axes.plot(t, np.exp(np.log(values).mean(axis=1)), color=color, lw=1.6, label=loss)
        axes.set(xscale="log", yscale="log", xlabel="updates of the discriminator, from scratch")
        axes.set_title(f"generator after {at} iterations", loc="left", fontsize=10)
        axes.grid(alpha=0.2)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("norm of the held generator's gradient")
    panels[0].legend(fontsize=8.5, loc="lower left", framealpha=0.9, edgecolor="none")
    figure.savefig(path)
