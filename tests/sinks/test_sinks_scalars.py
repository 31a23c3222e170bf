"""Rows to scalars: however they are cut, and what of other programs' names is the same."""

import json
import random

import numpy as np
import pyarrow as pa
import pytest
import torch
from harness import quiet

import playground
from playground.config import compose, to_dict
from playground.record.columns import TABLES
from playground.record.sinks.aliases import aliases
from playground.record.sinks.config import SinksConfig
from playground.record.sinks.mirror import scalars_of
from playground.record.sinks.scalars import mean
from playground.record.sinks.tracks import EACH, opening, tracks

from .reading import SMALL_RUN

pytestmark = pytest.mark.usefixtures("without_figures")


def entries(run, cuts=None, behind=0, **settings):
    """What a run's rows give, added at once or in the blocks between cuts of the iterations."""
    chosen = SinksConfig(**settings)
    about = opening(run.path, run.config, run.manifest, chosen.members)
    scalars, found = scalars_of(about, chosen), []
    for low, high in zip([-1, *(cuts or [])], [*(cuts or []), 10**9], strict=True):
        for name in TABLES:
            rows = run.table(name)
            keep = [low < i <= high for i in rows["iteration"].to_pylist()]
            scalars.add({name: rows.filter(pa.array(keep, pa.bool_()))})
        found += list(scalars.take(high - behind))
    return [*found, *scalars.take()]


def written(found):
    """Entries by every bit, where NaN equals itself."""
    return [(e.track, e.point, sorted((k, repr(v)) for k, v in e.values.items())) for e in found]


@pytest.mark.parametrize("behind", [0, 2])
def test_blocks_of_rows_do_not_matter(tmp_path, behind):
    run = quiet([*SMALL_RUN["ppo"], "probes=standard"], tmp_path / "run")
    whole = entries(run)
    draw = random.Random(0)
    for _ in range(5):
        cuts = sorted(draw.sample(range(12), 4))
        assert written(entries(run, cuts, behind)) == written(whole)
    order = [(entry.point.iteration, entry.track) for entry in whole]
    assert order == sorted(set(order))
    assert len(order) == 2 * 13


def test_an_iteration_that_is_cut_is_whole_when_it_is_taken(tmp_path):
    run = quiet(SMALL_RUN["gan"], tmp_path / "run")
    about = opening(run.path, run.config, run.manifest, None)
    scalars = scalars_of(about, SinksConfig())
    draw, found = random.Random(1), []
    tables = {name: run.table(name) for name in TABLES}
    for name, rows in tables.items():  # row by row, tables one after the other
        place = 0
        while place < rows.num_rows:
            size = draw.randint(1, 7)
            scalars.add({name: rows.slice(place, size)})
            place += size
    found = list(scalars.take())
    assert written(found) == written(entries(run))


def test_several_logs_at_one_iteration_leave_the_last_as_run_metric_does(tmp_path):
    net = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with playground.watch(net, optimizer, run_dir=tmp_path / "run") as watcher:
        for k in range(3):
            net(torch.ones(2, 3)).sum().backward()
            optimizer.step()
            watcher.log(loss=k)
            watcher.log(loss=k + 0.5)
    run = playground.load(tmp_path / "run")
    _, values = run.metric("loss")
    curve = [e.values["loss"] for e in entries(run) if "loss" in e.values]
    assert curve == values[:, 0].tolist() == [0.5, 1.5, 2.5]


def test_every_counter_can_be_the_step(tmp_path):
    run = quiet(SMALL_RUN["ppo"], tmp_path / "run")
    for step, each in {"iteration": 1, "updates": 4, "env_steps": 64, None: 64}.items():
        found = [e.point.step for e in entries(run, step=step) if e.track == 0]
        assert found == [each * k for k in range(13)], step
    samples = sorted({r["samples"] for r in run.metrics.to_pylist() if r["member"] == 0})
    assert [e.point.step for e in entries(run, step="samples") if e.track == 0] == samples


def test_tracks():
    own = [{"seed": k, "values": {"optimizer.lr": lr}} for lr in (0.1, 0.2) for k in (3, 4)]
    assert [t.name for t in tracks(own, None)] == [f"member-{k}" for k in range(4)]
    found = tracks(own, "mean")
    assert [(t.name, t.members, t.seeds) for t in found] == [
        ("optimizer.lr=0.1", (0, 1), (3, 4)),
        ("optimizer.lr=0.2", (2, 3), (3, 4)),
    ]
    many = [{"seed": k, "values": {}} for k in range(EACH + 1)]
    assert [t.name for t in tracks(many, None)] == [""]
    assert len(tracks(many, "each")) == EACH + 1


def test_mean_of_what_is_a_number():
    nan = float("nan")
    found = mean([{"a": 1.0, "b": nan}, {"a": nan, "b": nan}, {"a": 3.0}])
    assert found["a"] == 2.0
    assert np.isnan(found["b"])


