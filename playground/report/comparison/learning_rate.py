"""Learning-rate curves: a metric against a hyperparameter that varies, with its spread.

What varies may vary along the member axis (``vary.optimizer.lr=[...]``) or between the runs
of a sweep (``optimizer.lr=1e-3,1e-2``); members with the same value are replicas.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from playground.record.view import Array, View
from playground.report.comparison.entries import entries, flatten
from playground.report.drawing.curves import threshold_line
from playground.report.drawing.statistics import (
    DIVERGED,
    ceiling,
    decades,
    finite,
    logarithm,
    mean,
    quantiles,
    scale_of,
)
from playground.report.drawing.style import (
    ALARM,
    INK,
    Sheet,
    color,
    heading,
    legend,
    number,
    value_scale,
)
from playground.report.drawing.text import is_linear, metric_text, result_text
from playground.report.figures.overview import reference


@dataclass
class Response:
    """Final metrics by value of the hyperparameter, for one line of the figure."""

    label: str
    view: View
    finals: dict[float, list[float]] = field(default_factory=dict)

    def arrays(self) -> tuple[Array, list[Array]]:
        """Values, ascending, and the members' metrics at each."""
        keys = sorted(self.finals)
        return np.array(keys), [finite(np.array(self.finals[key])) for key in keys]

    def best(self) -> float | None:
        """The value with the best mean among those where every member is finite.

        Where there is none, among those where any member is.
        """
        sign = 1.0 if self.view.manifest.get("higher_is_better") else -1.0
        found = [
            (bool(np.isfinite(values).all()), sign * float(np.nanmean(values)), key)
            for key, values in zip(*self.arrays(), strict=True)
            if np.isfinite(values).any()
        ]
        return float(max(found)[2]) if found else None


def varying(found: Sequence[View]) -> list[str]:
    """Keys that have several values, along the member axis or between runs; ``lr`` first."""
    keys: dict[str, set[float]] = {}
    for view in found:
        for group in view.groups:
            for key, value in group.values.items():
                keys.setdefault(key, set()).add(value)
    for key in _swept(found):
        keys.setdefault(key, set()).update((0.0, 1.0))
    several = [key for key, values in keys.items() if len(values) > 1]
    return sorted(several, key=lambda key: (not key.endswith(".lr"), key))


def _swept(found: Sequence[View]) -> list[str]:
    """Optimizer numbers in which runs differ that agree in everything else."""
    result = []
    flats = [dict(flatten(view.config)) for view in found]
    owners = ("optimizer.", "players.")
    for key in {key for flat in flats for key in flat if key.startswith(owners)}:
        numbers = {flat[key] for flat in flats if isinstance(flat.get(key), float)}
        if len(numbers) > 1 and any(
            len({v.config_value(key) for v in entry.views}) > 1
            for entry in entries(found, without=(key,))
        ):
            result.append(key)
    return result


def responses(found: Sequence[View], key: str) -> list[Response]:
    """One line for every entry that remains when the key is put on the axis."""
    lines: dict[str, Response] = {}
    remaining = entries(found, without=(key,))
    for entry in remaining:
        own = (entry.first.config.get("optimizer") or {}).get("name", entry.label)
        head = entry.label if len(remaining) > 1 else str(own)
        for view in entry.views:
            final = settled(view)
            for group in view.groups:
                value = group.values.get(key, view.config_value(key))
                if value is None or not len(final):
                    continue
                others = [f"{k.rpartition('.')[2]} {v:g}" for k, v in group.values.items()
                          if k != key]  # fmt: skip
                name = ", ".join([head, *others])
                line = lines.setdefault(name, Response(name, view))
                line.finals.setdefault(float(value), []).extend(final[group.members].tolist())
    return [line for line in lines.values() if len(line.finals) > 1]


def settled(view: View) -> Array:
    """The main metric at the end [M]; NaN for members that diverged."""
    series = view.metric(view.main_metric)
    last = finite(series.last())
    if view.manifest.get("higher_is_better") or not len(last):
        return last
    return np.where(np.abs(last) > ceiling(series.values), np.nan, last)


