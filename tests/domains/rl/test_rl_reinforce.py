import numpy as np
import pytest
import torch
from rl_toys import REWARDS, paths

from playground.config import compose
from playground.schema import ConfigError

GAMMA = 0.8
TREE = ["problem.env=toys/Tree-v0", "algorithm=reinforce", f"algorithm.gamma={GAMMA}",
        "problem.widths=[5]", "problem.num_envs=150", "dtype=float64"]  # fmt: skip


def tree(game, *overrides):
    """A tree whose policy is far from uniform and whose baseline is far from 0."""
    made = game(*TREE, *overrides)
    rng = torch.Generator().manual_seed(0)
    for name, player in made.players.items():
        own = torch.randn(player.parameters.layout.size, generator=rng, dtype=torch.float64)
        player.parameters.values.copy_(0.7 * own if name == "policy" else own)
    return made


def expected_gradient(made, weighted):
    """Minus the gradient by enumeration of every way through the tree.

    With gamma^t it is that of the discounted return itself; without, that of
    sum_paths p sum_t log pi(a_t|s_t) G_t with p and G held.
    """
    layout = made.players["policy"].parameters.layout
    flat = made.values("policy")[0].clone().requires_grad_()
    logits = made.problem.policy.network(layout.views(flat), torch.eye(7, dtype=torch.float64))
    log = torch.log_softmax(logits, -1)
    total = torch.zeros((), dtype=torch.float64)
    for path in paths():
        steps = torch.stack([log[node, action] for node, action, _ in path])
        rewards = [reward for *_, reward in path]
        if weighted:
            total = total + steps.sum().exp() * sum(GAMMA**t * r for t, r in enumerate(rewards))
            continue
        to_go = [sum(GAMMA**k * r for k, r in enumerate(rewards[t:])) for t in range(len(path))]
        chance = steps.sum().exp().detach()
        total = total + chance * (steps * torch.tensor(to_go, dtype=torch.float64)).sum()
    return -torch.autograd.grad(total, flat)[0]


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("baseline", ["learned", "mean", "none"])
def test_the_estimate_is_unbiased(game, weighted, baseline):
    made = tree(game, f"algorithm.discount_weight={str(weighted).lower()}",
                f"algorithm.baseline={baseline}", "members=1")  # fmt: skip
    estimates = []
    for _ in range(60):
        (move,) = next(made.problem.iteration(0.0))
        assert move.player == "policy"
        estimates.append(made.engine.gradient(move).value[0])
    sample = torch.stack(estimates)
    exact = expected_gradient(made, weighted)
    error = sample.std(dim=0) / 60**0.5
    some = error > 1e-12
    assert ((sample.mean(dim=0) - exact)[~some].abs() < 1e-10).all()
    assert ((sample.mean(dim=0) - exact)[some].abs() / error[some]).max() < 4.5
    other = expected_gradient(made, not weighted)  # the test can tell the two apart
    assert ((sample.mean(dim=0) - other)[some].abs() / error[some]).max() > 6


def test_batches_hold_complete_episodes(game):
    made = tree(game, "members=2")
    moves = made.moves()
    assert [m.player for m in moves] == ["policy"] + ["value"] * 20
    batch = moves[0].batch
    values = made.problem.value
    ways = {tuple((n, a) for n, a, _ in path): path for path in paths()}
    seen = set()
    for k in range(2):
        tensors = made.players["value"].parameters.member(k)
        baseline = values(tensors, torch.eye(7, dtype=torch.float64))[:, 0]
        for e in range(150):
            length = int(batch["mask"][k, e].sum())
            assert batch["mask"][k, e].tolist() == [1.0] * length + [0.0] * (3 - length)
            nodes = batch["observation"][k, e].argmax(-1).tolist()[:length]
            way = tuple(zip(nodes, batch["action"][k, e].tolist()[:length], strict=True))
            seen.add(way)
            rewards = [reward for *_, reward in ways[way]]
            for t in range(3):
                to_go = sum(GAMMA**i * r for i, r in enumerate(rewards[t:]))
                expected = to_go - baseline[nodes[t]].item() if t < length else 0.0
                assert batch["advantage"][k, e, t].item() == pytest.approx(expected, abs=1e-6)
    assert len(seen) == len(ways)
    rows = moves[1].batch
    assert rows["weight"].sum(1).tolist() == batch["mask"].sum((1, 2)).tolist()
    assert torch.equal(rows["weight"], batch["mask"].transpose(1, 2).flatten(1))


def test_counters_and_training_returns(game):
    made = tree(game, "members=2", "algorithm.value_updates=1")
    batches = [m.batch for m in made.moves(2) if m.player == "policy"]
    steps = sum(b["mask"].sum((1, 2)) for b in batches)
    assert made.problem.counters["samples"].tolist() == steps.tolist()
    assert made.problem.counters["env_steps"].tolist() == [2 * 3 * 150] * 2
    nodes = batches[-1]["observation"].argmax(-1).numpy()
    rewards = REWARDS[nodes, batches[-1]["action"].numpy()] * batches[-1]["mask"].numpy()
    expected = rewards.sum(-1)[:, -100:]
    for member in range(2):
        recent = made.problem.collector.recent[member]
        assert len(recent) == 100
        assert set(np.round(recent, 5)) <= set(np.round(rewards.sum(-1)[member], 5))
        assert np.mean(recent) == pytest.approx(expected[member].mean(), abs=0.3)


def test_a_member_plays_as_its_single_run(game):
    """However long the episodes of the others last, for many iterations."""
    keys = ["algorithm=reinforce", "problem.num_envs=3", "algorithm.value_updates=1"]
    together, alone = game(*keys, "seed=3", "members=3"), game(*keys, "seed=5")
    for several, single in zip(together.moves(8), alone.moves(8), strict=True):
        if several.player == "value":
            continue
        length = single.batch["mask"].shape[-1]
        for name, value in single.batch.items():
            own = several.batch[name][2:]
            assert own[:, :, :length].numpy() == pytest.approx(value.numpy(), abs=1e-4)
        assert not several.batch["mask"][2:, :, length:].any()
    for name, count in alone.problem.counters.items():
        assert together.problem.counters[name][2] == count[0]


def test_the_tree_is_solved(game):
    best = max(sum(reward for *_, reward in path) for path in paths())
    made = game("problem.env=toys/Tree-v0", "algorithm=reinforce", "problem.widths=[16]",
                "problem.num_envs=32", "optimizer.lr=0.02", "members=2").iterate(80)  # fmt: skip
    assert made.problem.evaluate().metrics["return"] == pytest.approx([best, best])


def test_a_time_limit_is_needed(game):
    config = compose(["problem.env=CartPole-v1", "algorithm=reinforce",
                      "+problem.env_kwargs.max_episode_steps=-1"])  # fmt: skip
    with pytest.raises(ConfigError, match="needs a time limit"):
        config.problem.build(config)
