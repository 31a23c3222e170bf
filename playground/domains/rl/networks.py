"""From a configuration to networks and policies, and from both to ordinary modules."""

from typing import Any

import numpy as np
from torch import nn

from playground.domains.rl.config import RLConfig
from playground.domains.rl.environments.spaces import BOX, DISCRETE, ActionSpace
from playground.domains.rl.policies.categorical import Categorical, Policy
from playground.domains.rl.policies.gaussian import Gaussian, StateDependent
from playground.domains.rl.recurrent import Recurrent
from playground.nets import MLP
from playground.schema import ConfigError


def as_module(networks: list[Any]) -> nn.Module:
    """One network's module, or a ``ModuleDict`` of policy and value (and a shared trunk)."""
    if len(networks) == 1:
        module: nn.Module = networks[0].module()
        return module
    policy, value = networks
    parts = {"policy": policy.module(), "value": value.module()}
    if value.trunk is not None:
        last = len(value.sizes) - 2
        parts["trunk"] = parts["policy"][: 2 * last]
        for name in ("policy", "value"):
            head = nn.ModuleDict({str(2 * last): parts[name][2 * last]})
            spread = getattr(parts[name], "log_std", None)
            if spread is not None:
                head.register_parameter("log_std", spread)
            parts[name] = head
    return nn.ModuleDict(parts)


def make_network(
    config: RLConfig, sizes: tuple[int, int], gain: float, prefix: str, index: int
) -> MLP | Recurrent:
    """The policy's network (index 0) or the value's (1), D -> K, with or without a memory."""
    inputs = sizes[0] if config.memory is None else config.memory
    network = MLP(
        (inputs, *config.widths, sizes[1]), config.activation, config.initialisation, gain,
        prefix, "trunk." if config.shared_trunk else None,
    )  # fmt: skip
    return network if config.memory is None else Recurrent(sizes[0], network, index)


def make_policy(network: MLP | Recurrent, space: ActionSpace, config: RLConfig) -> Policy:
    """The policy for an action space.

    Raises:
        ConfigError: options of continuous actions where actions are discrete, or a squashed
            policy without bounds.
    """
    if space.kind != BOX:
        for key in ("squash", "gsde"):
            if getattr(config, key):
                raise ConfigError(f"problem.{key}=true: needs continuous actions ({config.env})")
        return Categorical(network, space.choices, single=space.kind == DISCRETE)
    if config.gsde:
        return StateDependent(network, config.log_std, config.gsde_steps)
    if not config.squash:
        return Gaussian(network, config.log_std)
    if not np.isfinite([space.low, space.high]).all():
        raise ConfigError(f"problem.squash=true: the actions of {config.env} have no bounds")
    return Gaussian(network, config.log_std, (space.low, space.high))
