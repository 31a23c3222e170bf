"""Direction: lines, circles and random walks, sketches, loops over a recorded run."""

import math

import numpy as np
import pytest
import torch
from harness import PROBED, probed, quiet

from playground.game import Observation
from playground.parameters import Layout
from playground.probes.direction import (
    LAGS,
    WINDOW,
    Direction,
    Sketch,
    agreement,
    effective_directions,
)

pytestmark = pytest.mark.usefixtures("without_figures")

GENERATOR = torch.Generator().manual_seed(4)


def normal(*shape):
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def test_effective_directions_of_a_line_a_frame_and_a_plane():
    line = normal(8, 1, 1) * normal(1, 1, 20)
    frame = torch.linalg.qr(normal(20, 8)).Q.T[:, None] * normal(8, 1, 1)
    angles = torch.arange(12) * (math.pi / 12)
    plane = torch.stack([angles.cos(), angles.sin()], 1).double()[:, None]
    both = torch.cat([line, frame], dim=1)
    assert effective_directions(both).tolist() == pytest.approx([1.0, 8.0])
    assert effective_directions(plane).tolist() == pytest.approx([2.0])


def test_agreement_by_a_loop():
    values = normal(5, 7)
    found = agreement(values)
    for k in range(5):
        others = [torch.cosine_similarity(values[k], values[j], dim=0) for j in range(5) if j != k]
        assert found[k].item() == pytest.approx(np.mean(others))


def test_sketches_keep_inner_products_on_average():
    """Unbiased within 5 standard errors, and as accurate as the formula says."""
    a = normal(1, 3000)
    b = 0.6 * a + 0.8 * normal(1, 3000)
    size = 256
    true = (a * b).sum().item()
    found = []
    for seed in range(200):
        sketch = Sketch.drawn(3000, size, seed, a)
        found.append((sketch(a) * sketch(b)).sum().item())
    scale = math.sqrt(((a.norm() * b.norm()) ** 2 + true**2) / size)
    assert abs(np.mean(found) - true) < 5 * scale / math.sqrt(200)
    assert np.std(found) == pytest.approx(scale, rel=0.25)


def feed(updates, gradients, megabytes=16, every=1, start=None):
    """The last measurement of a probe that saw updates [T, M, N]."""
    layout = Layout({"a": (2,), "b": (updates.shape[2] - 2,)})
    probe = Direction(every, 0, megabytes)
    x = torch.zeros_like(updates[0]) if start is None else start.clone()
    for t, (u, g) in enumerate(zip(updates, gradients, strict=True)):
        seen = Observation("p", layout, g, g.norm(dim=1), None, None, u, x, 0.1, t + 1, 0)
        found = probe.measure(seen)
        x = x + u
    return found, x


def test_every_quantity_by_a_loop():
    updates, gradients, start = normal(40, 3, 6), normal(40, 3, 6), normal(3, 6)
    found, x = feed(updates, gradients, start=start)
    moved = x - start
    path = updates.norm(dim=2).sum(0)
    torch.testing.assert_close(found["distance"], moved.norm(dim=1))
    torch.testing.assert_close(found["a", "distance"], moved[:, :2].norm(dim=1))
    torch.testing.assert_close(found["b", "distance"], moved[:, 2:].norm(dim=1))
    torch.testing.assert_close(found["path_length"], path)
    torch.testing.assert_close(found["straightness"], moved.norm(dim=1) / path)
    for name, values in (("gradient", gradients), ("update", updates)):
        for lag in LAGS:
            expected = torch.cosine_similarity(values[-1], values[-1 - lag], dim=1)
            torch.testing.assert_close(found[f"cosine_{name}/{lag}"], expected)
        expected = effective_directions(values[-WINDOW:])
        torch.testing.assert_close(found[f"effective_directions/{name}"], expected)
    torch.testing.assert_close(found["agreement/displacement"], agreement(moved))
    assert found["entries"].tolist() == [6.0] * 3


def test_a_straight_line_and_a_random_walk():
    line = normal(1, 1, 50).expand(40, 1, 50)
    found, _ = feed(line, line)
    assert found["straightness"].item() == pytest.approx(1.0)
    assert found["cosine_update/32"].item() == pytest.approx(1.0)
    assert "agreement/update" not in found
    walk = normal(400, 20, 50)
    found, _ = feed(walk, walk)
    assert found["straightness"].mean().item() == pytest.approx(1 / 20, rel=0.1)
    expected = WINDOW / (1 + (WINDOW - 1) / 50)  # independent directions in 50 dimensions
    assert found["effective_directions/update"].mean().item() == pytest.approx(expected, rel=0.05)


def test_large_players_are_sketched_and_their_cosines_are_near():
    entries = 40_000  # 33 vectors, twice, in float64: 21 megabytes
    base = normal(1, 1, entries)
    updates = base + 0.5 * normal(34, 1, entries)
    exact, _ = feed(updates, updates, megabytes=64)
    near, _ = feed(updates, updates, megabytes=1)
    size = near["entries"].item()
    assert size == 2**20 // (2 * 33 * 8) < exact["entries"].item() == entries
    for lag in LAGS:
        true = exact[f"cosine_update/{lag}"].item()
        error = math.sqrt((1 + true**2) / size)
        assert abs(near[f"cosine_update/{lag}"].item() - true) < 5 * error
    for name in ("distance", "path_length", "straightness"):
        assert near[name].tolist() == exact[name].tolist()


def rows(run):
    return [r for r in run.measurements.to_pylist() if r["probe"] == "direction"]


def test_a_run_s_first_lag_is_tier_0_s(tmp_path):
    given = ["problem=supervised/two_moons", "budget.iterations=40", "members=2",
             "probes=standard", "probes.direction.every=10"]  # fmt: skip
    run = quiet(given, tmp_path / "run")
    found = {
        (r["update"], r["member"]): r["value"]
        for r in rows(run)
        if r["quantity"] == "cosine_gradient/1"
    }
    assert {update for update, _ in found} == {10, 20, 30, 40}
    tier = {
        (r["update"], r["member"]): r["cosine_previous"]
        for r in run.gradients.to_pylist()
        if r["tap"] == "gradient" and r["tensor"] == ""
    }
    for key, value in found.items():
        assert value == pytest.approx(tier[key], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("given", PROBED.values(), ids=PROBED)
def test_a_run_is_the_same_with_it_and_resumes(given, tmp_path):
    _, whole = probed(given, "probes.direction.every=2", tmp_path)
    assert rows(whole)
