"""Layer taps: against hooks of ``torch.nn``, over members, and nothing when they are off."""

import copy

import pytest
import torch
from harness import TINY, loop
from torch import nn

from playground import taps
from playground.domains.rl.recurrent import Recurrent
from playground.game import Move, Player
from playground.nets import MLP, dcgan_discriminator, dcgan_generator
from playground.parameters import Parameters
from playground.probes.layers import Tracer, separated

NETWORKS = {
    "mlp": MLP((5, 7, 6, 3)),
    "without biases": MLP((5, 7, 3), bias=False),
    "discriminator": dcgan_discriminator(2, 8, 3, "leaky_relu", "torch"),
    "generator": dcgan_generator(5, 1, 8, 2, "relu", "torch"),
}


def player(network, members):
    build = Parameters.build(
        lambda k: network.init(k, "net"), members, torch.device("cpu"), torch.float64
    )
    return Player("net", build, network.module)


def objective(network):
    def loss(params, batch):
        out = network(params["net"], batch["x"])
        return {"square": (out.flatten(1) ** 3).sum(1), "sum": out.flatten(1).sum(1)}, {}

    return loss


def hooked(module, x, weight):
    """{layer: (x, z, dL/dz)} of a module by hooks."""
    seen, layers = (
        {},
        [m for m in module if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)],
    )

    def hook(layer, inputs, output):
        output.retain_grad()
        seen[layer] = (inputs[0].detach(), output)

    for layer in layers:
        layer.register_forward_hook(hook)
    out = module(x).flatten(1)
    (((out**3).sum(1) + out.sum(1)) * weight / weight.sum()).sum().backward()
    return [(seen[m][0], seen[m][1].detach(), seen[m][1].grad) for m in layers]


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_inputs_outputs_and_deltas_are_those_of_hooks(name, members):
    network = NETWORKS[name]
    held = player(network, members)
    inputs = 128 if name == "discriminator" else 5
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(members, 4, inputs, generator=generator, dtype=torch.float64)
    weight = torch.rand(members, 4, generator=generator, dtype=torch.float64)
    move = Move("net", objective(network), {"x": x, "weight": weight})
    trace = Tracer({"net": held})(move)
    deltas = trace.deltas()
    again = trace.deltas(torch.ones_like(weight))
    names = [n for n in held.parameters.layout.names if n.endswith("weight")]
    assert [layer.weight for layer in trace.layers] == names
    for k in range(members):
        module = network.module().double()
        module.load_state_dict(held.parameters.member(k))
        expected = hooked(copy.deepcopy(module), x[k], weight[k])
        assert len(expected) == len(trace.layers)
        rows = zip(trace.layers, deltas, again, expected, strict=True)
        for layer, delta, same, (seen, out, gradient) in rows:
            torch.testing.assert_close(layer.input[k], seen, rtol=1e-12, atol=1e-13)
            torch.testing.assert_close(layer.output[k], out, rtol=1e-12, atol=1e-13)
            torch.testing.assert_close(delta[k], gradient, rtol=1e-11, atol=1e-13)
            torch.testing.assert_close(same[k], gradient, rtol=1e-11, atol=1e-13)


def test_a_recurrent_network_s_layers_are_tapped_at_every_step():
    network = Recurrent(2, MLP((3, 4, 1)))
    held = player(network, 2)
    rows = torch.randn(2, 5, 4 * 3 + 2 * 3, dtype=torch.float64)
    trace = Tracer({"net": held})(Move("net", objective(network), {"x": rows}))
    kinds = [layer.weight for layer in trace.layers]
    assert kinds == ["memory.weight_ih_l0", *["memory.weight_hh_l0"] * 4, "0.weight", "2.weight"]
    by_taps = torch.einsum("msi,msj->mij", trace.deltas()[-1], trace.layers[-1].input)
    (gradient,) = torch.autograd.grad(trace.total.sum(), trace.leaf)
    torch.testing.assert_close(by_taps, held.parameters.layout.views(gradient)["2.weight"])


