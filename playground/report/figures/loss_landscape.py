"""``figures/slice-<name>.png``: the loss around a run's parameters, and the path through it.

Left: every quantity on the plane, with the path's points in the colours of their true values, so
that a point whose colour differs from the ground lies off the plane. Right: the true value along
the path beside the plane's, and the distance from the plane. A line has curves instead.

Shape legend: T points of a path, A, B offsets.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpecFromSubplotSpec

from playground.record.loss_landscapes import SavedSlice, load_slice
from playground.record.view import Array, Series, View
from playground.report.drawing.curves import prepare
from playground.report.drawing.style import (
    COLORS,
    HEAT,
    INK,
    MUTED,
    TICK,
    Sheet,
    dots,
    heading,
    legend,
    note,
    number,
    tick_text,
)
from playground.report.drawing.text import is_linear, metric_text, subtitle, title

LEVELS = 22
"""Steps of colour (ours)."""

TRUE, FLAT = COLORS[1], COLORS[0]

EVEN = 4.0
"""Longest over shortest time between snapshots from which an axis is in logarithms (ours)."""

OBJECTIVE, SURROGATE = "objective", "objective/policy"


def figure(view: View, name: str) -> Figure | None:
    """Draw a slice that the run kept."""
    found = load_slice(view.run, name)
    shown = quantities(view, found)
    lines = "offsets/1" not in found.arrays
    path = "path/iterations" in found.arrays
    wide = 5.6 * len(shown) + (4.6 if path else 0.8)
    head = f"{title(view)}: {about(view, found)}"
    below = [explained(found)] if path else []
    sheet = Sheet.make(head, "   |   ".join([*below, subtitle(view)]), caption(view, found),
                       width=wide, body=5.4)  # fmt: skip
    widths = [1.25] * len(shown) + ([1.0] if path else [])
    cells = sheet.grid(1, len(widths), width_ratios=widths, wspace=0.3)
    for column, quantity in enumerate(shown):
        ax = sheet.panel(cells[0, column], x=axis(found, 0), y="" if lines else axis(found, 1))
        heading(ax, words(view, quantity))
        (line if lines else ground)(ax, found, quantity)
    if path:
        inner = GridSpecFromSubplotSpec(len(shown) + 1, 1, cells[0, -1], hspace=0.5)
        for row, quantity in enumerate(shown):
            along(sheet.panel(inner[row]), found, quantity, words(view, quantity), first=row == 0)
        outside(sheet.panel(inner[len(shown)], x="iteration"), found)
    return sheet.figure


def quantities(view: View, found: SavedSlice) -> list[str]:
    """The objective and the metrics; of an agent the policy's term, which others would drown."""
    names = list(found.group("values"))
    own = SURROGATE if view.domain == "rl" and SURROGATE in names else OBJECTIVE
    return [own, *(name for name in names if name.partition("/")[0] != OBJECTIVE)]


def words(view: View, quantity: str) -> str:
    """What a panel is called."""
    known = {OBJECTIVE: "objective", SURROGATE: "surrogate objective, policy"}
    return known.get(quantity) or metric_text(view, quantity)


def about(view: View, found: SavedSlice) -> str:
    """Whose parameters move, and along what."""
    kind = {"principal": "principal directions of its path", "random": "random directions",
            "filter_normalised": "filter-normalised random directions"}  # fmt: skip
    own = found.about
    who = [own["player"]] if len(view.players) > 1 else []
    who += [f"member {own['member']}"] if len(view.members) > 1 else []
    which = kind.get(own["directions"], own["directions"])
    return ", ".join([*who, which])


def explained(found: SavedSlice) -> str:
    """Shares of the path's variance beside those of a random walk, in percent."""
    D = found.arrays["path/coordinates"].shape[1]

    def text(shares: Array) -> str:
        own = " + ".join(f"{100 * share:.1f}" for share in shares[:D])
        return f"{100 * shares[:D].sum():.1f} %{f' ({own})' if D > 1 else ''}"

    count = len(found.arrays["path/iterations"])
    return (
        f"{text(found.arrays['path/explained'])} of the variance of {count} snapshots; a random "
        f"walk seen at the same iterations: {text(found.arrays['path/random_walk'])}"
    )


def caption(view: View, found: SavedSlice) -> str:
    """How it was measured, and what stays where it is."""
    at = found.about["iteration"]
    text = [f"Centre (cross): iteration {at:,}. All points see the same batches, taken there."]
    if "path/iterations" in found.arrays:
        text += [
            "Points: snapshots, projected; their colours are the values where they really were. "
            "Ring: start. Bands: two standard errors. Distance from the plane: L2, in parameters.",
        ]
    if len(view.players) > 1:
        others = [player for player in view.players if player != found.about["player"]]
        text.append(f"Held at the centre: {', '.join(others)}.")
    if view.domain == "rl":
        text.append("Returns are of new episodes at every point, of the same random streams, with "
                    "whatever statistics normalise observations at the centre.")  # fmt: skip
    return " ".join(text)


def axis(found: SavedSlice, index: int) -> str:
    """An axis's name; with the share of variance along it."""
    if "path/explained" in found.arrays:
        share = float(found.arrays["path/explained"][index])
        return f"principal direction {index + 1} ({100 * share:.1f} % of variance)"
    return f"direction {index + 1}"


