"""Deep, residual, convolutional and recurrent networks against ``torch.nn`` in float64."""

import numpy as np
import pytest
import torch
from harness import loop
from torch import nn

from playground.domains.supervised.config import ACTIVATIONS, BRANCHES, INITIALISATIONS
from playground.domains.supervised.recurrent import CELL, Elman
from playground.domains.supervised.residual import Residual
from playground.initialisations import initial_weight
from playground.nets import convolutional

F64 = torch.float64


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def perturbed(tensors, seed=5):
    """All tensors off their start, so that nothing is hidden by a 0."""
    return {name: t + 0.1 * noise(*t.shape, seed=seed) for name, t in tensors.items()}


def gradients(net, tensors, x):
    leaves = {name: t.clone().requires_grad_() for name, t in tensors.items()}
    out = net(leaves, x)
    return out.detach(), torch.autograd.grad((out**3).sum(), [*leaves.values()])


def against(net, module, tensors, x, shaped):
    module = module.double()
    module.load_state_dict(tensors)
    assert [*module.state_dict()] == [*tensors] or {*module.state_dict()} == {*tensors}
    out, slopes = gradients(net, tensors, x)
    expected = module(shaped)
    torch.testing.assert_close(out, expected.detach(), rtol=1e-11, atol=1e-12)
    (expected**3).sum().backward()
    for (name, _), slope in zip(tensors.items(), slopes, strict=True):
        own = dict(module.named_parameters())[name].grad
        torch.testing.assert_close(slope, own, rtol=1e-9, atol=1e-11)
    many = {name: torch.stack([t, 2 * t]) for name, t in tensors.items()}
    both = torch.func.vmap(net)(many, torch.stack([x, x]))
    torch.testing.assert_close(both[0], out, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("activation", ["relu", "tanh", "selu"])
@pytest.mark.parametrize("branch", BRANCHES)
def test_a_residual_network_is_its_module(branch, activation):
    net = Residual(5, 6, 3, 4, activation, "torch", branch)
    x = noise(7, 5)
    against(net, net.module(), perturbed(net.init(2, "model")), x, x)


def test_a_residual_network_by_hand():
    """x + W2 phi(W1 phi(x)) in NumPy, twice, between the first and the last layer."""
    net = Residual(3, 4, 2, 2, "relu", "torch")
    tensors = perturbed(net.init(0, "model"))
    w = {name: t.numpy() for name, t in tensors.items()}
    x = noise(6, 3)
    h = x.numpy() @ w["0.weight"].T + w["0.bias"]
    for b in ("1", "2"):
        inner = np.maximum(h, 0) @ w[f"{b}.1.weight"].T + w[f"{b}.1.bias"]
        h = h + np.maximum(inner, 0) @ w[f"{b}.3.weight"].T + w[f"{b}.3.bias"]
    expected = np.maximum(h, 0) @ w["4.weight"].T + w["4.bias"]
    assert net(tensors, x).numpy() == pytest.approx(expected, rel=1e-12)


def test_how_branches_start():
    draws = {b: Residual(5, 8, 4, 3, "relu", "he", b).init(0, "model") for b in BRANCHES}
    plain, names = draws["plain"], [f"{b}.{k}.weight" for b in range(1, 5) for k in (1, 3)]
    for name in names:
        first = name[2] == "1"
        assert torch.equal(draws["rezero"][name], plain[name])
        assert torch.equal(draws["scaled"][name], plain[name] / (1 if first else 2))
        assert torch.equal(draws["zero"][name], plain[name] * first)
        assert torch.equal(draws["fixup"][name], plain[name] / 2 * first)
    assert not draws["fixup"]["6.weight"].any()
    assert torch.equal(draws["zero"]["6.weight"], plain["6.weight"])
    assert all(not draws["rezero"][f"{b}.alpha"].any() for b in range(1, 5))
    zero = Residual(5, 8, 4, 3, "relu", "torch", "zero")  # random biases too
    tensors, x = zero.init(0, "model"), noise(6, 5)
    bare = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    ends = (("0", "0"), ("2", "6"))
    kinds = ("weight", "bias")
    bare.load_state_dict({f"{a}.{k}": tensors[f"{b}.{k}"] for a, b in ends for k in kinds})
    torch.testing.assert_close(zero(tensors, x), bare(x))


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_a_recurrent_network_is_nn_rnn(activation):
    net = Elman(2, 6, 3, activation)
    rows = noise(5, 9 * 2)
    tensors = perturbed(net.init(2, "model"))
    against(net, net.module(), tensors, rows, rows.view(5, 9, 2))


def test_what_torch_has_no_network_for():
    assert Elman(2, 4, 1, "linear").factory is None
    assert Elman(2, 4, 1, "relu").factory is not None
    made = loop("problem=supervised/adding", "problem.activation=linear", "problem.widths=[4]",
                "problem.samples=40", "problem.test_samples=10", "problem.length=4")  # fmt: skip
    assert made.players["model"].module is None


def test_how_memories_start():
    """torch: nn.RNN's bounds, whatever the inputs; else biases 0; W_hh as asked, times rho."""
    size = 50
    tensors = Elman(2, size, 3, recurrent="torch").init(0, "model")
    for name in (*CELL, "head.weight", "head.bias"):
        value, bound = tensors[name].abs(), size**-0.5
        assert 0 < value.max().item() <= bound
        if value.numel() >= size:  # the largest of n uniforms
            assert value.max().item() > (1 - 10 / (value.numel() + 10)) * bound
    irnn = Elman(2, size, 3, "relu", "lecun", "identity", recurrent_gain=0.9).init(0, "model")
    assert torch.equal(irnn[CELL[1]], 0.9 * torch.eye(size, dtype=F64))
    assert not any(irnn[name].any() for name in (*CELL[2:], "head.bias"))
    turned = Elman(2, size, 3, recurrent_gain=1.1).init(0, "model")[CELL[1]]
    torch.testing.assert_close(turned @ turned.T, 1.21 * torch.eye(size, dtype=F64))


@pytest.mark.parametrize("widths", [(), (9,)])
def test_a_convolutional_network_is_its_module(widths):
    net = convolutional((1, 8), 3, (*widths, 10), "relu", "torch")
    x = noise(4, 64)
    against(net, net.module(), perturbed(net.init(1, "model")), x, x)
    layers = [m for m in net.module() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels, m.kernel_size) for m in layers] == [
        (1, 3, (4, 4)), (3, 6, (4, 4)),
    ]  # fmt: skip


