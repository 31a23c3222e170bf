"""The same quantities of an agent, a GAN, a classifier and a point on a landscape.

A quantity is a series [K, M] at iterations [K], of one player of one run. Early and late are the
first and last quarter of a run; every estimate is one number a member.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from playground.record.reader import Run
from playground.study import Claim

CONFIG = yaml.safe_load((Path(__file__).parent / "config.yaml").read_text())
PART = CONFIG["part"]
POINTS = 50

Series = tuple[np.ndarray, np.ndarray]

ROWS = {
    "gradient norm over\nits first value": "norm",
    "update norm over\nparameter norm": "ratio",
    "cosine with the\nprevious gradient": "cosine_previous",
    "straightness: distance\nover path length": "direction: straightness",
    "noise over gradient,\nroot mean squares": "noise: norm_test",
    "sharpness over\nAdam's line 38 / eta": "curvature: sharpness_ratio",
    "antisymmetric share\nof the Jacobian": "game: antisymmetric_share",
}
LOG = {"norm", "ratio", "direction: straightness", "noise: norm_test",
       "curvature: sharpness_ratio"}  # fmt: skip
COLORS = ("#0072B2", "#D55E00")


def runs(quick: bool) -> dict[str, list[str]]:
    """A run a domain."""
    members = (CONFIG["quick"] if quick else CONFIG)["members"]
    return {
        name: [*CONFIG["base"], *own, f"members={members}"] for name, own in CONFIG["runs"].items()
    }


def measured(run: Run, player: str, probe: str, quantity: str) -> Series:
    """A quantity of the table ``measurements`` at the iterations where it was taken."""
    table = run.measurements
    wanted = (
        pc.field("probe") == probe, pc.field("quantity") == quantity,
        pc.field("player") == player, pc.field("tensor") == "",
    )  # fmt: skip
    for condition in wanted:
        table = table.filter(condition)
    return pivot(table, "value", len(run.members))


def tier0(run: Run, player: str, tap: str, quantity: str) -> Series:
    """A quantity of the table ``gradients``, the mean over an iteration's updates."""
    table = run.gradients
    for condition in (pc.field("player") == player, pc.field("tensor") == "",
                      pc.field("tap") == tap):  # fmt: skip
        table = table.filter(condition)
    return pivot(table, quantity, len(run.members))


def pivot(table, column: str, members: int) -> Series:
    """Iterations [K] and the column's means [K, M]; NaN where there is nothing."""
    at, member, value = (
        table[name].to_numpy(zero_copy_only=False) for name in ("iteration", "member", column)
    )
    value = value.astype(np.float64)
    known = np.isfinite(value)
    at, member, value = at[known], member[known], value[known]
    times, place = np.unique(at, return_inverse=True)
    total, count = np.zeros((2, len(times), members))
    np.add.at(total, (place, member), value)
    np.add.at(count, (place, member), 1)
    with np.errstate(invalid="ignore"):
        return times, total / count


def series(run: Run, player: str, row: str) -> Series:
    """A row of the figure."""
    if ": " in row:
        probe, quantity = row.split(": ")
        return measured(run, "" if probe == "game" else player, probe, quantity)
    tap = "update" if row == "ratio" else "gradient"
    at, value = tier0(run, player, tap, row)
    return (at, value / value[0]) if row == "norm" else (at, value)


