"""Invariant 2: a run that was stopped and resumed equals one that never stopped."""

import json
import signal

import pytest
from harness import (
    TINY,
    Planted,
    assert_same,
    assert_same_records,
    final,
    quiet,
    resume,
    rows,
    stop,
)

import playground
from playground.schema import ConfigError

pytestmark = pytest.mark.usefixtures("without_figures")

SPARSE = ["checkpoint.every=100", "evaluate.every=3", "probes.every=2"]
"""No checkpoint but the one at the signal, so that tier 0 flushes at different moments."""


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("domain", TINY)
def test_stopped_and_resumed_equals_uninterrupted(domain, members, tmp_path):
    overrides = [*TINY[domain], *SPARSE, "budget.iterations=10", f"members={members}"]
    whole = quiet(overrides, tmp_path / "whole")
    stop(overrides, tmp_path / "parts", 5)
    parts = resume(tmp_path / "parts")
    assert parts.manifest["status"] == "finished"
    assert_same(final(whole), final(parts))
    assert_same_records(whole, parts)


def test_several_stops_by_both_signals(tmp_path):
    overrides = [*TINY["supervised"], *SPARSE, "budget.iterations=12"]
    whole = quiet(overrides, tmp_path / "whole")
    stop(overrides, tmp_path / "parts", 1, signal.SIGTERM)
    for at in (2, 7, 11):
        stop([], tmp_path / "parts", at, signal.SIGTERM, new=False)
    parts = resume(tmp_path / "parts")
    assert_same(final(whole), final(parts))
    assert_same_records(whole, parts)
    assert len(parts.manifest["attempts"]) == 5


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_schedules_go_on_where_they_were(schedule, tmp_path):
    overrides = [
        *TINY["landscape"], *SPARSE, "budget.iterations=10", "optimizer=adam",
        f"optimizer.schedule={schedule}", "optimizer.warmup=7",
    ]  # fmt: skip
    whole = quiet(overrides, tmp_path / "whole")
    stop(overrides, tmp_path / "parts", 4)
    parts = resume(tmp_path / "parts")
    assert_same(final(whole), final(parts))
    assert_same_records(whole, parts)


@pytest.mark.parametrize("optimizer", ["rmsprop", "amsgrad", "adagrad", "nesterov"])
def test_vary_and_members(optimizer, tmp_path):
    overrides = [
        *TINY["supervised"][:5], *SPARSE, "budget.iterations=8", "members=2",
        f"optimizer={optimizer}", "vary.optimizer.lr=[1e-3,1e-2]",
        "vary.optimizer.weight_decay=[0.0,1e-2]",
    ]  # fmt: skip
    whole = quiet(overrides, tmp_path / "whole")
    stop(overrides, tmp_path / "parts", 3)
    parts = resume(tmp_path / "parts")
    assert final(whole)["players"]["model"]["parameters"].shape[0] == 8
    assert_same(final(whole), final(parts))
    assert_same_records(whole, parts)


def test_torch_classes(tmp_path):
    overrides = [
        *TINY["supervised"][:5], *SPARSE, "budget.iterations=8", "members=2", "optimizer=torch",
        "optimizer.class_name=NAdam",
    ]  # fmt: skip
    whole = quiet(overrides, tmp_path / "whole")
    stop(overrides, tmp_path / "parts", 3)
    assert_same(final(whole), final(resume(tmp_path / "parts")))


@pytest.mark.parametrize("domain", ["landscape", "supervised", "gan"])
def test_a_larger_budget_equals_a_longer_run(domain, tmp_path):
    """Cadences are given: null ones are a share of the first budget."""
    overrides = [*TINY[domain], *SPARSE]
    whole = quiet([*overrides, "budget.iterations=12"], tmp_path / "whole")
    quiet([*overrides, "budget.iterations=6"], tmp_path / "parts")
    parts = resume(tmp_path / "parts", "budget.iterations=12")
    left, right = final(whole), final(parts)
    assert_same(left, right)
    assert_same_records(whole, parts)


