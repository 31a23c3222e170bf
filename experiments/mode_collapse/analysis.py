"""Modes and quality on ring and grid per loss, penalty, schedule and game method.

All cells of a data set have the same budget of gradient evaluations; a cell is one run of all
members. ``scripts/gan_table.py`` prints the same runs as a table.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import yaml
from matplotlib.figure import Figure

from playground.record.reader import Run
from playground.study import Claim

CONFIG = yaml.safe_load((Path(__file__).parent / "config.yaml").read_text())
METRICS = {"modes": "modes", "high_quality": "high-quality share", "reverse_kl": "reverse KL, nats"}
MODES = {"ring": 8, "grid": 25}


def parts(cell: str) -> tuple[str, str, str, str]:
    """Loss, penalty, schedule and method of a cell's name."""
    given = cell.split(", ")
    loss, penalty, schedule, method = [*given, *("alternating", "direct")[len(given) - 2 :]]
    return loss, penalty, schedule, method


def overrides(cell: str) -> list[str]:
    """What a cell sets."""
    tables = (CONFIG[name] for name in ("losses", "penalties", "schedules", "methods"))
    return [key for table, part in zip(tables, parts(cell), strict=True) for key in table[part]]


def runs(quick: bool) -> dict[str, list[str]]:
    """A run a data set and cell, named "data: cell"."""
    chosen, more = (CONFIG["quick"], CONFIG["quick"]["overrides"]) if quick else (CONFIG, [])
    return {
        f"{data}: {cell}": [*own(f"{data}: {cell}"), *more]
        for data, cells in chosen["cells"].items()
        for cell in cells
    }


def own(name: str) -> list[str]:
    """The overrides of the run "data: cell", whether it is in the study or not."""
    data, cell = name.split(": ")
    return [*CONFIG["base"], *CONFIG["data"][data], *overrides(cell)]


def final(run: Run, metric: str) -> np.ndarray:
    """Every member's last value [M] of the problem's generator."""
    return run.metric(metric)[1][-1]


def named(cell: str) -> str:
    """A cell's whole name, of a method alone too."""
    simultaneous = "nonsaturating, none, simultaneous"
    if cell == "simultaneous":
        return simultaneous
    return f"{simultaneous}, {cell}" if cell in CONFIG["methods"] else cell


def claims(runs: Mapping[str, Run], folder: Path) -> list[Claim]:
    """The claims of the config whose runs are there, and the figure."""
    made = []
    for data, what, metric, published, low, high in CONFIG["claims"]:
        wanted = [f"{data}: {named(cell)}" for cell in what.split(" - ")]
        if any(name not in runs for name in wanted):
            continue
        values = [final(runs[name], metric) for name in wanted]
        made.append(Claim(
            f"{data}: {what}: {metric}", published,
            values[0] if len(values) == 1 else values[0] - values[1],
            -np.inf if low is None else low, np.inf if high is None else high,
        ))  # fmt: skip
    draw(runs, folder / "mode_collapse.png")
    return made


def draw(runs: Mapping[str, Run], path: Path) -> None:
    """A row of panels a data set: members as dots, their mean a bar, a perfect sampler dashed."""
    found = {d: [n for n in runs if n.startswith(f"{d}: ")] for d in MODES}
    found = {data: names for data, names in found.items() if names}
    tallest = max(len(names) for names in found.values())
    figure = Figure(
        figsize=(13.5, (0.27 * tallest + 1) * len(found)), layout="constrained", dpi=130
    )
    grid = figure.subplots(len(found), len(METRICS), sharey="row", squeeze=False)
    for row, (data, names) in zip(grid, found.items(), strict=True):
        for axes, (metric, label) in zip(row, METRICS.items(), strict=True):
            panel(axes, [runs[name] for name in names], metric)
            axes.set_xlabel(label)
        row[0].set_yticks(range(len(names)), [n.removeprefix(f"{data}: ") for n in names], size=8)
        row[0].invert_yaxis()
        row[0].set_title(f"{data}, {MODES[data]} modes", loc="left", fontsize=11)
    figure.savefig(path)


def panel(axes, cells: list[Run], metric: str) -> None:
    """One metric of every cell."""
    perfect = [final(run, f"{metric}/perfect").mean() for run in cells]
    axes.axvline(np.mean(perfect), color="0.4", ls="--", lw=1)
    for place, run in enumerate(cells):
        values = final(run, metric)
        color = "#0072B2" if run.config["stepper"]["name"] == "direct" else "#D55E00"
        shift = np.linspace(-0.25, 0.25, len(values)) if len(values) > 1 else 0
        axes.plot(values, place + shift, "o", color=color, ms=3, alpha=0.5, mew=0)
        axes.plot([values.mean()] * 2, [place - 0.38, place + 0.38], color=color, lw=2.2)
    if metric == "reverse_kl":
        axes.set_xscale("symlog", linthresh=0.01)
    axes.grid(axis="x", alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
