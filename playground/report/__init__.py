"""Figures from records: what a run wrote is all they read, so they can be drawn again.

    overview         main metric, losses, gradient norm, update ratio, cosine; any run
    gradient_norms   tensor x update heat map, a panel a player; any run with tier 0
    game             flow, paths and eigenvalues; runs that measured the game
    landscape, supervised, gan, rl    the picture of the domain
    instruments      noise, curvature, flow, step, direction, game; runs that measured any
    magnitudes       entries of gradient, update, parameters by size; runs that measured steps
    spectrum         Hessians' eigenvalues over training; runs that measured them
    policy_gradient  terms, epochs, KL; policy-gradient runs whose passes were measured
    slice-<name>     the loss around a run's parameters, where ``scripts/landscape.py`` measured it
    animation        a GIF of training; GANs, and only when asked for

Several runs side by side are in ``playground.report.comparison.report`` (``scripts/report.py``).
Matplotlib is imported when a figure is drawn, and only through its object interface.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playground.record.loss_landscapes import list_slices

if TYPE_CHECKING:
    from playground.record.reader import Run

__all__ = ["animate", "draw", "draw_all", "names"]

ALWAYS = ("overview", "gradient_norms")
"""Figures that every run has."""

DOMAINS = ("landscape", "supervised", "gan", "rl")
POLICY = ("policy_gradient",)
INSTRUMENTS = ("noise", "curvature", "flow", "step", "direction", "game")
"""Probes of the sheet of instruments."""
SLICE = "slice-"
"""What the names of slices' figures begin with."""


def names(run: "Run") -> list[str]:
    """The figures that a run may have, given its domain and what was measured."""
    domain = str(run.manifest.get("problem", "")).partition("/")[0]
    arrays = {path.name.partition("-")[0] for path in (run.path / "arrays").glob("*.npy")}
    own = [domain] if domain in DOMAINS else []
    probes = set(run.measurements["probe"].unique().to_pylist())
    deep = ["instruments"] if probes & set(INSTRUMENTS) else []
    policy = POLICY if domain == "rl" else ()
    slices = [SLICE + name for name in list_slices(run)]
    game = ["game"] if "spectrum" in arrays else []
    sizes = ["magnitudes"] if any(name.startswith("magnitudes_") for name in arrays) else []
    hessian = ["spectrum"] if arrays & {"hessian", "density"} else []
    return [*ALWAYS, *game, *own, *policy, *deep, *sizes, *hessian, *slices]


def draw(run: "Run", name: str = "overview") -> Path:
    """Draw one figure into the run's directory, ``figures/<name>.png``.

    Raises:
        ValueError: no such figure, or the records do not hold what it shows.
        RecordError: the records cannot be read or the figure cannot be written.
    """
    if name == "animation":
        return animate(run)
    if name not in names(run):
        raise ValueError(f"figure {name}: this run has {', '.join(names(run))}")
    path = _draw(run, name)
    if path is None:
        raise ValueError(f"figure {name}: the records of {run.path} do not hold what it shows")
    return path


def animate(run: "Run", folder: Path | None = None) -> Path:
    """Draw the training of a GAN as ``figures/animation.gif``.

    Args:
        run: the record.
        folder: where to; null is the run's own ``figures/``.

    Raises:
        ValueError: the records do not hold what it shows.
        RecordError: the records cannot be read or the file cannot be written.
    """
    from playground.record.view import View
    from playground.report.drawing.style import make_folder
    from playground.report.figures.animation import write

    folder = folder or run.path / "figures"
    make_folder(folder)
    path = write(View(run), folder / "animation.gif")
    if path is None:
        raise ValueError(f"figure animation: the records of {run.path} hold no samples over time")
    return path


def draw_all(run: "Run", folder: Path | None = None) -> list[Path]:
    """Draw every figure whose records exist; the paths.

    Args:
        run: the record.
        folder: where to; null is the run's own ``figures/``.

    Raises:
        RecordError: the records cannot be read or a figure cannot be written.
    """
    from playground.record.view import View

    view = View(run)
    paths = [_draw(run, name, view, folder) for name in names(run)]
    return [path for path in paths if path is not None]


def _draw(run: "Run", name: str, view: Any = None, folder: Path | None = None) -> Path | None:
    """Draw one figure; None where there is nothing to show."""
    from playground.record.view import View
    from playground.report.drawing.style import make_folder, save

    view = view or View(run)
    if name.startswith(SLICE):
        from playground.report.figures import loss_landscape as slices

        result = slices.figure(view, name.removeprefix(SLICE))
    else:
        module = import_module(f"playground.report.figures.{name}")
        figure: Callable[[View], Any] = module.figure
        result = figure(view)
    if result is None:
        return None
    folder = folder or run.path / "figures"
    make_folder(folder)
    return save(result, folder / f"{name}.png")
