"""Passes in a loop of one's own: the game of a hand-written GAN, terms of a loss."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import softplus

import playground
from playground.probes.passes import Reading
from playground.schema import ConfigError

from .loops import Hand, check, data, net, rows, same


def measured(path):
    """{(iteration, player, quantity): value} of whole players and games."""
    return {
        (r["iteration"], r["player"], r["quantity"]): r["value"]
        for r in playground.load(path).measurements.to_pylist()
        if not r["tensor"]
    }


class Scalar(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value, dtype=torch.float64))


@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_dirac_gan_has_the_spectrum_of_mescheder(tmp_path, gamma):
    """Mescheder et al. 2018: -gamma/2 +- sqrt(gamma^2/4 - f'(0)^2) of the flow; ours is of -J."""
    generator, discriminator = Scalar(0.3), Scalar(0.2)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.05) for m in (generator, discriminator)]

    def losses(g, d):
        """f(t) = -log(1 + exp(-t)), the real sample at 0, R1 = gamma/2 psi^2."""
        return (
            -softplus(g.value * d.value),
            softplus(g.value * d.value) + gamma / 2 * d.value**2,
        )

    watcher = playground.watch(
        {"generator": (generator, optimizers[0]), "discriminator": (discriminator, optimizers[1])},
        run_dir=tmp_path / "run",
        objective={
            "generator": lambda g, d, _: losses(g, d)[0],
            "discriminator": lambda g, d, _: losses(g, d)[1],
        },
        batch=(),
        passes_every=10,
    )
    with torch.no_grad():
        for model in (generator, discriminator):
            model.value.zero_()  # the equilibrium
    for index in (1, 0) * 11:
        loss = losses(generator, discriminator)[index]
        model = (generator, discriminator)[index]
        (model.value.grad,) = torch.autograd.grad(loss, model.value)
        optimizers[index].step()
    watcher.close()
    found = measured(tmp_path / "run")
    assert {k[0] for k in found} == {1, 11}
    root = math.sqrt(max(0.0, 0.25 - gamma**2 / 4))
    assert found[1, "", "imaginary_max"] == pytest.approx(root, abs=1e-12)
    assert found[1, "", "real_min"] == pytest.approx(gamma / 2, abs=1e-12)
    assert found[1, "", "field_norm"] == 0.0
    if not gamma:
        assert found[1, "", "antisymmetric_share"] == pytest.approx(1.0, abs=1e-12)
    assert playground.load(tmp_path / "run").figure("game").exists()


CENTERS = 2 * torch.stack([torch.arange(8) * math.pi / 4, torch.arange(8) * math.pi / 4], 1).sin()


class Draws:
    """A GAN's batches: real samples, and noise for either player."""

    def __init__(self):
        self.draw = torch.Generator().manual_seed(5)

    def __call__(self):
        real = CENTERS[torch.randint(8, (16,), generator=self.draw)]
        return {"real": real, "z": torch.randn(16, 4, generator=self.draw)}


def d_loss(g, d, batch):
    fake = g(batch["z"]).detach()
    return softplus(-d(batch["real"])).mean() + softplus(d(fake)).mean()


def d_objective(g, d, batch):
    """The same for a pass: its Jacobian needs the derivative by the generator too."""
    return softplus(-d(batch["real"])).mean() + softplus(d(g(batch["z"]))).mean()


def g_loss(g, d, batch):
    return softplus(-d(g(batch["z"]))).mean()


def gan_loop(g, d, g_opt, d_opt, draws, watcher=None, hands=None, fields=None, iterations=6):
    """As anyone writes it."""
    for _ in range(iterations):
        batches = {}
        for name, optimizer, loss in (
            ("discriminator", d_opt, d_loss), ("generator", g_opt, g_loss),
        ):  # fmt: skip
            batch = batches[name] = draws()
            optimizer.zero_grad()
            loss(g, d, batch).backward()
            if watcher is not None:
                watcher.batch(batch, player=name)
                hands[name].look()
                if name == "generator":
                    fields.append(field(g, d, batches))
            optimizer.step()
            if watcher is not None:
                hands[name].looked()


