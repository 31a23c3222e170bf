"""The flow probe in runs: hooks of torch.nn, planted faults, every domain, resuming."""

import numpy as np
import pytest
import torch
from harness import (
    SMALL_GAN,
    SPREAD,
    TINY,
    assert_same,
    assert_same_records,
    final,
    loop,
    quiet,
    resume,
    stop,
)
from torch import nn

from playground.probes.config import FlowConfig
from playground.probes.flow.probe import FlowProbe
from playground.probes.passes import Turn

pytestmark = pytest.mark.usefixtures("without_figures")

MOONS = ["problem=supervised/two_moons", "dtype=float64", "members=2"]


def measured(made, **settings):
    moves = {m.player: m for m in next(made.problem.iteration(0.0))}
    seen = Turn(moves, made.engine.differentiate, made.players)
    return seen, FlowProbe(1, **settings).measure(seen)


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_mean_squares_and_slopes_against_hooks(activation):
    made = loop(*MOONS, "problem.widths=[16,12,8]", f"problem.activation={activation}")
    seen, reading = measured(made.iterate(5))
    batch, player = seen.moves["model"].batch, seen.players["model"]
    for member in range(2):
        module = player.module().double()
        module.load_state_dict(player.parameters.member(member))
        outputs = {}

        def hook(layer, inputs, output, outputs=outputs):
            output.retain_grad()
            outputs[layer] = output

        layers = [layer for layer in module if isinstance(layer, nn.Linear)]
        for layer in layers:
            layer.register_forward_hook(hook)
        logits = module(batch["input"][member])
        nn.functional.cross_entropy(logits, batch["target"][member]).backward()
        lengths = []
        for k, layer in enumerate(layers):
            key = ("model", f"{2 * k}.weight")
            z, delta = outputs[layer].detach(), outputs[layer].grad
            lengths.append(delta.square().sum(1).mean().item())
            for name, value in (("forward", z), ("backward", delta)):
                found = reading.values[*key, name][member].item()
                assert found == pytest.approx(value.square().mean().item(), rel=1e-9)
            sigma = np.linalg.svd(layer.weight.detach().numpy(), compute_uv=False)
            assert reading.values[*key, "sigma_max"][member].item() == pytest.approx(sigma[0])
            kind = "saturated" if activation == "tanh" else "dead"
            assert ((*key, kind) in reading.values) == (k < 3)
        slope = np.polyfit(np.arange(4), np.log(lengths[::-1]), 1)[0]
        found = reading.values["model", "6.weight", "backward_slope"][member].item()
        assert found == pytest.approx(slope)


def test_theory_at_the_start_of_a_wide_network():
    """Without a bias the first layer's theory is the measured mean square of weights and inputs,
    and in the next ones mean squares agree with it up to 1 / width."""
    made = loop(*MOONS, "problem.widths=[400,400,400]", "problem.activation=relu",
                "problem.initialisation=he", "members=4")  # fmt: skip
    seen, reading = measured(made)
    x = seen.moves["model"].batch["input"]
    weight = seen.players["model"].parameters.views["0.weight"]
    expected = 2 * weight.square().mean(dim=(1, 2)) * x.square().mean(dim=(1, 2))
    first = reading.values["model", "0.weight", "forward_theory"]
    torch.testing.assert_close(first, expected)
    for k in (2, 4):
        key = ("model", f"{k}.weight")
        ratio = reading.values[*key, "forward"] / reading.values[*key, "forward_theory"]
        assert ratio.log().mean().abs() < 0.25
        ratio = reading.values[*key, "backward"] / reading.values[*key, "backward_theory"]
        assert ratio.log().mean().abs() < 0.25


