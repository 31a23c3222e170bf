"""``figures/spectrum.png``: the eigenvalues of every player's Hessian over training.

A row a player. Left: each column of cells is one measurement, each cell the share of all
eigenvalues in a bin, exact where the Hessian was formed, elsewhere the spectral density of
stochastic Lanczos quadrature; averaged over members. Right: the first and the last of them.
"""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from playground.record.view import Array, Series, View
from playground.report.drawing.curves import LINES
from playground.report.drawing.statistics import mean
from playground.report.drawing.style import (
    ALARM,
    COLORS,
    HEAT,
    INK,
    LABEL,
    NEVER,
    Sheet,
    heading,
    legend,
    tick_text,
    value_scale,
)
from playground.report.drawing.text import subtitle, title
from playground.report.figures.magnitudes import borders, times

PER_DECADE, DECADES = 6, 3
"""Bins a decade, and decades below the largest eigenvalue until the axis is linear (ours)."""

SMOOTH = (0.25, 0.5, 0.25)
"""What spreads a quadrature's few nodes over neighbouring bins (ours)."""

FLOOR = 1e-6
"""Smallest share that has a colour: less is rounding of a quadrature's weights (ours)."""

SCALE = LogNorm(FLOOR, 1.0)

PLAIN = ("sgd", "momentum", "nesterov")
"""Optimizers whose stability line is one of the Hessian's own eigenvalues."""


@dataclass(frozen=True)
class Spectra:
    """One player's eigenvalues over training.

    Attributes:
        x: [T], iterations.
        edges: [B + 1] of the bins.
        linear: half the width of the linear part of the axis.
        shares: [T, B], which add up to 1; NaN where no member's Hessian was finite.
        exact: whether the Hessian was formed.
    """

    x: Array
    edges: Array
    linear: float
    shares: Array
    exact: bool


def figure(view: View) -> Figure | None:
    """Draw the picture; None where no spectrum was measured."""
    found = {player: spectra(view, player) for player in view.players}
    known = {player: value for player, value in found.items() if value is not None}
    if not known:
        return None
    sheet = Sheet.make(
        f"Hessian: {title(view)}", subtitle(view), caption(view, list(known.values())),
        body=3.9 * len(known), margins=(0.85, 1.3),
    )  # fmt: skip
    lines = {"largest and smallest": INK}
    if any(stability(view, player) for player in known):
        lines["stability line"] = ALARM
    sheet.key(lines)
    cells = sheet.grid(len(known), 2, width_ratios=(2.3, 1), hspace=0.3, wspace=0.12)
    for row, (player, value) in enumerate(known.items()):
        last = row == len(known) - 1
        name = f"eigenvalues of {player}" if len(view.players) > 1 else "eigenvalues"
        ax = sheet.panel(cells[row, 0], name, "iteration" if last else "")
        over_time(ax, view, player, value)
        side = sheet.panel(cells[row, 1], "", "share of the eigenvalues" if last else "")
        ends(side, value)
        side.set_ylim(ax.get_ylim())
        side.tick_params(labelleft=False)
    bar = sheet.bar(ScalarMappable(SCALE, HEAT), "share of the eigenvalues")
    bar.ax.yaxis.set_major_formatter(tick_text)
    return sheet.figure


def spectra(view: View, player: str) -> Spectra | None:
    """Put a player's eigenvalues into bins; None where they were not measured."""
    exact = view.arrays.get(f"hessian-{player}")
    recorded = exact or view.arrays.get(f"density-{player}")
    if not recorded:
        return None
    x = np.array(sorted(recorded))
    stack = np.stack([np.asarray(recorded[k], np.float64) for k in x.tolist()])
    values = stack if exact else stack[..., 0]
    weights = np.full(values.shape, 1 / values.shape[-1]) if exact else stack[..., 1]
    known = np.isfinite(values)
    if not known.any():
        return None
    edges, linear = bins(float(values[known].min()), float(values[known].max()))
    place = np.clip(np.digitize(np.where(known, values, 0.0), edges) - 1, 0, len(edges) - 2)
    shares = np.zeros((len(x), len(edges) - 1))
    when = np.broadcast_to(np.arange(len(x))[:, None, None], place.shape)
    np.add.at(shares, (when[known], place[known]), weights[known])
    total = shares.sum(axis=1, keepdims=True)
    shares = np.where(total > 0, shares / np.maximum(total, 1e-300), np.nan)
    if not exact:
        shares = smoothed(shares, edges)
    return Spectra(x, edges, linear, shares, exact is not None)


def smoothed(shares: Array, edges: Array) -> Array:
    """Shares [T, B] spread over neighbours on either side of the bin around 0, each for itself.

    Nothing goes beyond the ends of what is there, and each side keeps its sum.
    """
    result = shares.copy()
    for side in (edges[1:] <= 0, edges[:-1] >= 0):
        for row in result:
            part = row[side]
            there = np.flatnonzero(part > 0)
            if not len(there):
                continue
            inside = slice(there[0], there[-1] + 1)
            wide = np.convolve(part[inside], SMOOTH)[1:-1]
            part[inside] = wide * (part.sum() / wide.sum())
            row[side] = part
    return result


