"""``playground.watch`` in loops of every kind, against what a hand reads from ``.grad``."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

import playground
from playground.schema import ConfigError

from .loops import Hand, check, data, net, rows, same, set_place

NAMES = ["0.weight", "0.bias", "2.weight", "2.bias"]
ABOVE = {("update", "cosine_previous")}
"""What is not known of a player that is measured in place."""


def simple(model, optimizer, hand=None, updates=20, watcher=None):
    """Forward, backward, step."""
    for _, (x, y) in zip(range(updates), data(), strict=False):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        if hand is not None:
            hand.look()
        optimizer.step()
        if hand is not None:
            hand.looked()
        if watcher is not None:
            watcher.log(loss=loss)


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2),
    "fused": lambda p: torch.optim.AdamW(p, lr=1e-2, fused=True),
    "foreach": lambda p: torch.optim.RMSprop(p, lr=1e-3, foreach=True),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("every", [1, 4])
def test_numbers_are_those_read_by_hand_and_training_is_the_same(tmp_path, make, every):
    alone, model = net(), net()
    simple(alone, make(alone.parameters()))
    optimizer, hand = make(model.parameters()), Hand(model.parameters())
    with playground.watch(model, optimizer, run_dir=tmp_path / "run", every=every):
        simple(model, optimizer, hand)
    same(alone, model)
    check(tmp_path / "run", hand, NAMES, every=every)


@pytest.mark.parametrize("every", [1, 2, 4])
@pytest.mark.parametrize("place", ["in place", "in place, one buffer"])
def test_in_place_gives_the_same_numbers(tmp_path, place, every, monkeypatch):
    set_place(place, monkeypatch)
    monkeypatch.setattr("playground.probes.tier0.formulas.CHUNK", {"cpu": 7})  # uneven pieces
    alone, model = net(), net()
    simple(alone, OPTIMIZERS["adam"](alone.parameters()), updates=30)
    optimizer, hand = OPTIMIZERS["adam"](model.parameters()), Hand(model.parameters())
    with playground.watch(model, optimizer, run_dir=tmp_path / "run", every=every):
        simple(model, optimizer, hand, updates=30)
    same(alone, model)
    skip = ABOVE if place == "in place, one buffer" else ()
    check(tmp_path / "run", hand, NAMES, every=every, skip=skip)
    assert playground.load(tmp_path / "run").manifest["measured"] == {"model": place}


def test_the_run_is_read_drawn_and_compared_like_any_run(here):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with playground.watch(model, optimizer, name="mine") as watcher:
        simple(model, optimizer, watcher=watcher)
        watcher.log({"accuracy": 0.5, "loss/penalty": torch.tensor([0.25])}, rate=3)
    assert watcher.path.parts[0] == "runs"
    run = playground.load(watcher.path)
    assert run.manifest["status"] == "finished"
    assert run.manifest["counters"] == {"iterations": 20, "updates": 20}
    assert run.config["players"]["model"]["lr"] == 0.1
    assert run.metric("loss")[1].shape == (20, 1)
    assert run.metric("loss", "model")[1].shape == (20, 1)
    assert run.metric("accuracy")[1][-1, 0] == 0.5
    assert run.metric("loss/penalty", "model")[1][-1, 0] == 0.25
    assert {p.name for p in (run.figure("overview"), run.figure("gradient_norms"))} == {
        "overview.png", "gradient_norms.png"}  # fmt: skip
    script = Path(playground.__file__).parent.parent / "scripts" / "report.py"
    done = subprocess.run([sys.executable, script, str(watcher.path)], capture_output=True,
                          text=True, check=False, env=environment())  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "mine: loss at the end" in done.stdout


def environment():
    return {**os.environ, "PYTHONPATH": str(Path(playground.__file__).parent.parent)}


def test_without_metrics_there_is_an_overview_all_the_same(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with playground.watch(model, optimizer, run_dir=tmp_path / "run"):
        simple(model, optimizer)
    assert playground.load(tmp_path / "run").figure("overview").stat().st_size > 10_000


def test_the_first_metric_stands_for_a_loss_that_was_not_logged(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with playground.watch(model, optimizer, run_dir=tmp_path / "run") as watcher:
        simple(model, optimizer)
        watcher.log(reward=1.0)
    assert playground.load(tmp_path / "run").manifest["main_metric"] == "reward"


@pytest.mark.parametrize("name", ["clip_grad_norm_", "imported", "value"])
@pytest.mark.parametrize("place", ["copies", "in place, one buffer"])
def test_clipping_is_seen_and_named(tmp_path, name, place, monkeypatch):
    set_place(place, monkeypatch)
    alone, model = net(), net()

    def loop(model, optimizer, hand=None):
        for update, (x, y) in zip(range(12), data(), strict=False):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            if hand is not None:
                hand.look_raw()
            if name == "value":
                nn.utils.clip_grad_value_(model.parameters(), 0.01)
            elif name == "imported":
                clip_grad_norm_(model.parameters(), 0.2 if update % 2 else 100.0)
            else:
                nn.utils.clip_grad_norm_(model.parameters(), max_norm=0.2)
            if hand is not None:
                hand.look()
            optimizer.step()
            if hand is not None:
                hand.looked()

    loop(alone, torch.optim.SGD(alone.parameters(), lr=0.1))
    optimizer, hand = torch.optim.SGD(model.parameters(), lr=0.1), Hand(model.parameters())
    original = nn.utils.clip_grad.clip_grad_norm_
    with playground.watch(model, optimizer, run_dir=tmp_path / "run", every=1):
        assert nn.utils.clip_grad_norm_ is not original
        loop(model, optimizer, hand)
    assert nn.utils.clip_grad_norm_ is clip_grad_norm_ is nn.utils.clip_grad.clip_grad_norm_
    same(alone, model)
    skip = () if place == "copies" else ABOVE
    check(tmp_path / "run", hand, NAMES, tap="clipped", skip=skip)
    found = rows(tmp_path / "run")
    for update, raw in enumerate(hand.raw, start=1):
        assert found["model", update, "gradient", ""]["norm"] == pytest.approx(raw, rel=1e-5)
        coefficient = found["model", update, "clipped", ""]["clip_coefficient"]
        if name == "value":
            assert coefficient is None
        else:
            most = 100.0 if name == "imported" and update % 2 else 0.2
            assert coefficient == pytest.approx(min(1, most / (raw + 1e-6)), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("place", ["copies", "in place", "in place, one buffer"])
def test_clipping_in_half_precision(tmp_path, place, dtype, monkeypatch):
    """Torch's clipping computes in the gradients' type; the records do not."""
    set_place(place, monkeypatch)
    model = net().to(dtype)
    optimizer, raw = torch.optim.SGD(model.parameters(), lr=0.1), []
    with playground.watch(model, optimizer, run_dir=tmp_path / "run", every=1):
        for _, (x, y) in zip(range(6), data(), strict=False):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x.to(dtype)).float(), y).backward()
            raw.append([p.grad.double().numpy() for p in model.parameters()])
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
    found = rows(tmp_path / "run")
    rounding = float(torch.finfo(dtype).eps)
    for update, gradients in enumerate(raw, start=1):
        whole = np.linalg.norm(np.concatenate([g.ravel() for g in gradients]))
        assert found["model", update, "gradient", ""]["norm"] == pytest.approx(whole, rel=1e-5)
        for name, gradient in zip(NAMES, gradients, strict=True):
            row = found["model", update, "gradient", name]
            assert row["norm"] == pytest.approx(np.linalg.norm(gradient), rel=4 * rounding)
            assert row["max_abs"] == pytest.approx(np.abs(gradient).max(), rel=4 * rounding)


def test_closing_never_raises(tmp_path, monkeypatch):
    """Records that cannot be written end the run as failed, not the loop."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watcher = playground.watch(model, optimizer, run_dir=tmp_path / "run")
    simple(model, optimizer)

    def broken():
        raise OSError("no space left")

    monkeypatch.setattr(watcher, "flush", broken)
    with pytest.warns(UserWarning, match="last records are lost: OSError: no space left"):
        watcher.close()
    watcher = playground.watch(model, optimizer, run_dir=tmp_path / "other")
    monkeypatch.setattr(watcher._directory, "update_manifest", lambda **values: broken())
    with pytest.warns(UserWarning, match="last records are lost: OSError: no space left"):
        watcher.close()
    manifest = playground.load(tmp_path / "run").manifest
    assert manifest["status"] == "failed"
    assert "no space left" in manifest["reason"]


