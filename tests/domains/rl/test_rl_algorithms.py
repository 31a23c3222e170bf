"""What algorithms have in common, and what tells them apart."""

import numpy as np
import pytest
import torch
from torch import distributions as td

from playground.domains.rl.algorithms.ppo_kl import adapted
from playground.domains.rl.algorithms.reinforce import mean_of_others
from playground.domains.rl.objectives import divergence, score, surrogate
from playground.domains.rl.policies.categorical import Categorical
from playground.domains.rl.policies.gaussian import Gaussian
from playground.gradients import reduced
from playground.nets import MLP
from playground.optim.optimizer import Optimizer

SMALL = ["problem.num_envs=4", "problem.widths=[8]", "dtype=float64"]
PLAIN = ["optimizer.lr=3e-3", "optimizer.schedule=constant"]
ONE_PASS = ["algorithm.epochs=1", "algorithm.batch_size=20", "algorithm.clip=1e6",
            "algorithm.clip_schedule=constant"]  # fmt: skip
SAME = ["algorithm.num_steps=5", "algorithm.gae_lambda=1", "algorithm.gamma=0.97",
        "algorithm.normalize_advantage=false", "algorithm.entropy_coefficient=0.01",
        "algorithm.value_coefficient=0.4"]  # fmt: skip
