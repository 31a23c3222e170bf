"""The estimates of the code that trains against exact moments, and those against all paths."""

import numpy as np
import pytest
import torch
from test_rl_exact import draw, paths, tabular

from playground.domains.rl.environments.mdp import garnet, gridworld, mdp
from playground.domains.rl.exact.moments import estimate_moments
from playground.domains.rl.exact.values import Exact, score, softmax_policy

GAMMA, STEPS = 0.9, 6


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("bootstrap", [True, False])
@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
def test_moments_are_sums_over_all_paths(weighted, bootstrap, lam):
    model, steps = gridworld(rows=1, columns=3, goals=[2], slip=0.3), 3
    policy, theta, V = tabular(model), draw(12), draw(3, seed=1).numpy()
    psi, pi = score(policy, theta).numpy(), policy(theta).exp().numpy()
    mean, second = np.zeros(12), np.zeros((12, 12))
    for p, states, actions, rewards in paths(model, pi, steps):
        g = np.zeros(12)
        value = [0.0 if model.terminal[s] else V[s] for s in states]
        if len(actions) == steps and not bootstrap:
            value[-1] = 0.0
        delta = [r + 0.7 * value[t + 1] - value[t] for t, r in enumerate(rewards)]
        for t, a in enumerate(actions):
            advantage = sum((0.7 * lam) ** k * d for k, d in enumerate(delta[t:]))
            g += (0.7**t if weighted else 1.0) * advantage * psi[states[t], a]
        mean += p * g
        second += p * np.outer(g, g)
    found = estimate_moments(Exact(model, 0.7), policy, theta, torch.from_numpy(V), lam, steps,
                             bootstrap=bootstrap, discount_weight=weighted)  # fmt: skip
    assert found[0].numpy() == pytest.approx(mean, abs=1e-12)
    assert found[1].numpy() == pytest.approx(second - np.outer(mean, mean), abs=1e-12)


def layered(base, steps):
    """The same with the time in the state, so that V does not depend on it; ends after T."""
    S, A = base.shape
    size = S * steps + 1
    transition, reward = np.zeros((2, size, A, size))
    for t in range(steps):
        here, after = slice(t * S, (t + 1) * S), slice((t + 1) * S, (t + 2) * S)
        reward[here] = 1 + (base.transition * base.reward).sum(-1)[..., None]  # a baseline matters
        if t == steps - 1:
            transition[here, :, -1] = 1.0
        else:
            transition[here, :, after] = base.transition
    start = np.concatenate([base.start, np.zeros(size - S)])
    return mdp(transition, reward, start, np.arange(size) == size - 1)


MODEL = layered(garnet(states=4, actions=3, branching=2, seed=1), STEPS)


@pytest.fixture
def prepared(game, tmp_path):
    """``prepared(overrides)``: a game on MODEL, its policy far from uniform."""
    arrays = {name: getattr(MODEL, name) for name in ("transition", "reward", "start", "terminal")}
    np.savez(tmp_path / "model.npz", **arrays)

    def prepare(*overrides):
        made = game("problem=rl/finite_mdp", f"problem.env_kwargs.file='{tmp_path}/model.npz'",
                    "dtype=float64", f"algorithm.gamma={GAMMA}", *overrides)  # fmt: skip
        player = made.players[made.problem.owners[0]].parameters
        theta = 0.7 * draw(player.layout.size)
        player.values.copy_(theta)
        policy = softmax_policy(made.problem.policy.network, player.layout, MODEL.features)
        return made, policy, theta, Exact(MODEL, GAMMA)

    return prepare


def set_values(made, V):
    """A value network that is linear in one-hot states is a table."""
    views = made.players[made.problem.owners[1]].parameters.views
    prefix = made.problem.value.prefix
    views[f"{prefix}0.weight"][:] = V
    views[f"{prefix}0.bias"].zero_()


def check_against(estimates, mean, covariance):
    """Independent estimates [K, N] of known mean and covariance: z, chi-squared and variance."""
    K = len(estimates)
    off = estimates.mean(0) - mean
    spread = (covariance.diagonal() / K).clamp_min(0).sqrt()
    some = spread > 1e-9
    assert not (off[~some].abs() > 1e-9).any()
    assert (off[some].abs() / spread[some]).max() < 4.5
    rank = int(torch.linalg.matrix_rank(covariance, rtol=1e-9))
    chi = K * off @ torch.linalg.pinv(covariance, rtol=1e-9) @ off
    assert abs(chi.item() - rank) < 4.5 * np.sqrt(2 * rank)
    squares = (estimates - estimates.mean(0)).square().sum(1) * K / (K - 1)
    z = (squares.mean() - covariance.trace()) / (squares.std() / K**0.5)
    assert abs(z.item()) < 4.5


EPISODES = 100


def learned_values(made):
    """What 2 iterations of the baseline's own updates make of zeros, for member 0 [S]."""
    player = made.players["value"].parameters
    player.values.zero_()
    for _ in range(2):
        for moves in made.problem.iteration(0.0):
            if moves[0].player == "value":
                made.engine.play(moves)
    player.values.copy_(player.values[0].clone().expand_as(player.values))
    views = player.member(0)
    return (views["0.weight"][0] + views["0.bias"]).clone()


def reinforce_estimates(made, iterations):
    """Minus the policy's gradients of EPISODES episodes each [K, N]; nothing is updated."""
    found = []
    for _ in range(iterations):
        (move,) = next(made.problem.iteration(0.0))
        found.append(-made.engine.gradient(move).value)
    return torch.cat(found)


