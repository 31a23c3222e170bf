"""The noise probe: its methods against per-sample gradients, what taps refuse, runs."""

import numpy as np
import pytest
import torch
from harness import PROBED, loop, probed, quiet

from playground.domains.supervised.recurrent import Elman
from playground.domains.supervised.residual import Residual
from playground.game import Move, Player
from playground.nets import MLP, convolutional, dcgan_discriminator, dcgan_generator
from playground.parameters import Layout, Parameters
from playground.probes.layers import Tracer
from playground.probes.noise.clusters import attribute, by_products, by_taps, declared
from playground.probes.noise.formulas import statistics
from playground.probes.noise.probe import METHODS, NoiseProbe
from playground.probes.passes import Turn

pytestmark = pytest.mark.usefixtures("without_figures")

MEMBERS, SIZE = 2, 12


def player(network):
    made = Parameters.build(
        lambda k: network.init(k, "net"), MEMBERS, torch.device("cpu"), torch.float64
    )
    return Player("net", made)


def plain(network):
    """A row a sample."""
    return lambda tensors, batch: (network(tensors, batch["x"]).flatten(1) ** 2).sum(1)


def pairs(network):
    """Two blocks of rows, one after the other, as real and fake."""

    def loss(tensors, batch):
        first, second = network(tensors, torch.cat([batch["x"], 2 * batch["x"]])).chunk(2)
        return (first * second.sin()).flatten(1).sum(1)

    return loss


def neighbours(network):
    """Three rows of a sample next to each other, as a pack."""

    def loss(tensors, batch):
        rows = (batch["x"].unsqueeze(1) * torch.tensor([[1.0], [2.0], [-1.0]])).flatten(0, 1)
        return network(tensors, rows).unflatten(0, (-1, 3)).pow(3).sum((1, 2))

    return loss


def episodes(network):
    """A sample of many steps."""

    def loss(tensors, batch):
        steps = batch["x"].unsqueeze(1) * torch.linspace(-1, 1, 6).unsqueeze(1)
        return network(tensors, steps).cos().sum((1, 2))

    return loss


def twice(network):
    """Two calls of the same layers."""

    def loss(tensors, batch):
        return network(tensors, batch["x"]).sum(1) * network(tensors, batch["x"] ** 2).sum(1)

    return loss


DISCRIMINATOR = dcgan_discriminator(1, 8, 3, "tanh", "torch")
GENERATOR = dcgan_generator(5, 1, 8, 2, "tanh", "torch")
CLASSIFIER = convolutional((1, 8), 2, (3,), "tanh", "torch")
BLOCKS = Residual(5, 6, 2, 3, "tanh", "torch")
FACTORS = Residual(5, 6, 2, 3, "tanh", "torch", "rezero")
MEMORY, LONG = Elman(2, 4, 1), Elman(2, 30, 1)
INPUTS = {DISCRIMINATOR: 64, GENERATOR: 5, CLASSIFIER: 64, BLOCKS: 5, FACTORS: 5, MEMORY: 14,
          LONG: 6}  # fmt: skip

CASES = {
    "small": (plain, MLP((5, 3, 2))),
    "wide": (plain, MLP((40, 60, 30))),
    "no bias": (plain, MLP((5, 1), bias=False)),
    "pairs": (pairs, MLP((5, 30, 20, 2), "silu")),
    "neighbours": (neighbours, MLP((5, 4, 2))),
    "episodes": (episodes, MLP((5, 4, 2))),
    "twice": (twice, MLP((5, 40, 20, 1))),
    "discriminator": (plain, DISCRIMINATOR),
    "generator": (plain, GENERATOR),
    "classifier": (plain, CLASSIFIER),
    "blocks": (plain, BLOCKS),
    "factors": (plain, FACTORS),
    "memory": (plain, MEMORY),
    "memory of many units": (plain, LONG),
}


