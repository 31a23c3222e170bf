"""How an initialisation carries signals and gradients through a network, and which depths train.

At the start the flow probe measures E z^2 and E (dL/dz)^2 of every layer. With n units a layer
and weights of variance v, both change from layer to layer by the factor n v for linear units and
n v / 2 for ReLU, forward exactly in the mean over weights. Elsewhere, and where biases are not 0,
theory is the probe's own, for wide networks. Then ReLU networks of several depths train.
"""

from collections.abc import Mapping
from math import log
from pathlib import Path

import numpy as np
import yaml
from matplotlib.figure import Figure

from playground.record.reader import Run
from playground.study import Claim

CONFIG = yaml.safe_load((Path(__file__).parent / "config.yaml").read_text())
INITIALISATIONS, ACTIVATIONS = CONFIG["initialisations"], CONFIG["activations"]
COLORS = dict(zip(INITIALISATIONS, ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"),
                  strict=True))  # fmt: skip
KEPT = {"linear": 1.0, "relu": 0.5}
"""E phi'(z)^2, and E phi(z)^2 / E z^2, of symmetric z."""


def runs(quick: bool) -> dict[str, list[str]]:
    """A run per activation and initialisation at the start; one per depth and initialisation."""
    changed = CONFIG["quick" if quick else "full"]
    planned = {}
    for activation in ACTIVATIONS:
        for kind in INITIALISATIONS:
            planned[f"{activation}, {kind}"] = [
                *CONFIG["start"], f"problem.activation={activation}",
                f"problem.initialisation={kind}", f"members={changed['members']}",
                widths(CONFIG["width"], CONFIG["hidden"]),
            ]  # fmt: skip
    for kind in CONFIG["trained"]:
        for depth in changed["depths"]:
            planned[f"{kind}, {depth} layers"] = [
                *CONFIG["train"], f"problem.initialisation={kind}", widths(64, depth - 1),
                f"members={changed['replicas']}", f"budget.iterations={changed['iterations']}",
            ]  # fmt: skip
    return planned


def widths(size: int, layers: int) -> str:
    """The override of that many equal hidden layers."""
    return f"problem.widths=[{','.join([str(size)] * layers)}]"


def layers(run: Run) -> dict[str, np.ndarray]:
    """{quantity: [L, M]} of the flow probe at the first update, layer after layer."""
    rows = [row for row in run.measurements.to_pylist() if row["probe"] == "flow"]
    found = {}
    for name in ("forward", "backward", "forward_theory", "backward_theory"):
        values = {(row["tensor"], row["member"]): row["value"] for row in rows
                  if row["quantity"] == name}  # fmt: skip
        tensors = sorted({tensor for tensor, _ in values}, key=lambda t: int(t.split(".")[0]))
        members = range(len(run.members))
        found[name] = np.array([[values[tensor, m] for m in members] for tensor in tensors])
    return found


def steps(values: np.ndarray, way: str) -> np.ndarray:
    """Factors [L - 3, M] from one hidden layer to the next, in the signal's own direction."""
    hidden = values[:-1]
    return hidden[1:] / hidden[:-1] if way == "forward" else hidden[:-1] / hidden[1:]


def claims(runs: Mapping[str, Run], folder: Path) -> list[Claim]:
    """Factors per layer against theory; which depths train."""
    found = {
        (activation, kind): layers(runs[f"{activation}, {kind}"])
        for activation in ACTIVATIONS
        for kind in INITIALISATIONS
    }
    made = []
    for (activation, kind), values in found.items():
        for way in ("forward", "backward"):
            made.append(factor(activation, kind, way, values))
    made += training(runs)
    draw(found, runs, folder / "glorot2010_he2015.png")
    return made