@pytest.mark.parametrize("weighted", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_reinforce_is_unbiased_and_a_better_baseline_has_less_variance(prepared, weighted):
    """100,000 episodes for each baseline."""
    flag = f"algorithm.discount_weight={str(weighted).lower()}"
    traces = {}
    for name in ("none", "learned", "exact"):
        made, policy, theta, exact = prepared(
            "algorithm=reinforce", flag, "members=100", f"problem.num_envs={EPISODES}",
            "optimizer.lr=0.05",
            f"algorithm.baseline={'none' if name == 'none' else 'learned'}",
        )  # fmt: skip
        V = exact.value(policy(theta).exp())
        if name == "learned":
            V = learned_values(made)
        else:
            V = V if name == "exact" else 0 * V
            set_values(made, V)
        estimates = reinforce_estimates(made, 10)
        mean, covariance = estimate_moments(
            exact, policy, theta, V, 1.0, STEPS, discount_weight=weighted
        )
        truth = exact.gradient(policy, theta, discount_weight=weighted)
        assert (mean - truth).abs().max() < 1e-10
        check_against(estimates, truth, covariance / EPISODES)
        traces[name] = covariance.trace(), estimates.var(0).sum() * EPISODES
    for kind in range(2):  # exact and measured
        assert traces["none"][kind] > 1.1 * traces["learned"][kind]
        assert traces["learned"][kind] > 1.1 * traces["exact"][kind]


def test_the_two_directions_differ_and_the_samples_tell_them_apart(prepared):
    made, policy, theta, exact = prepared("algorithm=reinforce", "members=100",
                                          f"problem.num_envs={EPISODES}")  # fmt: skip
    set_values(made, exact.value(policy(theta).exp()))
    estimates = reinforce_estimates(made, 2)
    off = estimates.mean(0) - exact.gradient(policy, theta, discount_weight=True)
    spread = estimates.std(0) / len(estimates) ** 0.5
    assert (off.abs() / spread.clamp_min(1e-12)).max() > 10


@pytest.mark.parametrize("kind", ["one", "state", "action"])
def test_scores_times_a_baseline_are_zero_unless_it_depends_on_the_action(prepared, kind):
    made, policy, theta, exact = prepared("algorithm=reinforce", "members=100",
                                          f"problem.num_envs={EPISODES}")  # fmt: skip
    S, A = MODEL.shape
    b = {"one": torch.ones(S, A), "state": draw(S)[:, None].expand(S, A),
         "action": draw(S * A).view(S, A)}[kind].double()  # fmt: skip
    found = []
    for _ in range(3):
        (move,) = next(made.problem.iteration(0.0))
        batch = move.batch
        batch["advantage"] = b[batch["observation"].argmax(-1), batch["action"]] * batch["mask"]
        found.append(-made.engine.gradient(move).value)
    estimates = torch.cat(found)
    spread = (estimates.std(0) / len(estimates) ** 0.5).clamp_min(1e-12)
    z = estimates.mean(0).abs() / spread
    if kind != "action":
        assert z.max() < 4.5
        return
    assert z.max() > 10  # detected
    at = theta.clone().requires_grad_()
    pi = policy(at).exp()
    d = exact.visitation(pi.detach(), discount_weight=False)
    bias = torch.autograd.grad((d[:, None] * b * pi).sum(), at)[0]
    assert ((estimates.mean(0) - bias).abs() / spread).max() < 4.5


def gae_estimates(prepared, lam, V):
    """Minus PPO's first gradient, of the whole batch, times T: a sum over an episode."""
    made, policy, theta, exact = prepared(
        "algorithm=ppo", "members=200", "problem.num_envs=50", f"algorithm.num_steps={STEPS - 2}",
        f"algorithm.batch_size={50 * (STEPS - 2)}", f"algorithm.gae_lambda={lam}",
        "algorithm.normalize_advantage=false", "algorithm.value_coefficient=0",
    )  # fmt: skip
    set_values(made, V)
    (move,) = next(made.problem.iteration(0.0))
    layout = made.players["agent"].parameters.layout
    own = torch.cat([torch.arange(layout.size)[layout.slices[n]] for n in layout.names
                     if n.startswith("policy.")])  # fmt: skip
    theta = made.players["agent"].parameters.values[0]
    mean, covariance = estimate_moments(exact, policy, theta, V, lam, STEPS - 2)
    estimates = -made.engine.gradient(move).value * (STEPS - 2)
    return estimates[:, own], mean[own], covariance[own][:, own] / 50


@pytest.mark.parametrize("lam", [0.0, 0.8, 1.0])
def test_gae_has_the_bias_and_variance_of_theory(prepared, lam):
    V = draw(MODEL.shape[0], seed=3)
    V[-1] = 0
    check_against(*gae_estimates(prepared, lam, V))


def test_bias_falls_and_variance_rises_with_lambda():
    """Exact, for values that are wrong; for the true ones there is no bias at any lambda."""
    model = garnet(states=6, actions=2, seed=2)
    policy, theta = tabular(model), draw(12)
    exact = Exact(model, GAMMA)
    V, steps = exact.value(policy(theta).exp()), 60
    wrong = V + V.std() * draw(6, seed=4)
    truth = estimate_moments(exact, policy, theta, V, 1.0, steps)[0]
    bias, variance = [], []
    for lam in (0.0, 0.3, 0.6, 0.8, 0.9, 0.95, 1.0):
        mean, covariance = estimate_moments(exact, policy, theta, wrong, lam, steps)
        bias.append((mean - truth).norm().item())
        variance.append(covariance.trace().item())
        unbiased = estimate_moments(exact, policy, theta, V, lam, steps)[0]
        assert (unbiased - truth).abs().max() < 1e-10
    assert (np.diff(bias) < 0).all()
    assert (np.diff(variance) > 0).all()
    assert bias[0] > 0.01 * truth.norm().item()  # there is something to fall
