"""What the tests of the sinks share: other trackers' own readers, and the records as scalars."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from playground.record.reader import Run

Curves = dict[str, list[tuple[int, float]]]
"""{name: (step, value) in order}."""

SMALL_RUN = {
    "ppo": [
        "problem=rl/cartpole", "problem.num_envs=2", "problem.widths=[8]", "members=2",
        "problem.evaluation_episodes=2", "algorithm.num_steps=32", "algorithm.batch_size=32",
        "algorithm.epochs=2", "budget.iterations=12", "evaluate.every=3", "checkpoint.every=4",
    ],
    "gan": [
        "problem=gan/ring", "problem.generator_widths=[8]", "problem.discriminator_widths=[8]",
        "problem.batch_size=16", "problem.evaluation_samples=100", "budget.iterations=12",
        "evaluate.every=3", "checkpoint.every=4", "optimizer.schedule=constant",
    ],
}  # fmt: skip


def events(folder: Path) -> Curves:
    """A folder of event files through TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return {
        tag: [(event.step, event.value) for event in reader.Scalars(tag)]
        for tag in reader.Tags()["scalars"]
    }


def recorded(run: Run, member: int, step: str = "iteration") -> Curves:
    """The table ``metrics`` of a member, read row by row."""
    curves: Curves = {}
    for row in run.metrics.to_pylist():
        if row["member"] == member:
            name = f"{row['player']}/{row['name']}" if row["player"] else row["name"]
            curves.setdefault(name, []).append((row[step], row["value"]))
            if row["stderr"] is not None:
                curves.setdefault(f"{name}/stderr", []).append((row[step], row["stderr"]))
    return curves


def gradients(run: Run, member: int) -> dict[tuple[int, str], list[float]]:
    """{(iteration, player/tap/quantity): values of whole players}, read row by row."""
    found: dict[tuple[int, str], list[float]] = {}
    skipped = ("iteration", "update", "member", "player", "tensor", "round", "tap")
    for row in run.gradients.to_pylist():
        if row["member"] == member and not row["tensor"]:
            for name, value in row.items():
                if name not in skipped and value is not None:
                    key = row["iteration"], f"{row['player']}/{row['tap']}/{name}"
                    found.setdefault(key, []).append(value)
    return found


def assert_curves(found: Mapping[str, list[tuple[int, float]]], wanted: Curves, **close) -> None:
    """The same steps, and values equal or close; NaN equals itself."""
    for name, curve in wanted.items():
        steps, values = zip(*curve, strict=True)
        other_steps, other_values = zip(*found[name], strict=True)
        assert steps == other_steps, name
        if close:
            np.testing.assert_allclose(other_values, values, err_msg=name, **close)
        else:
            np.testing.assert_array_equal(other_values, values, err_msg=name)


def single(curves: Curves) -> Curves:
    """Values rounded to float32, as event files hold them."""
    return {
        name: [(step, float(np.float32(value))) for step, value in curve]
        for name, curve in curves.items()
    }
