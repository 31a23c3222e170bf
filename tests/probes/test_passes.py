"""Probes with passes of their own: when they are called, what they record, that nothing changes."""

import numpy as np
import pytest
import torch
from harness import SMALL_GAN, assert_same, assert_same_records, final, quiet, resume, stop

import playground
from playground.probes.config import GameConfig
from playground.schema import ConfigError

pytestmark = pytest.mark.usefixtures("without_figures")


class Loss(playground.Pass):
    """Every player's loss again, once with the other's parameters shifted by noise."""

    name = "loss_again"

    def __init__(self, every=None):
        self.every = every

    def begin(self, seeds, device):
        from playground.randomness import Streams

        self.streams = Streams(seeds, "probe/loss", device)

    def measure(self, seen):
        values, errors = {}, {}
        for name, move in seen.moves.items():
            here = seen.gradient(move)
            at = {k: p.parameters.values for k, p in seen.players.items()}
            noise = self.streams.normal(*at[name].shape[1:]).to(at[name])
            moved = seen.gradient(move, {name: at[name] + noise})
            values[name, "loss"] = sum(here.terms.values())
            values[name, "whole", "moved"] = sum(moved.terms.values())
            errors[name, "loss"] = torch.ones_like(values[name, "loss"])
        return playground.Reading({**values, "one": torch.ones(len(at[name]))}, errors)

    def state(self):
        return {"streams": self.streams.state()}

    def load_state(self, state):
        self.streams.load_state(state["streams"])


GAN = ["problem=gan/ring", *SMALL_GAN, "members=2", "budget.iterations=9", "evaluate.every=4"]


def run(path, *more, probes=()):
    return playground.run([*GAN, *more, f"run_dir={path}"], probes=probes, quiet=True)


@pytest.mark.parametrize("rounds", ["simultaneous", "alternating"])
def test_a_pass_sees_each_player_s_move_and_its_values_are_rows(tmp_path, rounds):
    made = run(tmp_path / "run", f"problem.rounds={rounds}", probes=[Loss(4)])
    found = [r for r in made.measurements.to_pylist() if r["probe"] == "loss_again"]
    assert {r["iteration"] for r in found} == {1, 5, 9}
    assert len(found) == 3 * 2 * 5
    one = [r for r in found if r["quantity"] == "one"]
    assert {(r["player"], r["tensor"], r["stderr"]) for r in one} == {("", "", None)}
    assert {r["tensor"] for r in found if r["quantity"] == "moved"} == {"whole"}
    losses = {
        (r["iteration"], r["player"], r["member"]): r["value"]
        for r in found
        if r["quantity"] == "loss" and r["stderr"] == 1
    }
    metrics = {
        (r["iteration"], r["player"], r["member"]): r["value"]
        for r in made.metrics.to_pylist()
        if r["name"] == "loss" and r["iteration"] in (1, 5, 9)
    }
    players = ("generator", "discriminator")
    for (iteration, player, member), value in losses.items():
        if rounds == "simultaneous" or player == "generator":  # measured where it is trained
            assert value == pytest.approx(metrics[iteration, player, member], rel=1e-6)
        else:  # the discriminator has moved on by one update
            assert value != metrics[iteration, player, member]
        assert player in players
    assert len(losses) == 3 * 2 * 2
    updates = {(r["iteration"], r["player"]): r["update"] for r in found}
    assert updates[5, "generator"] == 5
    assert updates[5, "discriminator"] == (5 if rounds == "simultaneous" else 6)


def test_a_pass_changes_nothing_and_is_not_counted(tmp_path):
    plain = run(tmp_path / "plain", "probes=none")
    seen = run(tmp_path / "seen", "probes=full", "probes.game.every=1", probes=[Loss(1)])
    left, right = final(plain), final(seen)
    for key in ("players", "engine", "problem", "counters"):
        assert_same(left[key], right[key], key)
    kinds = {(r["probe"], r["quantity"]) for r in seen.measurements.to_pylist()}
    assert {("game", "spectral_radius"), ("game", "antisymmetric_share")} <= kinds


@pytest.mark.parametrize("rounds", ["simultaneous", "alternating"])
def test_passes_resume_bit_for_bit(tmp_path, rounds, monkeypatch):
    given = [*GAN, f"problem.rounds={rounds}", "probes=full", "probes.game.every=2",
             "checkpoint.every=3"]  # fmt: skip
    real = playground.run

    def with_probe(overrides, problem=None, **options):
        return real(overrides, probes=[Loss(3)], **options)

    monkeypatch.setattr("harness.playground.run", with_probe)
    whole = quiet(given, tmp_path / "whole")
    stop(given, tmp_path / "parts", 5)
    parts = resume(tmp_path / "parts")
    assert_same(final(whole), final(parts))
    assert_same_records(whole, parts)


def test_small_games_are_measured_at_evaluations_unless_told_otherwise(tmp_path):
    game = ["problem=landscape/quadratic_game", "budget.iterations=20", "evaluate.every=5"]
    cases = {(): {1, 6, 11, 16}, ("probes.game.every=8",): {1, 9, 17}}
    for index, (more, expected) in enumerate(cases.items()):
        made = quiet([*game, *more], tmp_path / str(index))
        rows = [r for r in made.measurements.to_pylist() if r["probe"] == "game"]
        assert {r["iteration"] for r in rows} == expected, more
        assert "spectrum" in made.arrays
        rate = [r["value"] for r in rows if r["quantity"] == "largest_stable_rate"]
        np.testing.assert_allclose(rate, 0.2 / 1.01)


def test_what_is_measured_unasked():
    wanted = GameConfig().wanted
    assert wanted("light", 2, 64)
    assert not wanted("light", 2, 65)
    assert not wanted("light", 1, 2)
    assert wanted("full", 2, 10**6)
    assert not wanted("none", 2, 2)
    assert GameConfig(every=5).wanted("none", 1, 10**6)
    assert not GameConfig(every=0).wanted("full", 2, 2)


def test_the_dirac_gan_is_measured_as_it_is(tmp_path):
    """At (0, 0) with R1: -gamma/2 +- sqrt(gamma^2/4 - f'^2), and J = -(Jacobian of v)."""
    made = quiet(
        ["problem=gan/dirac", "problem.start=[0,0]", "penalty.r1=0.3", "budget.iterations=1"],
        tmp_path / "run",
    )
    values = {r["quantity"]: r["value"] for r in made.measurements.to_pylist()}
    assert values["real_min"] == pytest.approx(0.15)
    assert values["imaginary_max"] == pytest.approx(np.sqrt(0.25 - 0.15**2))
    assert values["largest_stable_rate"] == pytest.approx(0.3 / 0.25)  # h < gamma / f'^2 = 4 gamma


def test_a_pass_of_the_wrong_shape_or_name_is_named(tmp_path):
    class Bad(Loss):
        name = "bad"

        def measure(self, seen):
            return playground.Reading({"sum": torch.zeros(())})

    with pytest.raises(ValueError, match=r"probe bad: sum has shape \(\), expected \(2,\)"):
        run(tmp_path / "bad", probes=[Bad(1)])
    Bad.name = "game"
    with pytest.raises(ConfigError, match="game is the playground's own"):
        run(tmp_path / "game", probes=[Bad(1)])