@pytest.mark.parametrize(
    "overrides",
    [
        [*TINY["landscape"], "optimizer=adam", "optimizer.schedule=linear"],
        [*TINY["landscape"], "optimizer@players.x=sgd", "players.x.schedule=cosine"],
        [*TINY["ppo"], "optimizer.schedule=constant"],  # its clip range anneals
    ],
)
def test_a_larger_budget_is_refused_where_something_anneals(overrides, tmp_path):
    quiet([*overrides, "budget.iterations=2"], tmp_path / "run")
    before = sorted(p.name for p in (tmp_path / "run").rglob("*"))
    with pytest.raises(ConfigError, match="anneals over the budget"):
        resume(tmp_path / "run", "budget.iterations=4")
    assert sorted(p.name for p in (tmp_path / "run").rglob("*")) == before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "is finished"),
        (["budget.iterations=4"], "is finished"),
        (["budget.iterations=3"], "smaller"),
        (["budget.updates=9"], "budget is in iterations"),
        (["optimizer.lr=1"], "takes budget"),
        (["seed=1"], "takes budget"),
        (["members=2"], "takes budget"),
        (["evaluate.nothing=1"], "takes budget"),
        (["budget.iterations=many"], "must be a number"),
    ],
)
def test_what_resume_refuses(overrides, message, tmp_path):
    quiet([*TINY["dirac"], "budget.iterations=4"], tmp_path / "run")
    with pytest.raises(ConfigError, match=message):
        resume(tmp_path / "run", *overrides)


def test_a_missing_run_is_an_error_of_the_command(tmp_path):
    with pytest.raises(ConfigError, match="no such run"):
        resume(tmp_path / "nowhere")


def test_a_run_killed_before_its_first_checkpoint_starts_again(tmp_path, monkeypatch):
    overrides = [*TINY["supervised"], *SPARSE, "budget.iterations=8"]
    whole = quiet(overrides, tmp_path / "whole")

    def die(session):
        session.flush()  # records without a checkpoint
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr("playground.session.Session.save", die)
        with pytest.raises(SystemExit):
            quiet(overrides, tmp_path / "parts")
    assert not list((tmp_path / "parts" / "checkpoints").iterdir())
    parts = resume(tmp_path / "parts")
    assert_same(final(whole), final(parts))
    assert_same_records(whole, parts)


def test_a_frozen_member_stays_frozen(tmp_path):
    problem = {"problem": Planted({(3, 1, "b"): float("nan")})}
    overrides = ["optimizer=adam", "members=3", "budget.iterations=10", *SPARSE]
    whole = quiet(overrides, tmp_path / "whole", **problem)
    stop(overrides, tmp_path / "parts", 5, **problem)
    parts = resume(tmp_path / "parts", **problem)
    assert final(parts)["engine"]["frozen"] == [False, True, False]
    assert_same(final(whole), final(parts))
    assert_same_records(whole, parts)
    assert len(rows(parts, "events")) == 1


def test_all_members_frozen_before_and_after_a_stop(tmp_path):
    from playground.session import RunFailed

    faults = {(3, 0, "a"): float("inf"), (15, 1, "b"): float("nan")}
    problem = Planted(faults)
    overrides = ["members=2", "budget.iterations=20", *SPARSE]
    stop(overrides, tmp_path / "run", 4, problem=problem)
    with pytest.raises(RunFailed, match="every member"):
        resume(tmp_path / "run", problem=problem)


def test_a_problem_of_ones_own_must_be_given_again(tmp_path):
    stop(["budget.iterations=6"], tmp_path / "run", 2, problem=Planted())
    with pytest.raises(ConfigError, match="problem="):
        resume(tmp_path / "run")


def test_tensors_in_another_order_are_refused(tmp_path):
    """Parameters are saved without names: swapped, tensors of equal size would load silently."""
    constant = ["optimizer.schedule=constant", "algorithm.clip_schedule=constant"]
    run = quiet([*TINY["ppo"], *constant, "budget.iterations=1"], tmp_path / "run")
    manifest = json.loads((run.path / "manifest.json").read_text())
    tensors = manifest["tensors"]["agent"]
    manifest["tensors"]["agent"] = tensors[::-1]
    (run.path / "manifest.json").write_text(json.dumps(manifest))
    for go_on in (
        lambda: resume(run.path, "budget.iterations=2"),
        lambda: playground.load(run.path).player("agent"),
    ):
        with pytest.raises(ConfigError, match="the run has the tensors value"):
            go_on()
