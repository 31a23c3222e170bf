"""Networks that remember: a gated recurrent unit, then an MLP at every step.

Written from linear layers, since ``torch.func.vmap`` has no rule for ``nn.GRU``; the tensors'
names are those of ``nn.GRU``. A batch's ``observation`` has one *sequence* a row: the T
observations of one environment, each with a flag that is 0 where the memory ends with the step
(an environment's reset), and then what policy and value remember before the first. Everything
else of the batch stays one row a step, those of a sequence one after the other, so that
objectives need not know.

Shape legend: M members, E environments, S sequences, T steps, D observation entries, H units,
L features of the last hidden layer, K outputs.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from playground.initialisations import initial_weight
from playground.nets import MLP
from playground.randomness import stream_seed
from playground.taps import linear

OWNERS = 2
"""Networks with a memory of their own: policy and value."""


@dataclass(frozen=True)
class Recurrent:
    """A gated recurrent unit before an MLP.

        r  = sigmoid(W_ir x + b_ir + W_hr h + b_hr)
        z  = sigmoid(W_iz x + b_iz + W_hz h + b_hz)
        n  = tanh(W_in x + b_in + r (W_hn h + b_hn))
        h' = (1 - z) n + z h

    ``weight_ih_l0`` [3 H, D] holds W_ir, W_iz and W_in, and so on, as ``nn.GRU`` has them. They
    are drawn as the MLP's: orthogonal with gain 1 (the 37 details of PPO, LSTM detail 1), or
    with ``torch`` uniform on +-1/sqrt(H), biases included, which is ``nn.GRU``'s default.

    Attributes:
        inputs: D.
        head: the MLP, H -> K.
        index: which of a sequence's start memories is this network's, 0 or 1.

    Source: Cho et al. 2014, in the variant of cuDNN (reset gate after the product).
    """

    inputs: int
    head: MLP
    index: int = 0
    names: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        kinds = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        names = tuple(f"{self.head.prefix}memory.{kind}" for kind in kinds)
        object.__setattr__(self, "names", names)

    @property
    def units(self) -> int:
        """H."""
        return self.head.sizes[0]

    @property
    def sizes(self) -> tuple[int, ...]:
        """(H, *widths, K)."""
        return self.head.sizes

    @property
    def prefix(self) -> str:
        """Put before tensor names."""
        return self.head.prefix

    @property
    def trunk(self) -> None:
        """Two networks with a memory share no layers."""
        return

    def __call__(self, tensors: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        """Map sequences [S, P] to the outputs of all their steps [S T, K]."""
        return self.features(tensors, rows)[1]

    def features(self, tensors: Mapping[str, Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
        """The last hidden layer [S T, L] and the outputs [S T, K] of all steps."""
        return self.head.features(tensors, self.memories(tensors, rows).flatten(-3, -2))

    def memories(self, tensors: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        """The memory h after every step of sequences [S, P]: [S, T, H].

        The next step of a sequence starts with h, or with 0 where the step's flag is 0.
        """
        units = self.units
        own = rows[..., -OWNERS * units :]
        memory = own[..., self.index * units : (self.index + 1) * units]
        steps = torch.unflatten(rows[..., : -OWNERS * units], -1, (-1, self.inputs + 1))
        keep = steps[..., -1:].unbind(-2)
        weight, recurrent, bias, recurrent_bias = (tensors[name] for name in self.names)
        gates, new = torch.split(linear(steps[..., :-1], weight, bias), [2 * units, units], -1)
        result = []
        for gate, candidate, kept in zip(gates.unbind(-2), new.unbind(-2), keep, strict=True):
            memory = unit(gate, candidate, linear(memory, recurrent, recurrent_bias), memory)
            result.append(memory)
            memory = memory * kept
        return torch.stack(result, dim=-2)

    def step(self, tensors: Mapping[str, Tensor], x: Tensor, memory: Tensor) -> Tensor:
        """The memory [..., H] after one observation [..., D]."""
        weight, recurrent, bias, recurrent_bias = (tensors[name] for name in self.names)
        sizes = [2 * self.units, self.units]
        gate, candidate = torch.split(linear(x, weight, bias), sizes, -1)
        return unit(gate, candidate, linear(memory, recurrent, recurrent_bias), memory)

    def init(self, seed: int, purpose: str) -> dict[str, Tensor]:
        """Initial tensors, drawn in float64 from the stream (seed, purpose + tensor)."""
        rows, kind = 3 * self.units, self.head.initialisation
        bound = 1 / math.sqrt(self.units)
        shapes = ((rows, self.inputs), (rows, self.units), (rows,), (rows,))
        tensors = {}
        for name, shape in zip(self.names, shapes, strict=True):
            generator = torch.Generator()
            generator.manual_seed(stream_seed(seed, f"init/{purpose}/{name}"))
            tensor = torch.zeros(shape, dtype=torch.float64)
            if kind == "torch":
                tensor.uniform_(-bound, bound, generator=generator)
            elif len(shape) == 2:
                tensor = initial_weight(kind, shape, 1.0, generator)
            tensors[name] = tensor
        return {**tensors, **self.head.init(seed, purpose)}

    def module(self) -> "Remembering":
        """The same network around an ``nn.GRU`` (without the prefix)."""
        gru = nn.GRU(self.inputs, self.units, batch_first=True)
        return Remembering(OrderedDict(memory=gru, **dict(self.head.module().named_children())))

    def numpy_step(
        self, tensors: Mapping[str, np.ndarray]
    ) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        """``step`` in NumPy over arrays [M, *shape] that share memory with the parameters.

        Returns:
            A function from observations [M, E, D] and memories [M, E, H] to memories.
        """
        weight, recurrent = (np.swapaxes(tensors[name], 1, 2) for name in self.names[:2])
        bias, recurrent_bias = (tensors[name][:, None, :] for name in self.names[2:])
        cut = 2 * self.units

        def step(x: np.ndarray, memory: np.ndarray) -> np.ndarray:
            seen = np.matmul(x, weight) + bias
            held = np.matmul(memory, recurrent) + recurrent_bias
            gates = 0.5 * np.tanh(0.5 * (seen[..., :cut] + held[..., :cut])) + 0.5  # sigmoid
            reset, update = gates[..., : cut // 2], gates[..., cut // 2 :]
            new = np.tanh(seen[..., cut:] + reset * held[..., cut:])
            result: np.ndarray = new + update * (memory - new)
            return result

        return step


def unit(gate: Tensor, candidate: Tensor, held: Tensor, memory: Tensor) -> Tensor:
    """One gated recurrent unit; see ``Recurrent``.

    Args:
        gate: W_i x + b_i of r and z [..., 2 H].
        candidate: W_in x + b_in [..., H].
        held: W_h h + b_h of r, z and n [..., 3 H].
        memory: h [..., H].
    """
    units = memory.shape[-1]
    held_gate, held_candidate = torch.split(held, [2 * units, units], -1)
    reset, update = torch.sigmoid(gate + held_gate).chunk(2, dim=-1)
    new = torch.tanh(torch.addcmul(candidate, reset, held_candidate))
    return torch.lerp(new, memory, update)


class Remembering(nn.Sequential):
    """An ``nn.GRU`` named ``memory`` and the layers after it."""

    def forward(self, x: Tensor, memory: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Sequences [S, T, D] and a memory [1, S, H] or none to outputs [S, T, K] and memory."""
        gru, *layers = self.children()
        out, memory = gru(x, memory)
        for layer in layers:
            out = layer(out)
        return out, memory


def pack(observation: np.ndarray, keep: np.ndarray, memories: Sequence[np.ndarray]) -> np.ndarray:
    """Sequences as rows [M, E, P], P = T (D + 1) + 2 H.

    Args:
        observation: [T, M, E, D].
        keep: bool [T, M, E], False where the memory ends with the step.
        memories: of policy and value before the first step, each [M, E, H].
    """
    steps = np.concatenate([observation, keep[..., None]], axis=-1, dtype=observation.dtype)
    rows = np.moveaxis(steps, 0, 2)
    return np.concatenate([rows.reshape(*rows.shape[:2], -1), *memories], axis=-1)
