"""The error signal through ten layers, what the rules say of it, and what training makes of it."""

from collections.abc import Mapping
from math import log, sqrt

import numpy as np
import pyarrow.compute as pc

import playground
from playground.record.reader import Run
from playground.report.drawing.style import COLORS, Sheet, legend, value_scale

from .common import Check, page

NAMES = {"vanishing": ("sigmoid units", 1), "healthy": ("ReLU units, He's start", 0),
         "exploding": ("linear units, start too wide", 3)}  # fmt: skip


def signals(run: Run) -> np.ndarray:
    """Root mean square of the loss's slope by each layer's outputs, at the start [L, M]."""
    table = run.measurements
    for column, value in (("probe", "flow"), ("quantity", "backward"), ("iteration", 1)):
        table = table.filter(pc.equal(table[column], value))
    tensors = sorted(set(table["tensor"].to_pylist()), key=lambda t: int(t.split(".")[0]))
    values = np.full((len(tensors), len(run.members)), np.nan)
    row = [tensors.index(t) for t in table["tensor"].to_pylist()]
    values[row, table["member"].to_numpy()] = np.sqrt(table["value"].to_numpy())
    return values


def factor(run: Run) -> np.ndarray:
    """By how much the signal changes a layer on its way back, hidden layers only [M]."""
    hidden = signals(run)[:-1]
    return (hidden[0] / hidden[-1]) ** (1 / (len(hidden) - 1))


def said(run: Run, rule: str) -> list[float]:
    """1 of each member of which the rule says so, else 0."""
    members = {f.member for f in playground.diagnose(run) if f.rule == rule}
    return [float(k in members) for k in range(len(run.members))]


def judge(runs: Mapping[str, Run]) -> tuple[list[Check], Sheet]:
    """A quarter a layer, one, root 2; named by the rules; and what is left of training."""
    end = {name: runs[name].metric("train_loss")[1][-1] / log(10)
           for name in ("vanishing", "healthy")}  # fmt: skip
    checks = [
        Check("sigmoid units: factor of the error signal a layer", "1/4", factor(runs["vanishing"]),
              0.2, 0.3),
        Check("ReLU units, He's start: factor of the error signal a layer", "1",
              factor(runs["healthy"]), 0.8, 1.25),
        Check("linear units, start too wide: factor of the error signal a layer", "1.414",
              factor(runs["exploding"]), sqrt(2) - 0.1, sqrt(2) + 0.1),
        Check("sigmoid units: share of networks in which the rules name a vanishing gradient", "1",
              said(runs["vanishing"], "vanishing_gradient"), low=1.0),
        Check("ReLU units: share of networks in which they do", "0",
              said(runs["healthy"], "vanishing_gradient"), high=0.0),
        Check("sigmoid units: training loss over that of knowing nothing", "1", end["vanishing"],
              0.98, 1.02),
        Check("ReLU units: training loss over that of knowing nothing", "< 1", end["healthy"],
              high=0.5),
    ]  # fmt: skip
    return checks, draw(runs)


def draw(runs: Mapping[str, Run]) -> Sheet:
    """Signals by layer; losses."""
    sheet, cells = page(
        "vanishing_exploding", "What do vanishing and exploding gradients look like?",
        "Networks of ten layers of 64 units on digits. Left: how strongly the loss depends on "
        "each layer's outputs, at the start, a line a network: on its way back the signal loses "
        "three quarters a layer in sigmoid units, whose slope is at most 1/4, keeps its size in "
        "ReLU units with He's initialisation, and grows by root 2 in linear units with the same "
        "one. Right: the first layers of the sigmoid network hear nothing, and it learns nothing.",
        2,
    )  # fmt: skip
    left = sheet.panel(cells[0], "The error signal, layer by layer", "layer",
                       "rms slope of the loss")  # fmt: skip
    for name, (label, color) in NAMES.items():
        values = signals(runs[name])
        x = np.arange(1, len(values) + 1)
        left.plot(x, values, color=COLORS[color], lw=0.6, alpha=0.5)
        left.plot(x, np.exp(np.log(values).mean(axis=1)), "o-", color=COLORS[color], lw=1.8, ms=4,
                  label=label)  # fmt: skip
    value_scale(left, "log")
    left.set_xticks(range(1, 11))
    legend(left, loc="lower right")
    right = sheet.panel(cells[1], "Training loss", "iteration")
    for name in ("vanishing", "healthy"):
        label, color = NAMES[name]
        x, loss = runs[name].metric("train_loss")
        right.plot(x, loss, color=COLORS[color], lw=0.6, alpha=0.5)
        right.plot(x, loss.mean(axis=1), color=COLORS[color], lw=2, label=label)
    right.axhline(log(10), color="0.3", lw=0.8, ls="--")
    right.text(x[-1], log(10) + 0.04, "loss of guessing", ha="right", va="bottom", fontsize=9)
    right.set_ylim(bottom=0)
    legend(right, loc="center right")
    return sheet
