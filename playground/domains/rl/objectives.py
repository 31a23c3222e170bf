"""Objectives of policy gradients: pure functions of one member's parameters and batch.

Shape legend: B samples, A actions, E episodes, T time steps, D observation entries.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from playground.game import Batch, Objective, Params, Terms

Network = Callable[[Mapping[str, Tensor], Tensor], Tensor]


def log_probability(logits: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the actions taken [...] and of all actions [..., A]."""
    every = torch.log_softmax(logits, dim=-1)
    return every.gather(-1, action.unsqueeze(-1)).squeeze(-1), every


def entropy(every: Tensor) -> Tensor:
    """Entropy -sum_a p_a log p_a [...] in nats of log-probabilities [..., A]."""
    return -(every.exp() * every).sum(-1)


def ppo(
    policy: Network,
    value: Network,
    *,
    value_coefficient: float,
    entropy_coefficient: float,
    clip_value: float | None,
) -> Objective:
    """The clipped surrogate with value and entropy terms, one player ``agent``.

        policy  -min(r A, clip(r, 1 - c, 1 + c) A),   r = pi(a|s) / pi_old(a|s)
        value   k_v (V(s) - target)^2, or the larger of it and its clipped variant
        entropy -k_e H(pi(.|s))

    Batch: observation [B, D], action [B], log_prob [B], advantage [B], target [B], value [B],
    weight [B], clip [].

    Source: Schulman et al. 2017, eqs. 7 and 9. Diagnostics: ``approx_kl`` is the k3 estimator
    (r - 1) - log r of Schulman 2020, never negative (hence expm1); ``clip_fraction`` the
    share with |r - 1| > c.
    """

    def objective(params: Params, batch: Batch) -> tuple[Terms, Terms]:
        agent, observation = params["agent"], batch["observation"]
        taken, every = log_probability(policy(agent, observation), batch["action"])
        log_ratio = taken - batch["log_prob"]
        ratio = log_ratio.exp()
        clip, advantage = batch["clip"], batch["advantage"]
        clipped = torch.clamp(ratio, 1 - clip, 1 + clip)
        predicted, target = value(agent, observation).squeeze(-1), batch["target"]
        squared = (predicted - target).square()
        if clip_value is not None:
            near = (predicted - batch["value"]).clamp(-clip_value, clip_value)
            squared = torch.maximum(squared, (batch["value"] + near - target).square())
        terms = {
            "policy": -torch.minimum(ratio * advantage, clipped * advantage),
            "value": value_coefficient * squared,
        }
        uncertainty = entropy(every if entropy_coefficient else every.detach())
        if entropy_coefficient:
            terms["entropy"] = -entropy_coefficient * uncertainty
        with torch.no_grad():
            diagnostics = {
                "approx_kl": torch.expm1(log_ratio) - log_ratio,
                "clip_fraction": ((ratio - 1).abs() > clip).to(ratio.dtype),
                "entropy": uncertainty,
            }
        return terms, diagnostics

    return objective


def reinforce(policy: Network) -> Objective:
    """The score-function estimate; its sample is the complete episode.

        policy  -sum_t w_t log pi(a_t|s_t),   w_t = gamma^t or 1, times (G_t - b(s_t))

    Batch: observation [E, T, D], action [E, T], advantage [E, T] (w_t, 0 past the end of an
    episode), mask [E, T]. Summed over time, the estimate is unbiased for any baseline. An
    episode that the time limit cuts is complete: its return ends there.

    Source: Williams 1992; Sutton et al. 2000, theorem 1.
    """

    def objective(params: Params, batch: Batch) -> tuple[Terms, Terms]:
        taken, every = log_probability(
            policy(params["policy"], batch["observation"]), batch["action"]
        )
        with torch.no_grad():
            steps = batch["mask"].sum()
            mean_entropy = (entropy(every) * batch["mask"]).sum() / steps
        return {"policy": -(taken * batch["advantage"]).sum(-1)}, {"entropy": mean_entropy}

    return objective


def value_regression(value: Network) -> Objective:
    """The baseline's objective: (V(s) - G)^2 / 2 over valid steps.

    Batch: observation [B, D], target [B], weight [B].
    """

    def objective(params: Params, batch: Batch) -> tuple[Terms, Terms]:
        error = value(params["value"], batch["observation"]).squeeze(-1) - batch["target"]
        return {"value": 0.5 * error.square()}, {}

    return objective