def bins(low: float, high: float) -> tuple[Array, float]:
    """Edges that hold both ends, and where the bin around 0 ends: logarithmic beyond it."""
    size = max(abs(low), abs(high)) or 1.0
    linear = 10.0 ** (np.ceil(np.log10(size)) - DECADES)
    steps = np.arange(DECADES * PER_DECADE + 1) / PER_DECADE
    outside = linear * 10.0**steps
    edges = np.concatenate([-outside[::-1], outside])
    first = max(0, int(np.searchsorted(edges, low, side="right")) - 1)
    last = min(len(edges) - 1, int(np.searchsorted(edges, high, side="left")))
    return edges[max(0, first - 1) : last + 2], float(linear)


def over_time(ax: Axes, view: View, player: str, found: Spectra) -> None:
    """Cells over iterations, both measured ends, and the stability line."""
    ax.grid(False)
    shares = np.ma.masked_less(np.ma.masked_invalid(found.shares), FLOOR)
    edges = borders(found.x)
    for k in np.flatnonzero(np.isnan(found.shares).any(axis=1)):
        ax.axvspan(edges[k], edges[k + 1], color=NEVER, linewidth=0)
    ax.pcolormesh(edges, found.edges, shares.T, cmap=HEAT, norm=SCALE)
    value_scale(ax, "symlog", found.linear)
    for name, series in ends_of(view, player).items():
        rough = view.measured(player, "curvature")[name]
        few = rough.values.shape[1] <= LINES
        dotted, solid = (v if few else mean(v) for v in (rough.values, series.values))
        marker = "o" if len(rough.x) == 1 else ""
        ax.plot(rough.x, dotted, color=INK, linewidth=0.9, linestyle=":", marker=marker, ms=3)
        ax.plot(series.x, solid, color=INK, linewidth=1.4, marker=marker, ms=6)
    line = stability(view, player)
    top = found.edges[-1]
    if line is not None:
        levels = np.unique(line.values, axis=1)  # members may differ
        for level in levels.T:
            if len(level) == 1:
                ax.axhline(level[0], color=ALARM, linewidth=1.6)
            else:
                ax.plot(line.x, level, color=ALARM, linewidth=1.6)
        top = max(top, min(1.3 * float(np.nanmax(levels)), 30 * abs(top)))
    ax.axhline(0, color="#999999", linewidth=0.8)
    ax.set_ylim(found.edges[0], top)
    ax.set_xlim(edges[0], edges[-1])
    times(ax, found.x)


def ends_of(view: View, player: str) -> dict[str, Series]:
    """The largest and the smallest eigenvalue, NaN where the residual is beyond a tenth of it."""
    measured = view.measured(player, "curvature")
    found: dict[str, Series] = {}
    for name in ("lambda_max", "lambda_min"):
        if name in measured:
            series, good = measured[name], measured[f"{name}_converged"].values == 1
            found[name] = Series(series.x, np.where(good, series.values, np.nan))
    return found


def stability(view: View, player: str) -> Series | None:
    """The optimizer's stability line, where it is one of the Hessian's own eigenvalues."""
    own = (view.config.get("players") or {}).get(player) or view.config.get("optimizer") or {}
    line = view.measured(player, "curvature").get("sharpness_limit")
    return line if line and own.get("name") in PLAIN else None


def ends(ax: Axes, found: Spectra) -> None:
    """The first and the last spectrum beside each other, on the same axis."""
    known = np.flatnonzero(np.isfinite(found.shares).all(axis=1))
    chosen = sorted({int(known[0]), int(known[-1])})
    for place, color in zip(chosen, (COLORS[0], COLORS[1]), strict=False):
        ax.stairs(np.maximum(found.shares[place], FLOOR), found.edges, orientation="horizontal",
                  baseline=FLOOR, color=color, linewidth=1.6,
                  label=f"iteration {found.x[place]:,}")  # fmt: skip
    value_scale(ax, "symlog", found.linear)
    value_scale(ax, "log", axis="x")
    ax.set_xlim(FLOOR, 1.5)
    heading(ax, "first and last", size=LABEL)
    legend(ax)


def caption(view: View, panels: list[Spectra]) -> str:
    """What a cell holds."""
    members = len(view.members)
    words = "Share of all eigenvalues in a bin"
    words += f", mean of {members} members" if members > 1 else ""
    if not all(panel.exact for panel in panels):
        words += ", by stochastic Lanczos quadrature and smoothed where the Hessian is too large"
    words += ". The bin around 0 ends at a thousandth to a hundredth of the largest; beyond it the"
    words += " axis is logarithmic. Dotted: a residual beyond a tenth of the eigenvalue."
    if any(np.isnan(panel.shares).any() for panel in panels):
        words += " Grey: not finite."
    return words
