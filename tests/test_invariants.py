"""The invariants of the design, section 6, one block each; 2 is in test_resume.py, 5 in every
estimator's own tests, 10 in test_bad_input.py where the command is tested."""

import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from harness import (
    TINY,
    Command,
    Planted,
    assert_same,
    assert_same_records,
    chance,
    checkpoints,
    final,
    first_round,
    load,
    loop,
    quiet,
    resume,
    rows,
)

import playground
from playground.engine import Engine
from playground.session import RunFailed, Session

SHORT = ["budget.iterations=4", "checkpoint.every=2"]


# 1. Same config, machine and threads: the same parameters, whatever the probes


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("domain", TINY)
def test_probes_change_nothing(domain, tmp_path):
    found = {}
    for probes in ("none", "light", "standard", "full"):
        overrides = [*TINY[domain], *SHORT, f"probes={probes}", "members=2"]
        run = quiet(overrides, tmp_path / probes)
        found[probes] = final(run)
        found[probes].pop("probes")
        found[probes].pop("measuring")  # what probes with passes of their own carry
        assert bool(run.gradients.num_rows) == (probes != "none")
    assert_same(found["none"], found["light"])
    assert_same(found["none"], found["standard"])
    assert_same(found["none"], found["full"])


@pytest.mark.parametrize("domain", ["supervised", "ppo"])
def test_two_processes_compute_the_same(domain, tmp_path):
    commands = [
        Command([*TINY[domain], *SHORT, f"run_dir={tmp_path / name}"], tmp_path / f"{name}.log")
        for name in ("a", "b")
    ]
    assert [command.wait() for command in commands] == [0, 0]
    left, right = (load(tmp_path / name) for name in ("a", "b"))
    assert_same(final(left), final(right))
    assert_same_records(left, right)


@pytest.mark.slow
@pytest.mark.parametrize("domain", TINY)
def test_two_interpreters_compute_the_same(domain, tmp_path):
    """Started from nothing, with other hash seeds."""
    for name in ("1", "2"):
        subprocess.run(
            [sys.executable, "-m", "playground", *TINY[domain], *SHORT,
             f"run_dir={tmp_path / name}"], check=True, capture_output=True, cwd=tmp_path,
            env={"PYTHONPATH": str(Path(playground.__file__).parents[1]), "PYTHONHASHSEED": name},
        )  # fmt: skip
    assert_same(final(load(tmp_path / "1")), final(load(tmp_path / "2")))
    assert_same_records(load(tmp_path / "1"), load(tmp_path / "2"))


# 3. Member k is the single run with seed + k

DERIVED = {"log_prob", "value", "advantage", "target"}
"""Entries of a batch that networks computed: equal up to rounding."""


@pytest.mark.parametrize("iterations", [0, 1])
@pytest.mark.parametrize("domain", TINY)
def test_member_k_is_the_single_run(domain, iterations):
    """Its start and first batch, and the batch after one iteration, when streams went on."""
    overrides = [*TINY[domain], *(["dtype=float64"] if iterations else [])]
    many = loop(*overrides, "members=4", "seed=11").iterate(iterations)
    start = {name: value.clone() for name, value in many.values().items()}
    moves = first_round(many)
    together = [many.engine.gradient(move) for move in moves]
    for k in range(4):
        one = loop(*overrides, f"seed={11 + k}").iterate(iterations)
        if not iterations:
            assert_same({n: v[k : k + 1].clone() for n, v in start.items()}, one.values())
        for move, gradient, single in zip(moves, together, first_round(one), strict=True):
            assert move.player == single.player
            for name, value in single.batch.items():
                # Members with longer episodes pad the others', with weight 0.
                mine = move.batch[name][k : k + 1][tuple(slice(0, n) for n in value.shape)]
                if name in DERIVED:
                    assert torch.allclose(mine, value, rtol=1e-5, atol=1e-6), name
                else:
                    assert torch.equal(mine, value), name
                if name in ("weight", "mask"):
                    assert move.batch[name][k].sum() == value.sum()
            alone = one.engine.gradient(single).value[0]
            assert (gradient.value[k] - alone).norm() <= 1e-5 * alone.norm()


