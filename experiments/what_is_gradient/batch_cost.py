"""What an update costs, and what it costs to get somewhere, by the size of the batch."""

from collections.abc import Mapping

import numpy as np
import pyarrow.compute as pc

from playground.record.reader import Run
from playground.report.drawing.style import COLORS, Sheet, value_scale

from .common import Check, page

SIZES = {"1": 1, "32": 32, "full": 1437}
TARGET = 0.5
"""Training loss to reach (ours): of ten classes, whose loss is 2.3 where nothing is known."""


def seconds(run: Run) -> float:
    """Median seconds of an update, all members together."""
    table = run.metrics.select(["iteration", "member", "name", "seconds"])
    table = table.filter(pc.and_(pc.equal(table["name"], "loss"), pc.equal(table["member"], 0)))
    clock = table["seconds"].to_numpy()[np.argsort(table["iteration"].to_numpy())]
    return float(np.median(np.diff(clock)))


def updates(run: Run) -> np.ndarray:
    """Updates until the loss of all training samples is below the target [M]; NaN is never."""
    at, loss = run.metric("train_loss")
    reached = loss < TARGET
    return np.where(reached.any(axis=0), at[reached.argmax(axis=0)], np.nan)


def judge(runs: Mapping[str, Run]) -> tuple[list[Check], Sheet]:
    """All data cost the most an update and the most examples; a few at a time the least time."""
    cost = {name: seconds(run) for name, run in runs.items()}
    needed = {name: updates(run) for name, run in runs.items()}
    examples = {name: SIZES[name] * needed[name] for name in runs}
    time = {name: cost[name] * needed[name] for name in runs}
    checks = [
        Check("an update on all 1,437 examples over one on a single example: seconds", "> 1",
              [cost["full"] / cost["1"]], low=1.0),
        Check("examples until the training loss is 0.5: all at once over 32 at a time", "> 1",
              examples["full"] / examples["32"], low=1.0),
        Check("seconds until the training loss is 0.5: all at once over 32 at a time", "> 1",
              time["full"] / time["32"], low=1.0),
        Check("seconds until the training loss is 0.5: one at a time over 32 at a time", "> 1",
              time["1"] / time["32"], low=1.0),
        Check("seconds an example: all at once over one at a time", "< 1",
              [cost["full"] / cost["1"] / 1437], high=0.5),
    ]  # fmt: skip
    return checks, draw(cost, examples, time)


def draw(
    cost: Mapping[str, float], examples: Mapping[str, np.ndarray], time: Mapping[str, np.ndarray]
) -> Sheet:
    """Three bars each of milliseconds, examples and seconds."""
    sheet, cells = page(
        "batch_cost", "What does a batch cost?",
        "A network of 64 and 64 units learns 1,437 digits, each batch size at a rate that suits "
        "it; dots are members. Milliseconds and seconds are those of the machine that drew this, "
        "for all members together. One at a time needs the fewest examples, but a processor takes "
        "many at once for little more than one: by the clock the balance lies in between.", 3,
        body=3.3,
    )  # fmt: skip
    whole = {name: np.array([1000 * value]) for name, value in cost.items()}
    titles = {"One update, milliseconds": whole, "Examples to a loss of 0.5": examples,
              "Seconds to a loss of 0.5": time}  # fmt: skip
    for cell, (title, values) in zip(cells, titles.items(), strict=True):
        ax = sheet.panel(cell, title, "batch size")
        for k, name in enumerate(SIZES):
            mean = float(values[name].mean())
            ax.bar(k, mean, width=0.6, color=COLORS[(1, 2, 0)[k]], alpha=0.85)
            ax.plot([k] * len(values[name]), values[name], ".", color="0.15", ms=4)
            text = f"{mean:,.0f}" if mean >= 100 else f"{mean:.2g}"
            above = 1.15 * float(values[name].max())
            ax.text(k, above, text, ha="center", va="bottom", fontsize=9.5)
        value_scale(ax, "log")
        low, high = ax.get_ylim()
        ax.set_ylim(low / 2, high * 2)
        ax.set_xticks(range(len(SIZES)), [f"{size:,}" for size in SIZES.values()])
        ax.grid(False, axis="x")
    return sheet
