"""Generated images in a grid: the same latents at every time, beside real images.

One member: its course over training; several: the last state of the first four. Ink is dark on
white; three channels are cyan, magenta and yellow ink.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from playground.record.view import Array, View
from playground.report.drawing.style import INK, TICK, Sheet, heading, number
from playground.report.drawing.text import subtitle, title

PANELS, SIDE = 4, 8
"""Panels beside the real images, and images a side of a panel (ours)."""


def figure(view: View) -> Figure:
    """Draw the picture of a run that recorded images."""
    iterations = sorted(view.arrays["images"])
    cells = choose(view, iterations)
    several = len(view.members) > 1
    sheet = Sheet.make(title(view), subtitle(view), caption(view, several), width=13.5,
                       body=2.6, margins=(0.3, 0.3))  # fmt: skip
    grid = sheet.grid(1, PANELS + 1, wspace=0.08)
    for index, (iteration, member) in enumerate(cells):
        ax = sheet.panel(grid[0, index])
        heading(ax, f"member {member}" if several else f"iteration {iteration}")
        mosaic(ax, view.arrays["images"][iteration][member])
        ax.set_xlabel(scores(view, iteration, member), fontsize=TICK, color=INK, labelpad=6)
    ax = sheet.panel(grid[0, len(cells)])
    heading(ax, "real")
    real = view.arrays["real_images"]
    mosaic(ax, real[max(real)][0])
    ax.set_xlabel(scores(view, iterations[-1], 0, "/perfect"), fontsize=TICK, color=INK, labelpad=6)
    return sheet.figure


def choose(view: View, iterations: list[int]) -> list[tuple[int, int]]:
    """(iteration, member) of the panels."""
    if len(view.members) > 1:
        return [(iterations[-1], member) for member in range(min(PANELS, len(view.members)))]
    places = np.unique(np.geomspace(1, len(iterations), PANELS).round().astype(int) - 1)
    return [(iterations[place], 0) for place in places]


def mosaic(ax: Axes, images: Array) -> None:
    """Images [n, C, H, W], bytes, in a square, the first ones where there are more."""
    ax.grid(False)
    ax.imshow(tiles(images), cmap="Greys", vmin=0, vmax=255, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)


def tiles(images: Array, side: int = SIDE) -> Array:
    """A square of images with a gap between: [h, w] of ink for one channel, else [h, w, 3]."""
    channels, height, width = images.shape[1:]
    gap = 1
    canvas = np.zeros((side * (height + gap) - gap, side * (width + gap) - gap, channels), np.uint8)
    for place, image in enumerate(images[: side * side]):
        row, column = divmod(place, side)
        top, left = row * (height + gap), column * (width + gap)
        canvas[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return canvas[..., 0] if channels == 1 else 255 - canvas


def scores(view: View, iteration: int, member: int, suffix: str = "") -> str:
    """Frechet distance, precision, recall and coverage of a panel."""
    words = []
    for name, text in (
        ("frechet", "Frechet {}"), ("modes", "{} classes"),
        ("precision", "precision {}"), ("coverage", "coverage {}"),
    ):  # fmt: skip
        series = view.metric(name + suffix)
        row = np.flatnonzero(series.x == iteration)
        if len(row) and np.isfinite(series.values[row[0], member]):
            value = float(series.values[row[0], member])
            words.append(text.format(f"{value:.0f}" if name == "modes" else number(value, 3)))
    return "\n".join(", ".join(words[place : place + 2]) for place in range(0, len(words), 2))


def caption(view: View, several: bool) -> str:
    """What the panels show, what real images score, and how good the classifier is."""
    config = view.config
    generator = (config.get("evaluate") or {}).get("generator") or (
        config.get("problem") or {}
    ).get("evaluated", "evaluated")
    words = [f"Images and scores are of the {generator} generator."]
    if not several:
        words.append("A place in the grid is one latent throughout.")
    words.append("Distances are taken in the features of a small classifier trained here")
    accuracy = view.metric("classifier/accuracy")
    if accuracy:
        words[-1] += f" ({float(accuracy.last()[0]):.1%} right on held-out images)"
    words[-1] += "; below the real images: what held-out images score."
    floor = view.metric("frechet/floor")
    if floor:
        value = number(float(floor.last()[0]), 2)
        words.append(f"Two halves of the training images are {value} apart.")
    return " ".join(words)
