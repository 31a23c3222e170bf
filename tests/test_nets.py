import math

import numpy as np
import pytest
import torch
from harness import TINY, quiet
from scipy.stats import kstest, truncnorm
from torch import nn

from playground.initialisations import INITIALISATIONS, initial_weight
from playground.nets import (
    ACTIVATIONS,
    MLP,
    NUMPY_ACTIVATIONS,
    dcgan_discriminator,
    dcgan_generator,
)
from playground.record.checkpoint import load_checkpoint
from playground.schema import ConfigError

FAN_IN, FAN_OUT = 300, 500


def draw(kind, gain=1.0):
    return initial_weight(kind, (FAN_OUT, FAN_IN), gain, torch.Generator().manual_seed(3)).numpy()


@pytest.mark.parametrize(
    ("kind", "variance"),
    [
        ("torch", 1 / (3 * FAN_IN)),  # of uniform +-1/sqrt(fan_in)
        ("he", 2 / FAN_IN),
        ("lecun", 1 / FAN_IN),
        ("glorot", 2 / (FAN_IN + FAN_OUT)),
        ("he_uniform", 2 / FAN_IN),
        ("he_fan_out", 2 / FAN_OUT),
        ("he_fan_out_uniform", 2 / FAN_OUT),
        ("glorot_normal", 2 / (FAN_IN + FAN_OUT)),
        ("lecun_uniform", 1 / FAN_IN),
        ("normal", 1e-4),
    ],
)
def test_variances_of_weights(kind, variance):
    """Within 5 standard errors of the sample variance; at most normal's, sqrt(2/n)."""
    weight = draw(kind)
    error = math.sqrt(2 / weight.size)
    assert abs(weight.mean()) < 5 * math.sqrt(variance / weight.size)
    assert abs(np.mean(weight**2) / variance - 1) < 5 * error


@pytest.mark.parametrize(
    ("kind", "bound"),
    [("torch", FAN_IN**-0.5), ("glorot", 0.0866025404), ("he_uniform", (6 / FAN_IN) ** 0.5),
     ("lecun_uniform", (3 / FAN_IN) ** 0.5), ("he_fan_out_uniform", (6 / FAN_OUT) ** 0.5)],
)  # fmt: skip
def test_uniform_weights_fill_their_interval(kind, bound):
    weight = np.abs(draw(kind))
    assert 0.999 * bound < weight.max() <= bound


def test_orthogonal_columns_have_the_gain_as_norm():
    weight = draw("orthogonal", 1.7)
    assert np.allclose(weight.T @ weight, 1.7**2 * np.eye(FAN_IN), atol=1e-10)


def test_weights_of_no_size_or_few():
    cut = draw("truncated_normal")
    assert np.abs(cut).max() <= 0.04
    known = truncnorm(-2, 2, scale=0.02)
    assert kstest(cut.ravel(), known.cdf).pvalue > 1e-3
    few = draw("sparse")
    assert (np.count_nonzero(few, axis=1) == 15).all()
    assert abs(few[few != 0].var() - 1) < 5 * math.sqrt(2 / (15 * FAN_OUT))
    assert np.abs(np.count_nonzero(few, axis=0) - 25).max() < 5.5 * 5  # inputs as likely as others
    assert np.array_equal(draw("identity"), np.eye(FAN_OUT, FAN_IN))


@pytest.mark.parametrize("kind", ["he", "he_fan_out", "glorot", "glorot_normal", "lecun"])
def test_kernels_count_their_places_as_torch_does(kind):
    shape = (40, 30, 4, 4)
    module = nn.Conv2d(30, 40, 4)
    draws = {"he": lambda w: nn.init.kaiming_normal_(w),
             "he_fan_out": lambda w: nn.init.kaiming_normal_(w, mode="fan_out"),
             "glorot": nn.init.xavier_uniform_, "glorot_normal": nn.init.xavier_normal_,
             "lecun": lambda w: nn.init.kaiming_normal_(w, nonlinearity="linear")}  # fmt: skip
    with torch.no_grad():
        draws[kind](module.weight)
    ours = initial_weight(kind, shape, 1.0, torch.Generator().manual_seed(3))
    size = math.prod(shape)
    ratio = (ours.square().mean() / module.weight.square().mean()).log().abs().item()
    assert ratio < 5 * 2 / math.sqrt(size)