def prepared(kind, network, *, clustered):
    """A move, its player and what each sample adds to the gradient [M, B, N] by torch.func."""
    held, loss = player(network), kind(network)
    inputs = network.sizes[0] if isinstance(network, MLP) else INPUTS[network]
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(MEMBERS, SIZE, inputs, generator=generator, dtype=torch.float64)
    batch = {"x": x}
    if clustered:
        weight = torch.rand(MEMBERS, SIZE, generator=generator, dtype=torch.float64)
        weight[:, 3] = 0.0
        weight[1, 8:] = 0.0
        cluster = torch.tensor([[0, 0, 1, 1, 2, 2, 2, 3, 4, 5, 6, 6]]).repeat(2, 1)
        batch |= {"weight": weight, "cluster": cluster}
    layout = held.parameters.layout

    def objective(params, batch):
        return {"loss": loss(params["net"], batch)}, {}

    def one(flat, sample):
        return loss(layout.views(flat), {"x": sample.unsqueeze(0)})[0]

    each = torch.func.vmap(torch.func.vmap(torch.func.grad(one), (None, 0)))
    share = batch.get("weight", torch.ones(MEMBERS, SIZE, dtype=torch.float64))
    share = share / share.sum(1, keepdim=True)
    expected = share.unsqueeze(2) * each(held.parameters.values, x)
    return Move("net", objective, batch), held, expected


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_both_exact_ways_are_per_sample_gradients(name, clustered):
    move, held, each = prepared(*CASES[name], clustered=clustered)
    trace = Tracer({"net": held})(move)
    clusters = declared(move.batch.get("cluster"), move.batch.get("weight"), trace.samples)
    layout = held.parameters.layout
    sums = torch.zeros(MEMBERS, clusters.number + 1, layout.size, dtype=torch.float64)
    sums.scatter_add_(1, clusters.index.unsqueeze(2).expand_as(each), each)
    sums = sums[:, : clusters.number]
    parts = [sums[..., piece] for piece in layout.slices.values()]
    expected = torch.stack([part @ part.mT for part in [sums, *parts]], dim=1)
    found = attribute(trace, clusters, "net", layout)
    assert found.problem == ""
    for gram in (by_taps(trace, clusters, found, layout), by_products(trace, clusters, layout)):
        torch.testing.assert_close(gram, expected, rtol=1e-9, atol=1e-13)


def measured(move, held, method="auto", chunks=16):
    probe = NoiseProbe(None, method, chunks)
    reading = probe.measure(Turn({"net": move}, None, {"net": held}))
    return reading.values, reading


@pytest.mark.parametrize("clustered", [False, True])
def test_every_method_gives_the_same_where_groups_are_clusters(clustered):
    move, held, _ = prepared(*CASES["pairs"], clustered=clustered)
    want = {name: measured(move, held, name, 64)[0] for name in ("auto", *METHODS)}
    for name in METHODS:
        assert want[name]["net", "method"].tolist() == [METHODS.index(name)] * 2
        assert want[name].keys() == want["auto"].keys()
        for key, value in want["taps"].items():
            if key[-1] != "method":
                torch.testing.assert_close(
                    want[name][key], value, rtol=1e-8, atol=1e-12, equal_nan=True, msg=str(key)
                )


def test_chunks_are_groups_of_clusters_by_a_loop():
    move, held, each = prepared(*CASES["small"], clustered=False)
    values, _ = measured(move, held, "chunks", 4)
    assert values["net", "estimates"].tolist() == [4, 4]
    assert values["net", "clusters"].tolist() == [12, 12]
    for k in range(MEMBERS):
        groups = 4 * torch.stack([each[k, g::4].sum(0) for g in range(4)])
        variance = groups.var(0).sum() / 4
        assert values["net", "variance"][k].item() == pytest.approx(variance.item())
        assert values["net", "sample_variance"][k].item() == pytest.approx(12 * variance.item())


