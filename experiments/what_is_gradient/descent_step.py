"""Losses after steps against the gradient, by the learning rate, on a parabola and a network."""

from collections.abc import Mapping

import numpy as np

from playground.record.reader import Run
from playground.report.drawing.style import COLORS, Sheet, legend, ordered_colors, value_scale

from .common import Check, measured, page, rates


def kept(run: Run, player: str) -> np.ndarray:
    """Actual over promised change of the loss, mean over the first updates [M]."""
    return np.nanmean(measured(run, "step", "change_ratio", player)[1][:10], axis=0)


def rises(run: Run, player: str) -> np.ndarray:
    """Share of updates that raise the loss on their own batch [M]."""
    return np.nanmean(measured(run, "step", "actual_change", player)[1] > 0, axis=0)


def judge(runs: Mapping[str, Run]) -> tuple[list[Check], Sheet]:
    """Below 2 over the curvature every step descends; above it does not."""
    parabola, network = runs["parabola"], runs["network"]
    eta, slow = rates(parabola), rates(network) == rates(network).min()
    fast = rates(network) == rates(network).max()
    change = measured(parabola, "step", "actual_change", "x")[1]
    checks = [
        Check("parabola, rates below 2 over the curvature: share of steps that raise the loss",
              "0", rises(parabola, "x")[eta < 2], high=0.0),
        Check("parabola: share of the promised descent that came, less the theory's 1 - rate / 2",
              "0", kept(parabola, "x") - (1 - eta / 2), -1e-6, 1e-6),
        Check("network, rate 0.03: share of steps that raise the loss", "0",
              rises(network, "model")[slow], high=0.0),
        Check("parabola, rate 5 % above 2 over the curvature: share of steps that raise the loss",
              "> 0", (change[:, eta > 2] > 0).mean(axis=0), low=0.99, role="breaks"),
        Check("network, rate 10: share of steps that raise the loss", "> 0",
              rises(network, "model")[fast], low=0.2, role="breaks"),
    ]  # fmt: skip
    return checks, draw(parabola, network)


def draw(parabola: Run, network: Run) -> Sheet:
    """Losses of the network, what came of the promise, and how often the loss rose."""
    sheet, cells = page(
        "descent_step", "Does a step against the gradient descend?",
        "The network sees all 1,437 digits at every update, so nothing here is noise. Left: the "
        "loss, a colour a learning rate. Middle: on the parabola x^2 / 2, whose curvature is 1, a "
        "step keeps 1 - rate / 2 of what the slope promises: nothing at rate 2, and beyond it "
        "climbs. Right: the same happens to the network, somewhere between the rates 1 and 3.", 3,
        width=14.5,
    )  # fmt: skip
    left = sheet.panel(cells[0], "Network: loss of all digits", "update")
    x, loss = network.metric("loss", "model")
    eta = rates(network)
    values = np.unique(eta)
    for rate, color in zip(values, ordered_colors(len(values)), strict=True):
        left.plot(x, loss[:, eta == rate].mean(axis=1), color=color, lw=1.8, label=f"{rate:g}")
    value_scale(left, "log")
    left.set_ylim(0.05, 1e3)
    legend(left, title="rate", ncols=2, loc="upper left")
    middle = sheet.panel(cells[1], "Parabola: what a step keeps of its promise", "learning rate",
                         "actual / promised descent")  # fmt: skip
    middle.plot([0, 2.3], [1, 1 - 2.3 / 2], color="0.3", lw=0.8, label="theory: 1 - rate / 2")
    middle.plot(rates(parabola), kept(parabola, "x"), "o", color=COLORS[0], label="measured")
    middle.axhline(0, color=COLORS[1], lw=1)
    legend(middle)
    right = sheet.panel(cells[2], "Network: steps that raise the loss", "learning rate", "share")
    shares = np.array([rises(network, "model")[eta == rate] for rate in values])
    right.plot(values, shares.mean(axis=1), "o-", color=COLORS[1])
    right.plot(values, shares, ".", color=COLORS[1], ms=4, alpha=0.5)
    value_scale(right, "log", axis="x")
    return sheet
