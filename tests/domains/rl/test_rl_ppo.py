import numpy as np
import pytest
import torch
from rl_toys import paths
from torch.distributions import Categorical

from playground.domains.rl.batches import explained_variance
from playground.game import Move

SIZES = {
    "zoo": ["problem.num_envs=8", "algorithm.num_steps=32", "algorithm.batch_size=256"],
    "cleanrl": ["problem.num_envs=8", "algorithm.num_steps=128", "algorithm.batch_size=256"],
    "small": ["problem.num_envs=3", "algorithm.num_steps=50", "algorithm.batch_size=10"],
}


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_the_first_ratio_is_one(game, size, members):
    """Exactly: the minibatch's forward rounds as the rollout's does."""
    made = game(*SIZES[size], f"members={members}", "algorithm.epochs=2").iterate(2)
    rounds = made.problem.iteration(0.0)
    (move,) = next(rounds)
    diagnostics = made.engine.gradient(move).diagnostics
    assert diagnostics["approx_kl"].tolist() == [0.0] * members
    assert diagnostics["clip_fraction"].tolist() == [0.0] * members
    for k in range(members):
        tensors = made.players["agent"].parameters.member(k)
        logits = made.problem.policy.network(tensors, move.batch["observation"][k])
        taken = Categorical(logits=logits).log_prob(move.batch["action"][k])
        assert (taken - move.batch["log_prob"][k]).exp().numpy() == pytest.approx(1, abs=2e-6)


@pytest.mark.parametrize("members", [1, 2])
def test_the_first_gradient_is_the_plain_policy_gradient(game, members):
    made = game(*SIZES["cleanrl"], f"members={members}", "dtype=float64",
                "algorithm.value_coefficient=0").iterate(2)  # fmt: skip
    (move,) = next(made.problem.iteration(0.0))
    result = made.engine.gradient(move).value
    player = made.players["agent"]
    for k in range(members):
        module = player.module().double()
        module.load_state_dict(player.parameters.member(k))
        row = {name: t[k] for name, t in move.batch.items()}
        used = row["weight"] > 0
        choice = Categorical(logits=module["policy"](row["observation"][used]))
        loss = -(choice.log_prob(row["action"][used]) * row["advantage"][used]).mean()
        module.zero_grad()
        loss.backward()
        expected = [torch.zeros_like(p) if p.grad is None else p.grad for p in module.parameters()]
        flat = torch.cat([g.reshape(-1) for g in expected])
        assert flat.norm() > 1e-4
        assert torch.allclose(result[k], flat, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_an_epoch_takes_every_row_once(game, size):
    made = game(*SIZES[size], "members=2", "algorithm.normalize_advantage=false",
                "algorithm.epochs=3")  # fmt: skip
    problem = made.problem
    batch = problem.batch(problem.collect(problem.algorithm.num_steps))
    count = batch["action"].shape[1]
    numbers = torch.arange(2 * count).view(2, count)
    batch["number"] = numbers
    orders = []
    for _ in range(3):
        pieces = list(problem.minibatches(batch))
        assert {p["number"].shape for p in pieces} == {(2, problem.algorithm.batch_size)}
        joined = {name: torch.cat([p[name] for p in pieces], dim=1) for name in batch}
        assert torch.equal(joined["number"].sort(dim=1).values, numbers)
        for name, value in batch.items():  # every column moves with its row
            order = joined["number"] - torch.tensor([[0], [count]])
            for k in range(2):
                assert torch.equal(joined[name][k], value[k][order[k]])
        orders.append(joined["number"])
    assert not torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0][0], orders[0][1] - count)


@pytest.mark.parametrize("members", [1, 2])
def test_rows_of_a_reset_have_no_influence(game, members):
    """Whatever they hold, every gradient of the epoch is the same bit for bit."""
    made = [game(*SIZES["small"], f"members={members}", "algorithm.entropy_coefficient=0.01",
                 "algorithm.clip_value=0.2") for _ in range(2)]  # fmt: skip
    gradients = []
    for k, one in enumerate(made):
        problem = one.problem
        batch = problem.batch(problem.collect(50))
        masked = batch["weight"] == 0
        assert 3 < masked.sum() < 100 * members
        if k:
            batch["observation"][masked] = 7.0
            batch["action"][masked] = 1 - batch["action"][masked]
            for name in ("advantage", "target", "value", "log_prob"):
                batch[name][masked] += 3.0
        clip = torch.full((members,), 0.2)
        pieces = [p | {"clip": clip} for p in problem.minibatches(batch)]
        moves = [Move("agent", problem.objectives["agent"], p) for p in pieces]
        gradients.append(torch.stack([one.engine.gradient(move).value for move in moves]))
    assert torch.equal(gradients[0], gradients[1])
    assert (gradients[0].norm(dim=-1) > 0).all()


