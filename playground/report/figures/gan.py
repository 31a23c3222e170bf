"""``figures/gan.png``: what the generator makes and where each sample is told to go.

Samples over the data, the discriminator's D(x) as the ground, and on samples the generator's
gradient as arrows: minus the gradient of its loss by the sample. One member: its course over
training; several: the last state of the first four. The Dirac-GAN: paths in the plane of its two
parameters. On the line: ``line.py``; images: ``images.py``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from playground.record.view import Array, View
from playground.report.drawing.style import (
    DIVERGING,
    INK,
    LABEL,
    MUTED,
    TICK,
    Sheet,
    bare,
    dots,
    heading,
    number,
)
from playground.report.drawing.text import subtitle, title
from playground.report.figures import gan_images as images
from playground.report.figures import gan_line as line
from playground.report.figures import landscape

PANELS, SHOWN = 4, 100
"""Panels in a row, and arrows of a panel (ours)."""

REACH = 0.1
"""Of a long arrow (95 % are shorter), as a share of the panel's width (ours)."""

CUT = 2.0
"""Where the others are cut, in long arrows (ours)."""

LOGISTIC = ("minimax", "nonsaturating")
LEVELS = {"minimax": 0.0, "nonsaturating": 0.0, "hinge": 0.0, "least_squares": 0.5}
"""Losses whose D(x) has a sigmoid, and where those that have a border have it."""

SCORES = {
    "high_quality": "{} high quality", "reverse_kl": "reverse KL {}",
    "reverse_kl/off_mode": "reverse KL {}",
    "sliced_wasserstein": "sliced W {}",
}  # fmt: skip

DATA, SAMPLES = "#5A5A5A", "#B3123C"


@dataclass(frozen=True)
class Scene:
    """One member at one evaluation, each part None where it was not recorded."""

    member: int
    iteration: int
    samples: Array | None
    data: Array | None
    field: Array | None
    axes: Array | None
    points: Array | None
    arrows: Array | None


def figure(view: View) -> Figure | None:
    """Draw the picture; None while there are no samples."""
    if "trajectory" in view.arrays:
        return landscape.figure(view)
    if view.arrays.get("images"):
        return images.figure(view)
    if not view.arrays.get("samples"):
        return None
    scenes = choose(view)
    if scenes[0].samples is not None and scenes[0].samples.shape[1] == 1:
        panels = [(head(view, s), s.iteration, s.member, scores(view, s)) for s in scenes]
        return line.figure(view, panels, caption(view, scenes))
    sheet = Sheet.make(title(view), subtitle(view), caption(view, scenes), width=13.0,
                       body=2.75, margins=(0.3, 0.95))  # fmt: skip
    cells = sheet.grid(1, len(scenes), wspace=0.06)
    box, loss = limits(scenes), loss_of(view)
    for index, scene in enumerate(scenes):
        ax = sheet.panel(cells[0, index])
        heading(ax, head(view, scene))
        paint(ax, scene, box, loss)
        ax.set_xlabel(scores(view, scene), fontsize=TICK, color=INK, labelpad=6)
    _key(sheet, scenes, loss)
    return sheet.figure


def head(view: View, one: Scene) -> str:
    """What a panel differs in from its neighbours."""
    return f"member {one.member}" if len(view.members) > 1 else f"iteration {one.iteration}"


def loss_of(view: View) -> str:
    """The adversarial loss, which says what the discriminator's output means."""
    return str((view.config.get("loss") or {}).get("name", "nonsaturating"))


def choose(view: View) -> list[Scene]:
    """Four times of the only member, or four members at the last evaluation."""
    iterations = sorted(view.arrays["samples"])
    if len(view.members) == 1:
        places = np.unique(np.geomspace(1, len(iterations), PANELS).round().astype(int) - 1)
        return [scene(view, iterations[place], 0) for place in places]
    last = iterations[-1]
    members = len(view.arrays["samples"][last])
    return [scene(view, last, member) for member in range(min(PANELS, members))]


