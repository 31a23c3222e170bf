"""Run folders of release 0.1.1: they load, report, diagnose, resume, replay and fork."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from harness import final

import playground
from playground.__main__ import command
from playground.schema import ConfigError

DATA = Path(__file__).parent / "data" / "v0.1.1"
RUNS = ("ppo", "ring", "sweep/0", "watched")

pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.fixture
def old(tmp_path):
    """A copy, to be written to."""
    return Path(shutil.copytree(DATA, tmp_path / "old"))


def test_they_are_small():
    assert sum(file.stat().st_size for file in DATA.rglob("*") if file.is_file()) <= 300_000


@pytest.mark.parametrize("name", RUNS)
def test_records_are_read_as_they_were_written(name):
    run = playground.load(DATA / name)
    assert run.manifest["status"] == "finished"
    assert run.manifest["versions"]["gradient-playground"] == "0.1.1"
    iterations, values = run.metric(run.manifest["main_metric"])
    assert len(iterations) >= 2
    assert np.isfinite(values).all()
    assert run.gradients.num_rows > 0
    assert run.config


def test_the_watched_loop_s_losses_are_those_of_the_loop_alone():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        x = torch.randn(16, 3)
        loss = torch.nn.functional.cross_entropy(net(x), x[:, :2].argmax(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    found = playground.load(DATA / "watched").metric("loss")[1][:, 0]
    assert found == pytest.approx(losses, rel=1e-4)  # written on another machine


def test_the_sweep_has_its_runs():
    sweep = playground.load(DATA / "sweep")
    assert [row["status"] for row in sweep.runs] == ["finished", "finished"]
    assert [run.config["optimizer"]["lr"] for run in sweep.children] == [0.01, 0.1]


@pytest.mark.parametrize("name", ["ppo", "ring", "watched"])
def test_figures_and_findings(old, name):
    run = playground.load(old / name)
    assert run.figure("overview").stat().st_size > 10_000
    for finding in playground.diagnose(run):
        assert finding.rule


def test_the_sweep_is_reported(old):
    from playground.report.comparison.report import report

    assert report([old / "sweep"], old / "out")


@pytest.mark.parametrize("name", ["ppo", "ring"])
def test_a_run_goes_on_from_an_earlier_checkpoint(old, name):
    path = old / name
    for file in (path / "checkpoints").glob("8.*"):
        file.unlink()
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"status": "running"}))
    before = final(playground.load(DATA / name))["engine"]["updates"]
    run = playground.run([f"resume={path}"], quiet=True)
    assert run.manifest["status"] == "finished"
    assert final(run)["engine"]["updates"] == before
    assert run.metric(run.manifest["main_metric"])[0][-1] == 8


def test_a_finished_run_goes_on_with_a_larger_budget(old):
    run = playground.run([f"resume={old / 'ring'}", "budget.iterations=10"], quiet=True)
    assert final(run)["session"]["iteration"] == 10


@pytest.mark.parametrize("name", ["ppo", "ring", "sweep/1"])
def test_replay_and_fork(old, name):
    replay = [f"replay={old / name}", "at=3", f"run_dir={old / 'replay'}"]
    assert playground.run(replay, quiet=True).manifest["status"] == "finished"
    fork = [f"fork={old / name}", "at=3", "optimizer.lr=1e-3", f"run_dir={old / 'fork'}"]
    assert playground.run(fork, quiet=True).manifest["status"] == "finished"


@pytest.mark.parametrize("verb", ["resume", "replay", "fork"])
def test_a_watched_loop_is_refused_in_one_line(old, verb):
    extra = [] if verb == "resume" else ["at=3"]
    with pytest.raises(ConfigError, match="a watched loop"):
        playground.run([f"{verb}={old / 'watched'}", *extra], quiet=True)
    assert command([f"{verb}={old / 'watched'}", *extra]) == 2
