"""The network that a configuration describes."""

from collections.abc import Callable
from typing import TypeAlias

from torch import nn

from playground.domains.supervised.config import SupervisedConfig
from playground.domains.supervised.recurrent import Elman
from playground.domains.supervised.residual import Residual
from playground.nets import MLP, Stack, convolutional

Network: TypeAlias = MLP | Stack | Residual | Elman

SIDE, CHANNELS = 8, 32
"""Pixels of a digit's side; maps of ``network=conv`` where nothing is said (ours)."""

STEP = 2
"""Numbers of a step of the adding problem: value and marker."""


def network(config: SupervisedConfig, inputs: int, outputs: int) -> Network:
    """Of a validated configuration, from inputs [B, D] to [B, K]."""
    activation, drawn = config.activation or "linear", config.initialisation
    widths = config.hidden()
    if config.network == "residual":
        blocks = len(widths) // 2
        return Residual(
            inputs, widths[0], blocks, outputs, activation, drawn, config.branch or "plain",
            config.gain,
        )  # fmt: skip
    if config.network == "conv":
        sizes = (*widths, outputs)
        return convolutional((1, SIDE), config.channels or CHANNELS, sizes, activation, drawn)
    if config.network == "recurrent":
        recurrent = config.recurrent_initialisation or "orthogonal"
        return Elman(
            STEP, widths[0], outputs, activation, drawn, recurrent, config.gain,
            config.recurrent_gain or 1.0,
        )  # fmt: skip
    bias = config.data != "linear_regression"
    return MLP((inputs, *widths, outputs), activation, drawn, bias=bias, gain=config.gain)


def module_of(net: Network) -> Callable[[], nn.Module] | None:
    """What hands the trained network over; None where torch has no such module."""
    return net.factory if isinstance(net, Elman) else net.module