def field(g, d, batches):
    """|F| by hand: both gradients where the generator is about to move."""
    parts = torch.autograd.grad(d_loss(g, d, batches["discriminator"]), list(d.parameters()))
    parts += torch.autograd.grad(g_loss(g, d, batches["generator"]), list(g.parameters()))
    return math.sqrt(sum(float(part.double().square().sum()) for part in parts))


def test_a_hand_written_gan_in_one_line(tmp_path):
    def build():
        g, d = net(0, 4, 8, 2), net(1, 2, 8, 1)
        return g, d, *(torch.optim.Adam(m.parameters(), lr=1e-2) for m in (g, d))

    alone, watched = build(), build()
    gan_loop(*alone, Draws())
    g, d, g_opt, d_opt = watched
    hands, fields = {"generator": Hand(g.parameters()), "discriminator": Hand(d.parameters())}, []
    watcher = playground.watch(
        {"generator": (g, g_opt), "discriminator": (d, d_opt)}, run_dir=tmp_path / "run", every=1,
        objective={"generator": g_loss, "discriminator": d_objective}, passes_every=2,
    )  # fmt: skip
    gan_loop(*watched, Draws(), watcher, hands, fields)
    watcher.close()
    same(alone[0], g)
    same(alone[1], d)
    check(tmp_path / "run", hands["generator"], watcher.watched["generator"].names,
          player="generator")  # fmt: skip
    check(tmp_path / "run", hands["discriminator"], watcher.watched["discriminator"].names,
          player="discriminator")  # fmt: skip
    found = measured(tmp_path / "run")
    for iteration in (1, 3, 5):
        by_hand = fields[iteration - 1]
        assert found[iteration, "", "field_norm"] == pytest.approx(by_hand, rel=1e-5)
        assert 0 < found[iteration, "", "antisymmetric_share"] < 1
    assert {k[0] for k in found} == {1, 3, 5}


def test_dropout_batch_norm_and_random_numbers_are_left_alone(tmp_path):
    """Passes run the modules in training mode; masks, statistics and draws stay as they were."""

    def build():
        model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
        return model, torch.optim.SGD(model.parameters(), lr=0.1)

    def loop(model, optimizer, watcher=None):
        torch.manual_seed(3)
        for _, (x, y) in zip(range(6), data(), strict=False):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            if watcher is not None:
                watcher.batch((x, y))
            optimizer.step()
        return torch.rand(1)

    torch.manual_seed(0)
    alone = build()
    last = loop(*alone)
    torch.manual_seed(0)
    model, optimizer = build()

    def terms(model, batch):
        x, y = batch
        assert model.training
        fit = nn.functional.cross_entropy(model(x), y, reduction="none")
        return {"fit": fit, "decay": 0.1 * model[0].weight.square().sum()}

    with playground.watch(
        model, optimizer, run_dir=tmp_path / "run", objective=terms, passes_every=1
    ) as watcher:
        assert torch.equal(loop(model, optimizer, watcher), last)
    same(alone[0], model)
    assert {k[0] for k in measured(tmp_path / "run")} == set(range(1, 7))


def test_a_budget_stretches_the_cadence_and_an_event_says_so(tmp_path, monkeypatch):
    """A measurement that takes a day leaves no time for another."""

    def spend(self, name, seconds):
        self.spent[name] += 86400.0
        self._last[name] = 86400.0

    monkeypatch.setattr("playground.probes.time_budget.Allowance.spend", spend)
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def loss(model, batch):
        fit = nn.functional.cross_entropy(model(batch[0]), batch[1])
        return {"fit": fit, "decay": model[0].weight.square().sum()}

    with playground.watch(
        model, optimizer, run_dir=tmp_path / "run", objective=loss, passes_every=1, budget=0.05
    ) as watcher:
        for _, batch in zip(range(6), data(), strict=False):
            optimizer.zero_grad()
            sum(loss(model, batch).values()).backward()
            watcher.batch(batch)
            optimizer.step()
    run = playground.load(tmp_path / "run")
    assert {k[0] for k in measured(tmp_path / "run")} == {1}
    (said,) = [e["message"] for e in run.events.to_pylist() if e["kind"] == "probes"]
    assert "1 of 6 times" in said
    for wrong, objective in ((0, loss), (2, loss), (0.5, None)):
        with pytest.raises(ConfigError, match="budget"):
            playground.watch(model, optimizer, objective=objective, budget=wrong)


