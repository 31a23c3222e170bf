"""Loops as people write them, with a hand that reads ``.grad`` beside the watcher."""

import math

import numpy as np
import torch
from torch import nn

import playground


class Hand:
    """What anyone would write into their loop to know its gradients, in float64."""

    def __init__(self, parameters):
        self.parameters = list(parameters)
        self.gradients, self.before, self.after, self.raw = [], [], [], []

    def look(self, scale=1.0):
        """Directly before ``optimizer.step()``."""
        self.gradients.append([
            torch.zeros_like(p).numpy().astype(float) if p.grad is None else
            p.grad.to_dense().numpy().astype(float) / scale for p in self.parameters
        ])  # fmt: skip
        self.before.append([p.detach().numpy().astype(float) for p in self.parameters])

    def look_raw(self):
        """Directly before clipping."""
        self.raw.append(math.sqrt(sum(float(p.grad.double().square().sum())
                                      for p in self.parameters)))  # fmt: skip

    def looked(self):
        """Directly after it."""
        self.after.append([p.detach().numpy().astype(float) for p in self.parameters])

    def value(self, kind, update, place):
        """Gradient or update of one tensor, or of all (place -1), as a vector."""
        if kind == "update":
            parts = [a - b for a, b in zip(self.after[update], self.before[update], strict=True)]
        else:
            parts = getattr(self, kind)[update]
        parts = parts if place < 0 else [parts[place]]
        return np.concatenate([part.ravel() for part in parts])


def net(seed=0, inputs=6, width=8, outputs=3):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, outputs))


def data(seed=1, size=16, inputs=6, outputs=3):
    draw = torch.Generator().manual_seed(seed)
    while True:
        x = torch.randn(size, inputs, generator=draw)
        yield x, torch.randint(outputs, (size,), generator=draw)


def set_place(place, monkeypatch):
    """How a watched player is measured, whatever its size."""
    if place != "copies":
        monkeypatch.setattr("playground.watching.player.SMALL", 0)
    if place == "in place, one buffer":
        monkeypatch.setattr("playground.watching.player.VALUES", 10**9)


def same(a, b):
    """Parameters bit for bit."""
    for one, other in zip(a.state_dict().values(), b.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def rows(path):
    """{(player, update, tap, tensor): row}; a key that stands twice is an error."""
    found = {}
    for row in playground.load(path).gradients.to_pylist():
        key = (row["player"], row["update"], row["tap"], row["tensor"])
        assert key not in found, key
        found[key] = row
    return found


def cosine(a, b):
    product = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b) / product if product else None


def expected(hand, update, place, tap, before="gradients"):
    """Every quantity of one row by hand; ``update`` counts from 1."""
    kind = "update" if tap == "update" else "gradients"
    own = hand.value(kind, update - 1, place)
    result = {
        "norm": np.linalg.norm(own),
        "mean_abs": np.abs(own).mean(),
        "max_abs": np.abs(own).max(),
        "zero_share": (own == 0).mean(),
        "nonfinite": 0.0,
    }
    if update > 1 and before:
        result["cosine_previous"] = cosine(own, hand.value(kind, update - 2, place))
    if tap == "update":
        size = np.linalg.norm(hand.value("before", update - 1, place))
        result |= {
            "parameter_norm": size,
            "ratio": np.linalg.norm(own) / size if size else None,
            "alignment": cosine(own, -hand.value("gradients", update - 1, place)),
        }
    return result


def check(path, hand, names, tap="gradient", player="model", skip=(), rel=2e-5, every=1):
    """All rows of a run against the hand's numbers; ``skip`` are quantities that are null."""
    found = rows(path)
    assert len(hand.gradients) == len(hand.after) > 1
    measured = 0
    for update in range(1, len(hand.gradients) + 1):
        whole = found[player, update, tap, ""]
        by_hand = np.linalg.norm(hand.value("gradients", update - 1, -1))
        assert whole["norm"] == approx(by_hand, rel), update
        if (player, update, "update", "") not in found:
            assert every > 1
            continue
        measured += 1
        for kind in (tap, "update"):
            for place, tensor in enumerate(["", *names], start=-1):
                row = found[player, update, kind, tensor]
                for name, value in expected(hand, update, place, kind).items():
                    if (kind, name) in skip or value is None:
                        assert row[name] is None, (update, kind, tensor, name)
                    else:
                        assert row[name] == approx(value, rel), (update, kind, tensor, name)
    if every == 1:
        assert measured == len(hand.gradients)
    else:
        assert abs(measured - len(hand.gradients) / every) <= 2
    assert not [k for k in found if k[0] == player and k[1] > len(hand.gradients)]


def approx(value, rel):
    import pytest

    return pytest.approx(value, rel=rel, abs=3e-6)