def scale(values: Array, *, linear: bool) -> tuple[ListedColormap, BoundaryNorm]:
    """Colours of the plane and the path: even steps, or such as enclose equal shares."""
    known = values[np.isfinite(values)]
    steps = np.linspace(0, 1, LEVELS + 1)
    low, high = known.min(), known.max()
    levels = np.unique(low + steps * (high - low) if linear else np.quantile(known, steps))
    if len(levels) < 2:
        levels = low + np.array([-0.5, 0.5]) * max(abs(low), 1.0)
    colors = ListedColormap([HEAT(x) for x in np.linspace(0.0, 1.0, len(levels) - 1)])
    return colors, BoundaryNorm(levels, colors.N, clip=True)


def ground(ax: Axes, found: SavedSlice, quantity: str) -> None:
    """One quantity on the plane, its path on top."""
    values, own = found.arrays[f"values/{quantity}"], found.group("path/values").get(quantity)
    x, y = found.arrays["offsets/0"], found.arrays["offsets/1"]
    if not np.isfinite(values).any():
        note(ax, "nowhere finite")
        return
    every = np.concatenate([values.ravel(), [] if own is None else own])
    colors, norm = scale(every, linear=is_linear(quantity))
    ax.contourf(x, y, np.ma.masked_invalid(values.T), levels=norm.boundaries, cmap=colors,
                norm=norm, extend="both")  # fmt: skip
    bar = ax.figure.colorbar(ScalarMappable(norm, colors), ax=ax, pad=0.02, fraction=0.05,
                             spacing="uniform")  # fmt: skip
    ticks = norm.boundaries[:: max(1, colors.N // 7)]
    bar.set_ticks(list(ticks), labels=[number(float(tick)) for tick in ticks])
    bar.minorticks_off()
    bar.ax.tick_params(labelsize=TICK - 1, length=0)
    bar.outline.set_visible(False)
    ax.grid(False)
    ax.set_xlim(x[0], x[-1])
    ax.set_ylim(y[0], y[-1])
    if own is not None:
        places = found.arrays["path/coordinates"]
        ax.plot(*places.T, color="white", linewidth=2.6, zorder=3)
        ax.plot(*places.T, color=INK, linewidth=1.2, zorder=3.1)
        dots(ax, places, c=own, cmap=colors, norm=norm, s=46, edgecolors="white", linewidths=1.3,
             zorder=4)  # fmt: skip
        dots(ax, places[:1], s=120, facecolors="none", edgecolors="white", linewidths=1.6,
             zorder=4.1)  # fmt: skip
    ax.plot(0, 0, marker="+", color="white", markersize=13, markeredgewidth=2, zorder=5)


def line(ax: Axes, found: SavedSlice, quantity: str) -> None:
    """One quantity along one direction, with the path's points."""
    x, values = found.arrays["offsets/0"], found.arrays[f"values/{quantity}"]
    error = found.arrays[f"stderr/{quantity}"]
    ax.fill_between(x, values - 2 * error, values + 2 * error, color=FLAT, alpha=0.2, linewidth=0)
    ax.plot(x, values, color=FLAT, linewidth=1.8)
    own = found.group("path/values").get(quantity)
    if own is not None:
        ax.plot(found.arrays["path/coordinates"][:, 0], own, color=TRUE, marker="o", markersize=5,
                linewidth=0.8, markeredgecolor="white")  # fmt: skip
    ax.axvline(0, color=MUTED, linewidth=0.9, linestyle=(0, (5, 3)))


def along(ax: Axes, found: SavedSlice, quantity: str, name: str, *, first: bool) -> None:
    """The true value at every snapshot beside the plane's, with two standard errors."""
    time = found.arrays["path/iterations"]
    own, flat = (found.group(f"path/{kind}")[quantity] for kind in ("values", "projected"))
    errors: Mapping[str, Array] = found.group("path/stderr")
    heading(ax, f"{name} along the path", size=TICK + 1)
    both = Series(time, np.stack([own, flat], axis=1))
    prepare(ax, [both], linear=is_linear(quantity))
    spread = 2 * np.nan_to_num(errors[quantity])
    ax.fill_between(time, own - spread, own + spread, color=TRUE, alpha=0.2, linewidth=0)
    ax.plot(time, flat, color=FLAT, linewidth=1.4, linestyle=(0, (4, 2)), label="on the plane")
    ax.plot(time, own, color=TRUE, linewidth=1.6, marker="o", markersize=3.5, label="true")
    calendar(ax, time)
    if first:
        legend(ax)


def outside(ax: Axes, found: SavedSlice) -> None:
    """How far from the plane every snapshot was, beside how far from the centre."""
    time, away = found.arrays["path/iterations"], found.arrays["path/outside"]
    total = np.hypot(away, np.linalg.norm(found.arrays["path/coordinates"], axis=1))
    heading(ax, "distance from the plane", size=TICK + 1)
    ax.plot(time, total, color=MUTED, linewidth=1.0, linestyle=(0, (4, 2)),
            label="from the centre")  # fmt: skip
    ax.plot(time, away, color=INK, linewidth=1.6, marker="o", markersize=3.5,
            label="from the plane")  # fmt: skip
    ax.set_ylim(bottom=0)
    calendar(ax, time)
    legend(ax)


def calendar(ax: Axes, time: Array) -> None:
    """An axis of iterations, in logarithms where snapshots stand at powers of two."""
    gaps = np.diff(time)
    if gaps.max(initial=1) > EVEN * gaps.min(initial=1):
        ax.set_xscale("symlog", linthresh=1.0, linscale=0.4)
        ticks = [0, *(10**k for k in range(10) if 10**k <= time[-1])]
        ax.set_xticks(ticks, [tick_text(tick) for tick in ticks])
        ax.set_xlim(-0.1, 1.15 * time[-1])
