"""Replays repeat a run bit for bit; forks share its past, and change what they were told to."""

import math
import shutil

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from harness import SPREAD, TINY, assert_same, assert_same_records, chance, final, load, quiet

import playground
from playground.forking import adopted
from playground.optim.config import Adam, Momentum
from playground.optim.optimizer import Optimizer
from playground.record.directory import RunDirectory
from playground.repeat import norms_of
from playground.schema import ConfigError
from playground.session import RunFailed

pytestmark = pytest.mark.usefixtures("without_figures")

BUDGET = ["budget.iterations=12", "checkpoint.every=4", "evaluate.every=5", "members=2"]
CHANGE = {
    "landscape": "optimizer.lr=1e-4",
    "game": "optimizer.lr=1e-3",
    "supervised": "optimizer.lr=0.01",
    "gan": "penalty.r1=1.0",
    "dirac": "stepper=extragradient",
    "ppo": "algorithm.entropy_coefficient=0.1",
    "reinforce": "algorithm.value_updates=1",
}


def back(*overrides):
    return playground.run(list(overrides), quiet=True)


def updates(run):
    """(iteration, updates at its end) from the metrics, in order."""
    rows = run.metrics
    pairs = zip(rows["iteration"].to_pylist(), rows["updates"].to_pylist(), strict=True)
    ends: dict[int, int] = {}
    for iteration, count in pairs:
        ends[iteration] = max(count, ends.get(iteration, 0))
    return sorted(ends.items())


def tree(path):
    """Every file of a folder with its bytes and time."""
    files = [p for p in path.rglob("*") if p.is_file()]
    return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in files}


@pytest.mark.parametrize("domain", TINY)
def test_a_replay_gives_the_recorded_norms_bit_for_bit(domain, tmp_path):
    """Wherever the update lies: the way back begins at the start or at one of two checkpoints."""
    original = quiet([*TINY[domain], *BUDGET], tmp_path / "run")
    before = tree(tmp_path / "run")
    ends = updates(original)
    draw = chance(len(domain))
    for _ in range(2):
        at = draw.randint(1, ends[-1][1])
        run = back(f"replay={tmp_path / 'run'}", f"at={at}", "probes=full", "probes.flow.every=0")
        iteration = next(i for i, count in ends if count >= at)
        recorded, repeated = norms_of(original, iteration), norms_of(run, iteration)
        assert len(recorded) >= 2
        assert {k: np.float32(v).tobytes() for k, v in repeated.items()} == {
            k: np.float32(v).tobytes() for k, v in recorded.items()
        }
        passes = run.measurements.filter(pc.is_in(run.measurements["probe"], pc_values()))
        assert set(passes["iteration"].to_pylist()) == {iteration}
        told = run.manifest["replay"]
        assert (told["update"], told["iteration"], told["equal"]) == (at, iteration, len(recorded))
        assert run.path.name.startswith(f"run-replay-{at}")
        shutil.rmtree(run.path)
    assert tree(tmp_path / "run") == before


def pc_values():
    import pyarrow as pa

    return pa.array(["noise", "curvature", "terms", "step", "game"])


def test_a_replay_measures_the_point_of_that_update(tmp_path):
    """Oracle: the Hessian of Rosenbrock's function at the recorded position, in closed form."""
    overrides = ["problem=landscape/rosenbrock", "optimizer=sgd", "optimizer.lr=1e-3"]
    quiet([*overrides, "budget.iterations=40"], tmp_path / "run")
    run = back(f"replay={tmp_path / 'run'}", "at=23")
    x, y = torch.load(run.path / "snapshots" / "22.pt")["players"]["x"][0].tolist()
    hessian = np.array([[1200 * x * x - 400 * y + 2, -400 * x], [-400 * x, 200.0]])
    rows = run.measurements.to_pylist()
    found = {row["quantity"]: row["value"] for row in rows if row["probe"] == "curvature"}
    assert found["lambda_max"] == pytest.approx(np.linalg.eigvalsh(hessian)[-1], rel=1e-9)
    assert {row["update"] for row in rows if row["probe"] == "curvature"} == {23}


