"""Exact mean and covariance of policy-gradient estimates of a finite MDP.

The estimate of one episode, cut after T steps, is linear in the residuals of its values:

    g = sum_t w_t psi_t A_t,   A_t = sum_l (gamma lambda)^l delta_{t+l},   psi = grad log pi(a|s)
      = sum_k delta_k z_k,     z_k = gamma lambda z_{k-1} + w_k psi_k,     w_t = gamma^t or 1
    delta_k = r_k + gamma V_{k+1}(s_{k+1}) - V_k(s_k)

so the joint first and second moments of (z, g), split by the state s_k, follow a linear
recursion: no sample, no enumeration. REINFORCE with baseline V is lambda = 1 with V_T = 0.

Shape legend: S states, A actions, N parameters, T steps.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from playground.domains.rl.exact.values import Exact, LogPolicy, score


@dataclass
class _Moments:
    """Moments on the event s_k = s: P, E z, E g, E z z^T, E z g^T, E g g^T, leading axis S."""

    p: Tensor
    z: Tensor
    g: Tensor
    zz: Tensor
    zg: Tensor
    gg: Tensor


def estimate_moments(
    exact: Exact,
    policy: LogPolicy,
    theta: Tensor,
    values: Tensor,
    gae_lambda: float,
    steps: int,
    *,
    bootstrap: bool = True,
    discount_weight: bool = False,
) -> tuple[Tensor, Tensor]:
    """Mean [N] and covariance [N, N] of the estimate that one episode gives.

    Args:
        exact: the model and gamma; its horizon is not used.
        policy: log pi as a function of theta.
        theta: parameters [N].
        values: V(s) [S] or V_t(s) [T + 1, S]; 0 is used in terminal states.
        gae_lambda: lambda.
        steps: T, at which the episode is cut.
        bootstrap: whether a cut episode goes on with V; REINFORCE's ends there.
        discount_weight: weight step t by gamma^t.

    Source: ours; the estimate is Schulman et al. 2016, eqs. 8 and 16.
    """
    psi = score(policy, theta)
    pi = policy(theta.double()).exp().detach()
    V = values.double().expand(steps + 1, -1).clone()
    V[:, torch.from_numpy(exact.mdp.terminal)] = 0
    if not bootstrap:
        V[-1] = 0
    S, N, keep = len(pi), psi.shape[-1], exact.gamma * gae_lambda
    zeros = torch.zeros(S, N, N, dtype=torch.float64)
    now = _Moments(exact.start, zeros[..., 0], zeros[..., 0], zeros, zeros, zeros)
    chance = pi.unsqueeze(-1) * torch.from_numpy(exact.mdp.transition)  # [S, A, S]
    reward = torch.from_numpy(exact.mdp.reward)
    terminal = torch.from_numpy(exact.mdp.terminal)
    mean, second = zeros[0, 0], zeros[0]
    for t in range(steps):
        delta = reward + exact.gamma * V[t + 1] - V[t][:, None, None]
        weight = exact.gamma**t if discount_weight else 1.0
        now = _advance(now, chance, delta, weight * psi, keep)
        over = terminal if t < steps - 1 else torch.ones_like(terminal)
        mean = mean + now.g[over].sum(0)
        second = second + now.gg[over].sum(0)
        for moment in vars(now).values():
            moment[over] = 0
    return mean, second - torch.outer(mean, mean)


def _advance(now: _Moments, chance: Tensor, delta: Tensor, psi: Tensor, keep: float) -> _Moments:
    """One step: z' = keep z + psi(s, a), g' = g + delta(s, a, s') z'."""
    p, psi_t = now.p[:, None, None], psi.unsqueeze(-2)
    z = keep * now.z[:, None] + psi * p
    cross = keep * _outer(now.z[:, None].expand_as(psi), psi)
    zz = keep**2 * now.zz[:, None] + cross + cross.mT + _outer(psi, psi) * p[..., None]
    zg = keep * now.zg[:, None] + psi_t.mT * now.g[:, None, None]
    ones = torch.ones_like(psi[..., 0])

    def arrive(weights: Tensor, moment: Tensor) -> Tensor:
        """Sum over (s, a) of weights [S, A, S] times a moment [S, A, ...]."""
        flat = weights.flatten(0, 1).T @ moment.reshape(ones.numel(), -1)
        return flat.reshape(-1, *moment.shape[2:])

    first, second = chance * delta, chance * delta**2
    g = (now.g[:, None] * ones[..., None]).contiguous()
    gg = now.gg[:, None] * ones[..., None, None]
    return _Moments(
        p=arrive(chance, now.p[:, None] * ones),
        z=arrive(chance, z),
        g=arrive(chance, g) + arrive(first, z),
        zz=arrive(chance, zz),
        zg=arrive(chance, zg) + arrive(first, zz),
        gg=arrive(chance, gg) + arrive(first, zg + zg.mT) + arrive(second, zz),
    )


def _outer(left: Tensor, right: Tensor) -> Tensor:
    """Outer products over the last axis."""
    return left.unsqueeze(-1) * right.unsqueeze(-2)