def ends(
    found: Series, total: int, middle: Callable[[np.ndarray], np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Medians, or another middle, over the early and the late part of a run, [M] each."""
    at, value = found
    early, late = at <= PART * total, at > (1 - PART) * total
    middle = middle or partial(np.nanmedian, axis=0)
    return middle(value[early]), middle(value[late])


def share(variance: Series, signal: Series, total: int) -> tuple[np.ndarray, np.ndarray]:
    """Early and late share of |G|^2 that is noise, V / (|E G|^2 + V), [M] each.

    Both are averaged before they are divided (McCandlish et al. 2018, appendix A.1): each is
    unbiased, their ratio is not. The noise scale V / |E G|^2 has no sign where noise is all.
    """
    parts = zip(ends(variance, total, mean), ends(signal, total, mean), strict=True)
    early, late = (noise / (noise + rest) for noise, rest in parts)
    return early, late


def estimates(run: Run, player: str) -> dict[str, Callable[[], np.ndarray]]:
    """{what: its estimator [M]} of one player.

    noise grows     late minus early share of a gradient's square that is noise
    update ratio    early |update| / |parameters|
    late cosine     of consecutive gradients
    memory          late cosine of consecutive updates, minus that of consecutive gradients
    beyond a walk   straightness at the end times the root of the number of updates
    sharpness       late, over Adam's line
    rotation        late antisymmetric share
    """
    total = run.manifest["counters"]["iterations"]
    row = partial(series, run, player)

    def noise() -> np.ndarray:
        early, late = share(row("noise: variance"), row("noise: norm_squared"), total)
        return late - early

    def memory() -> np.ndarray:
        cosines = [ends(tier0(run, player, tap, "cosine_previous"), total)[1]
                   for tap in ("update", "gradient")]  # fmt: skip
        return cosines[0] - cosines[1]

    def beyond() -> np.ndarray:
        updates = run.gradients.filter(pc.field("player") == player)["update"]
        return row("direction: straightness")[1][-1] * np.sqrt(pc.max(updates).as_py())

    return {
        "noise grows": noise,
        "update ratio": lambda: ends(row("ratio"), total)[0],
        "late cosine": lambda: ends(row("cosine_previous"), total)[1],
        "memory": memory,
        "beyond a walk": beyond,
        "sharpness": lambda: ends(row("curvature: sharpness_ratio"), total)[1],
        "rotation": lambda: ends(row("game: antisymmetric_share"), total)[1],
    }


def claims(runs: Mapping[str, Run], folder: Path) -> list[Claim]:
    """The claims of the config, and the page."""
    made = []
    for what, whose, published, low, high in CONFIG["claims"]:
        domain, player = whose.split("/")
        made.append(Claim(
            f"{what}: {domain}{f', {player}' if domain == 'GAN' and player else ''}", published,
            estimates(runs[domain], player)[what](),
            -np.inf if low is None else low, np.inf if high is None else high,
        ))  # fmt: skip
    draw(runs, folder / "gradients_across_domains.png")
    return made


def draw(runs: Mapping[str, Run], path: Path) -> None:
    """A column a domain, a row a quantity on one scale; members thin, their mean thick."""
    figure = Figure(figsize=(13, 1.75 * len(ROWS)), layout="constrained", dpi=110)
    grid = figure.subplots(len(ROWS), len(runs), sharex=True, sharey="row")
    for column, (domain, run) in zip(grid.T, runs.items(), strict=True):
        players = run.manifest["players"]
        for axes, (label, row) in zip(column, ROWS.items(), strict=True):
            shown = [""] if row.startswith("game") else players
            for player, color in zip(shown, COLORS, strict=False):
                curve(axes, *series(run, player, row), run.manifest["counters"]["iterations"],
                      color if player else "#222222", player, log=row in LOG)  # fmt: skip
            if domain == next(iter(runs)):
                axes.set_ylabel(label, fontsize=9)
            if row in LOG:
                axes.set_yscale("log")
        column[0].set_title(f"{domain}: {run.config['problem']['name']}", fontsize=11, loc="left")
        if len(players) > 1:
            column[0].legend(frameon=False, fontsize=8)
        column[-1].set_xlabel("share of the run")
    for axes in grid[list(ROWS.values()).index("curvature: sharpness_ratio")]:
        axes.axhline(1, color="0.4", ls="--", lw=0.9)
    figure.savefig(path)


def curve(
    axes: Axes, at: np.ndarray, value: np.ndarray, total: int, color: str, label: str, *, log: bool
) -> None:
    """Every member and the mean, in at most ``POINTS`` points; a note where nothing is measured."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)
    if not len(at):
        axes.text(0.5, 0.5, "no samples to tell noise from", transform=axes.transAxes, ha="center",
                  fontsize=8, color="0.45")  # fmt: skip
        return
    value = np.where(value > 0, value, np.nan) if log else value
    parts = np.array_split(np.arange(len(at)), min(POINTS, len(at)))
    x = np.array([at[part].mean() for part in parts]) / total
    pool = np.log(value) if log else value
    y = np.stack([mean(pool[part]) for part in parts])
    back = np.exp if log else np.asarray
    axes.plot(x, back(y), color=color, lw=0.5, alpha=0.3)
    axes.plot(x, back(mean(y.T)), color=color, lw=1.8, label=label)


def mean(values: np.ndarray) -> np.ndarray:
    """Over the first axis, of what is finite; NaN where nothing is."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0).sum(0) / known.sum(0)