def test_a_replay_goes_through_the_update_that_failed(tmp_path):
    """What a diverging run did at its last update is what one goes back for."""
    overrides = ["problem=landscape/rosenbrock", "optimizer=sgd", "optimizer.lr=0.5"]
    with pytest.raises(RunFailed):
        quiet(overrides, tmp_path / "run")
    last = max(row["update"] for row in load(tmp_path / "run").gradients.to_pylist())
    run = back(f"replay={tmp_path / 'run'}", f"at={last - 1}")
    assert run.manifest["status"] == "finished"
    assert run.manifest["replay"]["equal"] == 1


def test_a_replay_that_is_not_the_original_says_so(tmp_path):
    quiet([*TINY["supervised"], *BUDGET], tmp_path / "run")
    directory = RunDirectory.open(tmp_path / "run")
    config = directory.read_config()
    directory.write_config({**config, "seed": config["seed"] + 1})
    with pytest.raises(RunFailed, match="2 of 2 gradient norms are not those of"):
        back(f"replay={tmp_path / 'run'}", "at=3")


def test_direction_is_left_out_where_its_past_is_missing(tmp_path):
    quiet([*TINY["supervised"], *BUDGET], tmp_path / "run")
    run = back(f"replay={tmp_path / 'run'}", "at=11")
    assert run.manifest["replay"]["from"] == 8
    assert "direction" not in run.measurements["probe"].to_pylist()
    run = back(f"replay={tmp_path / 'run'}", "at=11", "probes.direction.every=1", "probes=full")
    assert run.manifest["replay"]["from"] == 0
    rows = [row for row in run.measurements.to_pylist() if row["quantity"] == "distance"]
    assert {row["iteration"] for row in rows} == {11}
    values = [torch.load(tmp_path / f"run/snapshots/{n}.pt")["players"]["model"] for n in (0, 8)]
    assert rows[0]["value"] != pytest.approx(float((values[1] - values[0])[0].norm()))
    after = torch.load(run.path / "snapshots" / "11.pt")["players"]["model"]
    whole = [row["value"] for row in rows if row["tensor"] == ""]
    assert whole == pytest.approx((after - values[0]).norm(dim=1).tolist(), rel=1e-6)


@pytest.mark.parametrize("domain", SPREAD)
def test_a_fork_without_a_difference_is_the_original(domain, tmp_path):
    """Records, checkpoint and snapshots: the oracle is the run that nobody forked."""
    original = quiet([*TINY[domain], *BUDGET], tmp_path / "run")
    ends = updates(original)
    at = chance(len(domain) + 1).randint(1, ends[-1][1])
    rate = original.config["optimizer"]["lr"]
    run = back(f"fork={tmp_path / 'run'}", f"at={at}", f"optimizer.lr={rate}")
    assert_same(final(original), final(run))
    assert_same_records(original, run)
    assert run.snapshots == original.snapshots


@pytest.mark.parametrize("domain", SPREAD)
def test_a_fork_differs_from_the_update_on(domain, tmp_path):
    original = quiet([*TINY[domain], *BUDGET], tmp_path / "run")
    before = tree(tmp_path / "run")
    ends = updates(original)
    at = ends[6][1]  # the last update of the sixth iteration
    run = back(f"fork={tmp_path / 'run'}", f"at={at}", CHANGE[domain])
    assert run.manifest["status"] == "finished"
    start = ends[5][1]
    same = [norms_of(original, i) == norms_of(run, i) for i in range(1, 13)]
    assert all(same[:5])
    assert not same[-1]
    assert updates(run)[5] == (5, start)
    assert tree(tmp_path / "run") == before
    told = run.manifest["fork"]
    assert (told["from"], told["changes"]) == (5, [CHANGE[domain]])


def test_the_comparison_is_the_paired_t_interval(tmp_path):
    original = quiet([*TINY["supervised"], *BUDGET[:-1], "members=4"], tmp_path / "run")
    run = back(f"fork={tmp_path / 'run'}", "at=3", "optimizer.lr=1e-3")
    name = original.manifest["main_metric"]
    difference = run.metric(name)[1][-1] - original.metric(name)[1][-1]
    half = 3.182 * difference.std(ddof=1) / math.sqrt(4)
    mean = difference.mean()
    found = run.manifest["fork"]["comparison"]
    assert found["difference"] == pytest.approx([mean, mean - half, mean + half])
    assert found["iterations"] == [12, 12]


