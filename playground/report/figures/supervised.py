"""``figures/supervised.png``: what a network has learned, and where it errs.

Two classes in the plane: the probability of class 1 (mean over members), every member's
decision boundary and the training points. Digits: the confusion matrix and the misread digits
of greatest loss. Regression: the weights beside the true ones, and predictions; in one
dimension every member's function over the target. Sums of sequences: predictions and, where the
flow probe measured it, how the gradient fades from the last step back to the first.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from playground.record.view import Array, View
from playground.report.drawing.curves import curve, marks, prepare, spread_text
from playground.report.drawing.statistics import quantiles
from playground.report.drawing.style import (
    COLORS,
    DIVERGING,
    INK,
    MUTED,
    TICK,
    Sheet,
    bare,
    dots,
    heading,
    legend,
)
from playground.report.drawing.text import (
    is_linear,
    last_iteration,
    metric_text,
    result_text,
    subtitle,
    title,
)

MISREAD, BOUNDARIES = 16, 50
"""Digits shown, and members whose boundary is drawn, at most (ours)."""

CHANCE = 1 / 6
"""Mean squared error of saying 1, the mean sum of two uniform numbers: its variance."""

ERRORS = LinearSegmentedColormap.from_list("errors", ["#FFFFFF", "#F4C7A1", "#C1440E"])


def figure(view: View) -> Figure | None:
    """Draw the picture of what was recorded; None where there is no array of any kind."""
    for name, draw in (("confusion", _digits), ("boundary", _plane), ("weights", _regression),
                       ("curve", _line), ("predictions", _sums)):  # fmt: skip
        if view.arrays.get(name):
            return draw(view)
    return None


def last(view: View, name: str) -> Array | None:
    """The last array of a name."""
    known = view.arrays.get(name)
    result: Array | None = known[max(known)] if known else None
    return result


def _sheet(view: View, caption: str, **options: Any) -> Sheet:
    members = len(view.members)
    words = [caption, "" if view.has("mse") else "Curves: training dashed."]
    words.append(f"{spread_text(members)}." if members > 1 else "")
    return Sheet.make(title(view), subtitle(view), " ".join(w for w in words if w), **options)


def _curves(sheet: Sheet, cells: list[Any], view: View) -> None:
    """Test and training accuracy and loss, or the exact metrics of regression."""
    pairs = [("accuracy", "train_accuracy"), ("test_loss", "train_loss")]
    if not view.has("accuracy"):
        pairs = [("value", ""), ("distance", ""), ("test_loss", "train_loss")]
        pairs = pairs if view.has("value") else pairs[2:]
        pairs = [("mse", "")] if view.has("mse") else pairs
    for row, (cell, (name, other)) in enumerate(zip(cells, pairs, strict=False)):
        series = [view.metric(name), *([view.metric(other)] if other else [])]
        ax = sheet.panel(cell, x="iteration" if row == len(cells) - 1 else "")
        head = {"accuracy": "accuracy", "test_loss": "loss"}.get(name, metric_text(view, name))
        heading(ax, head, f"final {result_text(series[0].last())}" if series[0] else "")
        if not any(series):
            continue
        log = prepare(ax, series, float(last_iteration(view)), linear=is_linear(name))
        curve(ax, series[0], COLORS[0], "test" if other else "", log=log)
        if other:
            curve(ax, series[1], COLORS[1], "training", log=log, style="--", width=1.3,
                  individual=False)  # fmt: skip
        if name == "mse":
            ax.axhline(CHANCE, color=MUTED, linewidth=1, zorder=1.5, label="saying 1: 1/6")
        legend(ax)
        marks(ax, view)


def _digits(view: View) -> Figure:
    """Confusion, misread digits and curves."""
    counts = last(view, "confusion")
    assert counts is not None
    caption = (
        "Confusion: test digits by true class (row) and predicted class (column)"
        + (f", mean over {len(counts)} members" if len(counts) > 1 else "")
        + "; colour is the share of the row that is wrong. "
        "Misread digits: greatest loss first, read (true)."
    )
    sheet = _sheet(view, caption, width=14.0, body=4.7, margins=(0.7, 0.35))
    cells = sheet.grid(2, 3, width_ratios=(1.2, 1.05, 1.0), wspace=0.2, hspace=0.42)
    ax = sheet.panel(cells[:, 0], "confusion", "predicted", "true")
    confusion(ax, counts)
    ax = sheet.panel(cells[:, 1], "misread digits of member 0")
    misread(ax, view)
    _curves(sheet, [cells[0, 2], cells[1, 2]], view)
    return sheet.figure


def confusion(ax: Axes, counts: Array) -> None:
    """Mean counts [K, K] as numbers, errors coloured by their share of the row."""
    mean = counts.mean(axis=0)
    classes = len(mean)
    share = mean / np.maximum(mean.sum(axis=1, keepdims=True), 1)
    wrong = np.where(np.eye(classes, dtype=bool), 0.0, share)
    ax.grid(False)
    ax.imshow(wrong, cmap=ERRORS, norm=Normalize(0, max(0.1, float(wrong.max()))))
    for row, column in np.argwhere(mean > 0):
        value = mean[row, column]
        right = row == column
        text = f"{value:.0f}" if value >= 10 or value == round(value) else f"{value:.1f}"
        ax.text(column, row, text, ha="center", va="center", fontsize=TICK,
                color=INK if right or wrong[row, column] < 0.06 else "white",
                weight="bold" if right else "normal")  # fmt: skip
    ax.set_xticks(range(classes))
    ax.set_yticks(range(classes))
    ax.set_anchor("NW")


def misread(ax: Axes, view: View, member: int = 0) -> None:
    """One member's misread digits in a square, with what was read and what was true."""
    bare(ax)
    for spine in ax.spines.values():
        spine.set_visible(False)
    images, labels = last(view, "misread_images"), last(view, "misread_labels")
    read = last(view, "misread_predictions")
    if images is None or labels is None or read is None:
        return
    shown = np.flatnonzero(labels[member] >= 0)[:MISREAD]
    side = 4
    height, width = images.shape[2:]
    for place, index in enumerate(shown):
        row, column = divmod(place, side)
        left, top = column * 1.25, row * 1.5
        ax.imshow(images[member, index], cmap="Greys", extent=(left, left + 1, top + 1, top),
                  interpolation="nearest", vmin=0, vmax=16, aspect="equal")  # fmt: skip
        ax.text(left + 0.5, top + 1.06, f"{read[member, index]} ({labels[member, index]})",
                ha="center", va="top", fontsize=TICK, color=INK)  # fmt: skip
    if not len(shown):
        ax.text(0.5, 0.5, "none", transform=ax.transAxes, ha="center", color=MUTED)
    ax.set_xlim(-0.1, side * 1.25 - 0.15)
    ax.set_ylim(side * 1.5 - 0.1, -0.1)
    ax.set_aspect(width / height)
    ax.set_anchor("NW")


