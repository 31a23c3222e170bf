"""Starting from another run's snapshot with players held, and the best-response gap."""

import json
import shutil

import numpy as np
import pytest
import torch
from harness import SMALL_GAN, assert_same, final, quiet, resume, stop

import playground
from playground.assembly import assemble
from playground.best_response import BATCHES, BestResponse
from playground.config import compose
from playground.schema import ConfigError

pytestmark = pytest.mark.usefixtures("without_figures")

GAN = ["problem=gan/ring", *SMALL_GAN, "members=2", "budget.iterations=8"]


def parameters(run, player):
    return final(run)["players"][player]["parameters"]


def test_a_discriminator_is_retrained_against_a_held_generator(tmp_path):
    """The generator of a snapshot stays bit for bit; its gradient goes on being recorded."""
    first = quiet(GAN, tmp_path / "first")
    held = [*GAN, "seed=5", f"snapshot.run={first.path}", "snapshot.iteration=4",
            "snapshot.players=[generator]", "frozen=[generator]"]  # fmt: skip
    second = quiet(held, tmp_path / "second")
    snapshot = torch.load(first.path / "snapshots" / "4.pt", weights_only=True)["players"]
    assert torch.equal(parameters(second, "generator"), snapshot["generator"])
    start = torch.load(second.path / "snapshots" / "0.pt", weights_only=True)["players"]
    fresh = assemble(compose([*GAN, "seed=5"]), None).players["discriminator"].parameters.values
    assert torch.equal(start["discriminator"], fresh)  # not the snapshot's
    assert not torch.equal(parameters(second, "discriminator"), fresh)
    engine = final(second)["engine"]
    assert engine["updates"] == {"generator": [0, 0], "discriminator": [8, 8]}
    rows = [
        r for r in second.gradients.to_pylist()
        if r["player"] == "generator" and r["tap"] == "gradient" and r["tensor"] == ""
    ]  # fmt: skip
    assert len(rows) == 8 * 2
    assert all(r["norm"] > 0 for r in rows)
    # The EMA generator is the held one from the beginning: both score the same.
    modes = [second.metric(f"high_quality{suffix}")[1] for suffix in ("", "/raw")]
    np.testing.assert_array_equal(*modes)
    stop(held, tmp_path / "parts", 5)
    assert_same(final(second), final(resume(tmp_path / "parts")))


def test_a_run_starts_where_the_last_one_ended(tmp_path):
    first = quiet(GAN, tmp_path / "first")
    second = quiet([*GAN, "budget.iterations=1", f"snapshot.run={first.path}"], tmp_path / "next")
    start = torch.load(second.path / "snapshots" / "0.pt", weights_only=True)["players"]
    for name, values in start.items():
        assert torch.equal(values, parameters(first, name))


def test_a_run_killed_before_its_first_checkpoint_starts_there_again(tmp_path):
    first = quiet(GAN, tmp_path / "first")
    whole = quiet([*GAN, "seed=7", f"snapshot.run={first.path}"], tmp_path / "whole")
    killed = tmp_path / "killed"
    for folder in ("arrays", "checkpoints", "figures", "records", "snapshots"):
        (killed / folder).mkdir(parents=True)
    for name in ("config.yaml", "manifest.json"):
        shutil.copy(whole.path / name, killed / name)
    manifest = json.loads((killed / "manifest.json").read_text())
    manifest |= {"status": "running", "counters": {}}
    (killed / "manifest.json").write_text(json.dumps(manifest))
    again = resume(killed)
    for name in ("generator", "discriminator"):
        assert torch.equal(parameters(again, name), parameters(whole, name))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["snapshot.iteration=3"], "need a run"),
        (["snapshot.run=nowhere"], "snapshot.run=nowhere"),
        (["snapshot.run={first}", "snapshot.iteration=3"], "no such snapshot"),
        (["snapshot.run={first}", "snapshot.players=[genrator]"], "did you mean generator"),
        (["snapshot.run={first}", "members=3"], "members and parameters, not"),
        (["snapshot.run={first}", "problem=landscape/beale"], "has the players"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(tmp_path, overrides, message, first):
    given = [item.format(first=first) for item in overrides]
    base = [] if "problem=landscape/beale" in given else GAN[:-2]
    with pytest.raises(ConfigError, match=message):
        quiet([*base, *given], tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return quiet([*GAN, "budget.iterations=2"], tmp_path_factory.mktemp("first") / "run").path


def test_the_gap_of_a_quadratic_game_is_that_of_k_gradient_steps(tmp_path):
    """x* by k steps on mu/2 x^2 + sigma x y: the minimum is at -sigma y / mu."""
    mu, sigma, lr, k = 0.5, 1.0, 0.1, 7
    run = quiet(
        ["problem=landscape/quadratic_game", f"problem.curvature={mu}", f"optimizer.lr={lr}",
         "problem.start=random", "members=3", "budget.iterations=20", "stepper=consensus",
         "stepper.gamma=0.1", f"best_response.updates={k}", "best_response.when=evaluations"],
        tmp_path / "run",
    )  # fmt: skip
    iterations, gaps = run.metric("best_response")
    trail = np.concatenate(
        [v[:, 1:] if i else v for i, v in sorted(run.arrays["trajectory"].items())], axis=1
    )

    def gap(own, other, sign):  # sign sigma own other is the coupling in this player's loss
        best = -sign * sigma * other / mu
        left = (own - best) * (1 - lr * mu) ** k
        return mu / 2 * ((own - best) ** 2 - left**2)

    for index, iteration in enumerate(iterations):
        x, y = trail[:, int(iteration)].T
        np.testing.assert_allclose(gaps[index], gap(x, y, 1) + gap(y, x, -1), atol=1e-12)
    assert (gaps[-1] < gaps[0]).all()  # while it converges, where losses say little


def test_the_gap_of_a_network_game_comes_with_its_error_and_changes_nothing(tmp_path):
    config = compose([*GAN, "best_response.updates=30", "optimizer.lr=1e-3"])
    parts = assemble(config, None)
    values = {name: p.parameters.values.clone() for name, p in parts.players.items()}
    metrics, errors = BestResponse(config, lambda other: assemble(other, None))(values)
    for name, player in parts.players.items():
        assert torch.equal(player.parameters.values, values[name])
        assert (metrics[f"best_response/{name}"] > 0).all()  # far from an equilibrium at the start
        assert (errors[f"best_response/{name}"] > 0).all()
    total = metrics["best_response/generator"] + metrics["best_response/discriminator"]
    np.testing.assert_allclose(metrics["best_response"], total)
    assert BATCHES == 16
    plain = quiet(GAN, tmp_path / "plain")
    seen = quiet([*GAN, "best_response.updates=3"], tmp_path / "seen")
    assert_same(final(plain)["players"], final(seen)["players"])
    assert "best_response" in seen.metric_names()
    assert len(seen.metric("best_response")[0]) == 1  # at the end alone


@pytest.mark.parametrize("problem", ["rl/cartpole", "landscape/beale", "supervised/digits"])
def test_a_gap_without_a_game_is_refused(problem):
    with pytest.raises(ConfigError, match="is no game"):
        compose([f"problem={problem}", "best_response.updates=5"])


def test_a_gap_of_other_objectives_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="not with objectives of one's own"):
        playground.run(
            [*GAN, "best_response.updates=3", f"run_dir={tmp_path / 'run'}"],
            objectives={"generator": lambda f: f}, quiet=True,
        )  # fmt: skip
