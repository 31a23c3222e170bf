"""Policies over continuous actions: normals, squashed normals, state-dependent exploration.

Shape legend: that of ``categorical``.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from playground.domains.rl.policies.categorical import (
    Actor,
    Noise,
    Statistics,
    Streams,
    host_forward,
)
from playground.domains.rl.recurrent import Recurrent
from playground.nets import MLP

LOG_2PI = math.log(2 * math.pi)


def gaussian_log_prob(statistics: Statistics, action: Tensor) -> Tensor:
    """Log-density of independent normals, summed over components [...]."""
    log_std = statistics["log_std"]
    z = (action - statistics["mean"]) * torch.exp(-log_std)
    return (-0.5 * z.square() - log_std - 0.5 * LOG_2PI).sum(-1)


def gaussian_entropy(statistics: Statistics) -> Tensor:
    """sum_k (log sigma_k + (1 + log 2 pi) / 2)."""
    mean = statistics["mean"]
    return (statistics["log_std"] + 0.5 * (1 + LOG_2PI)).expand_as(mean).sum(-1)


def gaussian_divergence(old: Statistics, new: Statistics) -> Tensor:
    """KL(old || new) of independent normals, summed over components.

    KL = log(s'/s) + (s^2 + (m - m')^2) / (2 s'^2) - 1/2
    """
    shift = (old["mean"] - new["mean"]) * torch.exp(-new["log_std"])
    ratio = old["log_std"] - new["log_std"]
    return (-ratio + 0.5 * (torch.exp(2 * ratio) + shift.square()) - 0.5).sum(-1)


class Gaussian:
    """Independent normals whose standard deviation does not depend on the state.

    Args:
        network: D -> K, the means.
        log_std: log standard deviation at the start, learned as the tensor ``log_std`` [K].
        bounds: (low, high), each [K]: the environment gets low + (high - low) (tanh u + 1) / 2
            of the stored sample u, and densities are those of tanh u; None leaves it as it is.

    A squashed policy's entropy has no closed form: -log pi of the action taken estimates it.
    Its KL is that of the normals, since tanh is a bijection.

    Source: Haarnoja et al. 2018, appendix C (squashing).
    """

    def __init__(
        self,
        network: MLP | Recurrent,
        log_std: float = 0.0,
        bounds: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        self.network, self.start, self.bounds = network, log_std, bounds
        self.name = f"{network.prefix}log_std"

    def init(self, seed: int, purpose: str) -> dict[str, Tensor]:
        """The network's tensors and ``log_std``."""
        size = self.network.sizes[-1]
        spread = torch.full((size,), self.start, dtype=torch.float64)
        return {**self.network.init(seed, purpose), self.name: spread}

    def module(self) -> nn.Module:
        """The network, whose outputs are means, with a parameter ``log_std``."""
        module = self.network.module()
        module.register_parameter("log_std", nn.Parameter(torch.empty(self.network.sizes[-1])))
        return module

    def __call__(self, tensors: Mapping[str, Tensor], observation: Tensor) -> Statistics:
        """``mean`` and ``log_std``, each [..., K]."""
        mean = self.network(tensors, observation)
        return {"mean": mean, "log_std": tensors[self.name].expand_as(mean)}

    def log_prob(self, statistics: Statistics, action: Tensor) -> Tensor:
        """Of the stored sample, or of its tanh."""
        return gaussian_log_prob(statistics, action) - squash_correction(action, self.bounds)

    def entropy(self, statistics: Statistics, taken: Tensor) -> Tensor:
        """In closed form, or -log pi of the action taken where squashed."""
        return gaussian_entropy(statistics) if self.bounds is None else -taken

    def divergence(self, old: Statistics, new: Statistics) -> Tensor:
        """In closed form."""
        return gaussian_divergence(old, new)

    def noise(self, streams: Streams, steps: int, num_envs: int) -> Noise:
        """Standard normal [T, M, E, K]."""
        shape = (steps, num_envs, self.network.sizes[-1])
        return np.stack([s.standard_normal(shape, np.float32) for s in streams], axis=1)

    def actor(self, tensors: Mapping[str, Tensor]) -> Actor:
        """Mean + sigma noise."""
        forward, log_std = host_forward(self.network, tensors), tensors[self.name]

        def act(
            observation: np.ndarray, noise: np.ndarray | None, memory: np.ndarray | None = None
        ) -> np.ndarray:
            mean = forward(observation, memory)[1]
            if noise is None:
                return mean
            spread: np.ndarray = np.exp(log_std.cpu().numpy())[:, None]
            return np.asarray(mean + spread * noise)

        return act

    def environment(self, actions: np.ndarray) -> np.ndarray:
        """The sample, squashed into the bounds where there are any."""
        return squash(actions, self.bounds)


class StateDependent:
    """Generalised state-dependent exploration: noise that is a function of the state.

        a = mean(s) + theta^T phi(s),   theta [L, K] ~ N(0, sigma^2), held for several steps
        pi(a|s) = N(mean(s), sigma_s^2),   sigma_s^2 = (phi(s)^2)^T sigma^2 + 1e-6

    phi are the features of the last hidden layer, through which sigma_s gives no gradient.

    Args:
        network: D -> K, the means.
        log_std: log sigma at the start, learned as the tensor ``log_std`` [L, K].
        hold: steps for which theta is held; None is the whole rollout.

    Source: Raffin et al. 2022, section 3; 1e-6 is that of Stable-Baselines3.
    """

    def __init__(self, network: MLP | Recurrent, log_std: float, hold: int | None) -> None:
        self.network, self.start, self.hold = network, log_std, hold
        self.name = f"{network.prefix}log_std"
        self.shape = (network.sizes[-2], network.sizes[-1])

    def init(self, seed: int, purpose: str) -> dict[str, Tensor]:
        """The network's tensors and ``log_std``."""
        spread = torch.full(self.shape, self.start, dtype=torch.float64)
        return {**self.network.init(seed, purpose), self.name: spread}

    def module(self) -> nn.Module:
        """The network, whose outputs are means, with a parameter ``log_std``."""
        module = self.network.module()
        module.register_parameter("log_std", nn.Parameter(torch.empty(self.shape)))
        return module

    def __call__(self, tensors: Mapping[str, Tensor], observation: Tensor) -> Statistics:
        """``mean`` and ``log_std``, each [..., K]."""
        features, mean = self.network.features(tensors, observation)
        variance = features.detach().square() @ torch.exp(2 * tensors[self.name])
        return {"mean": mean, "log_std": 0.5 * torch.log(variance + 1e-6)}

    def log_prob(self, statistics: Statistics, action: Tensor) -> Tensor:
        """Of the stored sample."""
        return gaussian_log_prob(statistics, action)

    def entropy(self, statistics: Statistics, taken: Tensor) -> Tensor:
        """In closed form."""
        return gaussian_entropy(statistics)

    def divergence(self, old: Statistics, new: Statistics) -> Tensor:
        """In closed form."""
        return gaussian_divergence(old, new)

    def noise(self, streams: Streams, steps: int, num_envs: int) -> Noise:
        """Standard normal matrices [M, E, L, K], the same array for steps that share them."""
        hold = self.hold or steps
        shape = (-(-steps // hold), num_envs, *self.shape)
        drawn = np.stack([s.standard_normal(shape, np.float32) for s in streams], axis=1)
        return [drawn[t // hold] for t in range(steps)]

    def actor(self, tensors: Mapping[str, Tensor]) -> Actor:
        """Mean + (sigma noise)^T phi."""
        forward, log_std = host_forward(self.network, tensors), tensors[self.name]

        def act(
            observation: np.ndarray, noise: np.ndarray | None, memory: np.ndarray | None = None
        ) -> np.ndarray:
            features, mean = forward(observation, memory)
            if noise is None:
                return mean
            theta = np.exp(log_std.cpu().numpy())[:, None] * noise
            return np.asarray(mean + np.matmul(features[..., None, :], theta)[..., 0, :])

        return act

    def environment(self, actions: np.ndarray) -> np.ndarray:
        """The sample."""
        return actions


def squash_correction(action: Tensor, bounds: object) -> Tensor:
    """sum_k log(1 - tanh^2 u_k) of samples u [..., K]; 0 where nothing is squashed.

    The form 2 (log 2 - u - softplus(-2 u)) does not overflow.
    """
    if bounds is None:
        return torch.zeros((), dtype=action.dtype, device=action.device)
    return (2 * (math.log(2) - action - nn.functional.softplus(-2 * action))).sum(-1)


def squash(actions: np.ndarray, bounds: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray:
    """Low + (high - low) (tanh u + 1) / 2, or the samples themselves."""
    if bounds is None:
        return actions
    low, high = bounds
    result: np.ndarray = low + (high - low) * (0.5 * (np.tanh(actions) + 1))
    return result
