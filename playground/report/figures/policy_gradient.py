"""``figures/policy_gradient.png``: what a policy-gradient step is made of, and what it did.

How strong the gradients of policy, value and entropy are, how much of the joint step each gets,
whether they pull the same way; how far the gradient has turned by each epoch over the same
rollout; how far the policy moved (KL by epoch, extreme ratios), how much of the batch clipping
left without a gradient; how good the critic and how wide the advantages are. Panels whose
quantities a run did not record are left out.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from playground.record.view import Series, View
from playground.report.drawing.curves import spread_text
from playground.report.drawing.panels import Panel, draw, lowest
from playground.report.drawing.style import COLORS
from playground.report.drawing.text import title

TERMS = {"policy": COLORS[0], "value": COLORS[1], "entropy": COLORS[2]}


def figure(view: View) -> Figure | None:
    """Draw the picture; None where no player's terms or epochs were measured."""
    if not len(view.measurements):
        return None
    return draw(view, f"{title(view)}: the policy gradient", panels(view), _caption(view))


def panels(view: View) -> list[Panel]:
    """Everything that the picture may show, in order."""
    player = next((p for p in ("agent", "policy") if p in view.players), "")
    terms, epochs = view.measured(player, "terms"), view.measured(player, "epochs")

    def of(source: Mapping[str, Series], prefix: str) -> dict[str, Series]:
        return {
            name.removeprefix(prefix).replace("/", ", "): series
            for name, series in source.items()
            if name.startswith(prefix)
        }

    def metrics(**names: str) -> dict[str, Series]:
        return {label.replace("_", " "): _metric(view, name) for label, name in names.items()}

    kl = {k: _metric(view, f"approx_kl/{k}") for k in _epochs(view)} or metrics(kl="approx_kl")
    cosines = of(epochs, "cosine_first/")
    explained = metrics(training="explained_variance", held_out="explained_variance/held_out")
    return [
        Panel("gradient norm of each term", of(terms, "norm/"), colors=TERMS),
        Panel("share of the joint gradient", of(terms, "share/"), linear=True, colors=TERMS,
              line=0.0),
        Panel("cosine between terms", of(terms, "cosine/"), linear=True, limits=(-1.05, 1.05),
              line=0.0),
        Panel("cosine with the first epoch's gradient", cosines, ordered=True, linear=True,
              limits=(lowest(cosines), 1.05), line=0.0),
        Panel("KL after each epoch (k3), nats", kl, ordered=True),
        Panel("share of samples", metrics(ratio_clipped="clip_fraction",
              gradient_clipped_to_zero="zero_gradient"), linear=True),
        Panel("extremes of the ratio", metrics(largest="ratio_max", smallest="ratio_min"),
              line=1.0),
        Panel("explained variance of the critic", explained, linear=True,
              limits=(lowest(explained), 1.05), line=0.0),
    ]  # fmt: skip


def _epochs(view: View) -> list[str]:
    """``epoch_1`` ... in order."""
    names = [n for n in view.metrics.names("name") if n.startswith("approx_kl/epoch_")]
    return [f"epoch_{k}" for k in sorted(int(name.rpartition("_")[2]) for name in names)]


def _metric(view: View, name: str) -> Series:
    """A metric of the run or of the first player that has it."""
    found = (view.metric(name, player) for player in ("", *view.players) if view.has(name, player))
    return next(found, Series(np.empty(0), np.empty((0, len(view.members)))))


def _caption(view: View) -> str:
    words = [
        "Terms at evaluations, before the clip, which scales all alike; epochs' gradients one",
        "iteration in eight. Share: the term's part of the joint gradient along it; they sum to 1.",
    ]
    if len(view.members) > 1:
        words.append(f"{spread_text(len(view.members))}.")
    return " ".join(words)
