"""A deep network of residual blocks with pre-activation, without normalisation.

    x_0 = W_in x + b,   x_l = x_(l-1) + F_l(x_(l-1)) for l = 1..L,   y = W_out phi(x_L) + b
    F(x) = W_2 phi(W_1 phi(x) + b_1) + b_2

Source: He et al. (2016), *Identity Mappings*, figure 4(e) and equations 1-3. They normalise in
front of every phi, which keeps the branches small; what stands in for that is the ``branch``:

    plain     nothing: where a layer keeps its signal (He's variance, ReLU), each block doubles it
    scaled    W_2 starts divided by sqrt(L), so that it grows by at most e (Radford et al. 2019,
              section 2.3)
    zero      W_2 and b_2 start at 0: every block is the identity (Goyal et al. 2017, section 5.1)
    fixup     rules 1 and 2 of Zhang et al. (2019), m = 2: W_2 and W_out start at 0, W_1 divided
              by sqrt(L). Of rule 3 the layers' biases are there, the scalar multipliers are not
    rezero    F times a trained number that starts at 0 (Bachlechner et al. 2021, equation 1)

Shape legend: B samples, D inputs, H units, K outputs, L blocks.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from playground.initialisations import initial_bias, initial_weight
from playground.nets import ACTIVATIONS
from playground.randomness import stream_seed
from playground.taps import add, linear


@dataclass(frozen=True)
class Residual:
    """The network; its tensors' names are those of ``module``.

    Attributes:
        inputs, units, blocks, outputs: D, H, L and K.
        activation: key of ``ACTIVATIONS``.
        initialisation: see ``initialisations``.
        branch: how a block starts, see above.
        gain: factor of all weights but the last; None is 1, sqrt(2) if orthogonal.
    """

    inputs: int
    units: int
    blocks: int
    outputs: int
    activation: str = "relu"
    initialisation: str = "he"
    branch: str = "plain"
    gain: float | None = None

    def __call__(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Map x [..., D] to [..., K]."""
        phi = ACTIVATIONS[self.activation][0]
        x = linear(x, tensors["0.weight"], tensors["0.bias"])
        for block in range(1, self.blocks + 1):
            first, second = f"{block}.1", f"{block}.3"
            inner = linear(phi(x), tensors[f"{first}.weight"], tensors[f"{first}.bias"])
            branch = linear(phi(inner), tensors[f"{second}.weight"], tensors[f"{second}.bias"])
            x = add(x, branch, tensors[f"{block}.alpha"] if self.branch == "rezero" else None)
        last = self.blocks + 2
        return linear(phi(x), tensors[f"{last}.weight"], tensors[f"{last}.bias"])

    def init(self, seed: int, purpose: str) -> dict[str, Tensor]:
        """Initial tensors, drawn in float64 from the stream (seed, purpose + layer)."""
        size = self.units
        tensors = self._layer(seed, purpose, "0", (size, self.inputs))
        root = math.sqrt(self.blocks)
        for block in range(1, self.blocks + 1):
            if self.branch == "rezero":
                tensors[f"{block}.alpha"] = torch.zeros(1, dtype=torch.float64)
            for layer in (f"{block}.1", f"{block}.3"):
                tensors |= self._layer(seed, purpose, layer, (size, size))
            if self.branch == "fixup":
                tensors[f"{block}.1.weight"] /= root
            if self.branch == "scaled":
                tensors[f"{block}.3.weight"] /= root
            if self.branch in ("zero", "fixup"):
                for kind in ("weight", "bias"):
                    tensors[f"{block}.3.{kind}"].zero_()
        last = str(self.blocks + 2)
        tensors |= self._layer(seed, purpose, last, (self.outputs, size), 1.0)
        if self.branch == "fixup":
            for kind in ("weight", "bias"):
                tensors[f"{last}.{kind}"].zero_()
        return tensors

    def module(self) -> nn.Sequential:
        """The same network as an ``nn.Sequential``."""
        phi, size = ACTIVATIONS[self.activation][1], self.units
        blocks = [Block(phi, size, scaled=self.branch == "rezero") for _ in range(self.blocks)]
        return nn.Sequential(
            nn.Linear(self.inputs, size), *blocks, phi(), nn.Linear(size, self.outputs)
        )

    def _layer(
        self, seed: int, purpose: str, name: str, shape: tuple[int, int], gain: float | None = None
    ) -> dict[str, Tensor]:
        """Weight and bias of one layer; a gain of its own or the network's."""
        generator = torch.Generator()
        generator.manual_seed(stream_seed(seed, f"init/{purpose}/{name}.weight"))
        gain = self.gain if gain is None else gain
        if gain is None:
            weight = initial_weight(self.initialisation, shape, math.sqrt(2.0), generator)
        else:
            weight = gain * initial_weight(self.initialisation, shape, 1.0, generator)
        bias = initial_bias(self.initialisation, shape, generator)
        return {f"{name}.weight": weight, f"{name}.bias": bias}


class Block(nn.Sequential):
    """x + F(x), or x + alpha F(x)."""

    def __init__(self, phi: type[nn.Module], units: int, *, scaled: bool = False) -> None:
        super().__init__(phi(), nn.Linear(units, units), phi(), nn.Linear(units, units))
        self.alpha = nn.Parameter(torch.zeros(1)) if scaled else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, H] to [B, H]."""
        branch: Tensor = x
        for layer in self:
            branch = layer(branch)
        return x + (branch if self.alpha is None else self.alpha * branch)