def test_a_minibatch_of_two_rows_is_finite(game):
    """Where only one row or none has weight, nothing can be normalised."""
    made = game("problem.num_envs=8", "algorithm.num_steps=64", "algorithm.batch_size=2",
                "algorithm.epochs=1")  # fmt: skip
    counts = set()
    for move in made.moves():
        counts.add(int(move.batch["weight"].sum()))
        assert torch.isfinite(made.engine.gradient(move).value).all()
    assert {1, 2} <= counts


def test_counters(game):
    made = game("members=2", *SIZES["small"], "algorithm.epochs=1")
    valid = []
    collect = made.problem.collector.collect
    made.problem.collector.collect = lambda *a, **k: valid.append(collect(*a, **k)) or valid[-1]
    made.iterate(4)
    counters = made.problem.counters
    assert counters["env_steps"].tolist() == [4 * 150] * 2
    expected = np.sum([r.valid.sum(axis=(0, 2)) for r in valid], axis=0)
    assert counters["samples"].tolist() == expected.tolist()
    ends = np.sum([r.done[:-1].sum(axis=(0, 2)) for r in valid], axis=0)
    carried = np.sum([r.done[-1].sum(axis=1) for r in valid[:-1]], axis=0)
    assert (600 - expected).tolist() == (ends + carried).tolist()


def test_explained_variance(game):
    made = game("members=2", *SIZES["small"])
    problem = made.problem
    batch = problem.batch(problem.collect(50))
    result = explained_variance(batch)
    for k in range(2):
        used = batch["weight"][k].numpy() > 0
        target, value = batch["target"][k].numpy()[used], batch["value"][k].numpy()[used]
        assert result[k] == pytest.approx(1 - np.var(target - value) / np.var(target), abs=1e-5)


@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_the_clip_range_is_annealed(game, schedule):
    made = game(f"algorithm.clip_schedule={schedule}")
    for progress in (0.0, 0.5):
        (move,) = next(made.problem.iteration(progress))
        share = 1 - progress if schedule == "linear" else 1
        assert move.batch["clip"].tolist() == pytest.approx([0.2 * share])


def test_a_member_starts_and_draws_as_its_single_run(game):
    together, alone = game("seed=3", "members=3"), game("seed=5")
    assert torch.equal(together.values()[2:], alone.values())
    for several, single in zip(together.moves(3), alone.moves(3), strict=True):
        for name, value in single.batch.items():
            assert several.batch[name][2:].numpy() == pytest.approx(value.numpy(), abs=1e-4)
        assert torch.equal(several.batch["observation"][2:], single.batch["observation"])


def test_the_tree_is_solved(game):
    """The best return by enumeration; the greedy way at every node gives less."""
    best = max(sum(reward for *_, reward in path) for path in paths())
    made = game("problem.env=toys/Tree-v0", "problem.widths=[16]", "algorithm.epochs=4",
                "algorithm.clip_schedule=constant", "optimizer.schedule=constant",
                "optimizer.lr=0.01", "members=2").iterate(40)  # fmt: skip
    assert made.problem.evaluate().metrics["return"] == pytest.approx([best, best])


def test_truncations_bootstrap(game):
    """An environment that pays 1 for ever, cut every 8 steps: V = 1 / (1 - gamma), not 7.5."""
    made = game("problem.env=toys/Endless-v0", "problem.widths=[16]", "algorithm.gamma=0.98",
                "algorithm.gae_lambda=0.95", "algorithm.epochs=10", "algorithm.num_steps=32",
                "optimizer.lr=0.01", "optimizer.schedule=constant", "optimizer.clip_norm=null",
                "algorithm.clip_schedule=constant", "members=2").iterate(120)  # fmt: skip
    value = made.problem.values(np.ones((1, 2, 1, 1), np.float32)).reshape(-1)
    assert value == pytest.approx([50, 50], rel=0.02)
