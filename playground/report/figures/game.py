"""``figures/game.png``: how a small game moves, and the eigenvalues that say why.

Two parameters: the flow -F as arrows, every member's path over it, the equilibrium. Any number:
the eigenvalues of J = dF/dz in the complex plane, from the first measurement to the last, beside
the disc inside which the shown learning rate is stable for simultaneous gradient descent,
|1 - eta lambda| < 1. Only runs that measured the game (``probes.game``) have this figure.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from playground.record.view import Array, View
from playground.report.drawing import trajectory
from playground.report.drawing.style import (
    ALARM,
    FAINT,
    LABEL,
    MUTED,
    TICK,
    Sheet,
    dots,
    heading,
    number,
)
from playground.report.drawing.text import subtitle, title
from playground.report.figures.landscape import shades

TIME = colormaps["viridis"]
MOST, POINTS = 60, 20_000
"""Measurements, and eigenvalues of all members together, that are drawn at most (ours)."""


def figure(view: View) -> Figure | None:
    """Draw the picture; None where the game was not measured."""
    spectra = view.arrays.get("spectrum")
    if not spectra:
        return None
    path = trajectory.trail(view.arrays)
    flat = path is not None and path.points.shape[-1] == 2 and "vector_field" in view.arrays
    rate = learning_rate(view)
    sheet = Sheet.make(title(view), subtitle(view), caption(flat=flat, rate=rate),
                       body=5.6, width=12.5 if flat else 7.5)  # fmt: skip
    cells = sheet.grid(1, 2 if flat else 1, wspace=0.22)
    if flat and path is not None:
        plane(sheet.panel(cells[0, 0]), view, path)
    plane_of_eigenvalues(sheet.panel(cells[0, -1]), spectra, rate)
    return sheet.figure


def learning_rate(view: View) -> float | None:
    """The rate that all players share under simultaneous gradient descent, None elsewhere."""
    config = view.config
    optimizer = config.get("optimizer") or {}
    own = [value for value in (config.get("players") or {}).values() if value]
    direct = (config.get("stepper") or {}).get("name", "direct") == "direct"
    rounds = (config.get("problem") or {}).get("rounds", "")
    if optimizer.get("name") != "sgd" or own or not direct or rounds != "simultaneous":
        return None
    varies = config.get("vary") or optimizer.get("schedule", "constant") != "constant"
    return None if varies else float(optimizer["lr"])


def plane(ax: Axes, view: View, path: trajectory.Trail) -> None:
    """Arrows of -F, all of one length and coloured by theirs; paths and targets over them."""
    fields, axes = view.arrays["vector_field"], view.arrays["vector_field_axes"]
    last = max(fields)
    flow, (xs, ys) = fields[last][0], axes[last][0]
    size = np.linalg.norm(flow, axis=-1)
    unit = flow / np.where(size > 0, size, 1.0)[..., None]
    ax.quiver(*np.meshgrid(xs, ys), unit[..., 0], unit[..., 1], size, cmap="Blues", pivot="mid",
              scale=24, width=0.0042, zorder=1.5,
              clim=(-0.5 * float(size.max()), float(size.max())))  # fmt: skip
    trajectory.paths(ax, path.points, shades(view, path))
    trajectory.targets(ax, trajectory.last_targets(view))
    ax.set_xlim(xs[0], xs[-1])
    ax.set_ylim(ys[0], ys[-1])
    ax.set_aspect("equal", anchor="N")
    ax.grid(False)
    ax.set_xlabel(view.players[0], fontsize=LABEL)
    ax.set_ylabel(view.players[1], fontsize=LABEL)
    heading(ax, "flow and paths")


def plane_of_eigenvalues(ax: Axes, spectra: Mapping[int, Array], rate: float | None) -> None:
    """Eigenvalues of J, pale to dark over the run; the disc of the learning rate."""
    times = sorted(spectra)
    keep = np.unique(np.linspace(0, len(times) - 1, min(len(times), MOST)).astype(int))
    chosen = [times[k] for k in keep]
    values = [spectra[t].reshape(-1, 2) for t in chosen]
    stride = max(1, sum(map(len, values)) // POINTS)
    known = np.concatenate(values)
    known = known[np.isfinite(known).all(axis=1)]
    ax.axhline(0, color=FAINT, linewidth=0.8, zorder=1)
    ax.axvline(0, color=MUTED, linewidth=1.0, zorder=1.1)
    for index, points in enumerate(values):
        share = index / max(len(values) - 1, 1)
        dots(ax, points[::stride], s=16 + 30 * (index == len(values) - 1), color=TIME(1 - share),
             edgecolors="white", linewidths=0.4, zorder=3 + share)  # fmt: skip
    reach = float(np.abs(known).max()) if len(known) else 1.0
    reach = 1.2 * reach or 1.0
    if rate is not None:
        ax.add_patch(
            Circle((1 / rate, 0), 1 / rate, fill=False, color=ALARM, linewidth=1.2, zorder=2)
        )
        ax.text(0.98, 0.02, f"stable inside at rate {number(rate)}", color=ALARM, fontsize=TICK,
                ha="right", va="bottom", transform=ax.transAxes)  # fmt: skip
    ax.set_xlim(-reach, reach)
    ax.set_ylim(-reach, reach)
    ax.set_aspect("equal", anchor="N")
    ax.set_xlabel("real part", fontsize=LABEL)
    ax.set_ylabel("imaginary part", fontsize=LABEL)
    heading(ax, "eigenvalues of the game's Jacobian", f"iterations {chosen[0]} to {chosen[-1]}")


def caption(*, flat: bool, rate: float | None) -> str:
    """What arrows, points and the circle are."""
    words = []
    if flat:
        words.append(
            "Arrows: where simultaneous gradient flow leads, dark where it is fast. Rings: starts; "
            "dots: ends; star: equilibrium."
        )
    words.append(
        "Eigenvalues from light (first) to dark (last). Players descend: right of the vertical "
        "line attracts, left repels, away from the horizontal line rotates."
    )
    if rate is not None:
        words.append("Simultaneous gradient descent is stable where all lie inside the circle.")
    return " ".join(words)