def _plane(view: View) -> Figure:
    """Decision boundaries and curves."""
    sheet = _sheet(view, "Ground: probability of class 1, mean over members; lines: where each "
                   "member says 1/2. Points: training set.", width=13.0, body=5.6)  # fmt: skip
    cells = sheet.grid(2, 2, width_ratios=(1.5, 1), wspace=0.18, hspace=0.42)
    ax = sheet.panel(cells[:, 0], "decision boundary")
    boundary(ax, view)
    _curves(sheet, [cells[0, 1], cells[1, 1]], view)
    return sheet.figure


def boundary(ax: Axes, view: View) -> None:
    """Probability as the ground, boundaries as lines, points of both classes."""
    field, axes = last(view, "boundary"), last(view, "boundary_axes")
    points, labels = last(view, "points"), last(view, "labels")
    ax.grid(False)
    if field is not None and axes is not None:
        values = field.astype(np.float64)
        known = np.where(np.isfinite(values).any(axis=0), np.nan_to_num(values).mean(axis=0), 0.5)
        ax.imshow(known, cmap=DIVERGING, vmin=0, vmax=1, origin="lower", interpolation="bilinear",
                  extent=(*axes[0][0][[0, -1]], *axes[0][1][[0, -1]]), aspect="auto")  # fmt: skip
        for member in values[:BOUNDARIES]:
            if np.isfinite(member).all() and member.min() < 0.5 < member.max():
                ax.contour(*axes[0], member, levels=[0.5], colors=INK, zorder=3,
                           linewidths=1.6 if len(values) == 1 else 0.7, alpha=0.8)  # fmt: skip
    if points is not None and labels is not None:
        for value, shade in ((0, COLORS[1]), (1, COLORS[0])):
            chosen = points[0][labels[0] == value]
            dots(ax, chosen, s=13, c=shade, edgecolors="white", linewidths=0.3, zorder=2.5,
                       label=f"class {value}")  # fmt: skip
        legend(ax, loc="upper right")


def _regression(view: View) -> Figure:
    """Weights, predictions and curves."""
    members = len(view.members)
    spread = "the middle 95 % of members" if members > 1 else "the member"
    sheet = _sheet(view, f"Weights: black is true, blue is the members' median and {spread}. "
                   "Predictions: test set, member 0.", width=13.5, body=5.4)  # fmt: skip
    cells = sheet.grid(2, 3, wspace=0.24, hspace=0.42)
    weights(sheet.panel(cells[0, 0:2], "weights", "input"), view)
    predictions(sheet.panel(cells[1, 0], "predictions", "observed", "predicted"), view)
    _curves(sheet, [cells[1, 1], cells[0, 2], cells[1, 2]], view)
    return sheet.figure