def factor(activation: str, kind: str, way: str, values: Mapping[str, np.ndarray]) -> Claim:
    """One factor per layer: exact where it is, else its ratio to the theory of wide networks."""
    measured, slack = steps(values[way], way), CONFIG["slack"]
    if activation in KEPT and not (kind == "torch" and way == "forward"):
        exact = KEPT[activation] * CONFIG["variance"][kind]
        return Claim(f"{activation}, {kind}: {way} factor per layer", f"{exact:.4g}",
                     measured.mean(axis=0), (1 - slack) * exact, (1 + slack) * exact)  # fmt: skip
    theory = steps(values[f"{way}_theory"], way)
    ratio = np.exp(np.log(measured / theory).mean(axis=0))
    return Claim(f"{activation}, {kind}: {way} factor per layer over theory", "1", ratio,
                 1 - slack, 1 + slack)  # fmt: skip


def training(runs: Mapping[str, Run]) -> list[Claim]:
    """Loss after training over log 10, which a network that says nothing has."""
    made = []
    published = {"he": ("converges", -np.inf, 0.5), "glorot": ("stalls", 0.99, 1.01)}
    for kind, (words, low, high) in published.items():
        final = runs[f"{kind}, 30 layers"].metric("train_loss")[1][-1] / log(10)
        title = f"ReLU, 30 layers, {kind}: training loss after training over log 10"
        made.append(Claim(title, words, final, low, high))
    return made


def draw(
    found: Mapping[tuple[str, str], Mapping[str, np.ndarray]], runs: Mapping[str, Run], path: Path
) -> None:
    """Signals and gradients by layer, measured and in theory; training by depth."""
    figure = Figure(figsize=(19, 7.4), layout="constrained", dpi=130)
    cells = figure.subplots(2, len(ACTIVATIONS) + 1)
    for column, activation in enumerate(ACTIVATIONS):
        for row, way in enumerate(("forward", "backward")):
            axes = cells[row, column]
            for kind in INITIALISATIONS:
                values = found[activation, kind]
                x = np.arange(1, len(values[way]) + 1)
                mean, theory = (np.exp(np.log(values[name]).mean(axis=1))
                                for name in (way, f"{way}_theory"))  # fmt: skip
                axes.semilogy(x, mean, "o", ms=4, color=COLORS[kind], label=kind)
                axes.semilogy(x, theory, "-", lw=1, color=COLORS[kind], alpha=0.8)
            words = {"forward": "E z^2", "backward": "E (dL/dz)^2"}[way]
            axes.set(title=f"{activation}: {words}, lines: theory", xlabel="layer")
    cells[0, 0].legend(frameon=False, fontsize=8)
    curves(cells[:, -1], runs)
    for axes in cells.flat:
        axes.grid(alpha=0.2)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def curves(cells: np.ndarray, runs: Mapping[str, Run]) -> None:
    """Training loss of the deepest networks, and the last one by depth."""
    for kind in CONFIG["trained"]:
        depths = [int(name.split()[1]) for name in runs if name.startswith(f"{kind}, ")]
        iterations, values = runs[f"{kind}, {max(depths)} layers"].metric("train_loss")
        cells[0].plot(iterations, values, color=COLORS[kind], lw=0.7, alpha=0.5)
        cells[0].plot(iterations, values.mean(axis=1), color=COLORS[kind], lw=1.6, label=kind)
        last = [runs[f"{kind}, {d} layers"].metric("train_loss")[1][-1] for d in depths]
        cells[1].plot(depths, [v.mean() for v in last], "o-", color=COLORS[kind], label=kind)
        for depth, value in zip(depths, last, strict=True):
            cells[1].plot([depth] * len(value), value, ".", ms=3, color=COLORS[kind])
    for axes in cells:
        axes.axhline(log(10), color="0.2", lw=0.8, ls="--")
        axes.legend(frameon=False, fontsize=8)
    cells[0].set(title="ReLU, 30 layers: training loss", xlabel="iteration", ylim=(0, None))
    cells[1].set(title="training loss after training", xlabel="weight layers", ylim=(0, None))
