"""Exact values and policy gradients of a finite MDP, in float64 by linear algebra.

With P_pi the transitions between states that are not terminal and r_pi the mean rewards,

    V = r_pi + gamma P_pi V,    d = rho + gamma P_pi^T d,    J = rho . V
    grad J = sum_s d(s) sum_a grad pi(a|s) Q(s, a)              (Sutton et al. 2000, theorem 1)

A horizon H is a time limit that ends the return, as REINFORCE sees it: then V and Q depend on
the time and come from H steps of dynamic programming. ``discount_weight=False`` leaves gamma^t
out of d, as implementations commonly do; the result is then the gradient of nothing (Nota &
Thomas 2020). Everything points uphill: the engine's gradients, of losses, have the other sign.

Shape legend: S states, A actions, H horizon, N parameters.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from playground.domains.rl.environments.mdp import MDP
from playground.parameters import Layout

LogPolicy = Callable[[Tensor], Tensor]
"""theta [N] -> log pi(a|s) [S, A]."""


@dataclass(frozen=True)
class Exact:
    """Exact quantities of policies pi [S, A] in an MDP.

    Attributes:
        mdp: the model.
        gamma: discount.
        horizon: time limit H in steps; None is an episode without limit.
    """

    mdp: MDP
    gamma: float
    horizon: int | None = None

    @cached_property
    def transition(self) -> Tensor:
        """P(s'|s, a) [S, A, S] between states that are not terminal."""
        live = ~self.mdp.terminal
        return torch.from_numpy(self.mdp.transition * live * live[:, None, None])

    @cached_property
    def reward(self) -> Tensor:
        """Mean rewards r(s, a) [S, A]."""
        return torch.from_numpy((self.mdp.transition * self.mdp.reward).sum(-1))

    @cached_property
    def start(self) -> Tensor:
        """Distribution rho of the first state [S]."""
        return torch.from_numpy(self.mdp.start)

    def value(self, pi: Tensor) -> Tensor:
        """V [S]; with a horizon V_t(s) [H + 1, S], whose last row is 0.

        Raises:
            ValueError: no horizon and a return that is infinite.
        """
        P, r = self._under(pi)
        if self.horizon is None:
            solved: Tensor = torch.linalg.solve(self._system(P, self.gamma), r)
            return solved
        rows = [torch.zeros_like(r)]
        for _ in range(self.horizon):
            rows.append(r + self.gamma * P @ rows[-1])
        return torch.stack(rows[::-1])

    def action_value(self, pi: Tensor) -> Tensor:
        """Q [S, A], with a horizon [H, S, A]."""
        V = self.value(pi)
        after = V if self.horizon is None else V[1:]
        return self.reward + self.gamma * torch.einsum("sau,...u->...sa", self.transition, after)

    def advantage(self, pi: Tensor) -> Tensor:
        """Q - V [S, A], with a horizon [H, S, A]."""
        V = self.value(pi)
        return self.action_value(pi) - (V if self.horizon is None else V[:-1]).unsqueeze(-1)

    def visitation(self, pi: Tensor, *, discount_weight: bool = True) -> Tensor:
        """sum_t gamma^t P(s_t = s) [S], with a horizon its summands [H, S]; 0 in terminal states.

        Args:
            pi: policy.
            discount_weight: False leaves gamma^t out.

        Raises:
            ValueError: no horizon and an infinite sum.
        """
        P, gamma = self._under(pi)[0], self.gamma if discount_weight else 1.0
        if self.horizon is None:
            solved: Tensor = torch.linalg.solve(self._system(P, gamma).T, self.start)
            return solved
        rows = [self.start.to(pi)]
        for _ in range(self.horizon - 1):
            rows.append(gamma * P.T @ rows[-1])
        return torch.stack(rows)

    def objective(self, pi: Tensor) -> Tensor:
        """J = E sum_t gamma^t r_t."""
        V = self.value(pi)
        return self.start @ (V if self.horizon is None else V[0])

    def gradient_through_solution(self, policy: LogPolicy, theta: Tensor) -> Tensor:
        """Grad J [N] by automatic differentiation of the linear solve."""
        at = theta.detach().double().requires_grad_()
        return torch.autograd.grad(self.objective(policy(at).exp()), at)[0]

    def gradient(self, policy: LogPolicy, theta: Tensor, *, discount_weight: bool = True) -> Tensor:
        """Grad J [N] by the policy-gradient theorem, or what is left of it without gamma^t."""
        at = theta.detach().double().requires_grad_()
        pi = policy(at).exp()
        weights = self.pressure(pi.detach(), discount_weight=discount_weight)
        return torch.autograd.grad((weights * pi).sum(), at)[0]

    def pressure(self, pi: Tensor, *, discount_weight: bool = True) -> Tensor:
        """d(s) A(s, a) [S, A], summed over time; the gradient is its sum with grad pi."""
        d = self.visitation(pi, discount_weight=discount_weight)
        product = d.unsqueeze(-1) * self.advantage(pi)
        return product if self.horizon is None else product.sum(0)

    def fisher(self, policy: LogPolicy, theta: Tensor) -> Tensor:
        """sum_s d(s) sum_a pi(a|s) psi psi^T [N, N], psi = grad log pi(a|s).

        Source: Kakade 2002, section 3, with the discounted visitation d, not normalised.
        """
        pi = policy(theta.double()).exp().detach()
        d = self.visitation(pi)
        d = d if self.horizon is None else d.sum(0)
        psi = score(policy, theta)
        return torch.einsum("s,sa,sam,san->mn", d, pi, psi, psi)

    def _under(self, pi: Tensor) -> tuple[Tensor, Tensor]:
        """P_pi [S, S] and r_pi [S]."""
        return torch.einsum("sa,sau->su", pi, self.transition), (pi * self.reward).sum(-1)

    def _system(self, P: Tensor, gamma: float) -> Tensor:
        """I - gamma P_pi."""
        radius = gamma * torch.linalg.eigvals(P.detach()).abs().max().item()
        if radius > 1 - 1e-12:
            raise ValueError(f"gamma={gamma:g}: an endless return is infinite; give a horizon")
        return torch.eye(len(P), dtype=P.dtype) - gamma * P


def score(policy: LogPolicy, theta: Tensor) -> Tensor:
    """Grad log pi(a|s) [S, A, N]."""
    jacobian: Tensor = torch.func.jacrev(policy)(theta.detach().double())
    return jacobian.detach()


def softmax_policy(
    network: Callable[[Mapping[str, Tensor], Tensor], Tensor],
    layout: Layout,
    features: np.ndarray,
) -> LogPolicy:
    """The policy of a network of logits over all states, as a function of its parameters.

    Args:
        network: (tensors, x [S, D]) -> logits [S, A].
        layout: of theta; tensors that the network does not read have gradient 0.
        features: what is observed in every state [S, D].
    """
    x = torch.from_numpy(features.astype(np.float32)).double()  # as it is observed

    def policy(theta: Tensor) -> Tensor:
        return torch.log_softmax(network(layout.views(theta), x), dim=-1)

    return policy
