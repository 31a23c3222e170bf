import numpy as np
import pytest

from playground.record.view import View, pivot, spaced


@pytest.mark.parametrize("offset", [0, 10**12])
@pytest.mark.parametrize("spacing", [1, 100_000])
def test_pivot_equals_a_dictionary(offset, spacing):
    rng = np.random.default_rng(0)
    order = rng.permutation(30)
    key = np.repeat(np.arange(10) * spacing + offset, 3)[order]
    member, value = np.tile(np.arange(3), 10)[order], rng.normal(size=30)
    keys, values = pivot(key, member, value, 4)
    known = {(int(k), int(m)): v for k, m, v in zip(key, member, value, strict=True)}
    assert keys.tolist() == sorted({k for k, _ in known})
    for row, k in enumerate(keys.tolist()):
        assert values[row, :3].tolist() == [known[k, m] for m in range(3)]
    assert np.isnan(values[:, 3]).all()


def test_pivot_of_nothing():
    keys, values = pivot(np.empty(0, int), np.empty(0, int), np.empty(0), 3)
    assert len(keys) == 0
    assert values.shape == (0, 3)


def test_updates_are_spread_over_their_iteration():
    assert spaced(np.array([1, 1, 1, 1, 2, 3, 3])).tolist() == [
        0.25, 0.5, 0.75, 1.0, 2.0, 2.5, 3.0,
    ]  # fmt: skip
    assert spaced(np.empty(0)).tolist() == []


def test_every_norm_is_there_and_the_rest_where_it_was_measured(record):
    view = View(record(iterations=12, rounds=2, every=8, members=3))
    norm = view.gradient("model", "norm")
    assert norm.values.shape == (24, 3)
    assert norm.x[:3].tolist() == [0.5, 1.0, 1.5]
    assert norm.values[0, 2] == pytest.approx(1.2 * np.exp(-1 / 20), rel=1e-6)
    cosine = view.gradient("model", "cosine_previous")
    assert cosine.x.tolist() == [4.0, 8.0, 12.0]  # updates 8, 16 and 24, two an iteration
    ratio = view.gradient("model", "ratio", "update")
    assert ratio.values[0, 0] == pytest.approx(1e-3 * np.exp(-8 / 20), rel=1e-6)


def test_a_measured_nan_norm_is_a_value_not_a_gap(record):
    def norm(update, member):
        values = np.ones((len(update), len(member)))
        values[5, 0] = np.nan
        return values

    series = View(record(norm=norm)).gradient("model", "norm")
    assert series.values.shape == (60, 2)
    assert np.isnan(series.values[5, 0])
    assert np.isfinite(series.values).sum() == 119


def test_metric_over_environment_steps(record):
    view = View(record(iterations=3))
    assert view.metric("accuracy").x.tolist() == [0, 1, 2, 3]
    assert view.metric("accuracy", x="env_steps").x.tolist() == [0, 100, 200, 300]
    assert not view.metric("unknown")
    assert view.has("loss", "model")
    assert not view.has("loss")


def test_groups_by_what_varies(record):
    members = [
        {"index": k, "seed": k % 2, "values": {"optimizer.lr": lr}}
        for k, lr in enumerate([0.1, 0.1, 0.2, 0.2])
    ]
    groups = View(record(members=members)).groups
    assert [g.label for g in groups] == ["lr 0.1", "lr 0.2"]
    assert [g.members.tolist() for g in groups] == [[0, 1], [2, 3]]


def test_config_value(record):
    view = View(record(config={"optimizer": {"name": "adam", "lr": 0.5, "nesterov": True}}))
    assert view.config_value("optimizer.lr") == 0.5
    assert view.config_value("optimizer.nesterov") is None
    assert view.config_value("optimizer.momentum.x") is None