def test_a_gain_is_of_all_weights_but_the_last():
    for kind in ("lecun", "orthogonal"):
        one, other = (MLP((6, 6, 6, 3), initialisation=kind, gain=g).init(0, "x") for g in (1, 1.5))
        for name in ("0.weight", "2.weight"):
            assert torch.allclose(other[name], 1.5 * one[name])
        assert torch.equal(other["4.weight"], one["4.weight"])


def test_biases():
    for kind in INITIALISATIONS:
        bias = MLP((400, 300), initialisation=kind).init(0, "x")["0.bias"].numpy()
        if kind == "torch":
            assert 0.04 < np.abs(bias).max() <= 1 / 20
        else:
            assert not bias.any()
    assert list(MLP((4, 3, 2), bias=False).init(0, "x")) == ["0.weight", "2.weight"]


def test_orthogonal_gains_of_hidden_and_last_layer():
    tensors = MLP((20, 10, 5), initialisation="orthogonal", output_gain=0.01).init(0, "x")
    for name, size, gain in (("0.weight", 10, math.sqrt(2)), ("2.weight", 5, 0.01)):
        weight = tensors[name].numpy()
        assert np.allclose(weight @ weight.T, gain**2 * np.eye(size), atol=1e-12)


def test_streams_of_seeds_purposes_and_layers_differ():
    net = MLP((3, 3, 3))
    draws = [net.init(seed, purpose)[f"{layer}.weight"]
             for seed in (0, 1) for purpose in ("policy", "value") for layer in (0, 2)]  # fmt: skip
    assert len({tuple(d.flatten().tolist()) for d in draws}) == 8
    assert torch.equal(net.init(1, "policy")["2.weight"], draws[5])


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("widths", [(), (7,), (7, 6)])
def test_forward_is_the_module_s(activation, widths):
    net = MLP((5, *widths, 3), activation, prefix="p.")
    tensors = net.init(0, "x")
    module = net.module().double()
    module.load_state_dict({name[2:]: value for name, value in tensors.items()})
    x = torch.linspace(-2, 2, 20, dtype=torch.float64).view(4, 5)
    assert torch.equal(net(tensors, x), module(x))
    features, out = net.features(tensors, x)
    assert torch.equal(features, module[:-1](x))
    assert torch.equal(out, module(x))


def test_two_networks_share_a_trunk():
    heads = [MLP((5, 7, 6, k), "tanh", "torch", prefix=f"{k}.", trunk="t.") for k in (2, 3)]
    one, other = (net.init(0, "x") for net in heads)
    shared = [f"t.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")]
    assert [*one] == [*shared, "2.4.weight", "2.4.bias"]
    assert [*other] == [*shared, "3.4.weight", "3.4.bias"]
    x = torch.linspace(-2, 2, 20, dtype=torch.float64).view(4, 5)
    module = heads[1].module().double()
    module.load_state_dict({name[2:]: value for name, value in (other | one).items()
                            if not name.startswith("2.")})  # fmt: skip
    assert torch.equal(heads[1](one | other, x), heads[1](other | one, x))
    assert torch.equal(heads[1](other | one, x), module(x))


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", NUMPY_ACTIVATIONS)
def test_numpy_forward_is_the_module_s(activation, bias, members):
    net = MLP((5, 7, 6, 3), activation, bias=bias)
    tensors = [net.init(k, "x") for k in range(members)]
    stacked = {name: np.stack([t[name].numpy() for t in tensors]) for name in tensors[0]}
    forward = net.numpy_forward(stacked)
    x = np.linspace(-2, 2, members * 20).reshape(members, 4, 5)
    for round_ in range(2):
        kept = x.copy()
        features, out = forward(x)
        assert np.array_equal(x, kept)
        for k in range(members):
            module = net.module().double()
            module.load_state_dict({n: torch.tensor(v[k]) for n, v in stacked.items()})
            hidden = module[:-1](torch.tensor(x[k])).detach()
            assert np.allclose(features[k], hidden.numpy(), rtol=0, atol=1e-14), round_
            expected = module[-1](hidden).detach().numpy()
            assert np.allclose(out[k], expected, rtol=0, atol=1e-14), round_
        for value in stacked.values():
            value *= 0.5  # the parameters are read anew