def test_terms_against_gradients_by_hand(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wanted = []

    def terms(model, batch):
        fit = nn.functional.cross_entropy(model(batch[0]), batch[1])
        return {"fit": fit, "decay": 0.1 * sum(p.square().sum() for p in model.parameters())}

    with playground.watch(
        model, optimizer, run_dir=tmp_path / "run", objective=terms, passes_every=1
    ) as watcher:
        for _, batch in zip(range(4), data(), strict=False):
            parts = {}
            for name, term in terms(model, batch).items():
                slopes = torch.autograd.grad(term, list(model.parameters()))
                parts[name] = np.concatenate([s.double().numpy().ravel() for s in slopes])
            wanted.append(parts)
            optimizer.zero_grad()
            sum(terms(model, batch).values()).backward()
            watcher.batch(batch)
            optimizer.step()
    found = measured(tmp_path / "run")
    for iteration, parts in enumerate(wanted, start=1):
        a, b = parts["fit"], parts["decay"]
        for name, part in parts.items():
            norm = found[iteration, "model", f"norm/{name}"]
            assert norm == pytest.approx(np.linalg.norm(part), rel=1e-5)
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        assert found[iteration, "model", "cosine/fit/decay"] == pytest.approx(cosine, abs=1e-5)


def test_a_pass_of_ones_own_and_one_that_fails(tmp_path):
    """Curvature along the gradient of a quadratic; the one that fails is left out by name."""

    class Along(playground.Pass):
        name, every = "along", 2

        def measure(self, seen):
            (move,) = seen.moves.values()
            at = {"model": seen.players["model"].parameters.values.clone().requires_grad_()}
            slope = seen.gradient(move, at, create_graph=True).value
            (product,) = torch.autograd.grad(slope, at["model"], slope.detach())
            return Reading({("model", "along"): (slope * product).sum(1) / slope.square().sum(1)})

    class Bad(playground.Pass):
        name, every = "bad", 1

        def measure(self, seen):
            raise RuntimeError("not here")

    model = nn.Linear(3, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scales = torch.tensor([1.0, 2.0, 4.0])

    def loss(model, scales):
        return 0.5 * (scales * model.weight.square()).sum()

    watcher = playground.watch(
        model, optimizer, run_dir=tmp_path / "run", probes=[Along(), Bad()], objective=loss,
        batch=scales,
    )  # fmt: skip
    expected = []

    def loop():
        for _ in range(4):
            slope = (scales * model.weight).detach()
            expected.append(float((scales * slope**2).sum() / slope.square().sum()))
            optimizer.zero_grad()
            loss(model, scales).backward()
            optimizer.step()
        watcher.close()

    with pytest.warns(UserWarning, match="probe bad is left out: RuntimeError: not here"):
        loop()
    found = {k[0]: v for k, v in measured(tmp_path / "run").items() if k[2] == "along"}
    assert list(found) == [1, 3]
    for iteration, value in found.items():
        assert value == pytest.approx(expected[iteration - 1], rel=1e-5)
    assert rows(tmp_path / "run")["model", 4, "gradient", ""]["norm"] > 0


def test_an_objective_without_a_batch_says_so_once(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watcher = playground.watch(
        model, optimizer, run_dir=tmp_path / "run", objective=lambda m, b: m(b), passes_every=1
    )

    def loop():
        for _, (x, _) in zip(range(4), data(), strict=False):
            model(x).sum().backward()
            optimizer.step()
        watcher.close()

    with pytest.warns(UserWarning, match=r"call watcher\.batch") as warned:
        loop()
    assert len(warned) == 1


def test_full_probes_measure_noise_and_direction(tmp_path):
    """The variance of a batch's gradient against samples' gradients one by one."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    samples = []

    def loss(model, batch):
        return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    with playground.watch(
        model, optimizer, run_dir=tmp_path / "run", objective=loss, probes="full", passes_every=20
    ) as watcher:
        for _, batch in zip(range(40), data(size=32), strict=False):
            rows_ = []
            for one in loss(model, batch):
                slopes = torch.autograd.grad(one, list(model.parameters()), retain_graph=True)
                rows_.append(torch.cat([s.flatten() for s in slopes]).double().numpy())
            samples.append(np.array(rows_))
            optimizer.zero_grad()
            loss(model, batch).mean().backward()
            watcher.batch(batch)
            optimizer.step()
    found = measured(tmp_path / "run")
    for iteration in (1, 21):
        spread = samples[iteration - 1].var(axis=0, ddof=1).sum()
        assert found[iteration, "model", "clusters"] == 32
        variance = found[iteration, "model", "variance"]  # of the batch's mean
        assert variance == pytest.approx(spread / 32, rel=1e-4)
    probes = {r["probe"] for r in playground.load(tmp_path / "run").measurements.to_pylist()}
    assert probes == {"noise", "curvature", "direction"}


def test_full_probes_measure_both_ends_of_the_hessian(tmp_path):
    """Half the squared error of a linear model: H = X^T X / B at every update."""
    model = nn.Linear(5, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x = torch.randn(64, 5, generator=torch.Generator().manual_seed(3)) * torch.arange(1.0, 6.0)
    y = torch.ones(64)

    def loss(model, batch):
        return 0.5 * (model(batch).squeeze(-1) - y) ** 2

    with playground.watch(model, optimizer, run_dir=tmp_path / "run", objective=loss,
                          probes="full", passes_every=2, batch=x):  # fmt: skip
        for _ in range(3):
            optimizer.zero_grad()
            loss(model, x).mean().backward()
            optimizer.step()
    ends = np.linalg.eigvalsh((x.T @ x / 64).double().numpy())[[0, -1]]
    found = measured(tmp_path / "run")
    for iteration in (1, 3):
        assert found[iteration, "model", "lambda_min"] == pytest.approx(ends[0], rel=1e-4)
        assert found[iteration, "model", "lambda_max"] == pytest.approx(ends[1], rel=1e-4)


class Attention(nn.Module):
    """One head of self-attention by torch's fused function, which has no second derivative."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(4, 12)

    def forward(self, x):
        q, k, v = self.mix(x).chunk(3, dim=-1)
        return nn.functional.scaled_dot_product_attention(q, k, v).mean(dim=(1, 2))


def test_curvature_of_attention(tmp_path):
    """The largest eigenvalue of a model with torch's attention, against the formed Hessian."""
    torch.manual_seed(0)
    model = Attention().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, y = torch.randn(8, 5, 4).double(), torch.randn(8).double()
    square = lambda m, b: (m(b[0]) - b[1]) ** 2  # noqa: E731
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    with playground.watch(model, optimizer, run_dir=tmp_path / "run", objective=square,
                          probes="full", passes_every=1, batch=(x, y)):  # fmt: skip
        square(model, (x, y)).mean().backward()
        optimizer.step()
    found = [r for r in playground.load(tmp_path / "run").measurements.to_pylist()
             if r["quantity"] == "lambda_max"]  # fmt: skip

    def loss(flat):
        parts = torch.split(flat, [p.numel() for p in start.values()])
        given = {n: v.view(p.shape) for (n, p), v in zip(start.items(), parts, strict=True)}
        q, k, v = nn.functional.linear(x, given["mix.weight"], given["mix.bias"]).chunk(3, dim=-1)
        weight = torch.softmax(q @ k.mT / 2, dim=-1)  # 2 = sqrt(4)
        return (((weight @ v).mean(dim=(1, 2)) - y) ** 2).mean()

    flat = torch.cat([p.ravel() for p in start.values()])
    expected = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, flat))[-1]
    assert found[0]["value"] == pytest.approx(float(expected), rel=1e-6)


class Headed(nn.Module):
    """An encoder, which others may have too, and a head of its own."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(4, 1)

    def forward(self, x):
        return self.head(torch.tanh(self.encoder(x)))


def used_twice():
    block = nn.Linear(3, 3)
    model = nn.Sequential(block, nn.Tanh(), block, nn.Tanh(), nn.Linear(3, 1))
    return {"model": (model, model.parameters())}


def normalised_twice():
    block = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Tanh())
    model = nn.Sequential(block, block, nn.Linear(3, 1))
    return {"model": (model, model.parameters())}


def tied():
    first, second, norms = nn.Linear(3, 3), nn.Linear(3, 3), [nn.BatchNorm1d(3) for _ in "ab"]
    second.weight = first.weight
    norms[1].running_mean = norms[0].running_mean
    model = nn.Sequential(first, norms[0], nn.Tanh(), second, norms[1], nn.Linear(3, 1))
    return {"model": (model, model.parameters())}


def shared_encoder():
    encoder = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    actor, critic = Headed(encoder), Headed(encoder)
    return {"actor": (actor, actor.parameters()), "critic": (critic, critic.head.parameters())}


def one_model_for_two():
    model = Headed(nn.Linear(3, 4))
    return {"body": (model, model.encoder.parameters()), "head": (model, model.head.parameters())}


REACHED_TWICE = [used_twice, normalised_twice, tied, shared_encoder, one_model_for_two]


def held(models):
    """{(module, name): id} of every parameter and buffer where it lies."""
    return {
        (id(part), name): id(tensor)
        for model in models for part in model.modules()
        for name, tensor in (*part._parameters.items(), *part._buffers.items())
    }  # fmt: skip


@pytest.mark.parametrize("make", REACHED_TWICE)
def test_passes_leave_modules_that_are_reachable_twice_as_they_are(tmp_path, make):
    """Against the same loop unwatched, bit for bit, and against autograd in the loop."""

    def terms(prediction):
        return {"square": prediction.square().mean(), "shift": 0.1 * (prediction - 1).abs().mean()}

    def train(path):
        torch.manual_seed(0)
        made = make()
        models = [model for model, _ in made.values()]
        optimizers = {n: torch.optim.SGD(p, lr=0.1) for n, (_, p) in made.items()}
        norms, watcher = {}, None
        if path is not None:
            watcher = playground.watch(
                {n: (model, optimizers[n]) for n, (model, _) in made.items()}, run_dir=path,
                objective={n: lambda *given, i=i: terms(given[i](given[-1]))
                           for i, n in enumerate(made)},
                passes_every=1, probes="full",
            )  # fmt: skip
        places = held(models)
        for iteration in range(1, 4):
            x = torch.randn(8, 3)
            if watcher is not None:
                watcher.batch(x)
            for name, optimizer in optimizers.items():
                mine = optimizer.param_groups[0]["params"]
                with torch.random.fork_rng():
                    found = terms(made[name][0](x))
                if name == list(made)[-1]:  # passes are before the last player's update
                    for term, value in found.items():
                        parts = torch.autograd.grad(value, mine, retain_graph=True)
                        norms[iteration, name, f"norm/{term}"] = torch.cat(
                            [g.flatten() for g in parts]).norm().item()  # fmt: skip
                optimizer.zero_grad()
                sum(found.values()).backward()
                optimizer.step()
                assert held(models) == places
        if watcher is not None:
            watcher.close()
        return [m.state_dict() for m in models], norms

    plain, norms = train(None)
    watched, same_norms = train(tmp_path / "run")
    assert norms == same_norms
    for left, right in zip(plain, watched, strict=True):
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left)
    found = measured(tmp_path / "run")
    for key, norm in norms.items():
        assert found[key] == pytest.approx(norm, rel=1e-5), key