def stable_baselines3(params, batch, found):
    """What Stable-Baselines3's PPO logs of a minibatch, by hand (its ppo.py, ``train``)."""
    own = {name: value.detach() for name, value in params["agent"].items()}

    def network(part):
        x = batch["observation"]
        layers = sorted({n.split(".")[1] for n in own if n.startswith(part)}, key=int)
        for k, layer in enumerate(layers):
            x = x @ own[f"{part}.{layer}.weight"].T + own[f"{part}.{layer}.bias"]
            x = torch.tanh(x) if k < len(layers) - 1 else x
        return x

    keep = batch["weight"] > 0  # its environments have no reset rows
    policy = torch.distributions.Categorical(logits=network("policy")[keep])
    log_ratio = policy.log_prob(batch["action"][keep].long()) - batch["log_prob"][keep]
    ratio, advantage = log_ratio.exp(), batch["advantage"][keep]
    first, second = advantage * ratio, advantage * torch.clamp(ratio, 0.98, 1.02)
    value = network("value").squeeze(-1)[keep]
    found.append({
        "train/policy_gradient_loss": -torch.min(first, second).mean(),
        "train/value_loss": torch.nn.functional.mse_loss(batch["target"][keep], value),
        "train/entropy_loss": -policy.entropy().mean(),
        "train/clip_fraction": ((ratio - 1).abs() > 0.02).float().mean(),
        "train/approx_kl": ((log_ratio.exp() - 1) - log_ratio).mean(),
    })  # fmt: skip


def test_names_of_stable_baselines3_hold_its_quantities(tmp_path):
    found = []

    def wrap(original):
        def objective(params, batch):
            stable_baselines3(params, {k: v.detach() for k, v in batch.items()}, found)
            return original(params, batch)

        return objective

    overrides = [o for o in SMALL_RUN["ppo"] if o != "members=2"]
    run = playground.run(
        [*overrides, "algorithm.clip=0.02", "algorithm.clip_schedule=constant",
         "optimizer.lr=1e-2", "probes=none", f"run_dir={tmp_path / 'run'}"],
        objectives={"agent": wrap}, quiet=True,
    )  # fmt: skip
    iterations = [e for e in entries(run) if "train/value_loss" in e.values]
    assert len(found) == 4 * len(iterations) == 48
    for k, entry in enumerate(iterations):
        seen = found[4 * k : 4 * k + 4]
        for name in seen[0]:
            last_epoch = name == "train/approx_kl"
            column = [float(row[name]) for row in (seen[2:] if last_epoch else seen)]
            assert entry.values[name] == pytest.approx(np.mean(column), rel=1e-4, abs=1e-6), name
    rates = {e.values["train/clip_fraction"] for e in iterations}
    assert len(rates) > 3


def test_speed_is_steps_over_seconds(tmp_path):
    run = quiet(SMALL_RUN["ppo"], tmp_path / "run")
    rows = {r["iteration"]: r for r in run.metrics.to_pylist() if r["player"] and r["member"] == 1}
    for entry in entries(run):
        if entry.track == 1 and entry.point.iteration:
            row = rows[entry.point.iteration]
            speed = row["env_steps"] / row["seconds"]
            assert entry.values["charts/SPS"] == entry.values["time/fps"] == speed
            latest = entry.values["train/episode_return"]
            found = entry.values.get("charts/episodic_return")
            assert found is None if np.isnan(latest) else found == latest
            assert entry.values.get("rollout/ep_rew_mean", 0) == entry.values["train/return"] or (
                np.isnan(entry.values["train/return"])
            )


@pytest.mark.parametrize(
    ("overrides", "missing"),
    [
        (["algorithm.target_kl=0.01"], {"train/clip_fraction", "train/approx_kl"}),
        (["algorithm.clip_value=0.2"], {"train/value_loss"}),
        (["algorithm=a2c"], {"charts/learning_rate", "train/policy_gradient_loss"}),
        (["algorithm=reinforce"], {"train/learning_rate", "train/value_loss"}),
    ],
)
def test_a_name_is_left_out_where_the_quantity_differs(overrides, missing):
    every = set(aliases(to_dict(compose(["problem=rl/cartpole", "algorithm=ppo"]))))
    some = set(aliases(to_dict(compose(["problem=rl/cartpole", *overrides]))))
    assert missing <= every
    assert not missing & some
    assert {"charts/SPS", "rollout/ep_rew_mean"} <= some


def test_no_aliases_outside_rl_or_when_they_are_off(tmp_path):
    assert aliases(to_dict(compose(["problem=gan/ring"]))) == {}
    run = quiet(SMALL_RUN["ppo"], tmp_path / "run")
    assert "charts/SPS" not in entries(run, aliases=False)[-1].values
    json.dumps(entries(run)[-1].values)