def test_depth_counts_layers_with_weights():
    made = loop("problem=supervised/digits_deep", "problem.depth=10", "problem.widths=[8]")
    names = made.players["model"].parameters.layout.names
    assert len([name for name in names if name.endswith("weight")]) == 10
    made = loop("problem=supervised/digits_residual", "problem.depth=10", "problem.widths=[8]")
    names = made.players["model"].parameters.layout.names
    assert len([name for name in names if name.endswith("weight")]) == 10


@pytest.mark.slow
@pytest.mark.parametrize("network", ["deep", "residual"])
@pytest.mark.parametrize(
    ("activation", "kind"),
    [*((a, "he") for a in ACTIVATIONS), *(("relu", k) for k in INITIALISATIONS)],
)
def test_every_activation_and_initialisation_is_a_run(network, activation, kind):
    """Ten layers: the start is the initialisation's own draw, an update is finite."""
    made = loop(f"problem=supervised/digits_{network}", "problem.depth=10", "problem.widths=[20]",
                f"problem.activation={activation}", f"problem.initialisation={kind}",
                "optimizer=sgd", "optimizer.lr=1e-3", "members=2")  # fmt: skip
    before = made.values()["model"].clone()
    name = "4.weight" if network == "deep" else "2.1.weight"
    from playground.randomness import stream_seed

    generator = torch.Generator().manual_seed(stream_seed(1, f"init/model/{name}"))
    drawn = initial_weight(kind, (20, 20), 2**0.5, generator).float()
    views = made.players["model"].parameters.layout.views(before)
    assert torch.equal(views[name][1], drawn)
    made.iterate()
    assert torch.isfinite(made.values()["model"]).all()
    flat = kind in ("normal", "truncated_normal")  # may round to nothing at this depth
    assert flat or not torch.equal(made.values()["model"], before)
