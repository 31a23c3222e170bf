"""Gradient descent against random search, both allowed the same number of evaluations."""

from collections.abc import Mapping

import numpy as np
import torch

from playground.record.reader import Run
from playground.report.drawing.style import COLORS, Sheet, legend

from .common import Check, Loss, directions, page

PRICE = 3
"""A gradient counts as three evaluations of the loss: a forward pass, and a backward pass of about
twice its cost (Kaplan et al. 2020, section 2.1)."""

GROW, SHRINK = 1.5, 1.5**-0.25
"""Factors of the step after a success and a failure: one in five keeps it (Rechenberg 1973)."""


def search(run: Run, member: int, evaluations: int) -> tuple[np.ndarray, float]:
    """Random search from the same start: losses [evaluations + 1] and accuracy at the end.

    Tries x + s d, d a random unit direction; keeps it where the loss is lower.
    """
    loss = Loss(run, member, at=0)
    ways = directions(evaluations, loss.at, seed=member)
    point, step = loss.at, 1.0
    lowest = loss(point[None])[0]
    losses = [lowest.item()]
    for way in ways:
        tried = point + step * way
        value = loss(tried[None])[0]
        better = bool(value < lowest)
        step *= GROW if better else SHRINK
        if better:
            point, lowest = tried, value
        losses.append(lowest.item())
    loss.temporary.place("model", point)
    with torch.no_grad():
        accuracy = loss.temporary.problem.evaluate().metrics["accuracy"]
    return np.array(losses), float(accuracy[0])


def judge(runs: Mapping[str, Run]) -> tuple[list[Check], Sheet]:
    """With gradients the same effort goes far; without it goes nowhere."""
    run = runs["digits"]
    count = PRICE * run.manifest["counters"]["iterations"]
    found = [search(run, k, count) for k in range(len(run.members))]
    with_it = {name: run.metric(name)[1][-1] for name in ("train_loss", "accuracy")}
    without = {"train_loss": np.array([losses[-1] for losses, _ in found]),
               "accuracy": np.array([accuracy for _, accuracy in found])}  # fmt: skip
    checks = [
        Check(f"{count} evaluations: training loss with gradients over that without", "< 1",
              with_it["train_loss"] / without["train_loss"], high=0.5),
        Check(f"{count} evaluations: accuracy on unseen digits with gradients, less that without",
              "> 0", with_it["accuracy"] - without["accuracy"], low=0.2),
    ]  # fmt: skip
    return checks, draw(run, found, without["accuracy"])


def draw(run: Run, found: list[tuple[np.ndarray, float]], accuracy: np.ndarray) -> Sheet:
    """Losses by evaluations, accuracies at the end."""
    sheet, cells = page(
        "backbone", "What is the gradient worth?",
        "The same networks of 1,210 parameters from the same starts, all digits at every "
        "evaluation. Random search tries a random direction and keeps it where the loss is lower, "
        "with steps that adapt. A gradient costs about three evaluations of the loss and answers "
        "for all 1,210 directions at once.", 2,
    )  # fmt: skip
    left = sheet.panel(cells[0], "Training loss", "evaluations of the loss (a gradient counts 3)")
    x, loss = run.metric("train_loss")
    losses = np.stack([losses for losses, _ in found], axis=1)
    for at, values, color, label in (
        (PRICE * x, loss, COLORS[0], "gradient descent"),
        (np.arange(len(losses)), losses, COLORS[7], "random search"),
    ):
        left.plot(at, values, color=color, lw=0.6, alpha=0.5)
        left.plot(at, values.mean(axis=1), color=color, lw=2, label=label)
    left.set_ylim(bottom=0)
    legend(left, loc="lower left")
    right = sheet.panel(cells[1], "Accuracy on unseen digits at the end")
    pairs = {"gradient descent": (run.metric("accuracy")[1][-1], COLORS[0]),
             "random search": (accuracy, COLORS[7])}  # fmt: skip
    for k, (values, color) in enumerate(pairs.values()):
        right.bar(k, values.mean(), width=0.55, color=color, alpha=0.85)
        right.plot([k] * len(values), values, ".", color="0.15", ms=5)
        right.text(k, values.max() + 0.02, f"{100 * values.mean():.0f} %", ha="center",
                   fontsize=11, weight="bold")  # fmt: skip
    right.axhline(0.1, color="0.3", lw=0.8, ls="--")
    right.text(0.5, 0.11, "guessing", ha="center", va="bottom", fontsize=9)
    right.set(ylim=(0, 1.05), xlim=(-0.6, 1.6))
    right.set_xticks(range(len(pairs)), list(pairs))
    right.grid(False, axis="x")
    return sheet