def figures(found: Sequence[View]) -> dict[str, Figure | None]:
    """{file name: figure} of every key that varies, a panel a problem."""
    result: dict[str, Figure | None] = {}
    for key in varying(found):
        lines = responses(found, key)
        if lines:
            short = "learning_rate" if key == "optimizer.lr" else key.replace(".", "_")
            result[short] = figure(lines, key)
    return result


def figure(lines: Sequence[Response], key: str) -> Figure:
    """Metric against the key, a panel a problem, a line an entry."""
    problems: dict[tuple[str, str], list[Response]] = {}
    for line in lines:
        problems.setdefault((line.view.problem, line.view.main_metric), []).append(line)
    count = len(problems)
    seeds = sorted({len(values) for line in lines for values in line.arrays()[1]})
    many = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    name = "Learning-rate curves" if key.endswith(".lr") else f"Response to {key}"
    sheet = Sheet.make(
        name, f"{key}, final value of the main metric, {many} members a value",
        "Dots: members; line: mean of those that did not diverge; band: the middle 95 % of them "
        "(log axes: of the logarithms). Star: best mean among values where no member diverged. "
        f"Red crosses: how many diverged (not finite, or {DIVERGED:,.0f} times what is usual).",
        width=max(9.5, 6.8 * min(count, 2)), body=4.8 * -(-count // 2) + 0.7 * ((count - 1) // 2),
    )  # fmt: skip
    cells = sheet.grid(-(-count // 2), min(count, 2), hspace=0.3, wspace=0.2)
    for index, ((problem, metric), group) in enumerate(problems.items()):
        ax = sheet.panel(cells[index // 2, index % 2], x=key.rpartition(".")[2].replace(
            "lr", "learning rate"), y=metric_text(group[0].view, metric))  # fmt: skip
        heading(ax, problem)
        panel(ax, group, metric)
    return sheet.figure


def panel(ax: Axes, group: Sequence[Response], metric: str) -> None:
    """The lines of one problem."""
    everything = np.concatenate([v for line in group for v in line.arrays()[1]])
    kind, threshold = scale_of(everything)
    kind = "linear" if is_linear(metric) else kind
    value_scale(ax, kind, threshold, fine=decades(everything) < 2.2)
    keys = np.concatenate([line.arrays()[0] for line in group])
    if (keys > 0).all() and keys.max() >= 5 * keys.min():
        value_scale(ax, "log", axis="x", fine=decades(keys) < 2.2)
    for index, line in enumerate(group):
        _line(ax, line, color(index), log=kind == "log")
    known = reference(group[0].view)
    if known is not None:
        threshold_line(ax, *known)
    legend(ax)


def _line(ax: Axes, line: Response, shade: Any, *, log: bool) -> None:
    """One entry: dots, mean, band, best, and where members broke."""
    x, finals = line.arrays()
    logs = [logarithm(values) if log else values for values in finals]
    rows = np.array([(mean(values), *quantiles(values, 0.025, 0.975)) for values in logs])
    rows = 10.0**rows if log else rows
    best = line.best()
    text = line.label
    if best is not None:
        text += f": best {number(best)}, {result_text(finals[list(x).index(best)])}"
    ax.plot(x, rows[:, 0], color=shade, linewidth=2, zorder=3, label=text)
    ax.fill_between(x, rows[:, 1], rows[:, 2], color=shade, alpha=0.2, linewidth=0, zorder=2)
    for place, values in zip(x, finals, strict=True):
        ax.plot(np.full(len(values), place), values, linestyle="", marker="o", markersize=3.5,
                color=shade, alpha=0.45, markeredgewidth=0, zorder=2.5)  # fmt: skip
        broken = int((~np.isfinite(values)).sum())
        if broken:
            ax.plot([place], [0.03], marker="x", markersize=7, markeredgewidth=2, color=ALARM,
                    transform=ax.get_xaxis_transform(), zorder=5)  # fmt: skip
            ax.annotate(str(broken), (place, 0.03), xycoords=ax.get_xaxis_transform(),
                        xytext=(0, 7), textcoords="offset points", ha="center", fontsize=8,
                        color=ALARM)  # fmt: skip
    if best is not None:
        ax.plot([best], [rows[list(x).index(best), 0]], marker="*", markersize=15, color=shade,
                markeredgecolor=INK, zorder=6)  # fmt: skip
