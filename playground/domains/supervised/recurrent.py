"""A plain recurrent network (Elman 1990) that says one thing after the last step of a sequence.

    h_t = phi(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh),  h_0 = 0,  y = W h_T + b

Written from linear layers, since ``torch.func.vmap`` has no rule for ``nn.RNN``; the tensors'
names are those of ``nn.RNN`` and a linear layer ``head``. With phi the identity and W_hh = rho Q,
Q orthogonal, |dL/dh_t| = rho^(T-t) |dL/dh_T| exactly; in general
|dL/dh_(t-1)| <= sigma_max(W_hh) max|phi'| |dL/dh_t| (Bengio et al. 1994; Pascanu et al. 2013,
section 2.1).

Shape legend: B samples, T steps, D inputs of a step, H units, K outputs.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from playground.initialisations import initial_bias, initial_weight
from playground.nets import ACTIVATIONS
from playground.randomness import stream_seed
from playground.taps import add, linear

CELL = ("rnn.weight_ih_l0", "rnn.weight_hh_l0", "rnn.bias_ih_l0", "rnn.bias_hh_l0")

MODULES = ("tanh", "relu")
"""Activations that ``nn.RNN`` has."""


@dataclass(frozen=True)
class Elman:
    """The network.

    Attributes:
        inputs, units, outputs: D, H and K.
        activation: phi, a key of ``ACTIVATIONS``.
        initialisation: of W_ih and W, see ``initialisations``; ``torch`` is ``nn.RNN``'s,
            uniform on +-1/sqrt(H) for the cell, biases included. Otherwise biases start at 0.
        recurrent: the same of W_hh. ``identity`` with relu is the IRNN of Le et al. (2015), who
            draw the other weights with a deviation of .001.
        gain: factor of W_ih, None is 1.
        recurrent_gain: rho, factor of W_hh.
    """

    inputs: int
    units: int
    outputs: int
    activation: str = "tanh"
    initialisation: str = "torch"
    recurrent: str = "orthogonal"
    gain: float | None = None
    recurrent_gain: float = 1.0

    def __call__(self, tensors: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        """Map sequences [B, T D], steps after one another, to [B, K]."""
        return linear(
            self.memories(tensors, rows)[-1], tensors["head.weight"], tensors["head.bias"]
        )

    def memories(self, tensors: Mapping[str, Tensor], rows: Tensor) -> list[Tensor]:
        """h_1 to h_T, each [B, H]."""
        phi = ACTIVATIONS[self.activation][0]
        weight, recurrent, bias, recurrent_bias = (tensors[name] for name in CELL)
        seen = linear(torch.unflatten(rows, -1, (-1, self.inputs)), weight, bias)
        memory, result = seen.new_zeros(seen[..., 0, :].shape), []
        for step in seen.unbind(-2):
            memory = phi(add(step, linear(memory, recurrent, recurrent_bias)))
            result.append(memory)
        return result

    def init(self, seed: int, purpose: str) -> dict[str, Tensor]:
        """Initial tensors, drawn in float64 from the stream (seed, purpose + tensor)."""
        size = self.units
        gain = 1.0 if self.gain is None else self.gain
        ways = (
            ("rnn.weight_ih_l0", self.initialisation, (size, self.inputs), gain),
            ("rnn.weight_hh_l0", self.recurrent, (size, size), self.recurrent_gain),
            ("rnn.bias_ih_l0", self.initialisation, (size,), 1.0),
            ("rnn.bias_hh_l0", self.initialisation, (size,), 1.0),
            ("head.weight", self.initialisation, (self.outputs, size), 1.0),
        )
        tensors = {}
        for name, kind, shape, factor in ways:
            generator = torch.Generator()
            generator.manual_seed(stream_seed(seed, f"init/{purpose}/{name}"))
            if len(shape) == 1:
                tensors[name] = initial_bias(kind, (size, size), generator)
            elif kind == "torch":  # nn.RNN's bound is that of H, whatever the inputs
                bound = factor / math.sqrt(size)
                weight = torch.empty(shape, dtype=torch.float64)
                tensors[name] = weight.uniform_(-bound, bound, generator=generator)
            else:
                tensors[name] = factor * initial_weight(kind, shape, 1.0, generator)
        generator = torch.Generator().manual_seed(stream_seed(seed, f"init/{purpose}/head.bias"))
        tensors["head.bias"] = initial_bias(self.initialisation, (self.outputs, size), generator)
        return tensors

    def module(self) -> "Reader":
        """The same network around an ``nn.RNN``."""
        return Reader(self.inputs, self.units, self.outputs, self.activation)

    @property
    def factory(self) -> Callable[[], "Reader"] | None:
        """``module``, None where ``nn.RNN`` lacks the activation."""
        return self.module if self.activation in MODULES else None


class Reader(nn.Module):
    """An ``nn.RNN`` and a linear layer after its last step."""

    def __init__(self, inputs: int, units: int, outputs: int, activation: str) -> None:
        super().__init__()
        self.rnn = nn.RNN(inputs, units, nonlinearity=activation, batch_first=True)
        self.head = nn.Linear(units, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Sequences [B, T, D] to [B, K]."""
        said: Tensor = self.head(self.rnn(x)[0][:, -1])
        return said
