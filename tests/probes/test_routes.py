"""Theory over graphs of layers: closed forms, averages over random weights, torch's autograd."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from playground.domains.rl.recurrent import Recurrent
from playground.domains.supervised.recurrent import Elman
from playground.domains.supervised.residual import Residual
from playground.game import Move, Player
from playground.nets import MLP, Layer, Stack
from playground.parameters import Parameters
from playground.probes.flow.probe import FlowProbe, by_step
from playground.probes.flow.propagation import backward_theory, forward_theory, nodes, places
from playground.probes.layers import Tracer
from playground.probes.passes import Turn

F64 = torch.float64


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def dot(net):
    """sum_k y_k d_k, so that delta of the last layer is d / B."""

    def objective(params, batch):
        return {"dot": (net(params["net"], batch["x"]) * batch["d"]).sum(-1)}, {}

    return objective


class Case:
    """A network of several members on one batch, traced."""

    def __init__(self, net, x, d, objective=None, change=None):
        members = len(x)
        parameters = Parameters.build(
            lambda k: net.init(k, "net"), members, torch.device("cpu"), F64
        )
        self.tensors = parameters.views
        if change:
            change(self.tensors)
        self.player = Player("net", parameters)
        self.move = Move("net", objective or dot(net), {"x": x, "d": d})
        self.trace = Tracer({"net": self.player})(self.move)
        self.nodes = nodes(self.trace, "net", self.tensors)
        self.forward = forward_theory(self.nodes, self.tensors)
        self.backward = backward_theory(self.nodes, self.forward, self.tensors)

    def reading(self):
        seen = Turn({"net": self.move}, None, {"net": self.player})
        return FlowProbe(1).measure(seen)


RATIOS = {
    ("relu", "torch"): 1 / 6, ("relu", "he"): 1.0, ("relu", "he_uniform"): 1.0,
    ("relu", "he_fan_out"): 1.0, ("relu", "glorot"): 0.5, ("relu", "glorot_normal"): 0.5,
    ("relu", "lecun"): 0.5, ("relu", "lecun_uniform"): 0.5, ("relu", "orthogonal"): 1.0,
    ("linear", "glorot"): 1.0, ("linear", "lecun"): 1.0, ("linear", "torch"): 1 / 3,
    ("relu", "sparse"): 7.5,
}  # fmt: skip
"""Mean squares of neighbouring layers of equal width: n w^2 times 1/2 for ReLU."""


@pytest.mark.parametrize(("activation", "kind"), RATIOS)
def test_ten_layers_forward_and_backward_at_the_start(activation, kind):
    """Networks of width 256 against ratio^l; theory differs from it by the weights' own size."""
    depth, width, members = 10, 256, 6
    net = MLP((width,) * (depth + 2), activation, kind, output_gain=2**0.5, bias=False)
    case = Case(net, noise(members, 64, width), noise(members, 64, width, seed=2))
    ratio = np.log(RATIOS[activation, kind])
    for theory, values in (
        (case.forward, [node.layer.output for node in case.nodes]),
        (case.backward[::-1], [node.delta for node in case.nodes][::-1]),
    ):
        expected = ((theory[-1] / theory[0]).log() / depth).numpy()
        assert expected == pytest.approx(ratio, abs=0.03)
        ends = [values[-1].square().mean(dim=(1, 2)), values[0].square().mean(dim=(1, 2))]
        found = (ends[0] / ends[1]).log().numpy() - depth * expected
        error = found.std(ddof=1) / members**0.5
        assert abs(found.mean()) < 4 * error + depth * 3 / width  # the logarithm's own shift


BLOCKS = 6
GROWTH = {"plain": 2.0, "scaled": 1 + 1 / BLOCKS, "zero": 1.0, "rezero": 1.0, "fixup": 1.0}


@pytest.mark.slow
@pytest.mark.parametrize("branch", GROWTH)
def test_residual_blocks_double_what_they_keep(branch):
    """ReLU and He's variance: block by block times 1 + s^2, s the branch's scale, both ways."""
    width, members = 256, 6
    net = Residual(width, width, BLOCKS, width, "relu", "he", branch)

    def change(tensors):
        if branch == "fixup":  # at 0 the last layer returns nothing
            tensors[f"{BLOCKS + 2}.weight"].copy_(noise(members, width, width) / 16)

    case = Case(net, noise(members, 64, width), noise(members, 64, width, seed=2), change=change)
    sums = [k for k, node in enumerate(case.nodes) if node.is_sum]
    assert len(sums) == BLOCKS
    assert all(node.known for node in case.nodes[:-1])
    stream = [0, *sums]
    ratio, bare = np.log(GROWTH[branch]), branch in ("zero", "rezero", "fixup")
    for theory, values in (
        ([case.forward[k] for k in stream], [case.nodes[k].layer.output for k in stream]),
        ([case.backward[k] for k in stream][::-1], [case.nodes[k].delta for k in stream][::-1]),
    ):
        steps = torch.stack(theory).log().diff(dim=0)
        assert steps.numpy() == pytest.approx(ratio, abs=1e-12 if bare else 0.03)
        means = torch.stack([value.square().mean(dim=(1, 2)) for value in values])
        found = (means[-1] / means[0]).log().numpy() - BLOCKS * ratio
        error = found.std(ddof=1) / members**0.5
        assert abs(found.mean()) < (1e-12 if bare else 4 * error + BLOCKS * 3 / width)
    reading = case.reading().values
    last, end = f"{BLOCKS + 2}.weight", f"{BLOCKS}.3.weight"
    torch.testing.assert_close(reading["net", end, "forward_sum_theory"], case.forward[sums[-1]])
    torch.testing.assert_close(
        reading["net", end, "backward_sum"], case.nodes[sums[-1]].delta.square().mean(dim=(1, 2))
    )
    # the chain is first layer, sums, last layer, whose mean square is that of all
    forward = [case.nodes[k].layer.output.square().mean(dim=(1, 2)) for k in (*stream, -1)]
    slope = np.polyfit(np.arange(len(forward)), torch.stack(forward).log().numpy(), 1)[0]
    assert reading["net", last, "forward_slope"].numpy() == pytest.approx(slope)


