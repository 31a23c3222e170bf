"""Loss of the training samples and accuracy on unseen ones, with enough samples and with few."""

from collections.abc import Mapping

import numpy as np

from playground.record.reader import Run
from playground.report.drawing.style import COLORS, Sheet, legend, value_scale

from .common import Check, page


def judge(runs: Mapping[str, Run]) -> tuple[list[Check], Sheet]:
    """On digits accuracy follows; on forty noisy points the loss of unseen points rises again."""
    enough, few = (
        {name: runs[key].metric(name)[1] for name in ("train_loss", "test_loss", "accuracy")}
        for key in ("enough", "few")
    )
    checks = [
        Check("digits: training loss at the end over that at the start", "< 1",
              enough["train_loss"][-1] / enough["train_loss"][0], high=0.5),
        Check("digits: accuracy on unseen digits, gained", "> 0",
              enough["accuracy"][-1] - enough["accuracy"][0], low=0.5),
        Check("40 noisy points: training loss at the end over that at the start", "< 1",
              few["train_loss"][-1] / few["train_loss"][0], high=0.5),
        Check("40 noisy points: loss of unseen points at the end over its lowest", "> 1",
              few["test_loss"][-1] / few["test_loss"].min(axis=0), low=1.5, role="breaks"),
        Check("40 noisy points: accuracy on unseen points, lost since its best", "> 0",
              few["accuracy"].max(axis=0) - few["accuracy"][-1], low=0.0, role="breaks"),
    ]  # fmt: skip
    return checks, draw(runs)


def draw(runs: Mapping[str, Run]) -> Sheet:
    """Losses above, accuracy on the right axis, a panel a task."""
    sheet, cells = page(
        "loss_and_accuracy", "Does a lower loss make a better model?",
        "The gradient is that of the loss of the training samples; nobody asked it for accuracy "
        "on others. Thin lines are members (other starts, the same data), thick ones their mean. "
        "With 1,437 digits both improve together. With 40 noisy points the loss of the training "
        "points goes to 0 while that of new points rises again: the network learns the noise.", 3,
        width=14.5,
    )  # fmt: skip
    titles = {"enough": "1,437 training digits: loss", "few": "40 noisy training points: loss"}
    for (key, title), cell in zip(titles.items(), cells, strict=False):
        ax = sheet.panel(cell, title, "iteration")
        for name, color, label in (("train_loss", COLORS[0], "training samples"),
                                   ("test_loss", COLORS[1], "unseen samples")):  # fmt: skip
            x, values = runs[key].metric(name)
            ax.plot(x, values, color=color, lw=0.5, alpha=0.4)
            ax.plot(x, values.mean(axis=1), color=color, lw=2, label=label)
        value_scale(ax, "log", fine=key == "enough")
        legend(ax)
    ax = sheet.panel(cells[2], "Accuracy on unseen samples", "share of training")
    for (key, name), color in zip((("enough", "digits"), ("few", "40 points")),
                                  (COLORS[2], COLORS[4]), strict=True):  # fmt: skip
        x, values = runs[key].metric("accuracy")
        mean = values.mean(axis=1)
        ax.plot(x / x[-1], values, color=color, lw=0.5, alpha=0.4)
        ax.plot(x / x[-1], mean, color=color, lw=2, label=name)
        best = int(np.argmax(mean))
        ax.plot(x[best] / x[-1], mean[best], "o", color=color, ms=6)
    legend(ax)
    return sheet
