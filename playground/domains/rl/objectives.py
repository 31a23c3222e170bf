"""Objectives of policy gradients: pure functions of one member's parameters and batch.

Each piece has one term of one network and reads the parameters of the player that owns it;
``joined`` adds pieces up where one player has several. Batches have one row a step, [B, ...],
with weight 0 on rows of a reset; REINFORCE's have one row an episode.

Shape legend: B samples, E episodes, T time steps, D observation entries, K action components.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from playground.domains.rl.policies.categorical import Policy, Statistics
from playground.game import Batch, Objective, Params, Terms

Network = Callable[[Mapping[str, Tensor], Tensor], Tensor]

OLD = "old_"
"""Put before the names of the acting policy's statistics in a batch."""


def joined(*pieces: Objective) -> Objective:
    """The sum of several objectives, their terms and diagnostics together."""
    if len(pieces) == 1:
        return pieces[0]

    def objective(params: Params, batch: Batch) -> tuple[Terms, Terms]:
        terms: Terms = {}
        diagnostics: Terms = {}
        for piece in pieces:
            some, more = piece(params, batch)
            terms |= some
            diagnostics |= more
        return terms, diagnostics

    return objective


def old_statistics(batch: Batch) -> Statistics:
    """Statistics of the policy that acted, which the batch carries."""
    return {name[len(OLD) :]: value for name, value in batch.items() if name.startswith(OLD)}


def entropy_bonus(
    policy: Policy, statistics: Statistics, taken: Tensor, coefficient: float
) -> tuple[Terms, Tensor]:
    """Term ``entropy``, -k_e H(pi(.|s)) [B], none where k_e = 0; and the detached H [B]."""
    if not coefficient:
        detached = {name: value.detach() for name, value in statistics.items()}
        return {}, policy.entropy(detached, taken.detach())
    entropy = policy.entropy(statistics, taken)
    return {"entropy": -coefficient * entropy}, entropy.detach()


def ratio_diagnostics(log_ratio: Tensor, ratio: Tensor, batch: Batch) -> Terms:
    """What the ratio r = pi(a|s) / pi_old(a|s) says about the step since the rollout.

    ``approx_kl`` and ``approx_kl_k1`` are the estimators k3 = (r - 1) - log r, never negative
    (hence expm1), and k1 = -log r of KL(pi_old || pi) [B], nats (Schulman 2020);
    ``ratio_max`` and ``ratio_min`` are the extremes over rows that count.
    """
    counts = batch["weight"] > 0
    return {
        "approx_kl": torch.expm1(log_ratio) - log_ratio,
        "approx_kl_k1": -log_ratio,
        "ratio_max": torch.where(counts, ratio, 1.0).amax(),
        "ratio_min": torch.where(counts, ratio, 1.0).amin(),
    }


def clipped_surrogate(policy: Policy, owner: str, *, entropy_coefficient: float) -> Objective:
    """PPO's clipped surrogate.

        policy  -min(r A, clip(r, 1 - c, 1 + c) A),   r = pi(a|s) / pi_old(a|s)
        entropy -k_e H(pi(.|s))

    Batch: observation [B, D], action [B, ...], log_prob [B], advantage [B], weight [B], clip [].

    Source: Schulman et al. 2017, eq. 7. Diagnostics: ``clip_fraction``, share with
    |r - 1| > c; ``zero_gradient``, share whose policy gradient the clip sets to 0 (A > 0 and
    r > 1 + c, or A < 0 and r < 1 - c); ``entropy``; those of ``ratio_diagnostics``.
    """

    def objective(params: Params, batch: Batch) -> tuple[Terms, Terms]:
        statistics = policy(params[owner], batch["observation"])
        taken = policy.log_prob(statistics, batch["action"])
        log_ratio = taken - batch["log_prob"]
        ratio = log_ratio.exp()
        clip, advantage = batch["clip"], batch["advantage"]
        clipped = torch.clamp(ratio, 1 - clip, 1 + clip)
        gain, limited = ratio * advantage, clipped * advantage
        terms = {"policy": -torch.minimum(gain, limited)}
        bonus, uncertainty = entropy_bonus(policy, statistics, taken, entropy_coefficient)
        with torch.no_grad():
            diagnostics = {
                **ratio_diagnostics(log_ratio, ratio, batch),
                "clip_fraction": ((ratio - 1).abs() > clip).to(ratio.dtype),
                "zero_gradient": (limited < gain).to(ratio.dtype),
                "entropy": uncertainty,
            }
        return terms | bonus, diagnostics

    return objective