@pytest.mark.parametrize("kind", ["conv", "deconv"])
def test_convolutions_place_by_place_with_their_borders(kind):
    """Averages over 4000 random kernels on one uneven image: E z^2, E (dL/dx)^2 of each place."""
    members, inputs, outputs = 4000, 2, 3
    layers = (Layer("reshape", (inputs, 4, 4)), Layer(kind, (inputs, outputs)))
    net = Stack(layers, "he")
    image = noise(inputs * 16, seed=3) * torch.linspace(0, 2, inputs * 16, dtype=F64)
    image = image.expand(members, 1, -1)
    side = 2 if kind == "conv" else 8
    d = noise(outputs, side, side, seed=4).expand(members, 1, -1, -1, -1)

    def objective(params, batch):
        return {"dot": (net(params["net"], batch["x"]) * batch["d"]).flatten(1).sum(1)}, {}

    case = Case(net, image, d, objective)
    (node,) = case.nodes
    found = node.layer.output.square().mean(dim=(1, 2))
    assert_mean(found, case.forward[0])
    back = []
    for k in range(members):
        leaf = image[k].view(1, inputs, 4, 4).clone().requires_grad_()
        weight = case.tensors["1.weight"][k]
        function = F.conv2d if kind == "conv" else F.conv_transpose2d
        (function(leaf, weight, stride=2, padding=1) * d[k]).sum().backward()
        back.append(leaf.grad.square().mean(dim=(0, 1)))
    from playground.probes.flow.propagation import returning

    expected = returning(node.layer, places(node.layer, node.delta), case.tensors["1.weight"])
    assert_mean(torch.stack(back), expected)


def assert_mean(found, expected):
    """The mean over members agrees with theory's, which has the weights' own size."""
    error = (found - expected).std(dim=0) / len(found) ** 0.5
    assert ((found - expected).mean(dim=0).abs() < 4.5 * error).all()
    assert (error < 0.05 * expected.mean(dim=0)).all()


def test_a_chain_through_maps_and_linear_layers():
    """A generator's and a discriminator's layers in a row, averaged over many random networks."""
    members, width = 600, 8
    net = Stack((
        Layer("linear", (5, width * 4)), Layer("relu"), Layer("reshape", (width, 2, 2)),
        Layer("deconv", (width, width)), Layer("tanh"), Layer("conv", (width, width)),
        Layer("relu"), Layer("reshape", (width * 4,)), Layer("linear", (width * 4, 6)),
    ), "he")  # fmt: skip
    x = noise(1, 8, 5, seed=5).expand(members, -1, -1)
    case = Case(net, x, noise(members, 8, 6, seed=6))
    assert [node.activation for node in case.nodes] == ["", "relu", "tanh", "relu"]
    assert [node.known for node in case.nodes] == [True, True, True, False]
    for node, forward, backward in zip(case.nodes, case.forward, case.backward, strict=True):
        for value, theory in ((node.layer.output, forward), (node.delta, backward)):
            found = places(node.layer, value)
            ratio = found.mean(dim=0) / theory.mean(dim=0)
            assert (ratio.log().abs() < 0.25).all()  # maps of 8 channels are no wide network


def test_what_else_is_made_of_a_layer_s_output_starts_the_theory_anew():
    """A penalty on a hidden layer: its error is no longer what the next layer returns."""
    net = MLP((5, 6, 7, 2), "tanh")

    def objective(params, batch):
        hidden, out = net.features(params["net"], batch["x"])
        return {"a": (out * batch["d"]).sum(-1), "b": hidden.square().sum(-1)}, {}

    case = Case(net, noise(2, 9, 5), noise(2, 9, 2), objective)
    assert [node.known for node in case.nodes] == [True, False, False]
    torch.testing.assert_close(case.backward[1], case.nodes[1].delta.square().mean(dim=(1, 2)))
    weight = case.tensors["2.weight"].square().mean(dim=(1, 2))
    assert (case.backward[0] < 7 * weight * case.backward[1]).all()  # slopes are below 1


