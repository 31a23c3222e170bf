"""The game's order of moves, its averages, state and evaluation."""

import io
import re

import numpy as np
import pytest
import torch

from playground.config import compose
from playground.domains.gan.averages import Averages
from playground.resume import changed
from playground.schema import ConfigError

SMALL = (
    "problem=gan/ring", "problem.generator_widths=[16]", "problem.discriminator_widths=[16,16]",
    "problem.batch_size=32", "problem.evaluation_samples=500", "dtype=float64",
)  # fmt: skip
SIM = "problem.rounds=simultaneous"
RULE = ("optimizer=sgd", "optimizer.lr=0.1")


def test_averages_are_their_weighted_sums():
    points = torch.randn(40, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    averages = Averages(torch.full((3, 5), 1e6, dtype=torch.float64), 0.9)  # the start is left out
    for point in points:
        averages.add(point)
    weight = 0.9 ** torch.arange(39, -1, -1, dtype=torch.float64)
    ema = (weight[:, None, None] * points).sum(0) / weight.sum()
    assert torch.allclose(averages.values["ema"], ema, rtol=1e-9, atol=1e-9)
    assert torch.allclose(averages.values["average"], points.mean(0), rtol=1e-9, atol=1e-9)


def test_the_ema_follows_the_generator_of_every_iteration(game):
    run = game(*SMALL, "problem.ema_decay=0.5")
    first = run.iterate().values("generator").clone()
    second = run.iterate().values("generator")
    assert not torch.equal(first, second)
    expected = (0.5 * first + second) / 1.5
    assert torch.allclose(run.problem.averages.values["ema"], expected, rtol=1e-12)


def gradient_at(run, index, at):
    return run.engine.gradient(run.moves[index], at).value


def test_simultaneous_gradients_are_taken_at_the_same_point(game):
    run = game(*SMALL, SIM, *RULE)
    start = {name: run.values(name).clone() for name in run.players}
    run.iterate()
    assert [move.player for move in run.moves] == ["discriminator", "generator"]
    for index, move in enumerate(run.moves):
        expected = start[move.player] - 0.1 * gradient_at(run, index, start)
        assert torch.allclose(run.values(move.player), expected, rtol=1e-12)


def test_alternating_generator_answers_the_new_discriminator(game):
    run = game(*SMALL, *RULE)
    start = {name: run.values(name).clone() for name in run.players}
    run.iterate()
    new = run.values("discriminator")
    assert torch.allclose(new, start["discriminator"] - 0.1 * gradient_at(run, 0, start))
    between = {"generator": start["generator"], "discriminator": new}
    expected = start["generator"] - 0.1 * gradient_at(run, 1, between)
    assert torch.allclose(run.values("generator"), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("first", "expected"), [("discriminator", "dddgg"), ("generator", "ggddd")]
)
def test_order_and_number_of_moves(game, first, expected):
    run = game(*SMALL, f"problem.first={first}", "problem.discriminator_updates=3",
               "problem.generator_updates=2").iterate(2)  # fmt: skip
    assert "".join(move.player[0] for move in run.moves) == 2 * expected
    assert run.problem.counters["samples"].tolist() == [2 * 3 * 32]
    assert run.engine.updates["generator"].tolist() == [4]


@pytest.mark.parametrize("rounds", ["alternating", "simultaneous"])
def test_no_batch_is_used_twice(game, rounds):
    run = game(*SMALL, f"problem.rounds={rounds}").iterate(3)
    for key, moves in (("latent", 6), ("real", 3)):
        drawn = [move.batch[key] for move in run.moves if key in move.batch]
        assert len(drawn) == moves
        assert len(torch.cat(drawn).flatten().unique()) == torch.cat(drawn).numel()


@pytest.mark.parametrize(
    "overrides",
    [
        (*SMALL, "members=2", "penalty.r1=1"),
        (*SMALL, "problem.discriminator_updates=3", "problem.first=generator"),
        (*SMALL, SIM, "problem.batch_size=1024", "problem.latent=40"),  # 3 batches a block
        (
            *SMALL,
            "members=2",
            "problem.spectral_norm=true",
            "problem.instance_noise=0.3",
            "loss=relativistic",
            "penalty.gradient=1",
            "penalty.dragan=1",
            "problem.pack=2",
        ),
        ("problem=gan/dirac", "members=2"),
    ],
)
def test_a_restored_game_goes_on_bit_for_bit(game, overrides):
    whole = game(*overrides).iterate(5)
    saved = io.BytesIO()
    values = {name: whole.values(name).clone() for name in whole.players}
    torch.save([values, whole.engine.state(), whole.problem.state()], saved)
    saved.seek(0)
    whole.iterate(5)
    fresh = game(*overrides)
    values, engine, problem = torch.load(saved, weights_only=True)
    for name, value in values.items():
        fresh.values(name).copy_(value)
    fresh.engine.load_state(engine)
    fresh.problem.load_state(problem)
    fresh.iterate(5)
    for name in whole.players:
        assert torch.equal(fresh.values(name), whole.values(name))
    for name, value in whole.problem.averages.values.items():
        assert torch.equal(fresh.problem.averages.values[name], value)
    assert len(fresh.problem.trail) == len(whole.problem.trail)
    for mine, other in zip(fresh.problem.trail, whole.problem.trail, strict=True):
        assert torch.equal(mine, other)


def test_a_member_is_its_single_run(game):
    many = game(*SMALL, "members=3", "seed=5", "dtype=float32", "penalty.r1=1")
    single = game(*SMALL, "seed=7", "dtype=float32", "penalty.r1=1")
    for name in single.players:
        assert torch.equal(many.values(name)[2:], single.values(name))
    for move, alone in zip(many.iterate().moves, single.iterate().moves, strict=True):
        for key, value in alone.batch.items():
            assert torch.equal(move.batch[key][2:], value)
    found = gradient_at(many, 0, None)[2]
    expected = gradient_at(single, 0, None)[0]
    assert (found - expected).norm() < 1e-5 * expected.norm()


def test_evaluation_changes_nothing_and_repeats_itself(game):
    plain, evaluated = game(*SMALL), game(*SMALL)
    for _ in range(3):
        first, second = evaluated.problem.evaluate(), evaluated.problem.evaluate()
        for name, value in first.metrics.items():
            assert np.array_equal(value, second.metrics[name])
        for name, value in first.arrays.items():
            assert np.array_equal(value, second.arrays[name])
        plain.iterate()
        evaluated.iterate()
    for name in plain.players:
        assert torch.equal(plain.values(name), evaluated.values(name))


METRICS = ("modes", "modes/any", "high_quality", "reverse_kl", "reverse_kl/off_mode")


def test_metrics_are_of_the_named_generator_and_the_others_have_suffixes(game):
    near = (*SMALL, "members=2", "problem.radius=0.3", "problem.sigma=0.1", "problem.ema_decay=0.5")
    raw = game(*near, "evaluate.generator=raw").iterate(5)
    ema = game(*near, "evaluate.generator=ema").iterate(5)
    first, second = raw.problem.evaluate(), ema.problem.evaluate()
    expected = {f"{n}{s}" for n in METRICS for s in ("", "/ema", "/average", "/perfect")}
    distances = {f"{n}{s}" for n in ("sliced_wasserstein", "mmd") for s in ("", "/perfect")}
    assert set(first.metrics) == expected | distances
    assert all(value.shape == (2,) for value in first.metrics.values())
    for name in METRICS:
        assert np.array_equal(first.metrics[name], second.metrics[f"{name}/raw"])
        assert np.array_equal(first.metrics[f"{name}/ema"], second.metrics[name])
    assert (first.metrics["high_quality"] != first.metrics["high_quality/ema"]).any()


def test_arrays_show_samples_field_and_arrows(game):
    run = game(*SMALL, "members=5", "loss=minimax").iterate(3)
    arrays = run.problem.evaluate().arrays
    shapes = {name: value.shape for name, value in arrays.items()}
    assert shapes == {
        "samples": (5, 500, 2), "data": (1, 500, 2), "centres": (1, 8, 2),
        "field": (4, 48, 48), "field_axes": (1, 2, 48),
        "arrows": (4, 200, 2), "arrow_points": (4, 200, 2),
    }  # fmt: skip
    assert np.array_equal(arrays["arrow_points"], arrays["samples"][:4, :200])
    module = run.players["discriminator"].module().double()
    module.load_state_dict(run.players["discriminator"].parameters.member(3))
    row, column = 5, 40  # the field's rows are y, its columns x
    point = torch.tensor(arrays["field_axes"][0][[0, 1], [column, row]])
    assert arrays["field"][3, row, column] == pytest.approx(module(point).item())
    x = torch.tensor(arrays["arrow_points"][3], requires_grad=True)
    loss = torch.log(1 - torch.sigmoid(module(x))).sum()  # log(1 - D), Goodfellow et al. eq. 1
    (slope,) = torch.autograd.grad(loss, x)
    assert arrays["arrows"][3] == pytest.approx(-slope.numpy(), rel=1e-9)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("problem.modes=24 problem=gan/grid", "problem.modes=24: must be a square number"),
        ("problem.sigma=0", "problem.sigma=0.0: must be greater than 0"),
        (f"{SIM} problem.discriminator_updates=2", "must be 1 when rounds=simultaneous"),
        ("problem.start=[1,1]", "only gan/dirac starts at a point"),
        ("problem=gan/dirac problem.start=[1]", "must be a list of 2 numbers"),
        ("problem=gan/dirac problem.start=null", "must be a list of 2 numbers"),
        ("penalty.r1=-1", "penalty.r1=-1.0: must be at least 0"),
        ("penalty.r1=nan", "penalty.r1=nan: must be finite"),
        ("penalty.center=-1", "penalty.center=-1.0: must be at least 0"),
        ("problem.pack=3", "problem.pack=3: must divide problem.batch_size=256"),
        ("problem=gan/dirac problem.pack=2 problem.batch_size=2", "has no meaning for gan/dirac"),
        ("problem=gan/dirac problem.spectral_norm=true", "has no meaning for gan/dirac"),
        ("problem.network=conv", "problem.network=conv: ring has no images"),
        ("problem.data=moons", "problem.data=moons: allowed are ring, grid"),
        ("problem.instance_noise=-1", "must be at least 0"),
        ("problem.ema_decay=1", "problem.ema_decay=1.0: must be less than 1"),
        ("loss=wrong", "loss=wrong"),
    ],
)
def test_bad_configurations_get_one_clear_line(override, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        compose(["problem=gan/ring", *override.split()])


def test_annealed_noise_keeps_a_run_from_getting_longer():
    longer = ["budget.iterations=9000"]
    plain = [*SMALL, "optimizer.schedule=constant"]
    assert changed(compose(plain), longer).budget.iterations == 9000
    with pytest.raises(ConfigError, match="gan/ring anneals over the budget"):
        changed(compose([*plain, "problem.instance_noise=0.1"]), longer)


def test_the_dirac_gan_has_no_averaged_metrics():
    config = compose(["problem=gan/dirac", "evaluate.generator=ema"])
    with pytest.raises(ConfigError, match=r"evaluate\.generator=ema"):
        config.problem.build(config)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 5])
def test_the_shipped_ring_is_learnt(game, seed):
    run = game("problem=gan/ring", f"seed={seed}")
    run.iterate(run.config.problem.default_budget["iterations"])
    metrics = run.problem.evaluate().metrics
    assert metrics["modes"].tolist() == [8]
    assert metrics["reverse_kl"][0] <= 0.05
