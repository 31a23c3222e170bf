import numpy as np

from playground.record.view import Series, View
from playground.report.comparison.entries import entries, flatten, label, pooled, relevant


def test_flatten():
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": [3]}) == [
        ("a.b", 1), ("a.c.d", 2), ("e", [3]),
    ]  # fmt: skip


def test_seeds_and_cadences_make_no_difference():
    config = {"seed": 3, "members": 2, "optimizer": {"lr": 0.1}, "probes": {"every": 8},
              "problem": {"name": "a", "tuned": {"lr": {"sgd": 1}}}, "name": "x"}  # fmt: skip
    assert relevant(config) == {"optimizer.lr": 0.1, "problem.name": "a"}
    assert relevant(config, without=("optimizer.lr",)) == {"problem.name": "a"}


def test_labels_say_what_differs_and_nothing_else():
    flats = [
        {"problem.name": "p", "optimizer.name": "sgd", "optimizer.lr": 0.1},
        {"problem.name": "p", "optimizer.name": "sgd", "optimizer.lr": 1.0},
        {"problem.name": "p", "optimizer.name": "adam", "optimizer.lr": 0.01,
         "optimizer.eps": 1e-8},
    ]  # fmt: skip
    assert label(flats) == ["sgd, lr 0.1", "sgd, lr 1", "adam"]


def test_labels_name_players_and_ambiguous_keys():
    flats = [
        {"optimizer.name": "adam", "optimizer.lr": 0.1, "players.generator.lr": 0.1},
        {"optimizer.name": "adam", "optimizer.lr": 0.2, "players.generator.lr": 0.3},
    ]
    assert label(flats) == ["optimizer lr 0.1, generator lr 0.1",
                            "optimizer lr 0.2, generator lr 0.3"]  # fmt: skip
    names = [{"players.generator.name": "sgd"}, {"players.generator.name": "adam"}]
    assert label(names) == ["generator sgd", "generator adam"]


def test_runs_that_differ_in_their_seeds_are_pooled(record):
    seeds = [[{"index": 0, "seed": s, "values": {}}] for s in (0, 100)]
    views = [View(record(f"s{k}", members=m, config={"seed": k})) for k, m in enumerate(seeds)]
    views.append(View(record("other", config={"optimizer": {"name": "sgd", "lr": 0.1}})))
    found = entries(views)
    assert [(entry.label, len(entry.members)) for entry in found] == [("adam", 2), ("sgd", 2)]
    assert found[0].metric("accuracy").values.shape == (31, 2)
    assert len(found[0].final()) == 2


def test_pooled_series_keep_the_positions_they_share():
    a = Series(np.array([0, 1, 2]), np.array([[1.0], [2.0], [3.0]]))
    b = Series(np.array([0, 2, 4]), np.array([[5.0], [6.0], [7.0]]))
    both = pooled([a, b])
    assert both.x.tolist() == [0, 2]
    assert both.values.tolist() == [[1.0, 5.0], [3.0, 6.0]]


def test_split_by_what_varies(record):
    members = [{"index": k, "seed": 0, "values": {"optimizer.lr": lr}}
               for k, lr in enumerate([0.1, 0.2])]  # fmt: skip
    (entry,) = entries([View(record(members=members))])
    parts = entry.split()
    assert [part.label.rpartition(", ")[2] for part in parts] == ["lr 0.1", "lr 0.2"]
    assert [part.final().tolist() for part in parts] == [[v] for v in entry.final()]
