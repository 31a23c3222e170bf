"""Several runs side by side: a table, curves, the race, learning-rate curves, cross-domain.

``report`` draws what the given runs allow: the comparison always, the race of optimizers for
landscapes of the same function, curves over a hyperparameter that varies, and the cross-domain
figure for runs of different problems.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from playground.record.atomic import write_atomic
from playground.report.comparison import across_domains as crossdomain
from playground.report.comparison import learning_rate, race
from playground.report.comparison.entries import Entry, entries, views
from playground.report.drawing.curves import curve, prepare, threshold_line
from playground.report.drawing.statistics import decades, finite, interval, mean, scale_of
from playground.report.drawing.style import (
    COLORS,
    INK,
    LABEL,
    MUTED,
    TICK,
    Sheet,
    heading,
    make_folder,
    number,
    ordered_colors,
    save,
    value_scale,
)
from playground.report.drawing.text import (
    is_linear,
    metric_text,
    optimizer_text,
    result_text,
    title,
)
from playground.report.figures.overview import reference

ROWS = 40
"""Entries of one problem in a figure; the table has all of them (ours)."""


def report(paths: Sequence[Path], out: Path) -> tuple[list[Path], str]:
    """Draw every comparison that the runs allow into a folder.

    Args:
        paths: run and sweep directories.
        out: the folder, made if it is not there.

    Returns:
        The files written, and the table as text.

    Raises:
        RecordError: a path is missing or no run, or the folder cannot be written.
    """
    found = views(paths)
    pooled = entries(found)
    best = [best_of(entry) for entry in pooled]
    text = table([part for entry in pooled for part in entry.split()])
    make_folder(out)
    write_atomic(out / "comparison.txt", text.encode() + b"\n")
    figures: dict[str, Figure | None] = {"comparison": figure(best)}
    figures |= {f"race-{name}": drawn for name, drawn in race.figures(pooled).items()}
    figures |= learning_rate.figures(found)
    if len({entry.first.problem for entry in best}) > 1:
        figures["cross_domain"] = crossdomain.figure(best)
    drawn_paths = [save(drawn, out / f"{name}.png") for name, drawn in figures.items() if drawn]
    return [out / "comparison.txt", *drawn_paths], text


def by_problem(pooled: Sequence[Entry]) -> dict[tuple[str, str], list[Entry]]:
    """Entries that may be compared: same problem and same main metric."""
    found: dict[tuple[str, str], list[Entry]] = {}
    for entry in pooled:
        found.setdefault((entry.first.problem, entry.first.main_metric), []).append(entry)
    return found


def ranked(group: Sequence[Entry]) -> list[Entry]:
    """Best mean of the main metric first; entries with a member that is not finite last."""
    sign = -1.0 if group[0].first.manifest.get("higher_is_better") else 1.0

    def place(entry: Entry) -> tuple[bool, float]:
        values = finite(entry.final())
        return bool(np.isnan(values).any()), sign * float(np.nan_to_num(mean(values)))

    return sorted(group, key=place)


def best_of(entry: Entry) -> Entry:
    """Where something varies along the member axis, its best value alone."""
    parts = entry.split()
    if len(parts) == 1:
        return entry
    best = ranked(parts)[0]
    best.label += f" (best of {len(parts)})"
    return best


def table(pooled: Sequence[Entry]) -> str:
    """The main metric of every entry at the end, as aligned text, best first."""
    blocks = []
    for (problem, metric), group in by_problem(pooled).items():
        better = "higher" if group[0].first.manifest.get("higher_is_better") else "lower"
        head = ("run", "members", "mean", "std", "95 % interval", "min", "max", "optimizer")
        rows = [head, *(row(entry) for entry in ranked(group))]
        widths = [max(len(line[i]) for line in rows) for i in range(len(head))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in rows
        ]
        name = metric_text(group[0].first, metric)
        blocks.append("\n".join([f"{problem}: {name} at the end ({better} is better)", *lines]))
    return "\n\n".join(blocks)


def row(entry: Entry) -> tuple[str, ...]:
    """An entry's line of the table."""
    values = finite(entry.final())
    known = values[np.isfinite(values)]
    count = str(len(values))
    if len(known) < len(values):
        count += f" ({len(values) - len(known)} not finite)"
    if not len(known):
        return entry.label, count, "-", "-", "-", "-", "-", optimizer_text(entry.first)
    centre, low, high = (float(value) for value in interval(known))
    several = len(known) > 1
    return (
        entry.label,
        count,
        number(centre, 4),
        number(float(known.std(ddof=1))) if several else "-",
        f"[{number(low, 4)}, {number(high, 4)}]" if several else "-",
        number(float(known.min()), 4),
        number(float(known.max()), 4),
        optimizer_text(entry.first),
    )


def shades(group: Sequence[Entry]) -> dict[str, Any]:
    """A colour an entry, distinct while there are few; by place, not by rank, as in the race."""
    few = len(group) <= len(COLORS)
    colors = list(COLORS[: len(group)]) if few else ordered_colors(len(group))
    return {entry.label: color for entry, color in zip(group, colors, strict=True)}