MINIBATCHES = ["algorithm.num_steps=16", "algorithm.batch_size=16", "algorithm.epochs=3"]


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize(
    "optimizer",
    [
        ["optimizer=rmsprop", "optimizer.clip_norm=0.5"],
        ["optimizer=adam", "optimizer.clip_norm=null"],
    ],
    ids=["rmsprop", "adam"],
)
@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_a2c_is_a_special_case_of_ppo(game, env, optimizer, members):
    """One epoch, one minibatch, no clipping, update by update (Huang et al. 2022)."""
    keys = [f"problem.env={env}", *SMALL, *SAME, f"members={members}"]
    a2c = game("algorithm=a2c", *optimizer, *keys, *PLAIN)
    ppo = game("algorithm=ppo", *optimizer, *keys, *PLAIN, *ONE_PASS)
    assert torch.equal(a2c.values(), ppo.values())
    for _ in range(12):
        before = a2c.values().clone()
        a2c.iterate()
        ppo.iterate()
        assert (a2c.values() - before).abs().amax(1).min() > 1e-6
        assert torch.allclose(a2c.values(), ppo.values(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("algorithm", ["a2c", "ppo", "ppo_kl"])
def test_separate_players_move_as_a_joint_one(game, algorithm, members):
    """Without clipping of the joint gradient, whatever the elementwise optimizer."""
    keys = [f"algorithm={algorithm}", *SMALL, *PLAIN, "optimizer=adam", "optimizer.clip_norm=null",
            f"members={members}", "algorithm.entropy_coefficient=0.01"]  # fmt: skip
    keys += [] if algorithm == "a2c" else MINIBATCHES
    joint, separate = game(*keys), game(*keys, "algorithm.separate=true")
    views = joint.players["agent"].parameters.views
    for name, tensor in views.items():
        owner, _, own = name.partition(".")
        separate.players[owner].parameters.views[own].copy_(tensor)
    (whole,) = joint.moves()[:1]
    parts = {move.player: move for move in separate.moves()[:2]}
    gradient = joint.players["agent"].parameters.layout.views(joint.engine.gradient(whole).value)
    for player, move in parts.items():
        layout = separate.players[player].parameters.layout
        for name, value in layout.views(separate.engine.gradient(move).value).items():
            expected = gradient[f"{player}.{name}"]
            assert value.abs().max() > 0
            assert torch.allclose(value, expected, rtol=1e-12, atol=1e-15)
    joint.iterate(3)
    separate.iterate(3)
    for name, tensor in views.items():
        owner, _, own = name.partition(".")
        other = separate.players[owner].parameters.views[own]
        assert torch.allclose(tensor, other, rtol=0, atol=1e-9)


def kl_by_torch(problem, observation, before, after):
    """KL(before || after) [B] of one member's policies."""
    sides = []
    for tensors in (before, after):
        output = problem.policy.network(tensors, observation)
        if isinstance(problem.policy, Gaussian):
            normal = td.Normal(output, tensors["policy.log_std"].exp())
            sides.append(td.Independent(normal, 1))
        else:
            sides.append(td.Categorical(logits=output))
    return td.kl_divergence(*sides)


ENVS = ["CartPole-v1", "Pendulum-v1"]


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("env", ENVS)
def test_the_penalty_is_beta_times_torch_s_kl(game, env, members):
    made = game(f"problem.env={env}", "algorithm=ppo_kl", *SMALL, *MINIBATCHES, *PLAIN,
                f"members={members}",
                "optimizer.lr=0.1")  # fmt: skip
    made.problem.beta = torch.arange(1.0, members + 1, dtype=torch.float64)
    player, rounds = made.players["agent"], made.problem.iteration(0.0)
    before = [{n: t.clone() for n, t in player.parameters.member(k).items()}
              for k in range(members)]  # fmt: skip
    (move,) = moves = next(rounds)
    first = made.engine.gradient(move)
    assert first.diagnostics["kl"].abs().max() < 1e-14
    for _ in range(5):  # into the second epoch
        (move,) = moves = rounds.send(made.engine.play(moves))
    result = made.engine.gradient(move)
    for k in range(members):
        weight, observation = move.batch["weight"][k], move.batch["observation"][k]
        kl = kl_by_torch(made.problem, observation, before[k], player.parameters.member(k))
        expected = (kl * weight).sum() / weight.sum()
        assert expected > 1e-4
        assert result.diagnostics["kl"][k].item() == pytest.approx(expected.item(), rel=1e-9)
        assert result.terms["kl"][k].item() == pytest.approx((k + 1) * expected.item(), rel=1e-9)


@pytest.mark.parametrize("env", ENVS)
@pytest.mark.parametrize("lr", [1e-5, 0.3])
def test_beta_follows_the_divergence_of_the_iteration(game, env, lr):
    """It halves after small steps and doubles after large ones, for the next iteration."""
    made = game(f"problem.env={env}", "algorithm=ppo_kl", *SMALL, *MINIBATCHES, *PLAIN,
                "members=2", f"optimizer.lr={lr}")  # fmt: skip
    made.problem.beta = torch.tensor([0.5, 4.0], dtype=torch.float64)
    rounds, problem = made.problem.iteration(0.0), made.problem
    parameters = made.players["agent"].parameters
    before = [{n: t.clone() for n, t in parameters.member(k).items()} for k in range(2)]
    seen, outcomes = [], None
    try:
        while True:
            (move,) = moves = rounds.send(outcomes)
            assert move.batch["beta"].tolist() == [0.5, 4.0]
            seen.append(move.batch)
            outcomes = made.engine.play(moves)
    except StopIteration as stop:
        metrics = stop.value
    rows = seen[: len(seen) // 3]  # an epoch has every row once
    for k in range(2):
        weight = torch.cat([b["weight"][k] for b in rows])
        observation = torch.cat([b["observation"][k] for b in rows])
        kl = kl_by_torch(problem, observation, before[k], parameters.member(k))
        expected = ((kl * weight).sum() / weight.sum()).item()
        assert metrics["kl/iteration"][k] == pytest.approx(expected, rel=1e-9)
        assert expected < 0.01 / 1.5 if lr < 1e-3 else expected > 0.015
    assert metrics["beta"].tolist() == [0.5, 4.0]
    assert problem.beta.tolist() == ([0.25, 2.0] if lr < 1e-3 else [1.0, 8.0])


def test_the_rule_of_beta():
    kl = torch.tensor([0.0, 0.0066, 0.0067, 0.0149, 0.0151, 9.0], dtype=torch.float64)
    result = adapted(torch.full((6,), 3.0, dtype=torch.float64), kl, 0.01)
    assert result.tolist() == [1.5, 1.5, 3.0, 3.0, 6.0, 6.0]


@pytest.mark.parametrize("separate", ["false", "true"])
def test_a_divergence_beyond_the_limit_stops_a_member_alone(game, separate):
    """Members 0 and 2 take large steps; what they are stays until the next iteration."""
    limit = 0.01
    made = game("algorithm=ppo", *SMALL, *MINIBATCHES, *PLAIN, "members=3",
                f"algorithm.separate={separate}", f"algorithm.target_kl={limit}")  # fmt: skip
    rates = torch.tensor([0.1, 1e-7, 0.3])
    for name, player in made.players.items():
        settings = made.config.player_optimizer(name)
        own = Optimizer(settings, player.parameters.values, {"lr": rates})
        made.engine.optimizers[name] = own
    owner = made.problem.owners[0]
    for _ in range(2):
        rounds, outcomes, going = made.problem.iteration(0.0), None, torch.ones(3, dtype=torch.bool)
        stopped_at = {}
        try:
            for number in range(1000):
                moves = rounds.send(outcomes)
                for move in moves:
                    mask = torch.ones(3, dtype=torch.bool) if move.active is None else move.active
                    assert torch.equal(mask, going)
                before = frozen_parts(made)
                outcomes = made.engine.play(moves)
                after = frozen_parts(made)
                for old, new in zip(before, after, strict=True):
                    same = (old == new).flatten(1).all(1)
                    assert same[~going].all()
                    assert not same[going].any()
                going = going & (outcomes[owner].diagnostics["approx_kl"] <= 1.5 * limit)
                for k in (~going).nonzero().flatten().tolist():
                    stopped_at.setdefault(k, number)
        except StopIteration:
            pass
        assert number == 12
        assert stopped_at.keys() == {0, 2}
        assert 0 < max(stopped_at.values()) < 11
    for name in made.players:
        assert made.engine.updates[name][1] == 24
        assert (made.engine.updates[name][[0, 2]] < 24).all()


def frozen_parts(made):
    """Copies of parameters and moments [M, N] of every player."""
    parts = [player.parameters.values.clone() for player in made.players.values()]
    for optimizer in made.engine.optimizers.values():
        for state in optimizer.state()["links"]:
            parts += [tensor for tensor in state.values() if tensor.ndim > 1]
    return parts


ESTIMATED = {
    "categorical": lambda: Categorical(MLP((2, 5)), [5], single=True),
    "gaussian": lambda: Gaussian(MLP((2, 3)), -0.2),
}


@pytest.mark.parametrize("kind", ESTIMATED)
@pytest.mark.parametrize("estimator", ["approx_kl", "approx_kl_k1"])
def test_estimators_of_the_divergence_are_unbiased(kind, estimator):
    """Samples of the old policy; k3 and k1 average to the closed form (z < 4.5)."""
    count, policy = 200_000, ESTIMATED[kind]()
    old, new = ({n: t.clone() for n, t in policy.init(k, "policy").items()} for k in range(2))
    for name in new:  # a ratio far from 1, but with moments
        new[name] = old[name] + new[name]
    observation = torch.tensor([[0.3, -0.8]], dtype=torch.float64).expand(count, 2)
    before, after = policy(old, observation), policy(new, observation)
    rng = torch.Generator().manual_seed(0)
    if kind == "categorical":
        action = torch.multinomial(before["log_p"][0].exp(), count, True, generator=rng)
    else:
        noise = torch.randn(count, 3, generator=rng, dtype=torch.float64)
        action = before["mean"] + before["log_std"].exp() * noise
    batch = {"observation": observation, "action": action,
             "log_prob": policy.log_prob(before, action),
             "advantage": torch.zeros(count, dtype=torch.float64),
             "weight": torch.ones(count, dtype=torch.float64)}  # fmt: skip
    _, diagnostics = surrogate(policy, "agent")({"agent": new}, batch)
    sample, exact = diagnostics[estimator], policy.divergence(before, after)[0]
    assert exact > 0.02
    assert (diagnostics["approx_kl"] >= 0).all()
    assert abs(sample.mean() - exact) < 4.5 * sample.std() / count**0.5
    if estimator == "approx_kl_k1":  # k3 varies less (Schulman 2020)
        assert diagnostics["approx_kl"].std() < sample.std()


def objectives_on(policy, action, moved):
    """A batch of the old policy's, parameters at or beside it."""
    rng = torch.Generator().manual_seed(5)
    tensors = policy.init(0, "policy")
    observation = torch.randn(20, 2, generator=rng, dtype=torch.float64)
    statistics = policy(tensors, observation)
    batch = {
        "observation": observation, "action": action, "log_prob":
        policy.log_prob(statistics, action), "beta": torch.tensor(0.7, dtype=torch.float64),
        "advantage": torch.randn(20, generator=rng, dtype=torch.float64),
        "weight": (torch.rand(20, generator=rng) < 0.8).double(),
        **{f"old_{name}": value.detach() for name, value in statistics.items()},
    }  # fmt: skip
    own = {n: t + moved * torch.randn(t.shape, generator=rng, dtype=torch.float64)
           for n, t in tensors.items()}  # fmt: skip
    return {"agent": own}, batch


@pytest.mark.parametrize("kind", ESTIMATED)
def test_gradients_are_those_of_their_losses(kind):
    """Score, penalised surrogate and divergence against central differences."""
    policy, rng = ESTIMATED[kind](), torch.Generator().manual_seed(6)
    discrete = kind == "categorical"
    action = (torch.randint(5, (20,), generator=rng) if discrete
              else torch.randn(20, 3, generator=rng, dtype=torch.float64))  # fmt: skip
    params, batch = objectives_on(policy, action, 0.3)
    made = {
        "score": score(policy, "agent", entropy_coefficient=0.3),
        "surrogate": surrogate(policy, "agent", entropy_coefficient=0.3, penalized=True),
        "divergence": divergence(policy, "agent"),
    }
    for name, function in made.items():
        for key, tensor in params["agent"].items():

            def value(t, key=key, function=function):
                return reduced(function, {"agent": params["agent"] | {key: t}}, batch)[0]

            exact = torch.autograd.functional.jacobian(value, tensor)
            numeric = torch.zeros_like(tensor)
            for i in range(tensor.numel()):
                shift = torch.zeros_like(tensor)
                shift.view(-1)[i] = 1e-6
                numeric.view(-1)[i] = (value(tensor + shift) - value(tensor - shift)) / 2e-6
            assert exact.abs().max() > 1e-3, (name, key)
            assert exact.numpy() == pytest.approx(numeric.numpy(), rel=1e-5, abs=1e-8), (name, key)


@pytest.mark.parametrize("kind", ESTIMATED)
def test_at_the_old_policy_the_surrogate_s_gradient_is_the_score_s(kind):
    policy, rng = ESTIMATED[kind](), torch.Generator().manual_seed(6)
    action = (torch.randint(5, (20,), generator=rng) if kind == "categorical"
              else torch.randn(20, 3, generator=rng, dtype=torch.float64))  # fmt: skip
    params, batch = objectives_on(policy, action, 0.0)
    leaves = {n: t.requires_grad_() for n, t in params["agent"].items()}
    gradients = [
        torch.autograd.grad(reduced(f, {"agent": leaves}, batch)[0], [*leaves.values()])
        for f in (surrogate(policy, "agent"), score(policy, "agent", entropy_coefficient=0.0))
    ]
    for one, other in zip(*gradients, strict=True):
        assert one.abs().max() > 1e-3
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("algorithm", ["npg", "trpo"])
@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_a_step_of_the_policy_has_the_radius(game, env, algorithm):
    """Divergence by the policies before and after; the critic moves in rounds of its own."""
    made = game(f"problem.env={env}", f"algorithm={algorithm}", *SMALL, "members=2",
                "algorithm.num_steps=64", "algorithm.batch_size=32",
                "algorithm.value_epochs=2")  # fmt: skip
    rounds = made.problem.iteration(0.0)
    (move,) = moves = next(rounds)
    assert (move.player, move.divergence is None) == ("policy", False)
    weight = move.batch["weight"]
    mean = (move.batch["advantage"] * weight).sum(1) / weight.sum(1)
    assert mean.abs().max() < 1e-6  # normalised over the rollout
    policy, before = made.problem.policy, made.problem.statistics(move.batch["observation"])
    value = made.values("value").clone()
    outcome = made.engine.play(moves)["policy"]
    assert torch.equal(made.values("value"), value)
    kl = policy.divergence(before, made.problem.statistics(move.batch["observation"]))
    kl = (kl * weight).sum(1) / weight.sum(1)
    assert (kl > 1e-4).all()
    if algorithm == "trpo":
        assert (kl <= 0.01).all()
        assert outcome.diagnostics["trust_region/accepted"].tolist() == [1, 1]
        reported = outcome.diagnostics["trust_region/divergence"]
        assert torch.allclose(reported, kl, rtol=1e-9)
    else:
        assert "trust_region/accepted" not in outcome.diagnostics
    kept = made.values("policy").clone()
    (move,) = moves = rounds.send({"policy": outcome})
    made.engine.play(moves)
    assert move.player == "value"
    assert torch.equal(made.values("policy"), kept)
    assert not torch.equal(made.values("value"), value)


def test_the_mean_baseline_leaves_the_episode_out():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 7, (2, 4))
    lengths[1] = [6, 2, 2, 2]  # the longest is alone at its end
    mask = (np.arange(6)[:, None, None] < lengths).astype(np.float32)
    target = rng.normal(size=(6, 2, 4)).astype(np.float32)  # not 0 past the end
    result = mean_of_others(target, mask)
    for t, m, e in np.argwhere(mask > 0):
        others = [target[t, m, f] for f in range(4) if f != e and mask[t, m, f]]
        expected = np.mean(others) if others else 0.0
        assert result[t, m, e] == pytest.approx(expected, abs=1e-6)
    changed = target.copy()
    changed[:, 0, 1] += 100  # an episode's own returns do not move its baseline
    assert result[:, 0, 1] == pytest.approx(mean_of_others(changed, mask)[:, 0, 1], abs=1e-5)
