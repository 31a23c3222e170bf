"""``figures/instruments.png``: noise, curvature, flow, step, direction and game, where measured.

One sheet a run; where there are several players, each has a colour, and kinds are line styles.
What each quantity is: the docstrings of ``playground/probes``.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from playground.record.view import Series, View
from playground.report import INSTRUMENTS
from playground.report.drawing.curves import spread_text
from playground.report.drawing.panels import Panel, draw, lowest
from playground.report.drawing.style import color
from playground.report.drawing.text import title

STYLES = ("-", "--", ":")

WORDS = {
    "noise scale": "Noise scale: tr(covariance of a sample's gradient) / |gradient|^2 (low, high: "
    "95 %; where B is missing the gradient is not above its noise, where high is, it is infinite).",
    "stability line": "Stability line: where the optimizer starts to oscillate.",
    "alpha": "Alpha: -1 no step, 0 to the minimum along the step, 1 as high on its other side; "
    "below -1 uphill.",
    "log slope": "Slopes: of the log variance of signals, per layer.",
    "effective learning rate": "Effective learning rate: learning rate / (sqrt(v) + eps), of "
    "entries that had a gradient",
    "game": "J: Jacobian of all players' gradients; turn above stretch rotates.",
}
"""What panels need to have said, by a word of their titles."""


def figure(view: View) -> Figure | None:
    """Draw the picture; None where none of these was measured."""
    found = {
        (player, probe): view.measured(player, probe)
        for player in ("", *view.players)
        for probe in INSTRUMENTS
    }
    if not any(found.values()):
        return None
    made = [panel for panel in panels(view, found) if panel]
    for panel in made if len(view.players) > 1 else ():
        paint(view.players, panel)
    return draw(view, f"{title(view)}: instruments", made, caption(view, made))


def paint(players: Sequence[str], panel: Panel) -> None:
    """Give every player its colour, and every kind of curve a style, in all panels alike."""
    owners = {label: label.partition(" ")[0] for label in panel.curves}
    if panel.ordered or not set(owners.values()) <= set(players):
        return
    kinds = list(dict.fromkeys(label.partition(" ")[2] for label in panel.curves))
    panel.colors = {label: color(players.index(owner)) for label, owner in owners.items()}
    panel.styles = {label: STYLES[kinds.index(label.partition(" ")[2]) % len(STYLES)]
                    for label in panel.curves}  # fmt: skip


def panels(view: View, found: Mapping[tuple[str, str], Mapping[str, Series]]) -> list[Panel]:
    """Everything that the picture may show, in order."""
    several = len(view.players) > 1

    def pick(probe: str, names: Mapping[str, str], only: str = "") -> dict[str, Series]:
        """{label: series} of a probe's quantities, of every player; of several ``only`` one."""
        curves = {}
        wanted = {only: names[only]} if several and only else names
        for player in ("", *view.players):
            for label, name in wanted.items():
                series = found.get((player, probe), {}).get(name)
                if series is not None:
                    words = (player if several else "", label if len(wanted) > 1 else "")
                    curves[" ".join(word for word in words if word) or name] = series
        return curves

    def families(title: str, probe: str, prefix: str) -> list[Panel]:
        """A panel for each player with the quantities of a prefix, by the numbers behind it."""
        made = []
        for player in view.players:
            own = {n: s for n, s in found.get((player, probe), {}).items() if n.startswith(prefix)}
            ordered = sorted(own, key=lambda name: int(name.rpartition("/")[2]))
            curves = {name.rpartition("/")[2]: own[name] for name in ordered}
            words = f"{title}, {player}" if several else title
            made.append(Panel(words, curves, ordered=True, linear=True,
                              limits=(lowest(curves), 1.05), line=0.0))  # fmt: skip
        return made

    return [
        Panel("noise scale B, samples", pick("noise", {"B": "noise_scale",
              "low": "noise_scale_low", "high": "noise_scale_high"}, only="B")),
        Panel("signal-to-noise ratio of a batch", pick("noise", {"": "snr"}), line=1.0),
        *families("cosine of k-ths of a batch", "noise", "cosine/"),
        Panel("game: along its own flow", pick("game", {"stretch": "stretch", "turn": "turn"}),
              line=0.0),
        Panel("game: antisymmetric share of J", pick("game", {"": "antisymmetric_share"}),
              linear=True, limits=(-0.03, 1.03)),
        Panel("game: eigenvalues of J", pick("game", {"largest |.|": "spectral_radius",
              "largest imaginary": "imaginary_max"})),
        Panel("Hessian: both ends", pick("curvature", {"largest": "lambda_max",
              "smallest": "lambda_min"}), line=0.0),
        Panel("sharpness / stability line", pick("curvature", {"": "sharpness_ratio"}), line=1.0),
        Panel("trace of the Hessian", pick("curvature", {"": "trace"})),
        Panel("log slope over layers", slopes(view), linear=True, line=0.0),
        Panel("units without a gradient or dormant", units(view), linear=True,
              limits=(-0.03, 1.03)),
        Panel("actual / promised change of the loss", pick("step", {"": "change_ratio"}),
              linear=True, line=1.0),
        Panel("step length alpha", pick("step", {"": "alpha"}), linear=True, line=0.0),
        Panel("effective learning rate" + (", median" if several else ""), pick("step", {
              "95 % of entries below": "effective_rate/q95", "median": "effective_rate/q50",
              "5 % below": "effective_rate/q05"}, only="median")),
        *families("cosine of updates, by lag", "direction", "cosine_update/"),
        Panel("effective number of directions", pick("direction", {
              "gradient": "effective_directions/gradient",
              "update": "effective_directions/update"})),
        Panel("distance / path length", pick("direction", {"": "straightness"}), linear=True,
              limits=(-0.03, 1.03)),
        Panel("cosine between members", pick("direction", {"gradient": "agreement/gradient",
              "displacement": "agreement/displacement"}), linear=True, line=0.0),
    ]  # fmt: skip


