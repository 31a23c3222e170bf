"""``figures/rl.png``: returns over environment steps, and what else tells how learning went.

Returns of deterministic and stochastic evaluation episodes and of training episodes, with
their spread over members and the threshold at which the environment counts as solved; below,
the diagnostics that the algorithm recorded.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from playground.record.view import Array, Series, View
from playground.report.drawing.curves import curve, prepare, spread_text, threshold_line
from playground.report.drawing.style import COLORS, INK, LABEL, Sheet, heading, legend
from playground.report.drawing.text import (
    METRICS,
    is_linear,
    metric_text,
    result_text,
    subtitle,
    title,
)
from playground.report.figures.overview import grouped, reference

RETURNS = {"return": INK, "return/stochastic": COLORS[0], "train/return": COLORS[1]}
DIAGNOSTICS = ("entropy", "approx_kl", "clip_fraction", "explained_variance", "episode_length")


def figure(view: View) -> Figure | None:
    """Draw the picture; None while no return was recorded."""
    names = [name for name in RETURNS if view.has(name)]
    if not names:
        return None
    found = diagnostics(view)
    rows = 1 if found else 0
    sheet = Sheet.make(title(view), subtitle(view), _caption(view), width=13.5,
                       body=3.9 + 2.5 * rows)  # fmt: skip
    cells = sheet.grid(1 + rows, 1, height_ratios=[1.7, *[1.0] * rows], hspace=0.42)
    several = bool(view.arrays.get("returns"))
    top = cells[0, 0].subgridspec(1, 2 if several else 1, width_ratios=(2, 1)[: 1 + several],
                                  wspace=0.14)  # fmt: skip
    returns(sheet.panel(top[0, 0], x="environment steps"), view, names)
    if several:
        episodes(sheet.panel(top[0, 1]), view)
    if found:
        bottom = cells[1, 0].subgridspec(1, len(found), wspace=0.28)
        for index, (name, player) in enumerate(found.items()):
            _diagnostic(sheet.panel(bottom[0, index]), view, name, player)
    return sheet.figure


def diagnostics(view: View) -> dict[str, str]:
    """{metric: player} of the diagnostics that were recorded, the run's own or a player's."""
    found = {}
    for name in DIAGNOSTICS:
        for player in ("", *view.players):
            if view.has(name, player):
                found[name] = player
                break
    return found


def returns(ax: Axes, view: View, names: list[str]) -> None:
    """Returns over environment steps."""
    series = {name: view.metric(name, x="env_steps") for name in names}
    end = max((float(s.x[-1]) for s in series.values() if len(s.x)), default=0.0)
    log = prepare(ax, list(series.values()), end, linear=True)
    several = len(view.groups) > 1
    heading(ax, "return", f"final {result_text(series[names[0]].last())}")
    if several:
        grouped(ax, view, series[names[0]], log=log, labels=True)
    else:
        for name in reversed(names):
            main = name == names[0]
            curve(ax, series[name], RETURNS[name], _label(name), log=log,
                  width=2.0 if main else 1.3, individual=main)  # fmt: skip
        legend(ax, loc="lower right")
    line = reference(view)
    if line is not None:
        threshold_line(ax, *line)


def episodes(ax: Axes, view: View) -> None:
    """The final evaluation's returns, every episode of every member."""
    known = view.arrays["returns"]
    values: Array = known[max(known)]
    heading(ax, "final evaluation, every episode")
    members = len(values)
    step = max(1, -(-members // 100))
    shown = values[::step]
    place = np.repeat(np.arange(members)[::step], shown.shape[1]).astype(np.float64)
    offset = np.tile(np.linspace(-0.28, 0.28, shown.shape[1]), len(shown))  # no two dots in one
    ax.plot(place + offset, shown.ravel(), linestyle="", marker=".", markersize=3,
            color=COLORS[0], alpha=0.5)  # fmt: skip
    ax.plot(np.arange(members)[::step], shown.mean(axis=1), linestyle="", marker="_",
            markersize=14 if members <= 20 else 4, markeredgewidth=2, color=INK)  # fmt: skip
    line = reference(view)
    if line is not None:
        threshold_line(ax, line[0], "")
    ax.set_xlabel("member", fontsize=LABEL)
    if members <= 20:
        ax.set_xticks(range(members))
        ax.set_xlim(-0.6, members - 0.4)
    ax.margins(y=0.08)


def _diagnostic(ax: Axes, view: View, name: str, player: str) -> None:
    """One diagnostic over environment steps."""
    series: Series = view.metric(name, player, x="env_steps")
    heading(ax, metric_text(view, name), size=LABEL)
    if not series:
        return
    log = prepare(ax, [series], float(series.x[-1]), linear=is_linear(name))
    if len(view.groups) > 1:
        grouped(ax, view, series, log=log)
    else:
        curve(ax, series, COLORS[0], log=log, width=1.5)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    if name == "explained_variance":
        low = float(np.nanmin(series.values))
        ax.set_ylim(max(low, -1.0) - 0.05, 1.05)


def _label(name: str) -> str:
    return METRICS[name].removeprefix("return, ").removeprefix("return of ")


def _caption(view: View) -> str:
    members = len(view.members)
    words = ["Returns are raw."]
    if members > 1:
        words.append(f"{spread_text(members)}.")
    if view.arrays.get("returns"):
        words.append("Right: dots are episodes of the deterministic policy, bars their mean.")
    return " ".join(words)
