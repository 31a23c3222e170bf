"""Loops that are not plain: accumulation, AMP, closures, compiled, tied, partly frozen models."""

import numpy as np
import pytest
import torch
from torch import nn

import playground

from .loops import Hand, check, cosine, data, net, rows, same, set_place

NAMES = ["0.weight", "0.bias", "2.weight", "2.bias"]
ABOVE = {("update", "cosine_previous")}

both = pytest.mark.parametrize("place", ["copies", "in place", "in place, one buffer"])


@pytest.fixture(autouse=True)
def _place(request, monkeypatch):
    """Measured with copies, where it lies, or as a player too large for more than one buffer."""
    if "place" in request.fixturenames:
        set_place(request.getfixturevalue("place"), monkeypatch)


def skips(place):
    return ABOVE if place == "in place, one buffer" else ()


class Loop:
    """One loop twice: alone, and watched with a hand beside it."""

    def __init__(self, folder, build, make, run, **options):
        alone, model = build(), build()
        run(alone, make(alone), None)
        optimizer = make(model)
        self.model, self.path = model, folder / "run"
        held = [p for g in optimizer.param_groups for p in g["params"]]
        self.hand = Hand(held)
        with playground.watch(model, optimizer, run_dir=self.path, every=1, **options) as watcher:
            self.watcher = watcher
            run(model, optimizer, self.hand)
        same(alone, model)
        self.names = list(watcher.watched["model"].names)


def step(optimizer, hand):
    if hand is not None:
        hand.look()
    optimizer.step()
    if hand is not None:
        hand.looked()


@both
def test_accumulation_is_read_once_an_update(tmp_path, place):
    def run(model, optimizer, hand):
        for batch, (x, y) in zip(range(24), data(), strict=False):
            (nn.functional.cross_entropy(model(x), y) / 4).backward()
            if batch % 4 == 3:
                step(optimizer, hand)
                optimizer.zero_grad()

    loop = Loop(tmp_path, net, lambda m: torch.optim.Adam(m.parameters(), lr=1e-2), run)
    check(loop.path, loop.hand, NAMES, skip=skips(place))
    assert len(loop.hand.gradients) == 6


@both
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("unscale", [False, True])
def test_amp_is_read_as_the_optimizer_reads_it(tmp_path, place, fused, unscale):
    """A scaler unscales before the step, or a fused optimizer inside it; both are seen unscaled.

    The scale is a power of two, so that scaling changes no bit and the hand can divide by it.
    """

    def run(model, optimizer, hand):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
        for update, (x, y) in zip(range(12), data(), strict=False):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = nn.functional.cross_entropy(model(x), y)
            scaler.scale(loss).backward()
            if update == 5:
                model[0].bias.grad[0] = torch.inf
            if unscale:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), 0.2)
            finite = all(bool(p.grad.isfinite().all()) for p in model.parameters())
            if hand is not None and (fused or finite):
                hand.look(1.0 if unscale else scaler.get_scale())
            scaler.step(optimizer)
            if hand is not None and (fused or finite):
                hand.looked()
            scaler.update()

    def make(model):
        return torch.optim.Adam(model.parameters(), lr=1e-2, fused=fused)

    loop = Loop(tmp_path, net, make, run)
    tap = "clipped" if unscale else "gradient"
    events = [e["message"] for e in playground.load(loop.path).events.to_pylist()]
    if not fused:  # the scaler does not call the step: there is no update to be seen
        check(loop.path, loop.hand, NAMES, tap=tap, skip=skips(place))
        assert len(loop.hand.gradients) == 11
        assert not events
        return
    found = rows(loop.path)
    assert len(loop.hand.gradients) == 12
    assert "0.bias (0 NaN, 1 infinite)" in events[0]
    assert "update 6" in events[0]
    for update in (*range(1, 6), *range(8, 13)):
        for index, tensor in enumerate(["", *NAMES], start=-1):
            row = found["model", update, tap, tensor]
            own = loop.hand.value("gradients", update - 1, index)
            assert row["norm"] == pytest.approx(np.linalg.norm(own), rel=1e-5)
            assert row["max_abs"] == pytest.approx(np.abs(own).max(), rel=1e-5)
            row = found["model", update, "update", tensor]
            moved = loop.hand.value("update", update - 1, index)
            assert row["alignment"] == pytest.approx(cosine(moved, -own), rel=1e-4, abs=1e-6)
    assert found["model", 6, "update", ""]["norm"] == 0.0