@pytest.mark.parametrize("members", [1, 2])
def test_what_a_penalty_calls_is_counted_and_not_noted(members):
    made = loop(*TINY["gan"], f"members={members}")
    moves = {m.player: m for m in next(made.problem.iteration(0.0))}
    if "discriminator" not in moves:
        pytest.skip("the generator moves first")
    trace = Tracer(made.players)(moves["discriminator"])
    assert trace.hidden > 0
    gradient = made.engine.gradient(moves["discriminator"]).value
    (ours,) = torch.autograd.grad(trace.total.sum(), trace.leaf, retain_graph=True)
    torch.testing.assert_close(ours, gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["supervised", "gan", "ppo", "reinforce", "landscape"])
def test_a_trace_has_the_engine_s_gradient(name):
    made = loop(*TINY[name], "members=2")
    for move in next(made.problem.iteration(0.0)):
        trace = Tracer(made.players)(move)
        gradient = made.engine.gradient(move).value
        (ours,) = torch.autograd.grad(trace.total.sum(), trace.leaf, retain_graph=True)
        torch.testing.assert_close(ours, gradient, rtol=1e-5, atol=1e-7)
        assert (trace.samples is None) == (name == "landscape")
        if trace.samples is not None:
            (whole,) = trace.products(torch.ones_like(trace.samples)[None])
            torch.testing.assert_close(whole, gradient, rtol=1e-5, atol=1e-7)


def test_terms_of_different_lengths_do_not_separate():
    terms = {"a": torch.arange(3.0), "b": torch.arange(5.0)}
    found = separated(terms, None)
    assert found == {"total": 1.0 + 2.0}
    weight = torch.tensor([1.0, 0.0, 3.0])
    found = separated({"a": torch.arange(3.0)}, weight)
    assert found["samples"].tolist() == [0.0, 0.0, 1.5]


def test_more_calls_than_zeros_are_an_error_and_taps_go_off_again():
    x, weight = torch.ones(2, 3), torch.ones(4, 3)
    with pytest.raises(ValueError, match="1 zeros, but layer 2"), taps.tapped([torch.zeros(2, 4)]):
        taps.linear(taps.linear(x, weight), torch.ones(5, 4))
    with taps.tapped() as outer:
        with taps.tapped() as inner:
            taps.linear(x, weight)
        taps.linear(x, weight)
    taps.linear(x, weight)
    assert (len(outer.calls), len(inner.calls)) == (1, 1)
    assert outer.calls[0].weight is weight


@pytest.mark.parametrize("follow", [True, False])
def test_the_input_gradient_of_a_cubic_is_its_closed_form_and_can_be_differentiated_again(
    follow,
):
    """f(x) = sum w x^3 at x = a b: grad 3 w x^2, and its sum's slope by a is 6 w a b^2."""
    w, a, b = (torch.randn(5, dtype=torch.float64, requires_grad=True) for _ in range(3))

    def cubic(x):
        return (w * x**3).sum(), w * x

    with torch.set_grad_enabled(follow):
        gradient, aux = taps.input_gradient(cubic, a * b)
    torch.testing.assert_close(gradient.detach(), (3 * w * (a * b) ** 2).detach())
    torch.testing.assert_close(aux.detach(), (w * a * b).detach())
    assert gradient.requires_grad == aux.requires_grad == follow
    if follow:
        by_a, by_w = torch.autograd.grad(gradient.sum(), [a, w])
        torch.testing.assert_close(by_a, 6 * w * a * b**2)
        torch.testing.assert_close(by_w, 3 * (a * b) ** 2)


def test_the_input_gradient_is_the_same_under_vmap_and_inside_taps():
    network = MLP((3, 8, 1), "tanh")
    tensors = network.init(0, "test")
    x = torch.randn(4, 6, 3, dtype=torch.float64)

    def slope(points):
        def total(x):
            out = network(tensors, x)
            return out.sum(), out

        return taps.input_gradient(total, points)[0]

    alone = torch.stack([slope(points) for points in x])
    torch.testing.assert_close(torch.func.vmap(slope)(x), alone)
    with taps.tapped() as seen:
        torch.testing.assert_close(slope(x[0]), alone[0])
    assert (len(seen.calls), seen.hidden) == (0, 2)
