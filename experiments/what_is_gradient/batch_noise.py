"""The noise of a batch's gradient against the size of the batch."""

from collections.abc import Mapping

import numpy as np

from playground.estimates import gradient_estimates
from playground.record.reader import Run
from playground.report.drawing.style import COLORS, Sheet, legend, value_scale

from .common import Check, Loss, page

SIZES, ESTIMATES = (1, 4, 16, 64, 256), 128


class Noise:
    """Estimates of one member's gradient, a row a batch size.

    Attributes:
        noise: root of the trace of the covariance over the gradient's length [S].
        cosines: mean cosine of an estimate with the full gradient [S].
        full: the same noise of full-batch estimates.
        share: mean of the single-sample estimates, its component along the full gradient over
            the gradient's length.
    """

    def __init__(self, run: Run, member: int) -> None:
        full = Loss(run, member, overrides=("problem.batch_size=full",)).gradient.double()
        length = full.norm()
        self.noise, self.cosines = np.zeros(len(SIZES)), np.zeros(len(SIZES))
        for k, size in enumerate((*SIZES, "full")):
            keys = [f"problem.batch_size={size}"]
            keys += ["problem.replacement=true"] if size != "full" else []
            count = ESTIMATES if size != "full" else 4
            found = gradient_estimates(run, member=member, estimates=count, seed=member,
                                       overrides=keys, at_once=ESTIMATES)  # fmt: skip
            values = found.values["model"].double()
            noise = values.var(0).sum().sqrt() / length
            if size == "full":
                self.full = noise.item()
                continue
            self.noise[k] = noise
            self.cosines[k] = (values @ full / values.norm(dim=1) / length).mean()
            if size == 1:
                self.share = (values.mean(0) @ full / length**2).item()


def judge(runs: Mapping[str, Run]) -> tuple[list[Check], Sheet]:
    """The variance falls as 1 / B, and the estimates are right on average."""
    found = [Noise(runs["digits"], k) for k in range(len(runs["digits"].members))]
    logs = np.log(SIZES)
    checks = [
        Check("one example: noise over signal", "> 1", [n.noise[0] for n in found], low=1.0),
        Check("exponent of the variance against the batch size", "-1",
              [np.polyfit(logs, 2 * np.log(n.noise), 1)[0] for n in found], -1.1, -0.9),
        Check("all examples: noise over signal", "0", [n.full for n in found], high=1e-6),
        Check("one example: cosine with the full gradient", "small",
              [n.cosines[0] for n in found], high=0.5),
        Check("256 examples: cosine with the full gradient", "large",
              [n.cosines[-1] for n in found], low=0.5),
    ]  # fmt: skip
    return checks, draw(found)


def draw(found: list[Noise]) -> Sheet:
    """Noise and cosine by batch size."""
    sheet, cells = page(
        "batch_noise", "How noisy is the gradient of a batch?",
        f"{ESTIMATES} independent batches of each size, drawn with replacement at one point of "
        f"training, 64 updates in; {len(found)} networks on digits. Noise: root of the mean square "
        "distance from the mean gradient, signal: the length of the gradient of all digits. Four "
        "times the examples halve the noise: certainty is expensive.", 2,
    )  # fmt: skip
    noise, cosines = (np.array([getattr(n, name) for n in found]) for name in ("noise", "cosines"))
    left = sheet.panel(cells[0], "Noise over signal", "batch size")
    theory = noise.mean(axis=0)[0] * np.array(SIZES) ** -0.5
    left.plot(SIZES, theory, "--", color="0.3", lw=1, label="1 / root of the batch size")
    left.plot(SIZES, noise.T, "o", color=COLORS[0], ms=4, alpha=0.6)
    left.plot([], [], "o", color=COLORS[0], label="measured, a dot a network")
    left.axhline(1, color=COLORS[1], lw=1)
    left.text(SIZES[0], 0.94, "as much noise as signal", va="top", fontsize=9, color=COLORS[1])
    right = sheet.panel(cells[1], "Cosine with the gradient of all digits", "batch size")
    right.plot(SIZES, cosines.T, "o", color=COLORS[2], ms=4, alpha=0.6)
    right.plot(SIZES, cosines.mean(axis=0), color=COLORS[2], lw=1.6)
    right.set_ylim(0, 1.02)
    value_scale(left, "log", fine=True)
    for ax in (left, right):
        value_scale(ax, "log", axis="x")
        ax.set_xticks(SIZES, [str(size) for size in SIZES])
    legend(left)
    return sheet