@pytest.mark.parametrize("domain", ["landscape", "supervised", "gan"])
def test_every_value_of_vary_is_its_single_run(domain):
    rates = [1e-3, 1e-2, 0.1]
    overrides = [*TINY[domain], "optimizer=adam", "dtype=float64"]
    many = loop(*overrides, f"vary.optimizer.lr={rates}", "members=2", "seed=3")
    many.iterate(3)
    assert [m.seed for m in many.parts.members] == [3, 4] * 3
    for member in many.parts.members:
        rate = member.values["optimizer.lr"]
        assert rate == rates[member.index // 2]
        one = loop(*overrides, f"optimizer.lr={rate}", f"seed={member.seed}").iterate(3)
        for name, value in one.values().items():
            mine = many.values()[name][member.index]
            assert torch.allclose(mine, value[0], rtol=1e-9, atol=1e-11)


@pytest.mark.usefixtures("without_figures")
def test_several_keys_of_vary_are_a_product(tmp_path):
    run = quiet(
        [*TINY["supervised"][:5], "vary.optimizer.lr=[0.1,0.2]", "vary.optimizer.beta1=[0.5,0.9]",
         "members=2", "budget.iterations=1"], tmp_path / "run",
    )  # fmt: skip
    values = [tuple(m["values"].values()) for m in run.members]
    assert values[::2] == [(0.1, 0.5), (0.1, 0.9), (0.2, 0.5), (0.2, 0.9)]
    assert values[::2] == values[1::2]
    assert [m["seed"] for m in run.members] == [0, 1] * 4


# 4. kill -9 at any moment

ENDLESS = [
    *TINY["game"], "budget.iterations=300", "checkpoint.every=10", "evaluate.every=60",
    "members=2",
]  # fmt: skip


def kill_and_resume(tmp_path, seed, kills):
    """A run killed at random moments until it is allowed to end."""
    moment, path, start = chance(seed), tmp_path / "run", [*ENDLESS, f"run_dir={tmp_path / 'run'}"]
    for attempt in range(kills):
        command = Command(start, tmp_path / f"{attempt}.log")
        before = checkpoints(path)
        target = before + moment.choice([0, 10, 30, 50])
        while checkpoints(path) <= target and command.process.exitcode is None:
            command.process.join(0.002)
        # within about one checkpoint, so that many die while they save
        command.process.join(moment.uniform(0.0, 0.03))
        command.signal(signal.SIGKILL)
        assert command.wait() in (-9, 0), command.output()
        assert_whole(load(path), checkpoints(path))
        start = [f"resume={path}"]
        if load(path).manifest["status"] == "finished":
            break
    return path, start


def assert_whole(run, checkpoint):
    """No gap and no duplicate up to the checkpoint: a row an update and member."""
    table = run.gradients.select(["update", "member", "player", "tap", "tensor"]).to_pylist()
    norms = Counter(
        (r["player"], r["member"], r["update"])
        for r in table
        if r["tap"] == "gradient" and r["tensor"] == ""
    )
    assert not norms or set(norms.values()) == {1}
    for player in ("x", "y"):
        for member in (0, 1):
            updates = sorted(u for p, m, u in norms if (p, m) == (player, member))
            assert updates == list(range(1, len(updates) + 1))
            assert len(updates) >= checkpoint
    everything = rows(run, "metrics")
    assert len(set(everything)) == len(everything)


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_kill_at_random_moments(tmp_path):
    path, start = kill_and_resume(tmp_path, seed=0, kills=3)
    if load(path).manifest["status"] != "finished":
        assert Command(start, tmp_path / "last.log").wait() == 0
    whole = quiet(ENDLESS, tmp_path / "whole")
    assert_same(final(whole), final(load(path)))
    assert_same_records(whole, load(path))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.usefixtures("without_figures")
def test_kill_at_many_more_moments(seed, tmp_path):
    path, start = kill_and_resume(tmp_path, seed, kills=10)
    if load(path).manifest["status"] != "finished":
        assert Command(start, tmp_path / "last.log").wait() == 0
    whole = quiet(ENDLESS, tmp_path / "whole")
    assert_same(final(whole), final(load(path)))
    assert_same_records(whole, load(path))


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("probes", ["none", "light"])
def test_records_reach_the_disk_without_a_checkpoint(probes, tmp_path, monkeypatch):
    """What a kill may lose is a flush interval, here none, whatever feeds the records."""
    monkeypatch.setattr("playground.session.FLUSH_SECONDS", 0.0)
    real, seen = Session.iterate, []

    def iterate(session):
        real(session)
        seen.append((session.iteration, load(session.directory.path).metric("loss", "x")[0]))

    monkeypatch.setattr(Session, "iterate", iterate)
    overrides = [*TINY["landscape"], "checkpoint.every=100", "budget.iterations=4"]
    quiet([*overrides, f"probes={probes}"], tmp_path / "run")
    for iteration, written in seen[:-1]:
        assert written.tolist() == list(range(1, iteration + 1))


# 6. Non-finite values are counted and named, never dropped, never applied


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("seed", range(6))
def test_a_planted_fault_is_named_and_not_applied(seed, tmp_path):
    draw = chance(seed)
    update, member = draw.randint(1, 12), draw.randrange(3)
    tensor, value = draw.choice("ab"), draw.choice([float("nan"), float("inf"), -float("inf")])
    overrides = [
        "members=3", "budget.iterations=8", "checkpoint.every=1", "probes=standard",
        f"optimizer={draw.choice(['sgd', 'adam', 'nesterov'])}",
    ]  # fmt: skip
    clean = final(quiet(overrides, tmp_path / "clean", Planted()))["players"]["x"]
    run = quiet(overrides, tmp_path / "fault", Planted({(update, member, tensor): value}))
    found = final(run)
    assert found["engine"]["frozen"] == [k == member for k in range(3)]
    others = [k for k in range(3) if k != member]
    mine = found["players"]["x"]
    assert_same(clean["parameters"][others].clone(), mine["parameters"][others].clone())
    for left, right in zip(clean["optimizer"]["links"], mine["optimizer"]["links"], strict=True):
        assert_same({k: v[others].clone() for k, v in left.items()},
                    {k: v[others].clone() for k, v in right.items()})  # fmt: skip
    (event,) = (e for e in run.events.to_pylist() if e["kind"] != "diagnosis")
    assert (event["kind"], event["member"]) == ("nonfinite", member)
    assert f"gradient of {tensor} (player x, member {member}, update {update}," in event["message"]
    before = [r for r in run.gradients.to_pylist()
              if (r["update"], r["member"], r["tap"]) == (update, member, "gradient")]  # fmt: skip
    counts = {r["tensor"]: r["nonfinite"] for r in before}
    assert counts == {"": 1.0, tensor: 1.0, "ab".replace(tensor, ""): 0.0}
    assert torch.isfinite(mine["parameters"]).all()


@pytest.mark.usefixtures("without_figures")
def test_a_fault_leaves_the_last_good_state(tmp_path):
    """Under raise: the checkpoint before the fault equals a run that ended there."""
    overrides = ["checkpoint.every=1", "optimizer=adam"]
    fault = Planted({(7, 0, "b"): float("nan")})  # the first update of iteration 4
    with pytest.raises(RunFailed, match=r"gradient of b \(player x, member 0, update 7"):
        quiet([*overrides, "budget.iterations=9"], tmp_path / "fault", fault)
    run = load(tmp_path / "fault")
    assert run.manifest["status"] == "failed"
    assert "update 7" in run.manifest["reason"]
    good = final(quiet([*overrides, "budget.iterations=3"], tmp_path / "good", Planted()))
    assert_same(good["players"], final(run)["players"])
    assert run.metric("loss", "x")[0].tolist() == [1, 2, 3, 4]


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("policy", ["raise", "freeze"])
def test_policies(policy, tmp_path):
    fault = Planted({(3, 1, "a"): float("inf")})
    overrides = ["members=2", "budget.iterations=4", f"on_nonfinite={policy}"]
    if policy == "freeze":
        run = quiet(overrides, tmp_path / "run", fault)
        assert run.manifest["status"] == "finished"
    else:
        with pytest.raises(RunFailed, match="member 1"):
            quiet(overrides, tmp_path / "run", fault)


@pytest.mark.usefixtures("without_figures")
def test_large_but_finite_is_not_mistaken(tmp_path):
    large = Planted({(3, 0, "a"): 3e38, (4, 0, "b"): -3e38})
    run = quiet(["optimizer=adam", "budget.iterations=4"], tmp_path / "run", large)
    assert run.manifest["status"] == "finished"
    assert run.events.num_rows == 0
    assert torch.isfinite(final(run)["players"]["x"]["parameters"]).all()


# 8. No host synchronisation per tensor

FETCHES = ("item", "cpu", "tolist", "numpy", "__bool__", "__float__", "__int__")


def fetches(overrides, iterations=3):
    """How often values are fetched during updates and at the flush: two counters."""
    made = loop(*overrides).iterate()
    made.norms.flush()
    count: Counter[str] = Counter()
    play, flush, inside = Engine.play, made.norms.flush, []

    def watched(*arguments):
        inside.append(1)
        try:
            return play(*arguments)
        finally:
            inside.pop()

    with pytest.MonkeyPatch.context() as patch:
        for name in FETCHES:
            real = getattr(torch.Tensor, name)

            def fetch(tensor, *arguments, real=real, name=name, **options):
                if inside:
                    count[name] += 1
                return real(tensor, *arguments, **options)

            patch.setattr(torch.Tensor, name, fetch)
        patch.setattr(Engine, "play", watched)
        before = sum(made.engine.updates[n][0] for n in made.players)
        made.iterate(iterations)
        updates = sum(made.engine.updates[n][0] for n in made.players) - before
        during = Counter(count)
        count.clear()
        inside.append(1)
        flush()
    return updates, during, count


@pytest.mark.parametrize("domain", ["supervised", "gan", "ppo", "reinforce"])
def test_updates_fetch_nothing_but_the_finite_check(domain):
    """On the CPU the check reads two norms an update through shared memory."""
    updates, during, _ = fetches([*TINY[domain], "probes=light"])
    assert updates > 0
    assert during == {"numpy": 2 * updates}


def test_fetches_do_not_grow_with_tensors():
    deep = ["problem.widths=[8,8,8,8,8,8]" if "widths" in o else o for o in TINY["supervised"]]
    counts = [fetches([*o, "probes=standard"]) for o in (TINY["supervised"], deep)]
    assert counts[0] == counts[1]
    more = fetches([*TINY["supervised"], "probes=standard"], iterations=6)
    assert more[2] == counts[0][2]  # nor does a flush with the updates it holds


# 9. Figures can be drawn again from the run directory alone


@pytest.mark.parametrize("domain", ["landscape", "supervised"])
def test_figures_are_drawn_again_from_a_copy(domain, tmp_path):
    from playground.report import draw_all

    run = quiet([*TINY[domain], *SHORT, "members=2"], tmp_path / "run")
    drawn = {p.name: p.read_bytes() for p in (tmp_path / "run" / "figures").glob("*.png")}
    assert {"overview.png", "gradient_norms.png"} <= set(drawn)
    shutil.copytree(run.path, tmp_path / "copy", ignore=shutil.ignore_patterns("figures"))
    shutil.rmtree(run.path)
    again = draw_all(load(tmp_path / "copy"))
    assert {path.name for path in again} == set(drawn)
    for path in again:
        assert path.read_bytes() == drawn[path.name]


@pytest.mark.usefixtures("without_figures")
def test_a_resumed_run_has_one_row_an_update(tmp_path):
    """Members, taps and tensors included."""
    overrides = [*TINY["gan"], "members=2", "checkpoint.every=2", "probes=standard"]
    quiet([*overrides, "budget.iterations=3"], tmp_path / "run")
    run = resume(tmp_path / "run", "budget.iterations=5")
    keys = run.gradients.select(["update", "member", "player", "tap", "tensor"]).to_pylist()
    count = Counter(tuple(key.values()) for key in keys)
    assert set(count.values()) == {1}
    assert {key["update"] for key in keys} == set(range(1, 6))
