"""The plane of a run's own path, with the truth along it, against closed forms."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from harness import TINY, quiet

import playground
from playground.record.checkpoint import load_snapshot
from playground.schema import ConfigError
from playground.slices import keep

pytestmark = pytest.mark.usefixtures("without_figures")

SCRIPT = Path(__file__).parents[1] / "scripts" / "landscape.py"

CURVATURE, RATE = np.logspace(-1, 0, 6), 0.3
STARTS = [3.0, -2.0, 1.0, 0.5, -1.5, 2.5]
QUADRATIC = ["problem=landscape/quadratic", "problem.dimension=6", f"problem.start={STARTS}",
             "optimizer=sgd", f"optimizer.lr={RATE}", "budget.iterations=40"]  # fmt: skip


def descended(times):
    """Gradient descent on 1/2 sum h x^2: (1 - lr h)^t x_0."""
    return (1 - RATE * CURVATURE) ** np.asarray(times)[:, None] * np.array(STARTS)


def loss(x):
    return 0.5 * (x**2 @ CURVATURE)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("playground.report.draw_all", lambda run: [])
        path = tmp_path_factory.mktemp("quadratic") / "run"
        return quiet([*QUADRATIC, "checkpoint.snapshot_every=5"], path)


def test_snapshots_stand_evenly_where_they_are_asked_for(run, tmp_path):
    assert run.snapshots == [0, 1, 2, 4, 5, 8, 10, 15, 16, 20, 25, 30, 32, 35, 40]
    plain = quiet(QUADRATIC, tmp_path / "run")
    assert plain.snapshots == [0, 1, 2, 4, 8, 16, 32]


def test_the_path_of_descent_on_a_quadratic(run):
    """Directions by NumPy's SVD; losses and distances by the formula and the hand."""
    found = playground.landscape(run, "principal", points=7, metrics=["value"], batches=2)
    own, times = found.path, run.snapshots
    x = descended(times)
    assert own.iterations.tolist() == times
    _, s, v = np.linalg.svd(x - x.mean(0))
    v = v[:2] * -np.sign(v[:2] @ (x[0] - x[-1]))[:, None]
    assert np.allclose(found.directions, v, atol=1e-9)
    assert np.allclose(own.explained, s**2 / (s**2).sum(), atol=1e-12)
    coordinates = (x - x[-1]) @ v.T
    shown = x[-1] + coordinates @ v
    assert np.allclose(own.coordinates, coordinates, atol=1e-9)
    assert np.allclose(own.outside, np.linalg.norm(x - shown, axis=1), atol=1e-9)
    assert own.outside.max() > 0.1
    for name in ("objective", "value"):
        assert np.allclose(own.values[name], loss(x), atol=1e-9)
        assert np.allclose(own.projected[name], loss(shown), atol=1e-9)
    assert not np.allclose(loss(x), loss(shown), rtol=1e-2)
    a, b = (axis.numpy() for axis in found.offsets)
    for axis, place in ((a, coordinates[:, 0]), (b, coordinates[:, 1])):
        extent = np.ptp(place)
        assert axis[0] == pytest.approx(place.min() - 0.2 * extent)
        assert axis[-1] == pytest.approx(place.max() + 0.2 * extent)
    grid = x[-1] + a[:, None, None] * v[0] + b[None, :, None] * v[1]
    assert np.allclose(found.values["objective"], loss(grid), atol=1e-9)


def test_a_path_may_end_earlier_and_offsets_may_be_given(run):
    found = playground.landscape(run, "principal", [[0.0], [0.0]], at=8, metrics=[])
    assert found.path.iterations.tolist() == [0, 1, 2, 4, 5, 8]
    assert np.allclose(found.center, descended([8])[0])
    assert found.values["objective"].item() == pytest.approx(loss(descended([8]))[0])


@pytest.mark.slow
def test_a_long_noisy_path_without_a_slope_is_a_random_walk(tmp_path):
    """The baseline against what the engine does with noise alone; 0.03 is four deviations."""
    run = quiet(["problem=landscape/quadratic", "problem.dimension=2000", "problem.noise=1",
                 f"problem.start={[0.0] * 2000}", "optimizer=sgd", "optimizer.lr=1e-4",
                 "budget.iterations=64", "checkpoint.snapshot_every=4", "probes=none"],
                tmp_path / "run")  # fmt: skip
    own = playground.landscape(run, "principal", [[0.0], [0.0]], metrics=[]).path
    assert np.allclose(own.explained[:4], own.random_walk[:4], atol=0.03)
    assert own.explained[:2].sum() > 0.7


def test_every_member_has_a_path_of_its_own(tmp_path):
    run = quiet([*TINY["supervised"], "members=3", "budget.iterations=20"], tmp_path / "run")
    for member in (0, 2):
        found = playground.landscape(run, "principal", [[0.0], [0.0]], member=member, metrics=[])
        kept = [load_snapshot(run.path, i)[1]["model"][member] for i in (0, 1, 2, 4, 8, 16)]
        x = torch.stack([*kept, found.center]).double()
        assert found.path.iterations.tolist() == [0, 1, 2, 4, 8, 16, 20]
        directions = found.directions.double()
        assert torch.allclose(found.path.coordinates, (x - x[-1]) @ directions.T, atol=1e-5)


