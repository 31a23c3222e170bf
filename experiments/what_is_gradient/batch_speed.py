"""Training by single examples, small batches and all data, against examples seen."""

from collections.abc import Mapping

import numpy as np

from playground.config import from_dict
from playground.domains.supervised.data import load
from playground.record.reader import Run
from playground.report.drawing.style import COLORS, Sheet, legend, value_scale

from .common import Check, page

NAMES = {"one": ("one example, rate constant", 1), "falling": ("one example, rate falls to 0", 4),
         "mini": ("50 examples", 2), "full": ("all 1,000 examples", 0)}  # fmt: skip


def lowest(run: Run) -> float:
    """The lowest mean loss of the training set, by least squares."""
    x, y = load(from_dict(run.config).problem).train
    residual = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    return float(0.5 * np.mean(residual**2))


def excess(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Examples seen [T], and the training loss above the lowest possible [T, M]."""
    iterations, loss = run.metric("train_loss")
    problem = from_dict(run.config).problem
    return iterations * problem.batch(), np.maximum(loss - lowest(run), 1e-16)


def floor(run: Run) -> np.ndarray:
    """Geometric mean of the excess over the last quarter [M]."""
    values = excess(run)[1]
    return np.exp(np.log(values[-len(values) // 4 :]).mean(axis=0))


def judge(runs: Mapping[str, Run]) -> tuple[list[Check], Sheet]:
    """Single examples win the first pass and lose the end, unless the rate falls."""
    once = {}
    for name in ("one", "mini", "full"):
        seen, values = excess(runs[name])
        once[name] = values[np.argmax(seen >= 1000)]
    checks = [
        Check("after 1,000 examples: excess loss of all at once over that of one at a time",
              "> 1", once["full"] / once["one"], low=1.0),
        Check("after 1,000 examples: excess loss of all at once over that of 50 at a time", "> 1",
              once["full"] / once["mini"], low=1.0),
        Check("in the end, rate constant: excess loss of one at a time over that of all", "> 1",
              floor(runs["one"]) / floor(runs["full"]), low=1.0, role="breaks"),
        Check("in the end: excess loss with a constant rate over that with one that falls to 0",
              "> 1", floor(runs["one"]) / excess(runs["falling"])[1][-1], low=1.0),
    ]  # fmt: skip
    return checks, draw(runs)


def draw(runs: Mapping[str, Run]) -> Sheet:
    """Excess loss against examples seen, on two scales."""
    sheet, cells = page(
        "batch_speed", "Do single examples converge faster?",
        "Linear regression on 1,000 noisy examples, whose best fit is known; excess loss is the "
        "training loss above that of the best fit. The gradient of an update costs as many "
        "examples as the batch has. In the time of its first step on all data, single examples "
        "have made 1,000 small ones; but at a constant rate their noise keeps them from ever "
        "arriving.", 2,
    )  # fmt: skip
    for cell, title, zoom in zip(cells, ("The first 2 passes", "To the end"), (True, False),
                                 strict=True):  # fmt: skip
        ax = sheet.panel(cell, title, "examples seen", "excess training loss" if zoom else "")
        for name, (label, color) in NAMES.items():
            seen, values = excess(runs[name])
            mean = np.exp(np.log(values).mean(axis=1))
            style = {"drawstyle": "steps-post"} if name == "full" else {}
            begin = 0 if zoom else 1  # a logarithmic axis has no 0
            seen, values, mean = seen[begin:], values[begin:], mean[begin:]
            ax.plot(seen, values, color=COLORS[color], lw=0.4, alpha=0.3, **style)
            ax.plot(seen, mean, color=COLORS[color], lw=1.9, label=label, **style)
        value_scale(ax, "log")
        if zoom:
            ax.set(xlim=(-40, 2000), ylim=(1e-4, 5))
            legend(ax, loc="lower left")
        else:
            value_scale(ax, "log", axis="x")
            ax.axvline(1000, color="0.6", lw=0.6)
            ax.text(1000, 1e-7, "one pass ", ha="right", fontsize=9, color="0.4")
    return sheet
