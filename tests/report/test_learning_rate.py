import numpy as np
import pytest

from playground.record.view import View
from playground.report.comparison.learning_rate import (
    Response,
    figures,
    responses,
    settled,
    varying,
)


def lr_members(values, seeds=2):
    return [
        {"index": i * seeds + s, "seed": s, "values": {"optimizer.lr": value}}
        for i, value in enumerate(values)
        for s in range(seeds)
    ]


def final(values):
    """A metric [T, M] that starts at 1 and ends at known values."""

    def metric(time, member):
        return 1 + (np.array(values)[None] - 1) * (time / time[-1])[:, None]

    return {"accuracy": metric}


def test_members_are_grouped_by_value(record):
    run = record(members=lr_members([0.1, 0.01]), metric=final([0.5, 0.7, 0.9, 0.8]), higher=True)
    (line,) = responses([View(run)], "optimizer.lr")
    x, finals = line.arrays()
    assert x.tolist() == [0.01, 0.1]
    assert [f.tolist() for f in finals] == [[0.9, 0.8], [0.5, 0.7]]
    assert line.best() == 0.01
    assert line.label == "adam"


def test_runs_of_a_sweep_are_one_line(record):
    runs = [
        record(
            f"{k}", members=1, metric=final([v]), config={"optimizer": {"name": "sgd", "lr": lr}}
        )
        for k, (lr, v) in enumerate([(0.1, 0.4), (1.0, 0.2), (10.0, 0.3)])
    ]  # fmt: skip
    views = [View(run) for run in runs]
    assert varying(views) == ["optimizer.lr"]
    (line,) = responses(views, "optimizer.lr")
    assert {k: np.round(v, 9) for k, v in line.finals.items()} == {0.1: 0.4, 1.0: 0.2, 10.0: 0.3}
    assert line.best() == 1.0  # lower is better


def test_one_line_an_optimizer(record):
    views = [
        View(record(name, members=lr_members([0.1, 0.01], 1), metric=final([0.5, 0.7]),
                    config={"optimizer": {"name": name, "lr": 0.1}}))
        for name in ("sgd", "adam")
    ]  # fmt: skip
    assert [line.label for line in responses(views, "optimizer.lr")] == ["sgd", "adam"]


def test_several_keys_give_a_line_for_every_other_value(record):
    members = [
        {"index": k, "seed": 0, "values": {"optimizer.lr": lr, "optimizer.momentum": m}}
        for k, (lr, m) in enumerate([(0.1, 0.0), (0.1, 0.9), (1.0, 0.0), (1.0, 0.9)])
    ]
    views = [View(record(members=members, metric=final([1, 2, 3, 4])))]
    lines = {line.label: line.finals for line in responses(views, "optimizer.lr")}
    assert lines == {"adam, momentum 0": {0.1: [1.0], 1.0: [3.0]},
                     "adam, momentum 0.9": {0.1: [2.0], 1.0: [4.0]}}  # fmt: skip
    assert set(figures(views)) == {"learning_rate", "optimizer_momentum"}


def test_the_best_value_has_no_diverged_member():
    class Fake:
        manifest = {"higher_is_better": True}  # noqa: RUF012

    line = Response("x", Fake(), {1.0: [0.99, np.nan], 2.0: [0.9, 0.9], 3.0: [np.nan, np.nan]})
    assert line.best() == 2.0
    assert Response("x", Fake(), {1.0: [np.nan]}).best() is None


def test_diverged_members_are_not_finite(record):
    view = View(record(members=3, metric=final([0.5, 2e6, np.nan])))
    assert settled(view) == pytest.approx([0.5, np.nan, np.nan], nan_ok=True)
    higher = View(record("higher", members=1, metric=final([2e6]), higher=True))
    assert settled(higher).tolist() == [2e6]


def test_nothing_varies(record):
    assert figures([View(record())]) == {}