@pytest.mark.parametrize("form", ["positional", "keyword"])
def test_a_closure_of_one_call_is_read_after_it(tmp_path, form):
    def run(model, optimizer, hand):
        for _, (x, y) in zip(range(10), data(), strict=False):

            def closure(x=x, y=y):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(x), y)
                loss.backward()
                if hand is not None:
                    hand.look()
                return loss

            optimizer.step(closure) if form == "positional" else optimizer.step(closure=closure)
            if hand is not None:
                hand.looked()

    loop = Loop(tmp_path, net, lambda m: torch.optim.Adam(m.parameters(), lr=1e-2), run)
    check(loop.path, loop.hand, NAMES)


@both
def test_lbfgs_is_read_where_it_begins(tmp_path, place):
    """The gradient is that of the first evaluation, the update is the whole step."""

    def run(model, optimizer, hand):
        for _, (x, y) in zip(range(5), data(size=64), strict=False):
            calls = []

            def closure(x=x, y=y, calls=calls):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(x), y)
                loss.backward()
                if hand is not None and not calls:
                    hand.look()
                calls.append(1)
                return loss

            optimizer.step(closure)
            assert len(calls) > 1
            if hand is not None:
                hand.looked()

    def make(model):
        return torch.optim.LBFGS(model.parameters(), max_iter=4, line_search_fn="strong_wolfe")

    loop = Loop(tmp_path, net, make, run)
    gone = {("gradient", "cosine_previous"), ("update", "alignment")}
    gone = set() if place == "copies" else gone  # the first gradient is gone after the step
    check(loop.path, loop.hand, NAMES, skip={*skips(place), *gone}, rel=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # while it imports itself
def test_a_compiled_model_has_the_names_of_the_plain_one(tmp_path):
    def run(model, optimizer, hand):
        compiled = torch.compile(model)
        for _, (x, y) in zip(range(6), data(), strict=False):
            optimizer.zero_grad()
            nn.functional.cross_entropy(compiled(x), y).backward()
            step(optimizer, hand)

    loop = Loop(tmp_path, net, lambda m: torch.optim.SGD(m.parameters(), lr=0.1), run)
    check(loop.path, loop.hand, NAMES)
    compiled = torch.compile(net())
    optimizer = torch.optim.SGD(compiled.parameters(), lr=0.1)
    with playground.watch(compiled, optimizer, run_dir=tmp_path / "other") as watcher:
        assert watcher.watched["model"].names == NAMES


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # while it imports itself
def test_a_compiled_step_is_watched(tmp_path):
    """Somebody compiles the optimizer's step: hooks are called outside of the graph."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.1))
    hand = Hand(model.parameters())
    compiled = torch.compile(lambda: optimizer.step())
    with playground.watch(model, optimizer, run_dir=tmp_path / "run", every=1):
        for _, (x, y) in zip(range(6), data(), strict=False):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            hand.look()
            compiled()
            hand.looked()
    check(tmp_path / "run", hand, NAMES)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inside = nn.Linear(6, 6)
        self.outside = nn.Linear(6, 6)
        self.outside.weight = self.inside.weight

    def forward(self, x):
        return self.outside(torch.tanh(self.inside(x)))


@both
def test_tied_parameters_are_one_tensor(tmp_path, place):
    def run(model, optimizer, hand):
        for _, (x, y) in zip(range(8), data(), strict=False):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            step(optimizer, hand)

    loop = Loop(tmp_path, Tied, lambda m: torch.optim.SGD(m.parameters(), lr=0.1), run)
    assert loop.names == ["inside.weight", "inside.bias", "outside.bias"]
    check(loop.path, loop.hand, loop.names, skip=skips(place))


@both
@pytest.mark.parametrize("to_none", [False, True])
def test_tensors_without_a_gradient_count_as_zero_and_are_named(tmp_path, place, to_none):
    """A frozen layer, and one that the loss does not use; gradients made anew or zeroed."""

    def build():
        model = net()
        model[0].bias.requires_grad_(False)
        model.append(nn.Linear(3, 3))
        return model

    def run(model, optimizer, hand):
        for _, (x, y) in zip(range(6), data(), strict=False):
            optimizer.zero_grad(set_to_none=to_none)
            nn.functional.cross_entropy(model[:3](x), y).backward()
            step(optimizer, hand)

    loop = Loop(tmp_path, build, lambda m: torch.optim.SGD(m.parameters(), lr=0.1), run)
    check(loop.path, loop.hand, loop.names, skip=skips(place))
    (event,) = playground.load(loop.path).events.to_pylist()
    assert event["kind"] == "no_gradient"
    assert "no gradient of 0.bias, 3.weight, 3.bias (player model, update 1)" in event["message"]


def test_groups_may_differ_in_their_learning_rates(tmp_path):
    def make(model):
        groups = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[2].parameters()}]
        return torch.optim.SGD(groups, lr=0.01)

    def run(model, optimizer, hand):
        for _, (x, y) in zip(range(5), data(), strict=False):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            step(optimizer, hand)
            optimizer.param_groups[1]["lr"] /= 2

    loop = Loop(tmp_path, net, make, run)
    check(loop.path, loop.hand, NAMES)
    found = rows(loop.path)
    for update in range(1, 6):
        assert found["model", update, "update", ""]["learning_rate"] is None
        for name in NAMES:
            rate = 0.1 if name[0] == "0" else 0.01 / 2 ** (update - 1)
            row = found["model", update, "update", name]
            assert row["learning_rate"] == pytest.approx(rate, rel=1e-6)


def test_a_group_that_comes_later_is_reported(tmp_path):
    model, more = net(), nn.Linear(3, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with playground.watch(model, optimizer, run_dir=tmp_path / "run"):
        for update, (x, _) in zip(range(5), data(), strict=False):
            optimizer.zero_grad()
            model(x).sum().backward()
            if update == 2:
                optimizer.add_param_group({"params": more.parameters()})
            optimizer.step()
    (event,) = playground.load(tmp_path / "run").events.to_pylist()
    assert event["kind"] == "layout"
    assert "update 3" in event["message"]


def test_several_optimizers_on_one_model(tmp_path):
    """Each is a player of its own tensors; both ways to say so agree."""
    found = []
    for form in ("list", "names"):
        model = net()
        a = torch.optim.Adam(model[0].parameters(), lr=1e-2)
        b = torch.optim.SGD(model[2].parameters(), lr=0.1)
        hands = Hand(model[0].parameters()), Hand(model[2].parameters())
        path = tmp_path / form
        players = (model, [a, b]) if form == "list" else ({"body": (model, a), "head": (model, b)},)
        with playground.watch(*players, run_dir=path, every=1):
            for _, (x, y) in zip(range(6), data(), strict=False):
                a.zero_grad()
                b.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                step(a, hands[0])
                step(b, hands[1])
        names = ("model_0", "model_1") if form == "list" else ("body", "head")
        for name, hand, own in zip(names, hands, (NAMES[:2], NAMES[2:]), strict=True):
            check(path, hand, own, player=name)
        found.append(playground.load(path).manifest["counters"])
    assert found[0] == found[1] == {"iterations": 6, "updates": 6}


def test_an_optimizer_that_holds_more_than_the_model(tmp_path):
    """What the model does not name is watched all the same, by its place."""

    def make(model):
        torch.manual_seed(3)
        model.extra = [nn.Parameter(torch.randn(3))]  # no part of the module
        return torch.optim.SGD([*model.parameters(), *model.extra], lr=0.1)

    def run(model, optimizer, hand):
        for _, (x, y) in zip(range(4), data(), strict=False):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x) * model.extra[0], y).backward()
            step(optimizer, hand)

    loop = Loop(tmp_path, net, make, run)
    assert loop.names == [*NAMES, "param_groups.4"]
    check(loop.path, loop.hand, loop.names)


@both
def test_low_precision_and_sparse_gradients(tmp_path, place):
    def build():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Embedding(10, 4, sparse=True), nn.Linear(4, 3).to(torch.bfloat16)
        )  # fmt: skip

    def run(model, optimizer, hand):
        draw = torch.Generator().manual_seed(0)
        for _ in range(6):
            optimizer.zero_grad()
            rows_ = torch.randint(10, (5,), generator=draw)
            model[1](model[0](rows_).to(torch.bfloat16)).float().square().mean().backward()
            look(hand)
            optimizer.step()
            if hand is not None:
                hand.after.append([p.detach().double().numpy() for p in hand.parameters])

    def look(hand):
        if hand is None:
            return
        dense = [p.grad.to_dense().double().numpy() for p in hand.parameters]
        hand.gradients.append(dense)
        hand.before.append([p.detach().double().numpy() for p in hand.parameters])

    loop = Loop(tmp_path, build, lambda m: torch.optim.SGD(m.parameters(), lr=0.1), run)
    check(loop.path, loop.hand, ["0.weight", "1.weight", "1.bias"], skip=skips(place))


@both
def test_channels_last_and_double(tmp_path, place):
    def build():
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)).double()
        return layers.to(memory_format=torch.channels_last)

    def run(model, optimizer, hand):
        draw = torch.Generator().manual_seed(0)
        for _ in range(5):
            x = torch.randn(2, 3, 8, 8, generator=draw, dtype=torch.float64)
            optimizer.zero_grad()
            model(x.to(memory_format=torch.channels_last)).square().mean().backward()
            step(optimizer, hand)

    loop = Loop(tmp_path, build, lambda m: torch.optim.Adam(m.parameters(), lr=1e-2), run)
    check(loop.path, loop.hand, loop.names, skip=skips(place), rel=1e-6)


def test_two_watchers_and_a_wrapped_optimizer(tmp_path):
    class Wrapper:  # as Lightning's and others'
        def __init__(self, optimizer):
            self.optimizer = optimizer

    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    hand = Hand(model.parameters())
    one = playground.watch(model, Wrapper(optimizer), run_dir=tmp_path / "one", every=1)
    two = playground.watch(model, optimizer, run_dir=tmp_path / "two", every=1)
    for _, (x, y) in zip(range(6), data(), strict=False):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        step(optimizer, hand)
    one.close()
    two.close()
    for path in ("one", "two"):
        check(tmp_path / path, hand, NAMES, tap="clipped")


def test_an_optimizer_that_calls_its_base_is_seen_once(tmp_path):
    """Hooks are called by both classes' steps; a step that fails leaves nothing behind."""

    class Own(torch.optim.SGD):
        fails = 0

        def step(self, closure=None):
            if self.fails:
                self.fails -= 1
                raise RuntimeError("not now")
            super().step(closure)

    net_of_others = net(5)
    torch.optim.SGD(net_of_others.parameters(), lr=0.1).step()  # so that the base has hooks too

    def run(model, optimizer, hand):
        for update, (x, y) in zip(range(8), data(), strict=False):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            if update == 3:
                optimizer.fails = 1
                with pytest.raises(RuntimeError, match="not now"):
                    optimizer.step()
            step(optimizer, hand)

    loop = Loop(tmp_path, net, lambda m: Own(m.parameters(), lr=0.1), run)
    check(loop.path, loop.hand, NAMES)
    assert loop.watcher.updates == {"model": 8}
