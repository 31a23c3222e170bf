"""``figures/spectrum.png``: the eigenvalues of every player's Hessian over training.

A row a player. Left: each column of cells is one measurement, each cell the share of all
eigenvalues in a bin, exact where the Hessian was formed, elsewhere the spectral density of
stochastic Lanczos quadrature; averaged over members. Right: the first and the last of them.
"""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from playground.report.magnitudes import borders
from playground.report.style import (
    ALARM,
    COLORS,
    HEAT,
    INK,
    LABEL,
    NEVER,
    Sheet,
    counts,
    heading,
    legend,
    value_scale,
)
from playground.report.text import subtitle, title
from playground.report.view import Array, Series, View

PER_DECADE, DECADES = 6, 3
"""Bins a decade, and decades below the largest eigenvalue until the axis is linear (ours)."""

SMOOTH = (0.25, 0.5, 0.25)
"""What spreads a quadrature's few nodes over neighbouring bins (ours)."""

FLOOR = 1e-6
"""Smallest share that has a colour: less is rounding of a quadrature's weights (ours)."""

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
        body=3.9 * len(known),
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
    times = np.broadcast_to(np.arange(len(x))[:, None, None], place.shape)
    np.add.at(shares, (times[known], place[known]), weights[known])
    total = shares.sum(axis=1, keepdims=True)
    shares = np.where(total > 0, shares / np.maximum(total, 1e-300), np.nan)
    if not exact:
        shares = smoothed(shares)
    return Spectra(x, edges, linear, shares, exact is not None)


def smoothed(shares: Array) -> Array:
    """Shares [T, B] spread over neighbours; each row keeps its sum."""
    wide = np.stack([np.convolve(row, SMOOTH, mode="same") for row in shares])
    result: Array = wide / wide.sum(axis=1, keepdims=True)
    return result


def bins(low: float, high: float) -> tuple[Array, float]:
    """Edges that hold both ends: linear around 0, logarithmic beyond; and where that begins."""
    size = max(abs(low), abs(high)) or 1.0
    linear = 10.0 ** (np.ceil(np.log10(size)) - DECADES)
    steps = np.arange(DECADES * PER_DECADE + 1) / PER_DECADE
    outside = linear * 10.0**steps
    edges = np.concatenate([-outside[::-1], [0.0], outside])
    first = max(0, int(np.searchsorted(edges, low, side="right")) - 1)
    last = min(len(edges) - 1, int(np.searchsorted(edges, high, side="left")))
    return edges[max(0, first - 1) : last + 2], float(linear)


def over_time(ax: Axes, view: View, player: str, found: Spectra) -> None:
    """Cells over iterations, both measured ends, and the stability line."""
    ax.grid(False)
    ax.set_facecolor(NEVER if np.isnan(found.shares).any() else "white")
    shares = np.ma.masked_less(np.ma.masked_invalid(found.shares), FLOOR)
    edges = borders(found.x)
    ax.pcolormesh(edges, found.edges, shares.T, cmap=HEAT, norm=LogNorm(FLOOR, 1.0))
    value_scale(ax, "symlog", found.linear)
    for name, series in ends_of(view, player).items():
        rough = view.measured(player, "curvature")[name]
        ax.plot(rough.x, average(rough.values), color=INK, linewidth=0.9, linestyle=":")
        ax.plot(series.x, average(series.values), color=INK, linewidth=1.4)
    line = stability(view, player)
    top = found.edges[-1]
    if line is not None:
        level = average(line.values)
        ax.plot(line.x, level, color=ALARM, linewidth=1.6)
        top = max(top, min(float(np.nanmax(level)) * 1.3, 30 * top))
    ax.axhline(0, color="#999999", linewidth=0.8)
    ax.set_ylim(found.edges[0], top)
    ax.set_xlim(edges[0], edges[-1])
    counts(ax)


def average(values: Array) -> Array:
    """Mean [T] over the members that are known, NaN where none is."""
    known = np.isfinite(values)
    count = known.sum(axis=1)
    total = np.where(known, values, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


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
    words = ["Colour: share of all eigenvalues in a bin, yellow most, from 1e-6, logarithmic"]
    words.append(f", mean of {len(view.members)} members" if len(view.members) > 1 else "")
    if all(panel.exact for panel in panels):
        words.append("; the Hessian was formed.")
    else:
        words.append("; estimated by stochastic Lanczos quadrature and smoothed where the Hessian "
                     "is too large to form.")  # fmt: skip
    words.append(" Dotted: a residual beyond a tenth of the eigenvalue.")
    return "".join(words) + " The vertical axis is logarithmic but around 0."