def test_gains_are_torch_s():
    for name in ("tanh", "relu", "leaky_relu", "sigmoid", "linear", "selu"):
        assert ACTIVATIONS[name][2] == pytest.approx(torch.nn.init.calculate_gain(name))


def test_unknown_initialisation():
    with pytest.raises(ValueError, match="orthogonal"):
        initial_weight("xavier", (2, 2), 1.0, torch.Generator())


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize(
    ("domain", "name"),
    [("supervised", "model"), ("gan", "generator"), ("ppo", "agent"), ("reinforce", "policy")],
)
def test_a_run_hands_over_its_modules(domain, name, tmp_path):
    run = quiet([*TINY[domain], "budget.iterations=2", "members=2"], tmp_path / "run")
    found = load_checkpoint(run.path)
    assert found is not None
    values = found[1]["players"][name]["parameters"]
    for member in (0, 1):
        module = run.player(name, member)
        flat = torch.cat([value.flatten() for value in module.state_dict().values()])
        order = torch.cat([
            values[member, piece]
            for piece in slices(run, name, module)
        ])  # fmt: skip
        assert torch.equal(flat, order)
    with pytest.raises(ConfigError, match="has 2"):
        run.player(name, 2)
    with pytest.raises(ConfigError, match="the run has"):
        run.player("nobody")


def slices(run, name, module):
    """Where each tensor of the module lies, by the manifest's order of names."""
    shapes = {key: value.numel() for key, value in module.state_dict().items()}
    starts, start = {}, 0
    for tensor in run.manifest["tensors"][name]:
        starts[tensor] = slice(start, start + shapes[tensor])
        start += shapes[tensor]
    return [starts[key] for key in module.state_dict()]


@pytest.mark.usefixtures("without_figures")
def test_a_point_is_no_network(tmp_path):
    run = quiet([*TINY["dirac"], "budget.iterations=1"], tmp_path / "run")
    with pytest.raises(ConfigError, match="not a network"):
        run.player("generator")
    assert run.player("discriminator").state_dict()["0.weight"].shape == (1, 1)


STACKS = [
    (dcgan_generator(5, 3, 8, 4, "relu", "torch"), 5, 192),
    (dcgan_discriminator(3, 8, 4, "leaky_relu", "torch"), 192, 1),
    (dcgan_generator(5, 1, 28, 2, "relu", "he"), 5, 784),
    (dcgan_discriminator(1, 28, 2, "leaky_relu", "he"), 784, 1),
]


@pytest.mark.parametrize(("stack", "inputs", "outputs"), STACKS)
def test_a_stack_is_its_module(stack, inputs, outputs):
    tensors = stack.init(3, "model")
    module = stack.module().double()
    module.load_state_dict(tensors)
    x = torch.randn(7, inputs, dtype=torch.float64)
    found = stack(tensors, x)
    assert found.shape == (7, outputs)
    assert torch.allclose(found, module(x).flatten(1), rtol=1e-12)
    many = {name: torch.stack([value, 2 * value]) for name, value in tensors.items()}
    both = torch.func.vmap(stack)(many, torch.stack([x, x]))
    assert torch.allclose(both[0], found, rtol=1e-10, atol=1e-12)


def test_kernels_start_as_torchs_do():
    """Uniform up to 1/sqrt(fan-in), with torch's fan-in of transposed kernels."""
    stack = dcgan_generator(5, 1, 8, 16, "relu", "torch")
    own, module = stack.init(0, "model"), stack.module().state_dict()
    assert {name: value.shape for name, value in own.items()} == {
        name: value.shape for name, value in module.items()
    }
    for name, value in own.items():
        kernel = module[name.rpartition(".")[0] + ".weight"]
        fan_in, _ = torch.nn.init._calculate_fan_in_and_fan_out(kernel)
        bound, largest = fan_in**-0.5, value.abs().max().item()
        assert largest <= bound
        assert largest > (1 - 8 / (value.numel() + 8)) * bound  # the largest of n uniforms
