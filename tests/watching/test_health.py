"""Planted NaN, Inf and spikes of one update: all caught, all named, wherever they fall."""

import numpy as np
import pytest
import torch
from torch import nn

import playground
from playground.watching.health import Health

from .loops import data, net, rows

NAMES = ["0.weight", "0.bias", "2.weight", "2.bias"]


def planted(folder, plants, updates=120, clip=False, every=8):
    """Train with values written into ``.grad``: {update: (tensor, value or factor)}."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    named = dict(model.named_parameters())
    start = {name: p.detach().clone() for name, p in named.items()}
    with playground.watch(model, optimizer, run_dir=folder, every=every):
        for update, (x, y) in zip(range(1, updates + 1), data(), strict=False):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            if update in plants:
                name, what = plants[update]
                gradient = named[name].grad
                if what == "spike":
                    gradient.mul_(300.0)
                else:
                    gradient.view(-1)[update % gradient.numel()] = float(what)
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if update in plants:  # training that a NaN has spoiled has nothing more to show
                for name, p in named.items():
                    p.data.copy_(start[name])
    return [
        (e["kind"], e["iteration"], e["message"], e["evidence"])
        for e in playground.load(folder).events.to_pylist()
    ]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("clip", [False, True])
def test_everything_planted_is_caught_and_named_and_nothing_else(tmp_path, seed, clip):
    draw = np.random.default_rng(seed)
    places = draw.choice(np.arange(20, 120, 2), size=9, replace=False)
    kinds = ["nan", "inf", "-inf", "spike", "spike", "nan", "spike", "inf", "spike"]
    plants = {
        int(u): (NAMES[draw.integers(4)], kind) for u, kind in zip(places, kinds, strict=True)
    }
    events = planted(tmp_path / "run", plants, clip=clip)
    assert sorted(e[1] for e in events) == sorted(plants)
    for kind, update, message, _evidence in events:
        name, what = plants[update]
        assert f"update {update})" in message
        if what == "spike":
            assert kind == "spike"
            assert f"of {name} (player model" in message
        else:
            assert kind == "nonfinite"
            count = "1 NaN, 0 infinite" if what == "nan" else "0 NaN, 1 infinite"
            assert f"of {name} ({count}) (player model" in message
    found = rows(tmp_path / "run")
    for update, (_, what) in plants.items():  # and the row of every update tells
        norm = found["model", update, "gradient", ""]["norm"]
        assert not np.isfinite(norm) if what != "spike" else norm > 10


def test_healthy_loops_have_no_events(tmp_path):
    """Noise, a falling loss and a decaying rate are no spikes."""
    for seed in range(3):
        model = net(seed)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        with playground.watch(model, optimizer, run_dir=tmp_path / str(seed)):
            for _, (x, y) in zip(range(600), data(seed, size=4), strict=False):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
        assert playground.load(tmp_path / str(seed)).events.num_rows == 0


def test_one_event_while_the_same_tensors_stay_broken(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with playground.watch(model, optimizer, run_dir=tmp_path / "run"):
        for update, (x, y) in zip(range(30), data(), strict=False):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            if update == 3:
                model[2].bias.grad[1] = torch.nan
            optimizer.step()
    first, second = playground.load(tmp_path / "run").events.to_pylist()
    assert "2.bias (1 NaN, 0 infinite) (player model, update 4)" in first["message"]
    assert "0.weight (48 NaN" in second["message"]
    assert "update 5" in second["message"]
    assert playground.load(tmp_path / "run").figure("overview").exists()


def test_a_norm_beyond_float32_is_told_from_an_infinite_element(tmp_path):
    model = nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with playground.watch(model, optimizer, run_dir=tmp_path / "run"):
        model.weight.grad = torch.full((1, 2), 3e38)
        optimizer.step()
    (event,) = playground.load(tmp_path / "run").events.to_pylist()
    assert "weight (finite, its norm overflows)" in event["message"]


@pytest.mark.parametrize("every", [1, 7, 64, 1000])
def test_a_new_level_is_reported_and_then_taken_for_granted(every):
    """Norms that jump for good: three events; when they are flushed makes no difference."""
    health = Health("model", ["a", "b"])
    found = []
    for update in range(1, 300):
        norms = torch.tensor([50.0 if update > 150 else 1.0, 1.0 + update % 3])
        health.note((update, update, 0), norms, {}, [])
        if update % every == 0:
            found += health.flush()
    found += health.flush()
    assert [e.iteration for e in found] == [151, 152, 153]
    assert all("of a (player model" in e.message for e in found)
    assert found[0].evidence == "norm 50, 50 times the largest of 64 before"
