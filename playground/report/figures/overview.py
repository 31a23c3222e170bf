"""``figures/overview.png``: how a run went, the same six panels in every domain.

Main metric, losses, gradient norm at every update, update-to-parameter ratio, cosine with the
previous gradient, and what else moved: the clip coefficient, the learning rate or the
alignment of update and minus gradient. One colour a player; where hyperparameters vary over
the members of a single player, one colour a value.
"""

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

from playground.record.view import Series, View
from playground.report.drawing.curves import (
    BINS,
    curve,
    marks,
    prepare,
    spread_text,
    threshold_line,
)
from playground.report.drawing.statistics import finite
from playground.report.drawing.style import (
    ALARM,
    CAPTION,
    Sheet,
    color,
    heading,
    legend,
    note,
    ordered_colors,
)
from playground.report.drawing.text import (
    is_linear,
    last_iteration,
    metric_text,
    result_text,
    subtitle,
    title,
)

Reader = Callable[[str], Series]

FINDINGS = 4
"""Findings that are marked at most; the caption names all (ours)."""

ENTRIES = 6
"""Legend entries of values that vary; of more, some in between are left out."""


def figure(view: View) -> Figure | None:
    """Draw the overview; None while nothing was recorded."""
    measured = len(view.gradients) > 0
    if not len(view.metrics) and not measured:
        return None
    rows = 3 if measured else 1
    sheet = Sheet.make(
        title(view), subtitle(view), caption(view, measured=measured), body=3.0 * rows
    )
    cells = sheet.grid(rows, 2, hspace=0.36, wspace=0.2)
    if len(view.players) > 1:
        sheet.key({player: color(i) for i, player in enumerate(view.players)})
    end = float(last_iteration(view))
    panels = [_main(sheet.panel(cells[0, 0]), view, end)]
    panels.append(_losses(sheet.panel(cells[0, 1]), view, end))
    if measured:
        shown = (
            (cells[1, 0], "gradient norm, every update", "norm", "gradient"),
            (cells[1, 1], "update / parameter norm", "ratio", "update"),
            (cells[2, 0], "cosine of gradient and previous gradient", "cosine_previous",
             "gradient"),
            (cells[2, 1], *informative(view)),
        )  # fmt: skip
        for cell, name, quantity, tap in shown:
            ax = sheet.panel(cell, name)
            players(ax, view, lambda p, q=quantity, t=tap: view.gradient(p, q, t), end)  # type: ignore[misc]
            if quantity in ("cosine_previous", "alignment") and ax.lines:
                ax.set_ylim(-1.08, 1.08)
                ax.axhline(0, color="#999999", linewidth=0.8, zorder=1.2)
            panels.append(ax)
    for ax in panels:
        marks(ax, view)
    for ax in panels[-2:]:
        ax.set_xlabel("iteration")
    return sheet.figure


def caption(view: View, *, measured: bool) -> str:
    """What the curves are."""
    parts = [spread_text(len(view.members)) + "." if len(view.members) > 1 else ""]
    if len(view.groups) > 1:
        count = len(view.groups)
        parts = [f"One colour for each of {count} values; band: their members."]
    if measured:
        parts.append("Pale envelope: smallest to largest value where many updates share a pixel.")
        every = (view.config.get("probes") or {}).get("every", 1)
        if every > 1:
            parts.append(f"Gradient norms at every update, the rest at one update in {every}.")
    else:
        parts.append("Gradients were not measured (probes=none).")
    if view.findings:
        words = [f"{rule} ({members})" for rule, _, members in view.findings]
        parts.append(f"Diagnosis, with the number of members: {', '.join(words)}.")
    events = [e for e in view.events if e["kind"] in ("nonfinite", "frozen")]
    if events:
        count = len({e["member"] for e in events})
        parts.append(
            f"Red triangles: {count} member{'s' if count > 1 else ''} met a non-finite value; "
            "such members are thin lines and no part of the mean."
        )
    return " ".join(part for part in parts if part)


def players(ax: Axes, view: View, read: Reader, end: float) -> None:
    """One quantity for every player, or for every value of what varies."""
    found = {player: read(player) for player in view.players}
    found = {player: series for player, series in found.items() if series}
    if not found:
        note(ax, "not measured")
        return
    log = prepare(ax, list(found.values()), end)
    if len(found) == 1 and len(view.groups) > 1:
        grouped(ax, view, next(iter(found.values())), log=log)
        return
    for player, series in found.items():
        curve(ax, series, color(view.players.index(player)), log=log)


def grouped(
    ax: Axes, view: View, series: Series, *, log: bool, labels: bool = False, bins: int = BINS
) -> None:
    """One curve for every value of what varies over the members."""
    shown = set(np.linspace(0, len(view.groups) - 1, ENTRIES).astype(int).tolist())
    shades = ordered_colors(len(view.groups))
    order = sorted(view.groups, key=lambda g: tuple(g.values.values()))
    for index, (group, shade) in enumerate(zip(order, shades, strict=True)):
        part = Series(series.x, series.values[:, group.members])
        label = group.label if labels and index in shown else ""
        curve(ax, part, shade, label, log=log, bins=bins, width=1.3, individual=False)
    if labels:
        legend(ax)


def informative(view: View) -> tuple[str, str, str]:
    """What the last panel shows: (title, quantity, tap)."""
    for player in view.players:
        clip = finite(view.gradient(player, "clip_coefficient", "clipped").values)
        if (clip < 1).any():
            return "clip coefficient", "clip_coefficient", "clipped"
    for player in view.players:
        rate = finite(view.gradient(player, "learning_rate", "update").values)
        if len(rate) > 1 and (np.nanmax(np.abs(np.diff(rate, axis=0)), initial=0) > 0):
            return "learning rate", "learning_rate", "update"
    return "alignment of update and minus gradient", "alignment", "update"


def reference(view: View) -> tuple[float, str] | None:
    """A line that the main metric is compared with: solved, or a perfect sampler's score."""
    if view.solved is not None:
        return view.solved, "solved"
    perfect = view.metric(f"{view.main_metric}/perfect")
    if perfect:
        return float(np.nanmean(finite(perfect.values))), "perfect sampler"
    return None


def _main(ax: Axes, view: View, end: float) -> Axes:
    series = view.metric(view.main_metric)
    name = metric_text(view, view.main_metric)
    heading(ax, name, f"final {result_text(series.last())}" if series else "")
    if not series:
        note(ax, f"no finite {view.main_metric}" if len(series.x) else "not evaluated yet")
        return ax
    log = prepare(ax, [series], end, linear=is_linear(view.main_metric))
    if len(view.groups) > 1:
        grouped(ax, view, series, log=log, labels=True)
    else:
        curve(ax, series, "#222222", log=log)
    line = reference(view)
    if line is not None:
        threshold_line(ax, *line)
    _found(ax, view)
    return ax


def _found(ax: Axes, view: View) -> None:
    """Where the evidence of the first findings begins, named."""
    where = blended_transform_factory(ax.transData, ax.transAxes)
    for place, (rule, began, _) in enumerate(view.findings[:FINDINGS]):
        ax.axvline(began, color=ALARM, linewidth=0.9, linestyle=(0, (4, 2)), alpha=0.7, zorder=1.4)
        ax.text(began, 0.97 - 0.075 * place, f" {rule}", transform=where, color=ALARM,
                fontsize=CAPTION, va="top", zorder=4)  # fmt: skip


def _losses(ax: Axes, view: View, end: float) -> Axes:
    heading(ax, "loss")
    players(ax, view, lambda player: view.metric("loss", player), end)
    return ax