def test_two_heads_add_up():
    heads = [MLP((5, 6, k), "relu", prefix=f"{k}.", trunk="t.") for k in (2, 3)]

    class Both:
        def init(self, seed, purpose):
            return heads[0].init(seed, purpose) | heads[1].init(seed, purpose)

    def objective(params, batch):
        parts = [head(params["net"], batch["x"]).sum(-1) for head in heads]
        return {"a": parts[0], "b": 2 * parts[1]}, {}

    case = Case(Both(), noise(2, 9, 5), noise(2, 9, 2), objective)
    trunk = case.nodes[0]
    # the trunk's layer is called by each head
    assert [node.weight for node in case.nodes] == [
        "t.0.weight", "2.2.weight", "t.0.weight", "3.2.weight",
    ]  # fmt: skip
    assert trunk.known
    for place, count, error in ((0, 2, 1.0), (2, 3, 2.0)):
        weight = case.tensors[f"{count}.2.weight"].square().mean(dim=(1, 2))
        expected = count * weight * 0.5 * (error / 9) ** 2
        torch.testing.assert_close(case.backward[place], expected)


def test_gates_are_not_explained():
    net = Recurrent(2, MLP((3, 4, 1)))
    case = Case(net, noise(2, 5, 4 * 3 + 2 * 3), noise(2, 20, 1))
    named = {node.weight: node for node in case.nodes}
    assert not named["memory.weight_hh_l0"].known
    assert named["0.weight"].known
    assert by_step(case.nodes, case.backward, case.tensors) is None


STEPS, UNITS = 12, 16


def recurrent_case(**settings):
    net = Elman(2, UNITS, 3, **settings)
    x, d = noise(2, 5, STEPS * 2), noise(2, 5, 3, seed=2)
    return net, Case(net, x, d), x, d


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_slopes_by_memory_against_autograd(activation):
    """|dL/dh_t| of a loop over ``nn.RNNCell``."""
    net, case, x, d = recurrent_case(activation=activation, recurrent_gain=1.2)
    found = by_step(case.nodes, case.backward, case.tensors)
    assert found.shape == (2, 2, STEPS)
    for k in range(2):
        module = net.module().double()
        module.load_state_dict(case.player.parameters.member(k))
        cell = nn.RNNCell(2, UNITS, nonlinearity=activation).double()
        cell.load_state_dict({n.removesuffix("_l0"): v for n, v in module.rnn.state_dict().items()})
        h, memories = torch.zeros(5, UNITS, dtype=F64), []
        for step in x[k].view(5, STEPS, 2).unbind(1):
            h = cell(step, h)
            h.retain_grad()
            memories.append(h)
        ((module.head(h) * d[k]).sum() / 5).backward()
        expected = [memory.grad.norm().item() for memory in memories]
        assert found[k, 0].tolist() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("rho", [0.8, 1.0, 1.1])
def test_a_linear_orthogonal_memory_fades_as_rho(rho):
    """|dL/dh_t| = rho^(T-t) |dL/dh_T|, exactly, and theory knows it."""
    _, case, _, _ = recurrent_case(activation="linear", recurrent_gain=rho)
    measured, theory = by_step(case.nodes, case.backward, case.tensors).unbind(1)
    powers = rho ** torch.arange(STEPS - 1, -1, -1, dtype=F64)
    torch.testing.assert_close(measured, powers * measured[:, -1:])
    torch.testing.assert_close(theory / theory[:, -1:], powers.expand(2, -1))
    slope = case.reading().values["net", "head.weight", "backward_slope"]
    lengths = [(n.delta.square().sum(dim=2).mean(dim=1)) for n in case.nodes if n.is_sum]
    lengths.append(case.nodes[-1].delta.square().sum(dim=2).mean(dim=1))
    rows = torch.stack(lengths[::-1]).log().numpy()
    assert slope.numpy() == pytest.approx(np.polyfit(np.arange(STEPS + 1), rows, 1)[0])


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_a_wide_memory_follows_theory(activation):
    net = Elman(2, 300, 3, activation, recurrent="lecun", recurrent_gain=1.1)
    members, steps = 10, 8
    case = Case(net, noise(members, 20, 2 * steps), noise(members, 20, 3, seed=2))
    measured, theory = by_step(case.nodes, case.backward, case.tensors).unbind(1)
    sums = [k for k, node in enumerate(case.nodes) if node.is_sum]
    signals = torch.stack([case.nodes[k].layer.output.square().mean(dim=(1, 2)) for k in sums], 1)
    expected = torch.stack([case.forward[k] for k in sums], dim=1)
    for ratio in ((measured / theory).square(), signals / expected):
        logs = ratio.log()
        error = logs.std(dim=0) / members**0.5
        assert (logs.mean(dim=0).abs() < 4 * error + steps * 3 / 300).all()
        assert (error < 0.15).all()
