"""Event files, read back by TensorBoard's own reader, against the records."""

import random
import signal

import numpy as np
import pytest
import torch
from harness import Command, assert_same, assert_same_records, checkpoints, final, load, quiet
from harness import resume as go_on

import playground
from playground.record.sinks import TensorBoard
from playground.session import Session

from .reading import SMALL_RUN, assert_curves, events, gradients, recorded, single

pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.fixture(scope="module")
def ppo(tmp_path_factory):
    """A run of two members, and the same run without a sink."""
    folder = tmp_path_factory.mktemp("ppo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("playground.report.draw_all", lambda run: [])
        plain = quiet(SMALL_RUN["ppo"], folder / "plain")
        before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
        run = quiet([*SMALL_RUN["ppo"], "sinks=[tensorboard]"], folder / "run")
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])
    return plain, run


def test_training_is_bit_for_bit_the_same(ppo):
    plain, run = ppo
    assert_same(final(plain), final(run))
    assert_same_records(plain, run)


@pytest.mark.parametrize("member", [0, 1])
def test_metrics_are_those_of_the_records_at_environment_steps(ppo, member):
    run = ppo[1]
    found = events(run.path / "tensorboard" / f"member-{member}")
    assert_curves(found, single(recorded(run, member, "env_steps")))
    assert len(found["return"]) == 5
    assert found["return"][-1][0] == 12 * 64


def test_gradients_are_means_over_an_iterations_updates(ppo):
    run = ppo[1]
    found = events(run.path / "tensorboard" / "member-1")
    wanted = gradients(run, 1)
    assert len({name for _, name in wanted}) == 6 + 1 + 10  # of gradient, clipped, update
    for (iteration, name), values in wanted.items():
        largest = name.endswith(("max_abs", "nonfinite"))
        expected = max(values) if largest else np.mean(values)
        assert dict(found[name])[64 * iteration] == pytest.approx(expected, rel=2e-7), name
    norms = {i: max(v) for (i, name), v in wanted.items() if name == "agent/gradient/norm"}
    assert len(norms) == 12
    assert dict(found["agent/gradient/norm_max"]) == {64 * i: v for i, v in norms.items()}


def test_nothing_else_is_written(ppo):
    run = ppo[1]
    ours = set(recorded(run, 0)) | {name for _, name in gradients(run, 0)}
    ours |= {"agent/gradient/norm_max", "agent/update/norm_max"}
    for row in run.measurements.to_pylist():
        if not row["tensor"]:
            ours.add(f"{row['player']}/{row['probe']}/{row['quantity']}")
    theirs = set(events(run.path / "tensorboard" / "member-0")) - ours
    assert theirs == {
        "charts/SPS", "charts/learning_rate", "charts/episodic_return", "losses/clipfrac",
        "losses/explained_variance",
        "time/fps", "rollout/ep_rew_mean", "eval/mean_reward", "eval/mean_ep_length",
        "train/learning_rate", "train/explained_variance", "train/policy_gradient_loss",
        "train/value_loss", "train/entropy_loss", "train/clip_fraction", "train/approx_kl",
    }  # fmt: skip


def test_one_track_has_no_folder_of_its_own_and_its_step_is_the_iteration(tmp_path):
    run = quiet([*SMALL_RUN["gan"], "sinks=[tensorboard]"], tmp_path / "run")
    found = events(tmp_path / "run" / "tensorboard")
    assert_curves(found, single(recorded(run, 0)))
    assert {"generator/gradient/norm", "discriminator/loss", "modes"} <= set(found)
    assert not {name for name in found if name.startswith(("charts/", "train/", "rollout/"))}


def test_tensors_that_are_asked_for(tmp_path):
    run = quiet(
        [*SMALL_RUN["gan"], "sinks=[tensorboard]", "sinks.tensors=['*.weight']"], tmp_path / "run"
    )
    found = events(tmp_path / "run" / "tensorboard")
    per_tensor = {name for name in found if name.endswith((".weight", ".bias"))}
    wanted = {
        f"{row['player']}/{row['tap']}/norm/{row['tensor']}"
        for row in run.gradients.to_pylist()
        if row["tensor"].endswith("weight")
    }
    assert {name for name in per_tensor if "/norm/" in name} == wanted
    assert not {name for name in per_tensor if name.endswith("bias")}


def test_means_of_members_with_the_same_values(tmp_path):
    run = quiet(
        ["problem=supervised/two_moons", "problem.widths=[8]", "members=3",
         "vary.optimizer.lr=[1e-3,1e-2]", "budget.iterations=10", "evaluate.every=5",
         "sinks=[tensorboard]", "sinks.members=mean"], tmp_path / "run",
    )  # fmt: skip
    folders = sorted(path.name for path in (run.path / "tensorboard").iterdir())
    assert folders == ["optimizer.lr=0.001", "optimizer.lr=0.01"]
    iterations, accuracy = run.metric("accuracy")
    for place, folder in enumerate(folders):
        curve = events(run.path / "tensorboard" / folder)["accuracy"]
        mean = accuracy[:, 3 * place : 3 * place + 3].mean(axis=1)
        assert [step for step, _ in curve] == iterations.tolist()
        np.testing.assert_allclose([value for _, value in curve], mean, rtol=1e-6)