def test_in_games_the_others_stay_where_they_ended(tmp_path):
    """Bilinear x'y: the true loss along x's path is x_t'y at the end."""
    run = quiet(["problem=landscape/bilinear", "problem.dimension=3", "problem.start=random",
                 "budget.iterations=30"], tmp_path / "run")  # fmt: skip
    sign = {"x": 1, "y": -1}  # y ascends
    ends = {name: playground.landscape(run, "principal", player=name, points=3, metrics=[])
            for name in sign}  # fmt: skip
    for name, other in (("x", "y"), ("y", "x")):
        times = ends[name].path.iterations.tolist()[:-1]
        x = torch.stack([*(load_snapshot(run.path, t)[1][name][0] for t in times),
                         ends[name].center])  # fmt: skip
        expected = sign[name] * x @ ends[other].center
        assert torch.allclose(ends[name].path.values["objective"], expected)


@pytest.mark.slow
def test_agents_have_surrogate_and_true_return_along_the_path(tmp_path):
    """Those of slices at the same snapshots, which have nothing to do with a path."""
    run = quiet([*TINY["ppo"], "budget.iterations=9"], tmp_path / "run")
    found = playground.landscape(run, "principal", [[0.0], [0.0]], batches=2)
    own, still = found.path, torch.zeros_like(found.center)
    assert {"objective", "objective/policy", "return"} <= set(own.values)
    for place, iteration in enumerate(own.iterations.tolist()):
        at = "final" if iteration == 9 else iteration
        alone = playground.landscape(run, [still], [[0.0]], at=at, batches=2)
        assert own.values["return"][place] == alone.values["return"][0]
        if at == "final":
            for name in ("objective/policy", "objective"):
                assert own.values[name][place] == pytest.approx(alone.values[name][0].item())


def test_random_and_filter_normalised_planes(tmp_path):
    run = quiet([*TINY["supervised"], "budget.iterations=3"], tmp_path / "run")
    plain = playground.landscape(run, "random", points=3, metrics=[])
    norms = plain.directions.norm(dim=1)
    assert torch.allclose(norms, plain.center.norm().expand(2), rtol=1e-5)
    assert [axis.tolist() for axis in plain.offsets] == [[-1, 0, 1]] * 2
    assert plain.path is None
    again = playground.landscape(run, "random", points=3, metrics=[], seed=1)
    assert not torch.allclose(again.directions, plain.directions)
    rows = playground.landscape(run, "filter_normalised", points=3, metrics=[])
    first = slice(0, 16)  # the first tensor: weights [8, 2]
    for direction in rows.directions:
        own, given = direction[first].view(8, 2), rows.center[first].view(8, 2)
        assert torch.allclose(own.norm(dim=1), given.norm(dim=1), rtol=1e-5)
    assert not rows.directions[:, 16:24].any()  # its bias


@pytest.mark.parametrize(
    ("directions", "options", "words"),
    [
        ("pca", {}, "directions=pca: allowed are principal, random, filter_normalised, or tensors"),
        ("principal", {"at": 2}, "iterations 0, 1, 2 only, and 4 are needed.*snapshot_every=1"),
        ("principal", {"points": 1}, "points=1: must be at least 2"),
        ("filter_normalised", {}, "player x has no weights of two dimensions"),
        ([torch.ones(6)], {}, "offsets=None: directions of one's own need offsets"),
    ],
)
def test_what_is_refused(run, directions, options, words):
    with pytest.raises(ConfigError, match=words):
        playground.landscape(run, directions, **options)


def test_a_path_needs_a_run_that_moves(tmp_path):
    with pytest.raises(ConfigError, match="give a run, whose path they are taken from"):
        playground.landscape(TINY["landscape"], "principal")
    still = quiet(["problem=landscape/quadratic", "problem.start=[0,0]", "budget.iterations=9"],
                  tmp_path / "run")  # fmt: skip
    with pytest.raises(ConfigError, match="player=x: the 6 points of the path are all the same"):
        playground.landscape(still, "principal")


def test_a_kept_slice_is_drawn_again_from_the_folder(run):
    found = playground.landscape(run, "principal", points=5, metrics=["value"])
    assert keep(run, found, "principal") == "slice-principal"
    picture = playground.load(run.path).figure("slice-principal")
    assert picture == run.path / "figures" / "slice-principal.png"
    assert picture.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--at", "8", "--points", "3"], 0, "slice-principal-8.png"),
        (["--directions", "pca"], 2, "landscape: directions=pca: allowed are"),
    ],
)
def test_the_script(run, arguments, code, words):
    done = subprocess.run([sys.executable, "-W", "error", str(SCRIPT), str(run.path), *arguments],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == code, done.stderr
    assert words in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
