"""Policies: a network and the distribution of actions that it parametrises.

A policy is a pure function from one member's tensors and observations to *statistics*, the
parameters of the distribution; ``log_prob``, ``entropy`` and ``divergence`` are functions of
statistics. Acting happens on the host: ``noise`` is drawn ahead from the members' streams, an
``actor`` turns observations and noise into the actions that are stored, and ``environment``
says what the environments get of them.

Shape legend: T vector steps, M members, E environments of a member, D observation entries,
A choices, K components of an action, L features of the last hidden layer.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from playground.domains.rl.recurrent import Recurrent
from playground.nets import MLP, NUMPY_ACTIVATIONS

Statistics = dict[str, Tensor]
"""Named parameters of a distribution over actions, each [..., size]."""


class Actor(Protocol):
    """Acts with a policy's present parameters."""

    def __call__(
        self, observation: np.ndarray, noise: np.ndarray | None, memory: np.ndarray | None = None
    ) -> np.ndarray:
        """Actions [M, E, *shape].

        Args:
            observation: [M, E, D].
            noise: [M, E, ...], or None for the mode.
            memory: of a recurrent policy [M, E, H]; moved one step on, in place.
        """


Streams = Sequence[np.random.Generator]

Noise = np.ndarray | Sequence[np.ndarray]
"""Noise of T steps, each [M, E, ...]."""


class Policy(Protocol):
    """What algorithms ask of a policy; tensors are one member's, as everywhere in objectives."""

    network: MLP | Recurrent

    def init(self, seed: int, purpose: str) -> dict[str, Tensor]:
        """Initial tensors."""

    def module(self) -> nn.Module:
        """The network as an ordinary module, with what else the policy learns."""

    def __call__(self, tensors: Mapping[str, Tensor], observation: Tensor) -> Statistics:
        """Statistics of observations [..., D]."""

    def log_prob(self, statistics: Statistics, action: Tensor) -> Tensor:
        """Log-probability or log-density [...] of stored actions [..., *shape], in nats."""

    def entropy(self, statistics: Statistics, taken: Tensor) -> Tensor:
        """Entropy [...] in nats.

        Where there is no closed form, -``taken`` estimates it: log pi [...] of the actions taken.
        """

    def divergence(self, old: Statistics, new: Statistics) -> Tensor:
        """KL(old || new) [...] in nats."""

    def noise(self, streams: Streams, steps: int, num_envs: int) -> Noise:
        """Noise of T steps, each [M, E, ...], from each member's stream."""

    def actor(self, tensors: Mapping[str, Tensor]) -> Actor:
        """Acting with tensors [M, *shape], which are read anew at every call."""

    def environment(self, actions: np.ndarray) -> np.ndarray:
        """What environments get of stored actions [..., *shape]."""