def test_a_fork_resumes_and_is_replayed_from_where_it_began(tmp_path):
    quiet([*TINY["supervised"], *BUDGET], tmp_path / "run")
    run = back(f"fork={tmp_path / 'run'}", "at=3", "optimizer.lr=1e-3", "optimizer.clip_norm=0.1")
    assert run.config["optimizer"]["clip_norm"] == 0.1
    again = back(f"replay={run.path}", "at=6")
    assert again.manifest["replay"]["from"] == 2
    assert again.manifest["replay"]["equal"] == 2
    with pytest.raises(ConfigError, match=f"begins later; go back in {tmp_path / 'run'}"):
        back(f"replay={run.path}", "at=2")
    longer = back(f"resume={run.path}", "budget.iterations=14")
    assert longer.manifest["status"] == "finished"
    with pytest.raises(ConfigError, match="is a replay"):
        back(f"fork={again.path}", "at=3", "optimizer.lr=1")
    with pytest.raises(ConfigError, match="replay again"):
        back(f"resume={again.path}", "budget.iterations=20")


def test_a_fork_to_another_optimizer_begins_its_state_anew(tmp_path):
    quiet([*TINY["supervised"], *BUDGET], tmp_path / "run")
    run = back(f"fork={tmp_path / 'run'}", "at=5", "optimizer=adam", "optimizer.lr=1e-2")
    rows = [r for r in run.gradients.to_pylist() if r["tap"] == "update" and r["tensor"] == ""]
    assert {r["learning_rate"] for r in rows if r["iteration"] > 4} == {np.float32(1e-2)}
    assert final(run)["players"]["model"]["optimizer"]["count"] == 8


def test_a_clip_more_costs_no_moments():
    like = torch.zeros(2, 3)
    old = Optimizer(Adam(), like)
    old.step(torch.ones(2, 3), like)
    new = Optimizer(Adam(clip_norm=1.0), like)
    state = adopted(new, old.kinds, old.state())
    assert state["count"] == 1
    assert state["links"][0] == {}
    assert_same(state["links"][1], old.state()["links"][0])
    state = adopted(Optimizer(Momentum(), like), old.kinds, old.state())
    assert state["count"] == 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["replay=nowhere", "at=3"], "replay=nowhere: no such run"),
        (["replay=RUN"], "needs an update"),
        (["at=3"], "needs a run"),
        (["replay=RUN", "at=0"], "at least 1"),
        (["replay=RUN", "at=1.5"], "whole number"),
        (["replay=RUN", "at=13"], "at=13: .* made 12 updates"),
        (["replay=RUN", "at=3", "optimizer.lr=1"], "a replay takes probes"),
        (["replay=RUN", "fork=RUN", "at=3"], "one run"),
        (["replay=RUN", "at=3", "resume=RUN"], "not together"),
        (["replay=RUN", "at=3", "run_dir=RUN"], "not empty"),
        (["fork=RUN", "at=3"], "what is to change"),
        (["fork=RUN", "at=3", "seed=1"], "a fork takes optimizer"),
        (["fork=RUN", "at=3", "problem.widths=[4]"], "a fork takes optimizer"),
        (["fork=RUN", "at=3", "optimizer.lrr=1"], "did you mean lr"),
        (["fork=RUN", "at=3", "optimizer.momentum=0.5"], "varies between the members"),
        (["fork=RUN", "at=3", "penalty.r1=1"], "has no penalty"),
    ],
)
def test_what_is_refused(overrides, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    vary = ["members=1", "vary.optimizer.momentum=[0.5,0.9]"]
    quiet([*TINY["supervised"], *BUDGET[:-1], *vary], tmp_path / "RUN")
    with pytest.raises(ConfigError, match=message):
        back(*overrides)
    assert [p.name for p in tmp_path.iterdir()] == ["RUN"]


def test_a_run_that_cannot_be_repeated_is_refused(tmp_path):
    quiet([*TINY["supervised"], *BUDGET], tmp_path / "run")
    RunDirectory.open(tmp_path / "run").update_manifest(resume="statistical")
    with pytest.raises(ConfigError, match="cannot be repeated bit for bit"):
        back(f"replay={tmp_path / 'run'}", "at=3")
