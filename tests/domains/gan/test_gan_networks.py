"""Spectral normalisation, packing, instance noise and squashing, against torch and by hand."""

import numpy as np
import pytest
import torch
from harness import SMALL_GAN, loop
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from playground.domains.gan.networks import (
    EPS,
    Packed,
    Spectral,
    advance,
    singular_vectors,
    weights,
)
from playground.nets import MLP, dcgan_discriminator

RING = ("problem=gan/ring", *SMALL_GAN)
MEMBERS = 3


def stacked(network, seeds=tuple(range(MEMBERS))):
    each = [network.init(seed, "discriminator") for seed in seeds]
    return {name: torch.stack([one[name] for one in each]) for name in each[0]}


NETWORKS = [MLP((2, 9, 7, 1)), dcgan_discriminator(1, 8, 3, "leaky_relu", "torch")]


@pytest.mark.parametrize(("network", "size"), [(NETWORKS[0], 2), (NETWORKS[1], 64)])
def test_it_is_torchs_parametrization(network, size):
    """Same vectors at the start, then some training forwards with weights that move."""
    views = stacked(network)
    vectors = singular_vectors(views, tuple(range(MEMBERS)))
    module = network.module().double()
    module.load_state_dict({name: value[1] for name, value in views.items()})
    for key, layer in module.named_children():
        if f"{key}.weight" in views:
            spectral_norm(layer, eps=EPS)
            own = layer.parametrizations.weight[0]
            own._u.copy_(vectors[f"spectral/u/{key}.weight"][1])
            own._v.copy_(vectors[f"spectral/v/{key}.weight"][1])
    x = torch.randn(5, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        for name in views:
            change = 0.1 * torch.randn(views[name].shape, generator=generator, dtype=torch.float64)
            views[name] += change
            owner, kind = name.split(".")
            layer = getattr(module, owner)
            target = layer.parametrizations.weight.original if kind == "weight" else layer.bias
            with torch.no_grad():
                target += change[1]
        vectors = advance(views, vectors)
        one = {name: value[1].clone().requires_grad_() for name, value in views.items()}
        given = one | {name: value[1] for name, value in vectors.items()}
        found, expected = Spectral(network)(given, x), module(x)
        assert torch.allclose(found, expected, rtol=1e-12)
        (slope,) = torch.autograd.grad(found.sum(), one["0.weight" if size == 2 else "1.weight"])
        layer = module[0 if size == 2 else 1]
        (theirs,) = torch.autograd.grad(expected.sum(), layer.parametrizations.weight.original)
        assert torch.allclose(slope, theirs, rtol=1e-11)


def test_estimates_converge_to_the_singular_values_of_numpy():
    views = stacked(NETWORKS[1])
    vectors = singular_vectors(views, tuple(range(MEMBERS)))
    for _ in range(3000):
        vectors = advance(views, vectors)
    for name in weights(views):
        for member in range(MEMBERS):
            matrix = views[name][member].flatten(1).numpy()
            u, v = (vectors[f"spectral/{side}/{name}"][member].numpy() for side in "uv")
            largest = np.linalg.svd(matrix, compute_uv=False)[0]
            assert u @ matrix @ v == pytest.approx(largest, rel=1e-6)


def test_a_linear_critic_has_slope_one():
    network = MLP((4, 1))
    views = stacked(network, (0,))
    vectors = singular_vectors(views, (0,))
    tensors = {k: v[0] for k, v in (views | vectors).items()}
    x = torch.randn(3, 4, dtype=torch.float64)
    slope = torch.func.grad(lambda p: Spectral(network)(tensors, p).sum())(x)
    assert slope.norm(dim=1).numpy() == pytest.approx(np.ones(3), rel=1e-12)


@pytest.mark.parametrize("rounds", ["alternating", "simultaneous"])
def test_vectors_advance_once_a_round_at_the_weights_before_it(rounds):
    made = loop(*RING, "problem.spectral_norm=true", f"problem.rounds={rounds}", "members=2")
    problem, player = made.problem, made.players["discriminator"]
    before = dict(problem.vectors)
    expected = advance(player.parameters.views, before)
    moves = next(problem.iteration(0.0))
    for move in moves:
        for name, vector in expected.items():
            assert torch.equal(move.batch[name], vector)
    made.iterate(2)
    assert not torch.equal(problem.vectors["spectral/u/0.weight"], expected["spectral/u/0.weight"])
    stays = {name: v.clone() for name, v in problem.vectors.items()}
    problem.evaluate()  # an evaluation does not advance them
    assert all(torch.equal(problem.vectors[name], v) for name, v in stays.items())
    assert player.module is None  # its weights alone are another network


def test_a_member_has_the_vectors_of_its_single_run():
    many = loop(*RING, "problem.spectral_norm=true", "members=3", "seed=4").problem.vectors
    single = loop(*RING, "problem.spectral_norm=true", "seed=6").problem.vectors
    for name, value in single.items():
        assert torch.allclose(many[name][2:], value, rtol=1e-5)


def test_packs_are_samples_side_by_side():
    network = MLP((6, 5, 1))
    tensors = network.init(0, "discriminator")
    x = torch.arange(24, dtype=torch.float64).reshape(12, 2) / 10
    found = Packed(network, 3)(tensors, x)
    expected = [network(tensors, torch.cat((x[i], x[i + 1], x[i + 2]))) for i in (0, 3, 6, 9)]
    assert torch.allclose(found, torch.stack(expected), rtol=1e-13)


@pytest.mark.parametrize("name", ["r1", "gradient"])
def test_the_slope_of_a_pack_is_that_of_all_its_samples(name):
    made = loop(*RING, "problem.pack=4", f"penalty.{name}=2", "penalty.center=0",
                "dtype=float64", *(["penalty.r1=0"] if name != "r1" else []))  # fmt: skip
    (move,) = next(made.problem.iteration(0.0))
    module = made.players["discriminator"].module().double()
    module.load_state_dict(made.players["discriminator"].parameters.member(0))
    real = move.batch["real"][0].reshape(4, 8)
    if name == "gradient":
        fake = made.problem.networks["generator"](
            made.players["generator"].parameters.member(0), move.batch["latent"][0]
        ).reshape(4, 8)
        u = move.batch["mix"][0]
        assert u.shape == (4, 1)
        real = u * real + (1 - u) * fake
    real = real.detach().requires_grad_()
    (slope,) = torch.autograd.grad(module(real).sum(), real)
    factor = 1.0 if name == "r1" else 2.0
    expected = factor * slope.square().sum(1).mean()
    found = made.engine.gradient(move).terms[name]
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)