def weights(ax: Axes, view: View) -> None:
    """Learned weights beside the true ones, by input."""
    learned, truth = last(view, "weights"), last(view, "true_weights")
    if learned is None:
        return
    low, middle, high = quantiles(learned.T, 0.025, 0.5, 0.975)
    x = np.arange(learned.shape[1])
    ax.errorbar(x, middle, np.stack([middle - low, high - middle]), fmt="o", color=COLORS[0],
                markersize=5, linewidth=1.4, label="learned", zorder=3)  # fmt: skip
    if truth is not None:
        ax.plot(x, truth[0], linestyle="", marker="_", markersize=16, markeredgewidth=2,
                color=INK, label="true", zorder=2.5)  # fmt: skip
    ax.axhline(0, color=MUTED, linewidth=0.7)
    if len(x) <= 30:
        ax.set_xticks(x)
    legend(ax)


def _line(view: View) -> Figure:
    """Learned functions of one input, and curves."""
    sheet = _sheet(view, "Functions: black is the target, blue a member each; points: training "
                   "set.", width=13.0, body=4.6)  # fmt: skip
    cells = sheet.grid(1, 2, width_ratios=(1.5, 1), wspace=0.18)
    functions(sheet.panel(cells[0, 0], "function", "input", "output"), view)
    _curves(sheet, [cells[0, 1]], view)
    return sheet.figure


def functions(ax: Axes, view: View) -> None:
    """Learned functions over the target, with the training points."""
    learned, target = last(view, "curve"), last(view, "curve_target")
    points = last(view, "curve_points")
    if learned is None or target is None:
        return
    for k, values in enumerate(learned[:BOUNDARIES]):
        ax.plot(target[0, 0], values, color=COLORS[0], linewidth=1, alpha=0.6,
                label="" if k else "learned", zorder=3)  # fmt: skip
    ax.plot(*target[0], color=INK, linewidth=1.4, label="target", zorder=2)
    if points is not None:
        dots(ax, points[0].T, s=16, c=INK, linewidths=0, zorder=3.5, label="training set")
    legend(ax)


def _sums(view: View) -> Figure:
    """Predicted sums, the gradient by time step, and curves."""
    sheet = _sheet(view, "Predictions: test set, member 0. Gradient: |dL/dh| of the batch at each "
                   "step, geometric mean over members; dashed: random weights of the same size.",
                   width=13.5, body=4.4)  # fmt: skip
    cells = sheet.grid(1, 3, wspace=0.26)
    predictions(sheet.panel(cells[0, 0], "predictions", "true sum", "predicted"), view)
    by_step(sheet.panel(cells[0, 1], "gradient by time step", "step"), view)
    _curves(sheet, [cells[0, 2]], view)
    return sheet.figure


def by_step(ax: Axes, view: View) -> None:
    """Norms of the slopes by memory, at the first and the last measurement."""
    known = view.arrays.get("gradient_by_step-model")
    if not known:
        ax.text(0.5, 0.5, "probes.flow.every measures it", transform=ax.transAxes, ha="center",
                color=MUTED)  # fmt: skip
        return
    for color, at in zip(COLORS, sorted({min(known), max(known)}), strict=False):
        with np.errstate(divide="ignore"):
            logs = np.log(known[at])  # a geometric mean, since scales differ
        usable = np.isfinite(logs).all(axis=(1, 2))
        if usable.any():
            measured, theory = np.exp(logs[usable].mean(axis=0))
            steps = np.arange(1, len(measured) + 1)
            ax.plot(steps, measured, color=color, linewidth=1.6, label=f"iteration {at}", zorder=3)
            ax.plot(steps, theory, color=color, linewidth=1.1, linestyle="--", zorder=2.5)
    ax.set_yscale("log")
    legend(ax)


def predictions(ax: Axes, view: View) -> None:
    """Predicted over observed targets, with the line where they agree."""
    predicted, observed = last(view, "predictions"), last(view, "observations")
    if predicted is None or observed is None:
        return
    ax.scatter(observed[0], predicted[0], s=9, c=COLORS[0], alpha=0.6, linewidths=0, zorder=3)
    known = np.concatenate([observed[0], predicted[0]])
    known = known[np.isfinite(known)]
    if known.size:
        span = [float(known.min()), float(known.max())]
        ax.plot(span, span, color=INK, linewidth=1, zorder=2)
