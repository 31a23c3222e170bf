"""``figures/policy_gradient.png``: what a policy-gradient step is made of, and what it did.

How strong the gradients of policy, value and entropy are, how much of the joint step each gets,
whether they pull the same way; how far the gradient has turned by each epoch over the same
rollout; how far the policy moved (KL by epoch, extreme ratios), how much of the batch clipping
left without a gradient; how good the critic and how wide the advantages are. Panels whose
quantities a run did not record are left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from playground.report.curves import curve, prepare, spread_text
from playground.report.style import COLORS, LABEL, Sheet, heading, legend, ordered_colors
from playground.report.text import last_iteration, subtitle, title
from playground.report.view import Series, View

COLUMNS = 4
TERMS = {"policy": COLORS[0], "value": COLORS[1], "entropy": COLORS[2]}


@dataclass
class Panel:
    """One panel: curves by label.

    Attributes:
        title: with the unit.
        curves: {label: series over iterations}.
        ordered: whether the labels have an order, as epochs do.
        linear: never on a log axis.
        limits: of the y axis.
        line: where a horizontal line stands.
    """

    title: str
    curves: Mapping[str, Series]
    ordered: bool = False
    linear: bool = False
    limits: tuple[float, float] | None = None
    line: float | None = None
    colors: Mapping[str, str] = field(default_factory=dict)


def figure(view: View) -> Figure | None:
    """Draw the picture; None where no player's terms or epochs were measured."""
    found = [panel for panel in panels(view) if any(panel.curves.values())]
    if not found or not len(view.measurements):
        return None
    columns = min(COLUMNS, len(found))
    rows = -(-len(found) // columns)
    sheet = Sheet.make(f"{title(view)}: the policy gradient", subtitle(view), _caption(view),
                       width=3.7 * columns + 0.6, body=2.9 * rows)  # fmt: skip
    cells = sheet.grid(rows, columns, hspace=0.42, wspace=0.26)
    end = float(last_iteration(view))
    for index, panel in enumerate(found):
        last = index + columns >= len(found)
        ax = sheet.panel(cells[divmod(index, columns)], x="iteration" if last else "")
        _draw(ax, panel, end)
    return sheet.figure


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
              limits=(min((_low(s) for s in cosines.values()), default=0.0), 1.05), line=0.0),
        Panel("KL after each epoch (k3), nats", kl, ordered=True),
        Panel("share of samples", metrics(ratio_clipped="clip_fraction",
              gradient_clipped_to_zero="zero_gradient"), linear=True),
        Panel("extremes of the ratio", metrics(largest="ratio_max", smallest="ratio_min"),
              line=1.0),
        Panel("explained variance of the critic", explained, linear=True,
              limits=(min(_low(s) for s in explained.values()), 1.05), line=0.0),
    ]  # fmt: skip


def _draw(ax: Axes, panel: Panel, end: float) -> None:
    heading(ax, panel.title, size=LABEL)
    known = {label: series for label, series in panel.curves.items() if series}
    log = prepare(ax, list(known.values()), end, linear=panel.linear)
    if panel.line is not None:
        ax.axhline(panel.line, color="#999999", linewidth=0.8, zorder=1.2)
    shades = ordered_colors(len(known)) if panel.ordered else COLORS
    for (label, series), shade in zip(known.items(), shades, strict=False):
        text = label.replace("_", " ") if _named(label, len(known), panel) else ""
        curve(ax, series, panel.colors.get(label, shade), text, log=log, width=1.4,
              individual=len(known) == 1)  # fmt: skip
    if panel.limits:
        ax.set_ylim(*panel.limits)
    if log:
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.yaxis.set_minor_locator(NullLocator())
    if len(known) > 1:
        legend(ax)


def _named(label: str, count: int, panel: Panel) -> bool:
    """Of many epochs, the first, the last and some between have a name."""
    if not panel.ordered or count <= 5:
        return True
    place = list(panel.curves).index(label)
    return place in np.linspace(0, count - 1, 4).astype(int)


def _epochs(view: View) -> list[str]:
    """``epoch_1`` ... in order."""
    names = [n for n in view.metrics.names("name") if n.startswith("approx_kl/epoch_")]
    return [f"epoch_{k}" for k in sorted(int(name.rpartition("_")[2]) for name in names)]


def _metric(view: View, name: str) -> Series:
    """A metric of the run or of the first player that has it."""
    found = (view.metric(name, player) for player in ("", *view.players) if view.has(name, player))
    return next(found, Series(np.empty(0), np.empty((0, len(view.members)))))


def _low(series: Series) -> float:
    known = series.values[np.isfinite(series.values)]
    return max(-1.05, float(known.min(initial=0.0)) - 0.05)


def _caption(view: View) -> str:
    words = [
        "Terms at evaluations, before the clip, which scales all alike; epochs' gradients one",
        "iteration in eight. Share: the term's part of the joint gradient along it; they sum to 1.",
    ]
    if len(view.members) > 1:
        words.append(f"{spread_text(len(view.members))}.")
    return " ".join(words)
