"""Full-batch training at the edge of stability, on a Chebyshev polynomial.

The curvature probe measures the sharpness (of P^-1 H for Adam) over the optimizer's own line:
2 / eta, (2 + 2 beta) / eta or 38 / eta. Everything is judged from that ratio and from the loss of
every update.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from playground.record.reader import Run
from playground.study import Claim

CONFIG = yaml.safe_load((Path(__file__).parent / "config.yaml").read_text())
METHODS = CONFIG["methods"]
COLORS = dict(zip(METHODS, ("#0072B2", "#CC79A7", "#D55E00", "#009E73"), strict=True))
LINES = dict(zip(METHODS, ("2 / eta", "3 / eta", "3.8 / eta", "38 / eta"), strict=True))


def runs(quick: bool) -> dict[str, list[str]]:
    """A run per optimizer, all its rates and members in one."""
    changed = CONFIG["quick" if quick else "full"]
    return {
        name: [
            *CONFIG["base"], *method["overrides"], f"members={changed['members']}",
            f"vary.optimizer.lr=[{','.join(map(str, method['rates']))}]",
            f"budget.iterations={changed['iterations']}",
            f"probes.curvature.every={changed['every']}",
        ]
        for name, method in METHODS.items()
    }  # fmt: skip


@dataclass(frozen=True)
class Trail:
    """What is measured at one rate; M members, K measurements, T updates.

    Attributes:
        at: iterations of the measurements [K].
        ratio: sharpness over the line [K, M].
        residual: of the eigenvalue, as a share of the line [K, M].
        loss: before every update [T, M].
    """

    at: np.ndarray
    ratio: np.ndarray
    residual: np.ndarray
    loss: np.ndarray

    def last(self) -> np.ndarray:
        """Ratios over the last part of the run [K', M]."""
        return self.ratio[self.at > (1 - CONFIG["last"]) * len(self.loss)]

    def crossings(self) -> np.ndarray:
        """First iteration [M] at which the ratio was seen above 1; the run's length if never."""
        above = self.ratio > 1
        first = self.at[above.argmax(axis=0)]
        return np.where(above.any(axis=0), first, len(self.loss))

    def rises(self) -> tuple[np.ndarray, np.ndarray]:
        """Share of the updates that raised the loss, before and from the crossing on [M] each."""
        up = np.diff(self.loss, axis=0) > 0
        parts = [np.split(up[:, m], [t - 1]) for m, t in enumerate(self.crossings())]
        before, after = zip(*parts, strict=True)
        return (np.array([p.mean() if len(p) else 0.0 for p in before]),
                np.array([p.mean() if len(p) else 0.0 for p in after]))  # fmt: skip

    def fall(self) -> np.ndarray:
        """log10 of the loss at the end over that at the crossing [M]."""
        members = range(self.loss.shape[1])
        return np.log10(self.loss[-1] / self.loss[self.crossings() - 1, members])


def trails(run: Run) -> dict[float, Trail]:
    """{rate: trail} of a run."""
    rates = np.array([member["values"]["optimizer.lr"] for member in run.members])
    rows = [r for r in run.measurements.to_pylist() if r["quantity"] == "sharpness_ratio"]
    at = np.unique([r["iteration"] for r in rows])
    table = np.full((2, len(at), len(rates)), np.nan)
    for row in rows:
        place = np.searchsorted(at, row["iteration"]), row["member"]
        table[0][place], table[1][place] = row["value"], row["stderr"]
    loss = run.metric("loss", "model")[1]
    return {
        float(rate): Trail(at, table[0][:, rates == rate], table[1][:, rates == rate],
                           loss[:, rates == rate])
        for rate in np.unique(rates)
    }  # fmt: skip


def claims(runs: Mapping[str, Run], folder: Path) -> list[Claim]:
    """Where each optimizer ends relative to its line, and how it gets there."""
    found = {name: trails(run) for name, run in runs.items()}
    made = descent(found["gradient descent"])
    for name, low in (("momentum .5", 0.95), ("momentum .9", 0.95), ("Adam", 0.9)):
        for rate, trail in found[name].items():
            made += held(f"{name}, rate {rate:g}", trail, LINES[name], low, 1.1)
    share = [np.nanmax(t.residual) for each in found.values() for t in each.values()]
    made.append(Claim("largest residual of an eigenvalue over the line", "0", [max(share)],
                      high=0.01))  # fmt: skip
    draw(found, folder / "cohen2021.png")
    return made


def held(title: str, trail: Trail, line: str, low: float, high: float) -> list[Claim]:
    """The line is reached, and the sharpness stays at it."""
    length = len(trail.loss)
    return [
        Claim(f"{title}: median sharpness of the last quarter over {line}", "1",
              np.median(trail.last(), axis=0), low, high),
        Claim(f"{title}: first iteration above the line", "before the last quarter",
              trail.crossings(), high=(1 - CONFIG["last"]) * length),
    ]  # fmt: skip


def descent(found: Mapping[float, Trail]) -> list[Claim]:
    """The published rate, the control below and the start above the line."""
    control, usual, high = (found[rate] for rate in METHODS["gradient descent"]["rates"])
    last, length = usual.last(), len(usual.loss)
    before, after = usual.rises()
    alive = np.isfinite(high.last()).all(axis=0)
    title, settled = "gradient descent, rate", np.median(high.last()[:, alive], axis=0)
    return [
        Claim(f"{title} 0.2: median sharpness of the last quarter over 2 / eta", "1.007 to 1.009",
              np.median(last, axis=0), 0.98, 1.05),
        Claim(f"{title} 0.2: smallest of the last quarter", "1.00", last.min(axis=0), low=0.98),
        Claim(f"{title} 0.2: largest of the last quarter", "1.04", last.max(axis=0), high=1.05),
        Claim(f"{title} 0.2: first iteration above the line", "381", usual.crossings(),
              high=(1 - CONFIG["last"]) * length),
        Claim(f"{title} 0.2: share of updates that raise the loss, below the line", "0", before,
              high=0.01),
        Claim(f"{title} 0.2: share of updates that raise the loss, from the line on", "> 0", after,
              low=0.05),
        Claim(f"{title} 0.2: log10 of the last loss over that at the line", "< 0", usual.fall(),
              high=0.0),
        Claim(f"{title} 0.049: sharpness at the end over 2 / eta", "0.70", control.ratio[-1],
              high=0.8),
        Claim(f"{title} 0.049: largest ever", "never above", control.ratio.max(axis=0), high=1.0),
        Claim(f"{title} 0.417: sharpness at the start over 2 / eta", "above", high.ratio[0],
              low=1.0),
        Claim(f"{title} 0.417: share of members that stay finite", "1 of 1", alive.astype(float),
              low=0.5),
        Claim(f"{title} 0.417: median of the last quarter, of those", "1.017",
              settled if len(settled) else [np.nan], 0.98, 1.06),
    ]  # fmt: skip


def draw(found: Mapping[str, Mapping[float, Trail]], path: Path) -> None:
    """Sharpness over the line for every optimizer, and the loss of gradient descent."""
    figure = Figure(figsize=(19, 7.2), layout="constrained", dpi=130)
    cells = figure.subplots(2, 4, sharex=True)
    for column, (name, each) in enumerate(found.items()):
        shades = np.linspace(0.35, 1.0, len(each)) if len(each) > 1 else [0.9]
        top, below = cells[:, column]
        for (rate, trail), shade in zip(each.items(), shades, strict=True):
            label = f"eta = {rate:g}"
            top.plot(trail.at, trail.ratio, color=COLORS[name], alpha=0.15 * shade, lw=0.6)
            top.plot(trail.at, middle(trail.ratio), color=COLORS[name], alpha=shade,
                     lw=1.6, label=label)  # fmt: skip
            below.semilogy(trail.loss, color=COLORS[name], alpha=0.12 * shade, lw=0.5)
            below.semilogy(middle(trail.loss), color=COLORS[name], alpha=shade, lw=1.2,
                           label=label)  # fmt: skip
        top.axhline(1, color="0.1", lw=1, ls="--")
        word = "preconditioned sharpness" if name == "Adam" else "sharpness"
        top.set(title=f"{name}: {word} over {LINES[name]}", ylim=(0, 1.5), ylabel="ratio")
        below.set(title="training loss", xlabel="update", ylabel="half mean squared error")
        for axes in (top, below):
            polish(axes)
    figure.savefig(path)


def middle(values: np.ndarray) -> np.ndarray:
    """Median over the members that are finite [K], NaN where none is."""
    known = np.isfinite(values).any(axis=1)
    result = np.full(len(values), np.nan)
    result[known] = np.nanmedian(values[known], axis=1)
    return result


def polish(axes: Axes) -> None:
    """Grid, legend, no box."""
    axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