def test_instance_noise_is_added_to_both_and_annealed_linearly():
    plain = loop(*RING, "dtype=float64", "members=2")
    noisy = loop(*RING, "dtype=float64", "members=2", "problem.instance_noise=0.5")
    for progress, scale in ((0.0, 0.5), (0.25, 0.375), (1.0, 0.0)):
        (bare,), (move,) = (next(one.problem.iteration(progress)) for one in (plain, noisy))
        assert torch.equal(move.batch["latent"], bare.batch["latent"])  # streams of their own
        shift = move.batch["real"] - bare.batch["real"]
        for noise in (shift, move.batch["noise"]):
            # 2 x 16 x 2 normal numbers: a standard deviation to 9 %
            assert noise.std().item() == pytest.approx(scale, rel=0.4, abs=1e-15)
        assert not torch.equal(shift, move.batch["noise"]) or scale == 0


@pytest.mark.parametrize("player", ["discriminator", "generator"])
def test_instance_noise_moves_the_fakes_that_the_discriminator_sees(player):
    made = loop(*RING, "dtype=float64", "problem.instance_noise=0.5", "problem.sigma=0.1")
    move = made.problem._move(player)
    parameters = {name: one.parameters.member(0) for name, one in made.players.items()}
    modules = {name: one.module().double() for name, one in made.players.items()}
    for name, module in modules.items():
        module.load_state_dict(parameters[name])
    fake = modules["generator"](move.batch["latent"][0]) + move.batch["noise"][0]
    expected = modules["discriminator"](fake).mean()
    found = made.engine.gradient(move).diagnostics["logit/fake"]
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)


def test_images_are_squashed_and_so_is_the_module_handed_over():
    made = loop("problem=gan/digits", *SMALL_GAN, "dtype=float64")
    module = made.players["generator"].module().double()
    module.load_state_dict(made.players["generator"].parameters.member(0))
    assert isinstance(module[-1], nn.Tanh)
    z = torch.randn(4, 32, dtype=torch.float64)
    found = made.problem.networks["generator"](made.players["generator"].parameters.member(0), z)
    assert torch.allclose(found, module(z), rtol=1e-13)
    assert found.abs().max() < 1