def surrogate(
    policy: Policy, owner: str, *, entropy_coefficient: float = 0.0, penalized: bool = False
) -> Objective:
    """The unclipped surrogate, with a penalty on the divergence where ``penalized``.

        policy  -r A,   r = pi(a|s) / pi_old(a|s)
        kl      beta KL(pi_old(.|s) || pi(.|s))
        entropy -k_e H(pi(.|s))

    Batch: that of ``clipped_surrogate`` without clip; the acting policy's statistics ``old_*``
    and beta [] where penalized.

    Source: Schulman et al. 2015, eq. 14 and 2017, eqs. 6 and 8.
    """

    def objective(params: Params, batch: Batch) -> tuple[Terms, Terms]:
        statistics = policy(params[owner], batch["observation"])
        taken = policy.log_prob(statistics, batch["action"])
        log_ratio = taken - batch["log_prob"]
        ratio = log_ratio.exp()
        terms = {"policy": -ratio * batch["advantage"]}
        bonus, uncertainty = entropy_bonus(policy, statistics, taken, entropy_coefficient)
        diagnostics = {"entropy": uncertainty}
        if penalized:
            kl = policy.divergence(old_statistics(batch), statistics)
            terms["kl"] = batch["beta"] * kl
            diagnostics["kl"] = kl.detach()
        with torch.no_grad():
            diagnostics |= ratio_diagnostics(log_ratio, ratio, batch)
        return terms | bonus, diagnostics

    return objective


def divergence(policy: Policy, owner: str) -> Objective:
    """The mean KL between the policy that acted and the present one, for trust regions.

        kl      KL(pi_old(.|s) || pi(.|s)), nats; its Hessian at pi = pi_old is Fisher's matrix

    Batch: observation [B, D], ``old_*`` [B, ...], weight [B].
    """

    def objective(params: Params, batch: Batch) -> tuple[Terms, Terms]:
        statistics = policy(params[owner], batch["observation"])
        return {"kl": policy.divergence(old_statistics(batch), statistics)}, {}

    return objective


def score(policy: Policy, owner: str, *, entropy_coefficient: float) -> Objective:
    """The policy gradient of advantage actor-critic.

        policy  -log pi(a|s) A
        entropy -k_e H(pi(.|s))

    Batch: observation [B, D], action [B, ...], advantage [B], weight [B].

    Source: Mnih et al. 2016, section 4 (algorithm S3).
    """

    def objective(params: Params, batch: Batch) -> tuple[Terms, Terms]:
        statistics = policy(params[owner], batch["observation"])
        taken = policy.log_prob(statistics, batch["action"])
        bonus, uncertainty = entropy_bonus(policy, statistics, taken, entropy_coefficient)
        return {"policy": -taken * batch["advantage"], **bonus}, {"entropy": uncertainty}

    return objective


def value_error(
    value: Network, owner: str, *, coefficient: float, clip_value: float | None = None
) -> Objective:
    """The critic's squared error.

        value   k_v (V(s) - target)^2, or the larger of it and its clipped variant

    Batch: observation [B, D], target [B], weight [B]; value [B], the acting critic's, where
    clipped.

    Source: Schulman et al. 2017, eq. 9; clipping: the 37 details of PPO, detail 9.
    """

    def objective(params: Params, batch: Batch) -> tuple[Terms, Terms]:
        predicted = value(params[owner], batch["observation"]).squeeze(-1)
        squared = (predicted - batch["target"]).square()
        if clip_value is not None:
            near = (predicted - batch["value"]).clamp(-clip_value, clip_value)
            squared = torch.maximum(squared, (batch["value"] + near - batch["target"]).square())
        return {"value": coefficient * squared}, {}

    return objective


def reinforce(policy: Policy) -> Objective:
    """The score-function estimate; its sample is the complete episode.

        policy  -sum_t w_t log pi(a_t|s_t),   w_t = gamma^t or 1, times (G_t - b(s_t))

    Batch: observation [E, T, D], action [E, T, ...], advantage [E, T] (w_t, 0 past the end of
    an episode), mask [E, T]. Summed over time, the estimate is unbiased for any baseline. An
    episode that the time limit cuts is complete: its return ends there.

    Source: Williams 1992; Sutton et al. 2000, theorem 1.
    """

    def objective(params: Params, batch: Batch) -> tuple[Terms, Terms]:
        statistics = policy(params["policy"], batch["observation"])
        taken = policy.log_prob(statistics, batch["action"])
        _, uncertainty = entropy_bonus(policy, statistics, taken, 0.0)
        mean_entropy = (uncertainty * batch["mask"]).sum() / batch["mask"].sum()
        return {"policy": -(taken * batch["advantage"]).sum(-1)}, {"entropy": mean_entropy}

    return objective