def test_additive_noise_has_the_sample_covariance_of_the_noise():
    """1/2 x.x + n.x: the gradients are x + n, whatever x; x is no layer's, so by samples."""
    layout = Layout({"x": (4,)})
    held = Player("net", Parameters(layout, torch.ones(1, 4, dtype=torch.float64)))
    noise = torch.randn(1, 30, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def objective(params, batch):
        x = params["net"]["x"]
        return {"value": 0.5 * (x @ x) + batch["noise"] @ x}, {}

    values, reading = measured(Move("net", objective, {"noise": noise}), held)
    assert reading.notes == ("player net: noise is measured by samples: x is not a layer's",)
    expected = np.trace(np.cov(noise[0].numpy().T))
    assert values["net", "sample_variance"].item() == pytest.approx(expected, rel=1e-12)
    mean = 1 + noise[0].mean(0)
    square = (mean @ mean).item() - expected / 30
    assert values["net", "norm_squared"].item() == pytest.approx(square, rel=1e-12)
    assert values["net", "x", "noise_scale"].item() == pytest.approx(expected / square)


NETWORK = MLP((5, 4, 2))


def coupled(tensors, batch):
    """Standardised over the batch, which ties the samples together."""
    out = NETWORK(tensors, batch["x"]).sum(1)
    return (out - out.mean()) ** 2


def reversed_rows(tensors, batch):
    """Rows belong to samples, in another order."""
    return NETWORK(tensors, batch["x"]).sum(1).flip(0)


def sloped(tensors, batch):
    """A penalty on the slope."""
    slope = torch.func.grad(lambda x: NETWORK(tensors, x).sum())(batch["x"])
    return NETWORK(tensors, batch["x"]).sum(1) + slope.square().sum(1)


def divided(tensors, batch):
    """Weights that are made from the parameters."""
    own = {name: value / value.norm() for name, value in tensors.items()}
    return NETWORK(own, batch["x"]).sum(1)


def decayed(tensors, batch):
    """Tensors that enter outside their layer too."""
    return NETWORK(tensors, batch["x"]).sum(1) + tensors["0.weight"].square().sum()


REFUSED = {
    coupled: "rows of", reversed_rows: "rows of", sloped: "differentiates",
    divided: "not a layer's", decayed: "do not add up",
}  # fmt: skip


@pytest.mark.parametrize("loss", REFUSED, ids=lambda f: f.__name__)
def test_taps_know_where_they_do_not_apply(loss):
    held = player(NETWORK)
    x = torch.randn(MEMBERS, SIZE, 5, dtype=torch.float64)

    def objective(params, batch):
        return {"loss": loss(params["net"], batch)}, {}

    move = Move("net", objective, {"x": x})
    _, reading = measured(move, held)
    (note,) = reading.notes
    assert note.startswith("player net: noise is measured by samples: ")
    assert REFUSED[loss] in note
    values, reading = measured(move, held, "taps")
    assert not values
    assert "not measured by taps" in reading.notes[0]
    trace = Tracer({"net": held})(move)
    layout = held.parameters.layout
    jacobian = torch.stack(
        [trace.products(torch.eye(SIZE)[k].expand(1, MEMBERS, SIZE))[0] for k in range(SIZE)], 1
    )  # every sample's gradient, one by one
    clusters = declared(None, None, trace.samples)
    expected = statistics(
        (jacobian @ jacobian.mT)[:, None], clusters.share, clusters.samples
    )["variance"]  # fmt: skip
    variance = measured(move, held)[0]["net", "variance"]
    torch.testing.assert_close(variance, expected.value[:, 0], rtol=1e-9, atol=0)
    assert layout.size == jacobian.shape[2]


def test_few_clusters_are_refused_and_said_once():
    move, held, _ = prepared(*CASES["small"], clustered=False)
    cluster = torch.arange(SIZE).expand(MEMBERS, SIZE) % 3
    few = Move("net", move.objective, move.batch | {"cluster": cluster})
    probe = NoiseProbe()
    turn = Turn({"net": few}, None, {"net": held})
    first, second = probe.measure(turn), probe.measure(turn)
    assert not first.values
    assert first.notes == ("player net: noise is not measured: 3 clusters, at least 4 are needed",)
    assert second.notes == ()


def rows(run):
    return [r for r in run.measurements.to_pylist() if r["probe"] == "noise"]


@pytest.mark.parametrize("given", PROBED.values(), ids=PROBED)
def test_a_run_records_noise_changes_nothing_and_resumes(given, tmp_path):
    plain, whole = probed(given, "probes=full", tmp_path)
    found = rows(whole)
    assert {"noise_scale", "norm_test", "cosine/2", "clusters"} <= {r["quantity"] for r in found}
    assert any(r["stderr"] for r in found)
    assert not rows(plain)


def test_ppo_s_clusters_are_segments_and_taps_apply(tmp_path):
    made = loop(*PROBED["ppo"])
    move = next(made.problem.iteration(0.0))[0]
    batch = move.batch
    assert batch["cluster"].shape == batch["weight"].shape
    reading = NoiseProbe().measure(Turn({"agent": move}, None, made.players))
    assert reading.values["agent", "method"].tolist() == [0, 0]
    for k in range(2):
        alive = batch["cluster"][k][batch["weight"][k] > 0]
        assert reading.values["agent", "clusters"][k] == len(alive.unique())


def test_off_unless_asked_for(tmp_path):
    short = ["problem=supervised/two_moons", "budget.iterations=6", "evaluate.every=2"]
    assert not rows(quiet([*short, "probes=standard"], tmp_path / "a"))
    asked = rows(quiet([*short, "probes.noise.every=5"], tmp_path / "b"))
    assert {r["iteration"] for r in asked} == {1, 6}
    assert not rows(quiet([*short, "probes=full", "probes.noise.every=0"], tmp_path / "c"))


def test_what_is_not_measured_is_an_event(tmp_path):
    made = quiet(
        ["problem=landscape/rosenbrock", "probes=full", "budget.iterations=3"], tmp_path / "r"
    )
    events = [e for e in made.events.to_pylist() if e["kind"] == "probe/noise"]
    assert len(events) == 1
    assert "do not separate" in events[0]["message"]