def test_a_failed_run_that_goes_on_has_every_step_once(tmp_path, monkeypatch):
    overrides = [*SMALL_RUN["ppo"], "sinks=[tensorboard]"]
    real = Session.iterate

    def iterate(session):
        if session.iteration == 7:
            raise RuntimeError("planted")
        real(session)

    monkeypatch.setattr(Session, "iterate", iterate)
    with pytest.raises(RuntimeError, match="planted"):
        quiet(overrides, tmp_path / "run")
    monkeypatch.undo()
    monkeypatch.setattr("playground.report.draw_all", lambda run: [])
    before = events(tmp_path / "run" / "tensorboard" / "member-0")
    assert before["agent/loss"][-1][0] == 7 * 64  # beyond the checkpoint of iteration 4
    run = go_on(tmp_path / "run")
    for member in (0, 1):
        found = events(run.path / "tensorboard" / f"member-{member}")
        assert_curves(found, single(recorded(run, member, "env_steps")))


@pytest.mark.slow
def test_a_killed_run_that_goes_on_has_every_step_once(tmp_path):
    overrides = [*SMALL_RUN["gan"], "sinks=[tensorboard]", "budget.iterations=400",
                 "checkpoint.every=20", "evaluate.every=500"]  # fmt: skip
    path = tmp_path / "run"
    command = Command([*overrides, f"run_dir={path}"], tmp_path / "log")
    command.until(lambda: checkpoints(path) >= 60 and bool(list(path.rglob("*tfevents*"))))
    command.signal(signal.SIGKILL).wait()
    assert load(path).manifest["status"] == "running"
    run = go_on(path)
    assert_curves(events(path / "tensorboard"), single(recorded(run, 0)))


def test_a_sink_that_joins_a_resumed_run_gets_all_of_it(tmp_path):
    quiet(SMALL_RUN["gan"], tmp_path / "run")
    assert not (tmp_path / "run" / "tensorboard").exists()
    run = go_on(tmp_path / "run", "budget.iterations=20", "sinks=[tensorboard]")
    found = events(tmp_path / "run" / "tensorboard")
    assert_curves(found, single(recorded(run, 0)))
    assert [step for step, _ in found["generator/loss"]] == list(range(1, 21))
    run = go_on(tmp_path / "run", "budget.iterations=22", "sinks=[]")
    assert events(tmp_path / "run" / "tensorboard") == found


def test_a_fork_has_its_own_past(tmp_path):
    quiet([*SMALL_RUN["gan"], "sinks=[tensorboard]"], tmp_path / "run")
    fork = playground.run(
        [f"fork={tmp_path / 'run'}", "at=6", "optimizer.lr=1e-3", f"run_dir={tmp_path / 'fork'}"],
        quiet=True,
    )
    assert_curves(events(tmp_path / "fork" / "tensorboard"), single(recorded(fork, 0)))


def test_a_replay_is_not_mirrored(tmp_path):
    quiet([*SMALL_RUN["gan"], "sinks=[tensorboard]"], tmp_path / "run")
    replay = playground.run(
        [f"replay={tmp_path / 'run'}", "at=6", f"run_dir={tmp_path / 'replay'}"], quiet=True
    )
    assert not (tmp_path / "replay" / "tensorboard").exists()
    assert "sinks" not in replay.manifest


def test_a_folder_for_all_runs_and_events_as_text(tmp_path):
    for name in ("a", "b"):
        quiet(
            [*SMALL_RUN["gan"], "sinks=[tensorboard]", f"sinks.tensorboard.dir={tmp_path / 'all'}"],
            tmp_path / name,
        )
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["a", "b"]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(tmp_path / "all" / "a"))
    reader.Reload()
    (config,) = reader.Tensors("config")
    assert "name: gan/ring" in config.tensor_proto.string_val[0].decode()


def test_events_of_another_run_are_never_written_to(tmp_path):
    overrides = [*SMALL_RUN["gan"], "sinks=[tensorboard]",
                 f"sinks.tensorboard.dir={tmp_path / 'all'}"]  # fmt: skip
    first = quiet(overrides, tmp_path / "one" / "run")
    before = events(tmp_path / "all" / "run")
    second = quiet(overrides, tmp_path / "two" / "run")
    assert events(tmp_path / "all" / "run") == before
    assert "closed" not in first.manifest["sinks"]["tensorboard"]
    assert "another run" in second.manifest["sinks"]["tensorboard"]["error"]


def test_a_plain_reader_needs_no_playground(tmp_path):
    """A file has the header and one event a point, whatever reads it."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    run = quiet([*SMALL_RUN["gan"], "sinks=[tensorboard]"], tmp_path / "run")
    (file,) = (run.path / "tensorboard").iterdir()
    content = list(EventFileLoader(str(file)).Load())
    assert content[0].file_version == "brain.Event:2"
    steps = [event.step for event in content if event.HasField("summary")][1:]  # after config
    assert steps == sorted(steps)
    assert isinstance(TensorBoard().dir, type(None))