def figure(pooled: Sequence[Entry]) -> Figure:
    """Curves, gradient norms and final values, a row a problem."""
    groups = by_problem(pooled)
    problems = {key: ranked(group)[:ROWS] for key, group in groups.items()}
    heights = [max(2.5, 0.9 + 0.27 * len(group)) for group in problems.values()]
    names = 0.35 + 0.074 * max(len(short(entry.label)) for g in problems.values() for entry in g)
    sheet = Sheet.make(
        "Comparison" if len(problems) > 1 else f"Comparison: {title(pooled[0].first)}",
        f"{len(pooled)} entries, {sum(len(entry.members) for entry in pooled)} members",
        "Line: mean of the members; band: the middle 95 % of them (log axes: of the logarithms). "
        "Right: members at the end as dots, their mean with its 95 % t interval as a bar, best "
        "on top.",
        width=14.0 + names, body=sum(heights) + 0.75 * (len(heights) - 1), margins=(0.85, 1.7),
    )  # fmt: skip
    cells = sheet.grid(len(problems), 5, height_ratios=heights, hspace=0.34, wspace=0.0,
                       width_ratios=(4.4, 0.7, 3.6, names, 2.8))  # fmt: skip
    for index, ((problem, metric), group) in enumerate(problems.items()):
        known = shades(groups[problem, metric])
        colors = [known[entry.label] for entry in group]
        head = f"{problem}: " if len(problems) > 1 else ""
        _curves(sheet.panel(cells[index, 0]), group, colors, head)
        _norms(sheet.panel(cells[index, 2], "gradient norm", "iteration"), group, colors)
        _finals(sheet, cells[index, 4], group, colors)
    return sheet.figure


def short(label: str, size: int = 34) -> str:
    """A label that fits beside a panel."""
    return label if len(label) <= size else f"{label[: size - 3]}..."


def _curves(ax: Axes, group: Sequence[Entry], colors: Sequence[Any], head: str) -> None:
    """The main metric of every entry."""
    view = group[0].first
    x = "env_steps" if view.domain == "rl" else "iteration"
    series = [entry.metric(view.main_metric, x=x) for entry in group]
    end = max((float(s.x[-1]) for s in series if len(s.x)), default=1.0)
    log = prepare(ax, series, end, linear=is_linear(view.main_metric))
    for entry, one, color in zip(group, series, colors, strict=True):
        curve(ax, one, color, entry.label, log=log, individual=False)
    line = reference(view)
    if line is not None:
        threshold_line(ax, *line)
    name = metric_text(view, view.main_metric)
    heading(ax, f"{head}{name}")
    ax.set_xlabel(x.replace("env_steps", "environment steps"), fontsize=LABEL)


def _norms(ax: Axes, group: Sequence[Entry], colors: Sequence[Any]) -> None:
    """Gradient norms of every entry; the second player's are dashed."""
    found: list[tuple[Any, str, Any]] = []
    for entry, color in zip(group, colors, strict=True):
        for style, player in zip(("-", "--", ":"), entry.first.players, strict=False):
            found.append((entry.gradient(player, "norm"), style, color))
    if not any(series for series, _, _ in found):
        ax.set_axis_off()
        return
    end = max(float(series.x[-1]) for series, _, _ in found if len(series.x))
    log = prepare(ax, [series for series, _, _ in found], end)
    for series, style, color in found:
        curve(ax, series, color, log=log, style=style, width=1.3, individual=False)
    names = group[0].first.players
    if len(names) > 1:
        pairs = zip(("solid", "dashed", "dotted"), names, strict=False)
        text = ", ".join(f"{line}: {name}" for line, name in pairs)
        ax.annotate(text, (1, 1), (0, -2), xycoords="axes fraction", va="top", ha="right",
                    textcoords="offset points", fontsize=TICK, color=MUTED)  # fmt: skip


def _finals(sheet: Sheet, cell: Any, group: Sequence[Entry], colors: Sequence[Any]) -> None:
    """Members at the end, mean and interval, one line an entry."""
    view = group[0].first
    ax = sheet.panel(cell, "at the end", metric_text(view, view.main_metric))
    finals = [finite(entry.final()) for entry in group]
    kind, threshold = scale_of(np.concatenate(finals))
    kind = "linear" if is_linear(view.main_metric) else kind
    value_scale(ax, kind, threshold, axis="x", fine=decades(np.concatenate(finals)) < 2.2)
    for place, (values, color) in enumerate(zip(finals, colors, strict=True)):
        known = values[np.isfinite(values)]
        if kind == "log":
            known = known[known > 0]
        if not len(known):
            ax.text(0.02, place, "not finite", transform=ax.get_yaxis_transform(), va="center",
                    fontsize=TICK, color=MUTED)  # fmt: skip
            continue
        logs = np.log10(known) if kind == "log" else known
        centre, low, high = (float(10**v if kind == "log" else v) for v in interval(logs))
        ax.plot(known, np.full(len(known), place), linestyle="", marker="o", markersize=4,
                color=color, alpha=0.4, markeredgewidth=0)  # fmt: skip
        ax.plot([low, high], [place, place], color=color, linewidth=2.5, solid_capstyle="butt")
        ax.plot([centre], [place], marker="|", markersize=13, markeredgewidth=2.2, color=INK)
        ax.text(1.03, place, result_text(values), transform=ax.get_yaxis_transform(),
                va="center", fontsize=TICK, color=INK)  # fmt: skip
    ax.set_yticks(range(len(group)), [short(entry.label) for entry in group], fontsize=TICK)
    for text, color in zip(ax.get_yticklabels(), colors, strict=True):
        text.set_color(color)
        text.set_fontweight("bold")
    ax.set_ylim(len(group) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
