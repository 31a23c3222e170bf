"""Small networks as pure functions of named tensors, with initialisations and their sources.

Names and shapes are those of the ``nn.Sequential`` that ``module`` builds, so a trained
player can be handed over as an ordinary module.

Shape legend: B samples, D input features, K output features.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from playground.initialisations import initial_bias, initial_weight
from playground.randomness import stream_seed
from playground.taps import conv, deconv, linear

ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], type[nn.Module], float]] = {
    # function, module, gain of nn.init.calculate_gain
    "tanh": (torch.tanh, nn.Tanh, 5.0 / 3.0),
    "relu": (torch.relu, nn.ReLU, math.sqrt(2.0)),
    "gelu": (F.gelu, nn.GELU, 1.0),
    "silu": (F.silu, nn.SiLU, 1.0),
    "elu": (F.elu, nn.ELU, 1.0),
    "leaky_relu": (F.leaky_relu, nn.LeakyReLU, math.sqrt(2.0 / (1 + 0.01**2))),
    "sigmoid": (torch.sigmoid, nn.Sigmoid, 1.0),
    "linear": (lambda x: x, nn.Identity, 1.0),
    "selu": (F.selu, nn.SELU, 0.75),
    "softplus": (F.softplus, nn.Softplus, 1.0),
    "softsign": (F.softsign, nn.Softsign, 1.0),
    "mish": (F.mish, nn.Mish, 1.0),
}
"""Sources: tanh LeCun et al. 1998; relu Nair & Hinton 2010; gelu Hendrycks & Gimpel 2016; silu
(swish) Elfwing et al. 2018, Ramachandran et al. 2017; elu Clevert et al. 2016; leaky_relu Maas et
al. 2013; selu Klambauer et al. 2017; softplus Dugas et al. 2001; softsign Glorot & Bengio 2010;
mish Misra 2020."""


@dataclass(frozen=True)
class MLP:
    """A multi-layer perceptron: D -> widths -> K, activation between linear layers.

    Attributes:
        sizes: (D, *widths, K).
        activation: key of ``ACTIVATIONS``.
        initialisation: see ``initialisations``; orthogonal has gain sqrt(2) in hidden layers and
            ``output_gain`` in the last (the 37 details of PPO, detail 2). Biases are zero except
            under ``torch``.
        output_gain: factor of the last layer's weights (orthogonal only).
        prefix: put before tensor names, as in ``policy.``.
        trunk: put before the names of all layers but the last instead, where two networks
            share them.
        bias: whether layers have biases.
        gain: factor of all weights but the last layer's; None is 1, sqrt(2) if orthogonal.
    """

    sizes: tuple[int, ...]
    activation: str = "tanh"
    initialisation: str = "torch"
    output_gain: float = 1.0
    prefix: str = ""
    trunk: str | None = None
    bias: bool = True
    gain: float | None = None
    names: tuple[tuple[str, str], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        last = len(self.sizes) - 2
        hidden = self.prefix if self.trunk is None else self.trunk
        owners = [*[hidden] * last, self.prefix]
        names = tuple((f"{o}{2 * i}.weight", f"{o}{2 * i}.bias") for i, o in enumerate(owners))
        object.__setattr__(self, "names", names)

    def __call__(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Map x [..., D] to [..., K]."""
        return self.features(tensors, x)[1]

    def features(self, tensors: Mapping[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        """The last hidden layer [..., L] (x itself without one) and the output [..., K]."""
        activation, hidden = ACTIVATIONS[self.activation][0], x
        last = len(self.names) - 1
        for i, (weight, bias) in enumerate(self.names):
            x = linear(hidden, tensors[weight], tensors[bias] if self.bias else None)
            if i < last:
                hidden = activation(x)
        return hidden, x

    def init(self, seed: int, purpose: str) -> dict[str, Tensor]:
        """Initial tensors, drawn in float64 from the stream (seed, purpose + layer)."""
        tensors: dict[str, Tensor] = {}
        last = len(self.names) - 1
        for i, (weight, bias) in enumerate(self.names):
            generator = torch.Generator()
            generator.manual_seed(stream_seed(seed, f"init/{purpose}/{weight}"))
            shape = (self.sizes[i + 1], self.sizes[i])
            kind, own = self.initialisation, self.gain
            if i == last:
                tensors[weight] = initial_weight(kind, shape, self.output_gain, generator)
            elif own is None:
                tensors[weight] = initial_weight(kind, shape, math.sqrt(2.0), generator)
            else:
                tensors[weight] = own * initial_weight(kind, shape, 1.0, generator)
            if self.bias:
                tensors[bias] = initial_bias(kind, shape, generator)
        return tensors

    def module(self) -> nn.Sequential:
        """The same network as an ``nn.Sequential`` (without the prefix)."""
        layers: list[nn.Module] = []
        for i, (d_in, d_out) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            if i:
                layers.append(ACTIVATIONS[self.activation][1]())
            layers.append(nn.Linear(d_in, d_out, bias=self.bias))
        return nn.Sequential(*layers)

    def numpy_forward(
        self, tensors: Mapping[str, np.ndarray]
    ) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """``features`` in NumPy over arrays that share memory with the parameters.

        At the sizes of control problems it is several times faster than torch.

        Args:
            tensors: {tensor: [M, *shape]}; read anew at every call.

        Returns:
            A function from [M, B, D] to [M, B, L] and [M, B, K].
        """
        activation = NUMPY_ACTIVATIONS[self.activation]
        layers = [
            (
                np.swapaxes(tensors[weight], 1, 2),
                tensors[bias][:, None, :] if self.bias else None,
            )
            for weight, bias in self.names
        ]
        single = layers[0][0].shape[0] == 1
        if single:
            layers = [(w[0], b[0] if b is not None else None) for w, b in layers]

        def forward(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            hidden = out = x[0] if single else x
            for i, (weight, bias) in enumerate(layers):
                out = np.matmul(hidden, weight)
                if bias is not None:
                    out += bias
                if i < len(layers) - 1:
                    hidden = activation(out)
            return (hidden[None], out[None]) if single else (hidden, out)

        return forward


@dataclass(frozen=True)
class Layer:
    """One step of a ``Stack``.

    Attributes:
        kind: ``linear``, ``conv`` and ``deconv`` (kernel 4, stride 2, padding 1: they halve and
            double the side; with weights [out, in], [out, in, 4, 4] and [in, out, 4, 4]),
            ``reshape`` of the features, or a key of ``ACTIVATIONS``.
        shape: (in, out), or the new shape.
    """

    kind: str
    shape: tuple[int, ...] = ()

    def weight_shape(self) -> tuple[int, ...]:
        """Of the weight; its second number times what follows is the fan-in, as in torch."""
        inputs, outputs = self.shape
        if self.kind == "linear":
            return (outputs, inputs)
        return (outputs, inputs, 4, 4) if self.kind == "conv" else (inputs, outputs, 4, 4)

    def module(self) -> nn.Module:
        """The layer of ``torch.nn``."""
        if self.kind == "reshape":
            return nn.Flatten() if len(self.shape) == 1 else nn.Unflatten(1, self.shape)
        if self.kind in _APPLIED:
            inputs, outputs = self.shape
            if self.kind == "linear":
                return nn.Linear(inputs, outputs)
            kind = nn.Conv2d if self.kind == "conv" else nn.ConvTranspose2d
            return kind(inputs, outputs, 4, stride=2, padding=1)
        return ACTIVATIONS[self.kind][1]()


@dataclass(frozen=True)
class Stack:
    """Layers one after the other, from [B, D] to [B, K]; without normalisation across a batch.

    Attributes:
        layers: in order; a tensor's name is its layer's index, as in ``nn.Sequential``.
        initialisation: see ``initialisations``; orthogonal takes kernels as matrices
            [weight.shape[0], the rest], with gain sqrt(2) in all but the last.
    """

    layers: tuple[Layer, ...]
    initialisation: str = "torch"

    def __call__(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Map x [B, D] to [B, K]."""
        for i, layer in enumerate(self.layers):
            if layer.kind == "reshape":
                x = x.reshape(x.shape[0], *layer.shape)
            elif layer.shape:
                weight, bias = tensors[f"{i}.weight"], tensors[f"{i}.bias"]
                x = _APPLIED[layer.kind](x, weight, bias)
            else:
                x = ACTIVATIONS[layer.kind][0](x)
        return x

    def init(self, seed: int, purpose: str) -> dict[str, Tensor]:
        """Initial tensors, drawn in float64 from the stream (seed, purpose + layer)."""
        tensors: dict[str, Tensor] = {}
        weighted = [i for i, layer in enumerate(self.layers) if layer.kind in _APPLIED]
        for i in weighted:
            layer, name = self.layers[i], f"{i}.weight"
            generator = torch.Generator()
            generator.manual_seed(stream_seed(seed, f"init/{purpose}/{name}"))
            shape = layer.weight_shape()
            gain = 1.0 if i == weighted[-1] else math.sqrt(2.0)
            tensors[name] = initial_weight(self.initialisation, shape, gain, generator)
            bias = initial_bias(self.initialisation, (layer.shape[1], *shape[1:]), generator)
            tensors[f"{i}.bias"] = bias
        return tensors

    def module(self) -> nn.Sequential:
        """The same network as an ``nn.Sequential``."""
        return nn.Sequential(*(layer.module() for layer in self.layers))


_APPLIED: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "linear": linear,
    "conv": conv,
    "deconv": deconv,
}


def dcgan_generator(
    latent: int, channels: int, side: int, width: int, activation: str, initialisation: str
) -> Stack:
    """Latent [B, L] to an image [B, channels * side * side], side a multiple of 4.

    A linear layer to 2 width maps of side/4, then two doubling layers. Source: the shape of
    DCGAN (Radford et al. 2016, figure 1), smaller, and without its batch normalisation, whose
    statistics would tie the samples of a batch together.
    """
    start, last = side // 4, (channels * side * side,)
    layers = (
        Layer("linear", (latent, 2 * width * start * start)),
        Layer(activation),
        Layer("reshape", (2 * width, start, start)),
        Layer("deconv", (2 * width, width)),
        Layer(activation),
        Layer("deconv", (width, channels)),
        Layer("reshape", last),
    )
    return Stack(layers, initialisation)


def dcgan_discriminator(
    channels: int, side: int, width: int, activation: str, initialisation: str
) -> Stack:
    """An image [B, channels * side * side] to a logit [B, 1]; the generator's mirror image."""
    return convolutional((channels, side), width, (1,), activation, initialisation)


def convolutional(
    image: tuple[int, int], width: int, sizes: tuple[int, ...], activation: str, initialisation: str
) -> Stack:
    """An image [B, channels * side * side] to [B, K], without pooling.

    Two halving layers to width maps of side/2 and 2 width of side/4, then linear ones. Sources:
    the shape of DCGAN's discriminator (Radford et al. 2016); strides in place of pooling,
    Springenberg et al. 2015.

    Args:
        image: (channels, side), the latter a multiple of 4.
        width: maps of the first layer.
        sizes: (*widths, K) of the linear layers.
        activation: key of ``ACTIVATIONS``.
        initialisation: see ``Stack``.
    """
    channels, side = image
    end = 2 * width * (side // 4) ** 2
    dense = []
    for inputs, outputs in zip((end, *sizes), sizes, strict=False):
        dense += [Layer("linear", (inputs, outputs)), Layer(activation)]
    layers = (
        Layer("reshape", (channels, side, side)),
        Layer("conv", (channels, width)),
        Layer(activation),
        Layer("conv", (width, 2 * width)),
        Layer(activation),
        Layer("reshape", (end,)),
        *dense[:-1],
    )
    return Stack(layers, initialisation)


def _relu(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.maximum(x, 0, out=x)
    return result


def _tanh(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.tanh(x, out=x)
    return result


NUMPY_ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tanh": _tanh,
    "relu": _relu,
    "linear": lambda x: x,
}
