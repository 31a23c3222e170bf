"""``figures/animation.gif``: a GAN's training as it was recorded, one frame an evaluation.

At the left member 0's samples (over the data with the discriminator's field and the generator's
arrows, or images of fixed latents), at the right the metrics so far. More frames: a smaller
``evaluate.every``. Written by Pillow, which Matplotlib depends on.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from playground.record.atomic import write_atomic
from playground.record.view import View
from playground.report.drawing.style import (
    COLORS,
    INK,
    MUTED,
    SUBTITLE,
    TICK,
    TITLE,
    dress,
    heading,
    number,
    value_scale,
)
from playground.report.drawing.text import is_linear, metric_text, title
from playground.report.figures import gan
from playground.report.figures import gan_images as images

if TYPE_CHECKING:
    from PIL.Image import Image

DOTS = 90
"""Dots per inch of a frame (ours): 900 x 540 pixels."""

FRAME, LAST = 220, 2500
"""Milliseconds of a frame, and of the last one (ours)."""

CURVES = ("frechet", "coverage", "high_quality", "reverse_kl", "sliced_wasserstein", "mmd")
"""Metrics beside the samples: the first two that the run has."""

MOST = 200
"""Frames at most; of more evaluations every second, third, ... is shown (ours)."""


def write(view: View, path: Path) -> Path | None:
    """Draw and write the animation; None where the records hold no samples over time."""
    source = view.arrays.get("images") or view.arrays.get("samples")
    if not source:
        return None
    iterations = sorted(source)
    every = -(-len(iterations) // MOST)
    kept = sorted({*iterations[::every], iterations[-1]})
    paint = _images(view) if view.arrays.get("images") else _points(view, kept)
    frames = [_frame(view, iteration, paint) for iteration in kept]
    write_atomic(path, encode(frames))
    return path


def encode(frames: "list[Image]") -> bytes:
    """Frames as a GIF that repeats, each in a palette of its own: colours move with training."""
    coded = [_coded(frame) for frame in frames]
    buffer = io.BytesIO()
    coded[0].save(buffer, format="GIF", save_all=True, append_images=coded[1:], loop=0,
                  duration=[FRAME] * (len(coded) - 1) + [LAST], optimize=False)  # fmt: skip
    return buffer.getvalue()


def _coded(frame: "Image") -> "Image":
    """A frame in 256 colours: its own commonest ones, and thin lines' and dots' that they miss."""
    from PIL import Image

    common = frame.quantize(240).getpalette() or []
    shades = [to_rgb(color) for color in (COLORS[0], gan.SAMPLES)]
    extra = [
        round(255 * (1 - share * (1 - value)))
        for shade in shades for share in np.linspace(1 / 8, 1, 8) for value in shade
    ]  # fmt: skip
    palette = Image.new("P", (1, 1))
    palette.putpalette(common[: 3 * 240] + extra)
    return frame.quantize(palette=palette, dither=Image.Dither.NONE)


def _frame(view: View, iteration: int, paint: Callable[[Axes, int], None]) -> "Image":
    """One picture: samples, and curves up to now."""
    from PIL import Image

    figure = Figure(figsize=(10, 6), dpi=DOTS, facecolor="white")
    figure.text(0.03, 0.965, title(view), fontsize=TITLE + 1, weight="bold", color=INK, va="top")
    figure.text(0.03, 0.905, f"iteration {iteration:,}", fontsize=SUBTITLE + 2, color=MUTED,
                va="top")  # fmt: skip
    paint(figure.add_axes((0.03, 0.05, 0.48, 0.8)), iteration)
    names = curves_of(view)
    for row, name in enumerate(names):
        height = 0.8 / len(names)
        ax = figure.add_axes((0.6, 0.89 - (row + 1) * height + 0.02, 0.37, height - 0.13))
        _curve(ax, view, name, iteration, x=row == len(names) - 1)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    return Image.fromarray(pixels[..., :3])


def curves_of(view: View) -> list[str]:
    """The two metrics beside the samples."""
    return [name for name in CURVES if view.has(name)][:2]


def _curve(ax: Axes, view: View, name: str, iteration: int, *, x: bool) -> None:
    """A metric of member 0 up to an iteration, with what a perfect sampler scores."""
    series, perfect = view.metric(name), view.metric(f"{name}/perfect")
    dress(ax, x="iteration" if x else "")
    values = series.values[:, 0]
    now = series.x <= iteration
    shown = values[now][-1] if now.any() else np.nan
    heading(ax, metric_text(view, name))
    ax.set_title(number(float(shown), 3), fontsize=SUBTITLE, color=MUTED, loc="right", pad=6)
    if not is_linear(name) and (values[np.isfinite(values)] > 0).all():
        value_scale(ax, "log")
    if perfect and (ax.get_yscale() == "linear" or perfect.values[0, 0] > 0):
        ax.axhline(perfect.values[0, 0], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        ax.text(series.x.max(), perfect.values[0, 0], "perfect sampler ", fontsize=TICK,
                color=MUTED, ha="right", va="bottom")  # fmt: skip
    ax.plot(series.x, values, alpha=0)  # fixes the limits for all frames
    ax.plot(series.x[now], values[now], color=COLORS[0], linewidth=2.2)
    ax.plot(series.x[now][-1:], values[now][-1:], "o", color=COLORS[0], markersize=6)
    ax.set_xlim(0, float(series.x.max()))


def _images(view: View) -> Callable[[Axes, int], None]:
    return lambda ax, iteration: images.mosaic(ax, view.arrays["images"][iteration][0])


def _points(view: View, iterations: list[int]) -> Callable[[Axes, int], None]:
    """Scenes in one box; on the line, histograms."""
    if view.arrays["samples"][iterations[-1]].shape[-1] == 1:
        from playground.report.figures import gan_line as line

        return lambda ax, iteration: line.paint(ax, view, iteration, 0, last=True)
    box = gan.limits([gan.scene(view, iterations[-1], 0)])
    loss = gan.loss_of(view)
    return lambda ax, iteration: gan.paint(ax, gan.scene(view, iteration, 0), box, loss)