def scene(view: View, iteration: int, member: int) -> Scene:
    """What was recorded of a member at an evaluation."""

    def read(name: str) -> Array | None:
        known: Mapping[int, Array] = view.arrays.get(name, {})
        if iteration not in known:
            return None
        array = known[iteration]
        if len(array) == 1:  # shared by all members
            return np.asarray(array[0], np.float64)
        return np.asarray(array[member], np.float64) if member < len(array) else None

    parts = ("samples", "data", "field", "field_axes", "arrow_points", "arrows")
    return Scene(member, iteration, *(read(name) for name in parts))


def limits(scenes: list[Scene]) -> tuple[float, float, float, float]:
    """The box of all panels: the field's, or what holds the data with a margin."""
    for one in scenes:
        if one.axes is not None:
            low, high = one.axes.min(axis=1), one.axes.max(axis=1)
            return float(low[0]), float(high[0]), float(low[1]), float(high[1])
    clouds = [c for one in scenes for c in (one.data, one.samples) if c is not None]
    points = np.concatenate(clouds)
    points = points[np.isfinite(points).all(axis=1)]
    half = 1.2 * float(np.abs(points).max(initial=1.0))
    return -half, half, -half, half


def paint(
    ax: Axes, one: Scene, box: tuple[float, float, float, float], loss: str = "nonsaturating"
) -> None:
    """Field, data, samples and arrows of one panel."""
    bare(ax)
    if one.field is not None and one.axes is not None:
        ax.imshow(ground(one.field, loss), cmap=DIVERGING, vmin=0, vmax=1, origin="lower",
                  extent=(*one.axes[0][[0, -1]], *one.axes[1][[0, -1]]), aspect="auto",
                  interpolation="bilinear")  # fmt: skip
        level = LEVELS.get(loss)
        known = np.isfinite(one.field).all()
        if known and level is not None and one.field.min() < level < one.field.max():
            ax.contour(*one.axes, one.field, levels=[level], colors="#777777", linewidths=0.8)
    if one.data is not None:
        dots(ax, one.data, s=5, c=DATA, alpha=0.5, linewidths=0, zorder=2)
    if one.samples is not None:
        dots(ax, one.samples, s=5, c=SAMPLES, alpha=0.55, linewidths=0, zorder=3)
    if one.arrows is not None and one.points is not None:
        long = long_arrow(one.arrows)
        if long > 0:
            every = -(-len(one.arrows) // SHOWN)
            tips = one.arrows[::every] / long
            lengths = np.linalg.norm(tips, axis=1, keepdims=True)
            tips *= REACH * (box[1] - box[0]) * np.minimum(1, CUT / np.maximum(lengths, CUT))
            ax.quiver(*one.points[::every].T, *tips.T, angles="xy", scale_units="xy", scale=1.0,
                      width=0.0035, color=INK, alpha=0.75, headwidth=4, zorder=4)  # fmt: skip
    ax.set_xlim(box[0], box[1])
    ax.set_ylim(box[2], box[3])
    ax.set_aspect("equal")


def ground(field: Array, loss: str) -> Array:
    """The field in [0, 1]: a probability where a loss has one, else D(x) about its middle."""
    if loss in LOGISTIC:
        return probability(field)
    values = np.nan_to_num(np.asarray(field, np.float64))
    shifted = values - LEVELS.get(loss, float(np.median(values)))
    result: Array = 0.5 + 0.5 * shifted / max(float(np.abs(shifted).max()), 1e-12)
    return result


def probability(logits: Array) -> Array:
    """D(x) = 1 / (1 + exp(-logit)), without overflow."""
    result: Array = 0.5 * (1 + np.tanh(0.5 * np.asarray(logits, np.float64)))
    return result


def long_arrow(arrows: Array) -> float:
    """Length that 95 % of the finite arrows do not exceed; 0 where there is none."""
    lengths = np.linalg.norm(arrows, axis=-1)
    lengths = lengths[np.isfinite(lengths)]
    return float(np.quantile(lengths, 0.95)) if lengths.size else 0.0


def divergence(view: View) -> str:
    """The reverse KL that counts samples off all modes, where it was recorded."""
    return "reverse_kl/off_mode" if view.has("reverse_kl/off_mode") else "reverse_kl"


def scores(view: View, one: Scene) -> str:
    """Modes, high-quality share, reverse KL of a panel, and how long its arrows are."""
    words = []
    total = view.arrays.get("centres")
    kl = divergence(view)
    for name, text in (("modes", "{:.0f}"), ("high_quality", "{:.1%}"), (kl, "{:.2g}"),
                       ("sliced_wasserstein", "{:.2g}")):  # fmt: skip
        series = view.metric(name)
        row = np.flatnonzero(series.x == one.iteration)
        if not len(row) or not np.isfinite(series.values[row[0], one.member]):
            continue
        value = text.format(series.values[row[0], one.member])
        if name == "modes":
            count = len(total[max(total)][0]) if total else None
            words.append(f"{value} of {count} modes" if count else f"{value} modes")
        else:
            words.append(SCORES[name].format(value))
    planar = one.arrows is not None and one.arrows.shape[-1] == 2
    if planar and one.arrows is not None and long_arrow(one.arrows) > 0:
        words.append(f"long arrow: slope {number(long_arrow(one.arrows), 2)}")
    return "\n".join(", ".join(words[place : place + 2]) for place in range(0, len(words), 2))


def caption(view: View, scenes: list[Scene]) -> str:
    """What the panels show, and what a perfect sampler would score."""
    count = len(view.members)
    words = []
    if count > 1:
        words.append(f"The first {len(scenes)} of {count} members, iteration {scenes[0].iteration}."
                     )  # fmt: skip
    generator = (view.config.get("evaluate") or {}).get("generator") or (
        view.config.get("problem") or {}
    ).get("evaluated")
    words.append(f"Samples and scores are of the {generator} generator." if generator else "")
    if scenes[0].samples is not None and scenes[0].samples.shape[1] == 2:
        words.append("Arrows: minus the gradient of the generator's loss by each sample, to scale "
                     "within a panel, the longest cut.")  # fmt: skip
        words.append("Grey line: D(x) is undecided." if loss_of(view) in LEVELS else "")
    kl = divergence(view)
    off = ", with a bin for samples off all modes" if "/" in kl else ""
    words.append(f"Reverse KL in nats{off}." if view.has(kl) else "")
    perfect = []
    for name, text in (
        ("high_quality", "{:.1%} high quality"),
        (kl, "reverse KL {:.2g}"),
        ("sliced_wasserstein", "sliced W {:.2g}"),
    ):
        series = view.metric(f"{name}/perfect")
        if series:
            perfect.append(text.format(float(np.nanmean(series.last()))))
    words.append(f"A perfect sampler scores {', '.join(perfect)}." if perfect else "")
    return " ".join(word for word in words if word)


def _key(sheet: Sheet, scenes: list[Scene], loss: str) -> None:
    """What dots are, at the top right; the discriminator's colours at the right."""
    height = float(sheet.figure.get_figheight())
    dots: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 6}
    sheet.figure.legend(
        [Line2D([], [], color=DATA, **dots), Line2D([], [], color=SAMPLES, **dots)],
        ["data", "generator's samples"], loc="upper right", ncols=2, frameon=False,
        bbox_to_anchor=(sheet.right, 1 - 0.12 / height), fontsize=LABEL, borderaxespad=0.0,
    )  # fmt: skip
    if any(one.field is not None for one in scenes):
        width = float(sheet.figure.get_figwidth())
        tall = 0.6 * (sheet.top - sheet.bottom)
        middle = (sheet.top + sheet.bottom - tall) / 2
        ax = sheet.figure.add_axes((1 - 0.82 / width, middle, 0.13 / width, tall))
        bar = sheet.figure.colorbar(ScalarMappable(Normalize(0, 1), DIVERGING), cax=ax)
        words = "D(x): 1 is real" if loss in LOGISTIC else "D(x), high is real; scaled"
        bar.set_label(words, fontsize=TICK, color=MUTED)
        bar.ax.tick_params(labelsize=TICK)
        bar.outline.set_visible(False)