def test_clipping_of_a_skipped_step_is_forgotten(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    hand, stream = Hand(model.parameters()), data()
    with playground.watch(model, optimizer, run_dir=tmp_path / "run", every=2):
        for update in range(10):
            if update % 3 == 0:  # as a scaler does where a gradient is infinite
                optimizer.zero_grad()
                (model(next(stream)[0]).sum() * 1e30).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.zero_grad()
            x, y = next(stream)
            nn.functional.cross_entropy(model(x), y).backward()
            hand.look()
            optimizer.step()
            hand.looked()
    check(tmp_path / "run", hand, NAMES, every=2)


def test_taps_may_change_from_update_to_update(tmp_path):
    """Clipping every third update: rows of both taps, no cosine across them."""
    model = net()
    optimizer, raw = torch.optim.SGD(model.parameters(), lr=0.1), []
    with playground.watch(model, optimizer, run_dir=tmp_path / "run", every=1):
        for update, (x, y) in zip(range(9), data(), strict=False):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            raw.append(model[0].bias.grad.numpy().astype(float))
            if update % 3 == 0:
                nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
    found = rows(tmp_path / "run")
    for update in range(1, 10):
        clipped = update % 3 == 1
        row = found["model", update, "clipped" if clipped else "gradient", "0.bias"]
        assert (("model", update, "clipped", "0.bias") in found) == clipped
        assert (row["cosine_previous"] is None) == (update % 3 != 0)
        row = found["model", update, "gradient", "0.bias"]  # the raw one, clipped or not
        assert row["norm"] == pytest.approx(np.linalg.norm(raw[update - 1]), rel=1e-5)
        assert row["max_abs"] == pytest.approx(np.abs(raw[update - 1]).max(), rel=1e-5)
        assert row["mean_abs"] == pytest.approx(np.abs(raw[update - 1]).mean(), rel=1e-5)


def test_closed_by_the_end_of_the_program(tmp_path):
    """At exit, after a crash and after an interruption: the run says how it ended."""
    script = tmp_path / "loop.py"
    body = """
        import sys
        import torch, playground
        net = torch.nn.Linear(3, 1)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        playground.watch(net, optimizer, run_dir=sys.argv[1])
        for update in range(7):
            net(torch.ones(2, 3)).sum().backward()
            optimizer.step()
            if update == 4 and len(sys.argv) > 2:
                raise RuntimeError("out of luck")
    """
    script.write_text(textwrap.dedent(body))
    for extra, status, reason, updates in (
        ([], "finished", "", 7), (["crash"], "failed", "RuntimeError: out of luck", 5),
    ):  # fmt: skip
        path = tmp_path / f"run{len(extra)}"
        subprocess.run([sys.executable, script, path, *extra], env=environment(), check=False,
                       capture_output=True)  # fmt: skip
        run = playground.load(path)
        assert (run.manifest["status"], run.manifest["reason"]) == (status, reason)
        assert run.manifest["counters"]["updates"] == updates
        assert len([k for k in rows(path) if k[2:] == ("gradient", "")]) == updates


def test_an_error_in_the_block_is_the_reason(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with (
        pytest.raises(ZeroDivisionError),
        playground.watch(model, optimizer, run_dir=tmp_path / "run") as watcher,
    ):
        raise ZeroDivisionError("by zero")
    assert playground.load(tmp_path / "run").manifest["reason"] == "ZeroDivisionError: by zero"
    watcher.close()
    watcher.log(loss=1.0)  # after the end: nothing
    simple(model, optimizer)
    assert playground.load(tmp_path / "run").gradients.num_rows == 0


def test_a_watcher_that_fails_says_so_and_training_goes_on(tmp_path, monkeypatch):
    alone, model = net(), net()
    simple(alone, torch.optim.SGD(alone.parameters(), lr=0.1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watcher = playground.watch(model, optimizer, run_dir=tmp_path / "run")
    simple(model, optimizer, updates=3)

    def broken(*arguments, **options):
        raise RuntimeError("of our own")

    monkeypatch.setattr(watcher.watched["model"], "read", broken)
    model.load_state_dict(net().state_dict())
    with pytest.warns(UserWarning, match=r"stopped \(RuntimeError: of our own\); training goes on"):
        simple(model, optimizer)
    same(alone, model)
    manifest = playground.load(tmp_path / "run").manifest
    assert manifest["status"] == "failed"
    assert manifest["counters"]["updates"] == 3
    assert not optimizer._optimizer_step_pre_hooks


def test_several_players_share_iterations(tmp_path):
    """Two updates of one player, then one of the other: an iteration ends with the last."""
    first, second = net(0), net(1)
    a = torch.optim.SGD(first.parameters(), lr=0.1)
    b = torch.optim.Adam(second.parameters(), lr=0.1)
    hands = {"first": Hand(first.parameters()), "second": Hand(second.parameters())}
    players = {"first": (first, a), "second": (second, b)}
    with playground.watch(players, run_dir=tmp_path / "run", every=1) as watcher:
        for _, (x, _y) in zip(range(5), data(), strict=False):
            for name in ("first", "first", "second"):
                optimizer = players[name][1]
                optimizer.zero_grad()
                (first(x) * second(x)).sum().backward()
                hands[name].look()
                optimizer.step()
                hands[name].looked()
        watcher.log(player="second", loss=2.0)
    for name, hand in hands.items():
        check(tmp_path / "run", hand, NAMES, player=name)
    found = rows(tmp_path / "run")
    times = [(found["first", u, "gradient", ""]["iteration"],
              found["first", u, "gradient", ""]["round"]) for u in range(1, 11)]  # fmt: skip
    assert times == [(i, r) for i in range(1, 6) for r in (0, 1)]
    assert [found["second", u, "gradient", ""]["round"] for u in range(1, 6)] == [2] * 5
    run = playground.load(tmp_path / "run")
    assert run.manifest["counters"] == {"iterations": 5, "updates": 10}
    assert list(run.manifest["players"]) == ["first", "second"]
    assert run.metric("loss", "second")[1][-1, 0] == 2.0
    assert run.figure("overview").exists()


def test_a_probe_of_ones_own_sees_the_updates(tmp_path, request):
    class Sum(playground.Probe):
        name, every = "sum", 3

        def measure(self, seen):
            return {"sum": seen.update.sum(dim=1)}

    for folder, probes in (("a", ["light", Sum()]), ("b", ["none", Sum()])):
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        hand = Hand(model.parameters())
        with playground.watch(model, optimizer, run_dir=tmp_path / folder, probes=probes):
            simple(model, optimizer, hand)
        run = playground.load(tmp_path / folder)
        found = {r["update"]: r["value"] for r in run.measurements.to_pylist()}
        assert list(found) == [1, 4, 7, 10, 13, 16, 19]
        for update, value in found.items():
            by_hand = hand.value("update", update - 1, -1).sum()
            assert value == pytest.approx(by_hand, rel=1e-4, abs=1e-6)
        assert bool(run.gradients.num_rows) == (folder == "a")


class Opaque:
    def step(self):
        pass


def sgd(*modules):
    return torch.optim.SGD([p for m in modules for p in m.parameters()], lr=0.1)


LINEAR, OTHER = nn.Linear(2, 2), nn.Linear(2, 2)
SHARED = sgd(LINEAR, OTHER)
REFUSED = {
    "optimizer: watch(model, optimizer) needs one": ((LINEAR,), {}),
    "Opaque is no torch.optim.Optimizer": ((LINEAR, Opaque()), {}),
    "model: must be a torch.nn.Module": ((3, sgd(LINEAR)), {}),
    "player a: must be (module, optimizer)": (({"a": LINEAR},), {}),
    "name 'a/b': allowed": (({"a/b": (LINEAR, sgd(LINEAR))},), {}),
    "holds no parameter of its model": ((LINEAR, sgd(OTHER)), {}),
    "players a and b have the same optimizer": (
        ({"a": (LINEAR, SHARED), "b": (OTHER, SHARED)},), {}),
    "run one batch through the model first": (
        (nn.LazyLinear(2), lambda m: torch.optim.SGD(m.parameters(), lr=1.0)), {}),
    "0.weight is complex": (
        (nn.Sequential(nn.Linear(2, 2, dtype=torch.complex64)), lambda m: sgd(m)), {}),
    "is on the meta device": ((nn.Linear(2, 2, device="meta"), lambda m: sgd(m)), {}),
    "probes=lots: allowed are none, light": ((LINEAR, sgd(LINEAR)), {"probes": "lots"}),
    "probes=int: allowed are names": ((LINEAR, sgd(LINEAR)), {"probes": [3]}),
    "every=0: must be an integer": ((LINEAR, sgd(LINEAR)), {"every": 0}),
    "run_dir=": ((LINEAR, sgd(LINEAR)), {"run_dir": "taken"}),
    "objective=['a']: must name the players ['model']": (
        (LINEAR, sgd(LINEAR)), {"objective": {"a": lambda m, b: 0}}),
    "objective: player model has parameters outside its model (param_groups.2": (
        (LINEAR, SHARED), {"objective": lambda m, b: 0}),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "options"), REFUSED.values(), ids=REFUSED)
@pytest.mark.filterwarnings("ignore:Complex modules")
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_refused_by_name_before_anything_happens(arguments, options, here, request):
    Path("taken").mkdir()
    Path("taken/file").touch()
    if len(arguments) > 1 and not isinstance(arguments[1], torch.optim.Optimizer | Opaque):
        arguments = (arguments[0], arguments[1](arguments[0]))
    with pytest.raises(ConfigError) as error:
        playground.watch(*arguments, **options)
    assert request.node.callspec.id in str(error.value)
    assert "\n" not in str(error.value)
    assert [p.name for p in here.iterdir()] == ["taken"]


def test_a_watched_run_cannot_be_resumed_or_asked_for_its_player(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with playground.watch(model, optimizer, run_dir=tmp_path / "run"):
        simple(model, optimizer)
    with pytest.raises(ConfigError, match="watched"):
        playground.run([f"resume={tmp_path / 'run'}"], quiet=True)
    with pytest.raises(ConfigError, match="watched"):
        playground.load(tmp_path / "run").player("model")


def test_ten_thousand_updates_leave_no_memory_behind(tmp_path):
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    x = torch.ones(2, 4)
    with playground.watch(model, optimizer, run_dir=tmp_path / "run") as watcher:
        for _ in range(10_000):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
            held = len(watcher._health["model"]._norms)
            assert held <= 4096
    found = rows(tmp_path / "run")
    assert sum(k[2:] == ("gradient", "") for k in found) == 10_000
    assert abs(sum(k[2:] == ("update", "") for k in found) - 1250) <= 1
    assert np.isfinite([r["norm"] for r in found.values()]).all()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's peak of memory")
def test_a_large_player_takes_one_copy_of_its_gradient(tmp_path):
    """The process's peak before and after watching a layer of 64 MB at every update."""
    script = tmp_path / "loop.py"
    body = """
        import re, sys
        import torch, playground
        playground.watch, playground.load  # imported before the first look
        torch.set_num_threads(1)
        layer = torch.nn.Linear(4096, 4096, bias=False)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)

        def updates():
            for _ in range(4):
                optimizer.zero_grad(set_to_none=False)
                layer(torch.ones(1, 4096)).sum().backward()
                torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
                optimizer.step()
            # Not getrusage: its peak is the parent's where a large process started this one.
            return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

        small = torch.nn.Linear(2, 2)
        with playground.watch(small, torch.optim.SGD(small.parameters(), lr=0.1),
                              run_dir=sys.argv[1] + "/small"):
            updates()
        before = updates()
        with playground.watch(layer, optimizer, run_dir=sys.argv[1] + "/run", every=1):
            print(updates() - before)
    """
    script.write_text(textwrap.dedent(body))
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True,
                          env=environment(), check=True)  # fmt: skip
    assert 60 < float(done.stdout) < 75  # MB; 64 is one copy


def test_a_schedule_s_rate_is_the_one_it_multiplies(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.01 * (step + 1))
    playground.watch(model, optimizer, run_dir=tmp_path / "run").close()
    described = playground.load(tmp_path / "run").config["players"]["model"]
    assert described["lr"] == 0.3
    assert "initial_lr" not in described


def test_large_players_are_measured_at_their_second_update_and_seldom(tmp_path):
    """Each player has a cadence by its size."""
    small, large = nn.Linear(3, 1), nn.Linear(300, 300)
    players = {name: (net, torch.optim.SGD(net.parameters(), lr=0.1))
               for name, net in (("small", small), ("large", large))}  # fmt: skip
    with playground.watch(players, run_dir=tmp_path / "run"):
        for _ in range(64):
            for net_, optimizer in players.values():
                optimizer.zero_grad()
                net_(torch.ones(2, net_.in_features)).square().sum().backward()
                optimizer.step()
    found = rows(tmp_path / "run")
    measured = {name: [k[1] for k in found if k[0] == name and k[2:] == ("update", "")]
                for name in players}  # fmt: skip
    assert len(measured["small"]) in (7, 8, 9)
    assert 2 in measured["large"]
    assert len(measured["large"]) in (2, 3, 4)
