"""What figures say about a run in words: headers, captions, names and units of metrics."""

from pathlib import Path
from typing import Any

import numpy as np

from playground.record.view import View
from playground.report.drawing.statistics import deviation, finite
from playground.report.drawing.style import members_text, number, values_text

METRICS = {
    "return": "return, deterministic policy",
    "return/stochastic": "return, stochastic policy",
    "train/return": "return of training episodes",
    "train/episode_return": "return of the training episode that ended last",
    "episode_length": "episode length, steps",
    "accuracy": "test accuracy, fraction",
    "train_accuracy": "training accuracy, fraction",
    "mse": "test error, mean square",
    "test_loss": "test loss",
    "train_loss": "training loss",
    "modes": "modes covered",
    "high_quality": "high-quality share, fraction",
    "reverse_kl": "reverse KL, nats",
    "reverse_kl/off_mode": "reverse KL with an off-mode bin, nats",
    "sliced_wasserstein": "sliced Wasserstein distance",
    "mmd": "squared MMD",
    "frechet": "Frechet distance",
    "kernel_distance": "kernel distance",
    "precision": "precision, fraction",
    "recall": "recall, fraction",
    "density": "density",
    "coverage": "coverage, fraction",
    "distance": "distance to nearest minimiser",
    "value": "value",
    "entropy": "policy entropy, nats",
    "approx_kl": "approximate KL, nats",
    "clip_fraction": "share of clipped ratios",
    "explained_variance": "explained variance",
    "explained_variance/held_out": "explained variance on evaluation episodes",
    "value_error": "error of the critic on evaluation episodes, RMS",
}
"""What the axes call a metric, with its unit; other names stand as they are."""

LINEAR = ("return", "train/return", "episode_length", "accuracy", "train_accuracy", "modes",
          "high_quality", "clip_fraction", "explained_variance", "entropy", "precision", "recall",
          "density", "coverage", "mmd", "kernel_distance")  # fmt: skip
"""Metrics that have a natural range: never on a log axis."""


def is_linear(name: str) -> bool:
    """Whether a metric, or the metric that it is a variant of, has a natural range."""
    return name in LINEAR or name.partition("/")[0] in LINEAR


def metric_text(view: View, name: str) -> str:
    """A metric's name and unit."""
    if name == "distance" and view.problem.endswith("saddle"):
        return "distance to the saddle point"
    if name == "distance" and len(view.players) > 1:
        return "distance to the equilibrium"
    if name in ("value", "distance") and view.domain == "supervised":
        return {"value": "excess risk", "distance": "distance to true weights"}[name]
    return METRICS.get(name, name)


def optimizer_text(view: View) -> str:
    """Every player's optimizer with its values; one text where they agree."""
    config, texts = view.config, {}
    for player in view.players:
        own = (config.get("players") or {}).get(player) or config.get("optimizer") or {}
        path = f"players.{player}" if (config.get("players") or {}).get(player) else "optimizer"
        values = {**own, **_varied(view, path)}
        texts[player] = f"{own.get('name', 'optimizer')} {values_text(values)}".strip()
    if len(set(texts.values())) <= 1:
        return next(iter(texts.values()), "")
    return "; ".join(f"{player}: {text}" for player, text in texts.items())


def _varied(view: View, path: str) -> dict[str, str]:
    """{field: "a to b, n values"} of what varies over the members."""
    several: dict[str, set[float]] = {}
    for group in view.groups:
        for key, value in group.values.items():
            if key.rpartition(".")[0] == path:
                several.setdefault(key.rpartition(".")[2], set()).add(value)
    return {
        key: f"{min(values):g} to {max(values):g} ({len(values)} values)"
        for key, values in several.items()
    }


def title(view: View) -> str:
    """Problem, algorithm and loss: ``gan/ring, nonsaturating``."""
    parts = [view.problem]
    for key in ("algorithm", "loss"):
        group = view.config.get(key)
        if isinstance(group, dict) and group.get("name"):
            parts.append(str(group["name"]))
    return ", ".join(parts)


def subtitle(view: View) -> str:
    """Optimizer and its values, stepper, members and seeds, length, how it ended."""
    parts = [optimizer_text(view)]
    stepper = (view.config.get("stepper") or {}).get("name", "direct")
    if stepper != "direct":
        parts.append(f"stepper {stepper}")
    parts.append(members_text(view.members))
    parts.append(f"{last_iteration(view):,} iterations")
    parts.extend(origin(view))
    status = str(view.manifest.get("status", ""))
    if status and status != "finished":
        parts.append(status)
    return "   |   ".join(part for part in parts if part)


def origin(view: View) -> list[str]:
    """Of what run this one is a fork or a replay, and where."""
    fork, replay = (view.manifest.get(key) or {} for key in ("fork", "replay"))
    name = Path(str((fork or replay).get("run", ""))).name
    if fork:
        changes = ", ".join(fork["changes"])
        return [f"fork of {name} after iteration {fork['from']:,}: {changes}"]
    if replay:
        return [f"replay of {name}, measured at iteration {replay['iteration']:,}"]
    return []


def last_iteration(view: View) -> int:
    """The last iteration that left a record."""
    tables = [view.metrics] if len(view.metrics) else []
    if view.config.get("watch") or not tables:  # a watched loop may log nothing, or end unlogged
        tables.append(view.gradients)
    return max((int(t["iteration"].max()) for t in tables if len(t)), default=0)


def result_text(values: Any) -> str:
    """A metric over members as mean and standard deviation, with what is missing."""
    array = finite(values)
    known = array[np.isfinite(array)]
    if not known.size:
        return "not finite"
    text = number(float(known.mean()))
    if known.size > 1:
        text += f" ± {number(float(deviation(known)), 2)}"
    if known.size < array.size:
        text += f" ({array.size - known.size} not finite)"
    return text