def slopes(view: View) -> dict[str, Series]:
    """Forward and backward slopes of every chain of layers."""
    return _layers(view, {"forward": "forward_slope", "backward": "backward_slope"})


def units(view: View) -> dict[str, Series]:
    """Means over layers of the shares of dead, saturated and dormant units."""
    return _layers(view, {"dead": "dead", "saturated": "saturated", "dormant": "dormant"})


def _layers(view: View, names: Mapping[str, str]) -> dict[str, Series]:
    """Means over a player's layers of quantities that are recorded by tensor."""
    table, curves = view.measurements, {}
    for player in view.players if len(table) else ():
        for label, name in names.items():
            rows = table.where(player=player, probe="flow", quantity=name)
            if rows.any():
                word = f"{player} {label}" if len(view.players) > 1 else label
                curves[word] = _mean(table["iteration"][rows], table["member"][rows],
                                     table["value"][rows], len(view.members))  # fmt: skip
    return curves


def _mean(iteration: np.ndarray, member: np.ndarray, value: np.ndarray, members: int) -> Series:
    """Means of rows with the same iteration and member."""
    keys, place = np.unique(iteration, return_inverse=True)
    known = np.isfinite(value)
    index = (place[known], member[known])
    total, count = np.zeros((len(keys), members)), np.zeros((len(keys), members))
    np.add.at(total, index, value[known])
    np.add.at(count, index, 1)
    return Series(keys, np.where(count > 0, total / np.maximum(count, 1), np.nan))


def left_out(view: View) -> str:
    """How many entries had no gradient at the last measurement, where there were any."""
    shares = {
        player: float(np.nanmean(series.values[-1]))
        for player in view.players
        if (series := view.measured(player, "step").get("no_gradient_share"))
    }
    several = len(view.players) > 1
    found = [f"{100 * share:.2g} %{f' of {player}' if several else ''}"
             for player, share in shares.items() if share > 0]  # fmt: skip
    return f" (at the end {', '.join(found)} had none)" if found else ""


def caption(view: View, made: Sequence[Panel]) -> str:
    """What the curves are, of those that are there."""
    titles = " ".join(panel.title for panel in made)
    words = [
        f"{text}{left_out(view)}." if key == "effective learning rate" else text
        for key, text in WORDS.items() if key in titles
    ]  # fmt: skip
    words += [f"{spread_text(len(view.members))}."] if len(view.members) > 1 else []
    return " ".join(words)