def test_planted_dead_and_saturated_layers_and_vanishing_signals():
    made = loop(*MOONS, "problem.widths=[16,16]", "problem.activation=relu")
    made.players["model"].parameters.views["2.bias"][1] = -100.0
    reading = measured(made)[1].values
    assert reading["model", "2.weight", "dead"][0] < 0.5
    assert reading["model", "2.weight", "dead"][1] == 1
    assert reading["model", "0.weight", "backward"][1] == 0
    assert torch.isnan(reading["model", "4.weight", "backward_slope"][1])
    made = loop(*MOONS, "problem.widths=[16,16]", "problem.activation=tanh")
    made.players["model"].parameters.views["0.weight"][1] *= 1e4
    made.players["model"].parameters.views["2.weight"][0] *= 1e-3
    reading = measured(made)[1].values
    assert reading["model", "0.weight", "saturated"][0] == 0
    assert reading["model", "0.weight", "saturated"][1] > 0.8
    assert reading["model", "0.weight", "inactive"][1] > 0.9
    plain = measured(loop(*MOONS, "problem.widths=[16,16]", "problem.activation=tanh"))[1].values
    key = ("model", "4.weight", "backward_slope")
    assert reading[key][0] < plain[key][0] - 3  # log of 1e-6, over two steps from layer to layer


def test_networks_of_their_own_are_chains_of_their_own():
    def ends(made):
        return {key[:2] for key in measured(made)[1].values if key[2] == "backward_slope"}

    separate = loop(*TINY["ppo"], "algorithm.separate=true")
    assert ends(separate) == {("policy", "2.weight"), ("value", "2.weight")}
    agent = ends(loop(*TINY["ppo"]))
    assert agent == {("agent", "policy.2.weight"), ("agent", "value.2.weight")}
    both = loop("problem=gan/ring", *SMALL_GAN, "problem.rounds=simultaneous")
    assert ends(both) == {("generator", "2.weight"), ("discriminator", "2.weight")}
    images = loop("problem=gan/digits", "problem.network=conv", "problem.channels=2",
                  "problem.batch_size=16", "problem.rounds=simultaneous")  # fmt: skip
    values = measured(images)[1].values
    chains = [(p, t) for p, t, q in values if q == "backward_slope"]
    assert [player for player, _ in sorted(chains)] == ["discriminator", "generator"]
    for quantity, players in (("dormant", 2), ("dead", 1)):  # the discriminator's ReLU is leaky
        assert len([key for key in values if key[2] == quantity]) == 2 * players


def test_a_broken_member_is_undefined_and_harms_nobody():
    made = loop(*MOONS, "problem.widths=[8,8]", "problem.activation=relu")
    clean = measured(made)[1].values
    made = loop(*MOONS, "problem.widths=[8,8]", "problem.activation=relu")
    made.values()["model"][1] = float("nan")
    found = measured(made)[1].values
    assert clean.keys() == found.keys()
    for key, value in found.items():
        torch.testing.assert_close(value[0], clean[key][0])
        assert torch.isnan(value[1]), key


@pytest.mark.parametrize("domain", SPREAD)
def test_every_domain_trains_the_same_and_resumes_bit_for_bit(domain, tmp_path):
    base = [*TINY[domain], "budget.iterations=6", "members=2", "checkpoint.every=3"]
    extra = ["probes.flow.every=2"]
    plain = quiet([*base, "probes=none"], tmp_path / "plain")
    whole = quiet([*base, *extra], tmp_path / "whole")
    for key in ("players", "engine", "problem", "counters"):
        assert_same(final(plain)[key], final(whole)[key], key)
    stop([*base, *extra], tmp_path / "parts", 4)
    parts = resume(tmp_path / "parts")
    assert_same(final(whole), final(parts))
    assert_same_records(whole, parts)
    rows = [r for r in whole.measurements.to_pylist() if r["probe"] == "flow"]
    if domain not in ("landscape", "game", "dirac"):
        assert {r["iteration"] for r in rows} == {1, 3, 5}
        assert {r["player"] for r in rows} == {*whole.manifest["players"]}


def test_what_is_measured_unasked():
    wanted = FlowConfig().wanted
    assert [wanted(name) for name in ("none", "light", "standard", "full")] == [0, 0, 0, 1]
    assert FlowConfig(every=3).wanted("none")
    assert not FlowConfig(every=0).wanted("full")
