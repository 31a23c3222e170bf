"""Exact values and gradients against finite differences, sums over paths and each other."""

import itertools

import numpy as np
import pytest
import torch

from playground.domains.rl.environments.mdp import bandit, chain, garnet, gridworld
from playground.domains.rl.exact.values import Exact, score, softmax_policy
from playground.nets import MLP
from playground.parameters import Layout

MODELS = {"bandit": bandit(), "chain": chain(), "gridworld": gridworld(slip=0.1),
          "garnet": garnet(), "features": garnet(features=4)}  # fmt: skip


def tabular(model):
    """Logits are the parameters."""
    S, A = model.shape
    return lambda theta: torch.log_softmax(theta.view(S, A), dim=-1)


def network(model, widths=(5,)):
    """A policy of the playground's own, and parameters."""
    net = MLP((model.features.shape[1], *widths, model.shape[1]), "tanh", "glorot")
    tensors = net.init(0, "policy")
    layout = Layout({name: tuple(value.shape) for name, value in tensors.items()})
    theta = torch.cat([tensors[name].reshape(-1) for name in layout.names])
    return softmax_policy(net, layout, model.features), 1.5 * theta


def draw(count, seed=0):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def differences(f, theta):
    """Central differences with one Richardson step: error O(h^4)."""
    columns = []
    for direction in torch.eye(len(theta), dtype=torch.float64):
        slope = [(f(theta + h * direction) - f(theta - h * direction)) / (2 * h)
                 for h in (1e-3, 5e-4)]  # fmt: skip
        columns.append((4 * slope[1] - slope[0]) / 3)
    return torch.stack(columns)


@pytest.mark.parametrize("horizon", [None, 2, 12])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_the_gradient_three_ways(model, horizon):
    exact = Exact(model, 0.9, horizon)
    for policy, theta in ((tabular(model), draw(model.shape[0] * model.shape[1])), network(model)):
        theorem = exact.gradient(policy, theta)
        assert theorem.abs().max() > 1e-3
        assert (theorem - exact.gradient_through_solution(policy, theta)).abs().max() < 1e-10
        slopes = differences(lambda at, p=policy: exact.objective(p(at).exp()), theta)
        assert (theorem - slopes).abs().max() < 1e-8


def paths(model, pi, steps):
    """Every way through: (probability, states, actions, rewards)."""
    S, A = model.shape
    for s0 in range(S):
        for choice in itertools.product(itertools.product(range(A), range(S)), repeat=steps):
            p, s, states, actions, rewards = model.start[s0], s0, [s0], [], []
            for a, after in choice:
                if model.terminal[s]:
                    p *= (a, after) == (0, s)  # one way to stay at the end
                    continue
                p *= pi[s, a] * model.transition[s, a, after]
                rewards.append(model.reward[s, a, after])
                actions.append(a)
                states.append(after)
                s = after
            if p > 0:
                yield p, states, actions, rewards


@pytest.mark.parametrize("weighted", [True, False])
def test_values_and_both_directions_are_sums_over_paths(weighted):
    model = gridworld(rows=1, columns=3, goals=[2], slip=0.3)
    gamma, steps, policy, theta = 0.7, 3, tabular(model), draw(12)
    pi = policy(theta).exp()
    exact = Exact(model, gamma, steps)
    total, expected = 0.0, torch.zeros(12, dtype=torch.float64)
    psi = score(policy, theta)
    for p, states, actions, rewards in paths(model, pi.numpy(), steps):
        total += p * sum(gamma**t * r for t, r in enumerate(rewards))
        for t, a in enumerate(actions):
            to_go = sum(gamma**k * r for k, r in enumerate(rewards[t:]))
            expected += p * (gamma**t if weighted else 1) * to_go * psi[states[t], a]
    assert exact.objective(pi).item() == pytest.approx(total, rel=1e-12)
    found = exact.gradient(policy, theta, discount_weight=weighted)
    assert found.numpy() == pytest.approx(expected.numpy(), abs=1e-12)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_a_long_horizon_is_none(model):
    pi = tabular(model)(draw(model.shape[0] * model.shape[1])).exp()
    long, endless = Exact(model, 0.9, 400), Exact(model, 0.9)
    assert long.value(pi)[0].numpy() == pytest.approx(endless.value(pi).numpy(), abs=1e-10)
    assert long.visitation(pi).sum(0).numpy() == pytest.approx(
        endless.visitation(pi).numpy(), abs=1e-10
    )
    assert (pi * endless.advantage(pi)).sum(-1).abs().max() < 1e-12
    assert endless.visitation(pi) @ endless.reward.mul(pi).sum(-1) == pytest.approx(
        endless.objective(pi).item()
    )


def test_without_discounting_visits_are_counted():
    """Of an episode that ends: expected visits by simulating the absorbing chain long enough."""
    model, pi = gridworld(), torch.full((16, 4), 0.25, dtype=torch.float64)
    visits = Exact(model, 0.5).visitation(pi, discount_weight=False)
    live, p = ~model.terminal, model.start.copy()
    counted = np.zeros(16)
    for _ in range(2000):
        counted += p * live
        p = (p * live) @ model.transition.mean(axis=1)
    assert visits.numpy() == pytest.approx(counted, abs=1e-9)


def test_an_infinite_return_is_refused():
    pi = torch.full((5, 2), 0.5, dtype=torch.float64)
    with pytest.raises(ValueError, match="gamma=1: an endless return is infinite"):
        Exact(chain(), 1.0).value(pi)
    with pytest.raises(ValueError, match="give a horizon"):
        Exact(chain(), 0.9).visitation(pi, discount_weight=False)


@pytest.mark.parametrize("model", [MODELS["chain"], MODELS["garnet"]], ids=["chain", "garnet"])
def test_the_natural_gradient_of_a_softmax_is_the_advantage_up_to_a_constant(model):
    """Kakade 2002, theorem 1, with the compatible functions of a softmax."""
    exact, policy = Exact(model, 0.9), tabular(model)
    theta = draw(model.shape[0] * model.shape[1])
    natural = torch.linalg.pinv(exact.fisher(policy, theta)) @ exact.gradient(policy, theta)
    difference = natural.view(model.shape) - exact.advantage(policy(theta).exp())
    assert (difference - difference.mean(-1, keepdim=True)).abs().max() < 1e-6


@pytest.mark.parametrize("make", [lambda m: (tabular(m), draw(10)), network])
def test_the_fisher_matrix_three_ways(make):
    """Outer products of scores, minus the mean Hessian of log pi, the Hessian of the KL."""
    model = MODELS["chain"]
    exact = Exact(model, 0.9)
    policy, theta = make(model)
    pi = policy(theta).exp().detach()
    weights = exact.visitation(pi)[:, None] * pi

    def mean_log(at):
        return (weights * policy(at)).sum()

    def divergence(at):
        return (weights * (policy(theta).detach() - policy(at))).sum()

    outer = exact.fisher(policy, theta)
    for sign, function in ((-1, mean_log), (1, divergence)):
        hessian = torch.func.jacrev(torch.func.grad(function))(theta)
        assert (outer - sign * hessian).abs().max() < 1e-6
    columns = differences(lambda at: torch.func.grad(divergence)(at), theta)
    assert (outer - columns).abs().max() < 1e-6