class Forward(Protocol):
    """A network on the host."""

    def __call__(
        self, observation: np.ndarray, memory: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Features [M, E, L] and outputs [M, E, K] of observations [M, E, D].

        A recurrent network moves its memory [M, E, H] one step on, in place.
        """


def host_forward(network: MLP | Recurrent, tensors: Mapping[str, Tensor]) -> Forward:
    """A network on the host; the tensors are read anew at every call."""
    if isinstance(network, MLP):
        plain = host_mlp(network, tensors)
        return lambda observation, memory=None: plain(observation)
    step, head = host_step(network, tensors), host_mlp(network.head, tensors)

    def forward(
        observation: np.ndarray, memory: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        if memory is None:
            raise ValueError("a recurrent policy needs a memory to act")
        memory[...] = step(observation, memory)
        return head(memory)

    return forward


def host_step(
    network: Recurrent, tensors: Mapping[str, Tensor]
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """``Recurrent.step`` of all members: NumPy on the CPU, else torch."""
    first = tensors[network.names[0]]
    if first.device.type == "cpu":
        return network.numpy_step({name: tensors[name].numpy() for name in network.names})
    batched = torch.func.vmap(network.step)

    def step(observation: np.ndarray, memory: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            x, h = (torch.as_tensor(array).to(first) for array in (observation, memory))
            result: np.ndarray = batched(dict(tensors), x, h).cpu().numpy()
        return result

    return step


def host_mlp(
    network: MLP, tensors: Mapping[str, Tensor]
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Inputs [M, E, D] to features [M, E, L] and outputs: NumPy on the CPU, else torch."""
    first = next(iter(tensors.values()))
    if first.device.type == "cpu" and network.activation in NUMPY_ACTIVATIONS:
        names = [name for pair in network.names for name in pair]
        return network.numpy_forward({name: tensors[name].numpy() for name in names})
    batched = torch.func.vmap(network.features)

    def forward(observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            x = torch.as_tensor(observation, dtype=first.dtype, device=first.device)
            features, output = batched(dict(tensors), x)
        return features.cpu().numpy(), output.cpu().numpy()

    return forward


class Categorical:
    """Independent softmax choices, one or several: log pi(a|s) = sum_k log softmax(z_k)[a_k].

    Args:
        network: D -> sum of the choices.
        choices: number of choices of every component.
        single: whether a stored action is [...] rather than [..., K].

    Sampled by the Gumbel-max trick, argmax_a (z_a + G_a) with G_a = -log(Exp(1)) (Gumbel 1954).
    """

    def __init__(self, network: MLP | Recurrent, choices: Sequence[int], *, single: bool) -> None:
        self.network, self.choices, self.single = network, tuple(choices), single

    def init(self, seed: int, purpose: str) -> dict[str, Tensor]:
        """The network's tensors."""
        return self.network.init(seed, purpose)

    def module(self) -> nn.Module:
        """The network; its outputs are logits."""
        return self.network.module()

    def __call__(self, tensors: Mapping[str, Tensor], observation: Tensor) -> Statistics:
        """``log_p`` [..., sum of choices]: normalised log-probabilities of every component."""
        logits = self.network(tensors, observation)
        if self.single:
            return {"log_p": torch.log_softmax(logits, dim=-1)}
        pieces = torch.split(logits, list(self.choices), dim=-1)
        return {"log_p": torch.cat([torch.log_softmax(p, dim=-1) for p in pieces], dim=-1)}

    def log_prob(self, statistics: Statistics, action: Tensor) -> Tensor:
        """Summed over components."""
        log_p = statistics["log_p"]
        if self.single:
            return log_p.gather(-1, action.unsqueeze(-1)).squeeze(-1)
        starts = torch.tensor([0, *np.cumsum(self.choices)[:-1].tolist()], device=action.device)
        return log_p.gather(-1, action + starts).sum(-1)

    def entropy(self, statistics: Statistics, taken: Tensor) -> Tensor:
        """-sum_a p_a log p_a, summed over components."""
        log_p = statistics["log_p"]
        return -(log_p.exp() * log_p).sum(-1)

    def divergence(self, old: Statistics, new: Statistics) -> Tensor:
        """sum_a p_a (log p_a - log q_a), summed over components."""
        return (old["log_p"].exp() * (old["log_p"] - new["log_p"])).sum(-1)

    def noise(self, streams: Streams, steps: int, num_envs: int) -> Noise:
        """Gumbel noise [T, M, E, sum of choices]."""
        shape = (steps, num_envs, sum(self.choices))
        drawn = np.stack([s.standard_exponential(shape, np.float32) for s in streams], axis=1)
        np.maximum(drawn, np.finfo(np.float32).tiny, out=drawn)  # 0 has probability 2^-23 or so
        np.log(drawn, out=drawn)
        return np.negative(drawn, out=drawn)

    def actor(self, tensors: Mapping[str, Tensor]) -> Actor:
        """The largest logit, or logit plus noise, of every component."""
        forward = host_forward(self.network, tensors)
        cuts = np.cumsum(self.choices)[:-1]

        def act(
            observation: np.ndarray, noise: np.ndarray | None, memory: np.ndarray | None = None
        ) -> np.ndarray:
            logits = forward(observation, memory)[1]
            if noise is not None:
                logits = logits + noise
            if self.single:
                return np.asarray(logits.argmax(axis=-1))
            return np.stack([p.argmax(axis=-1) for p in np.split(logits, cuts, axis=-1)], axis=-1)

        return act

    def environment(self, actions: np.ndarray) -> np.ndarray:
        """The actions themselves."""
        return actions
