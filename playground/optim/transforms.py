"""Small transforms of values [M, N]: clipping, decay, projection, momentum, Adagrad, RMSprop.

A transform is built with its hyperparameters, gets its state from ``init(like)`` and is then
called once per update. It never modifies the value it is given, because that may be the raw
gradient, which probes keep. What it returns may be a state or scratch tensor that the next
call overwrites: only the chain's last multiplication makes a tensor that lasts. State is
updated in place.

Hyperparameters are floats, or tensors [M, 1] in float64. The latter are cast to the value's
type only after differences such as 1 - beta are taken, which float32 would round at 1e-4.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Hyper = float | Tensor
"""A hyperparameter: the same for all members, or [M, 1] in float64."""

State = dict[str, Tensor]
"""Named state tensors with leading axis M."""


class Geometry(Protocol):
    """What a move tells a trust region about its neighbourhood."""

    def product(self, vector: Tensor) -> Tensor:
        """The Hessian of the mean divergence at the present parameters, times v [M, N]."""

    def evaluate(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Objective and mean divergence, each [M], at other parameters [M, N]."""


@dataclass(slots=True)
class At:
    """Where in training a transform is called.

    Attributes:
        count: number of this update, from 1; an int where all members agree, else [M, 1].
        parameters: [M, N], before the update.
        learning_rate: scheduled; a float or [M, 1].
        norm: [M], L2 norm of the value given, where it is known.
        geometry: of the move, where the chain asks for it.
    """

    count: int | Tensor
    parameters: Tensor
    learning_rate: float | Tensor
    norm: Tensor | None = None
    geometry: Geometry | None = None


class Transform(Protocol):
    """One link of an optimizer's chain."""

    def init(self, like: Tensor) -> State:
        """State of a player whose parameters look like ``like`` [M, N]."""

    def __call__(self, value: Tensor, state: State, at: At) -> Tensor:
        """Map a value [M, N] to a value [M, N], updating ``state`` in place."""


def cast(hyper: Hyper, like: Tensor) -> Hyper:
    """A hyperparameter in the type and on the device of ``like``."""
    return hyper.to(like) if isinstance(hyper, Tensor) else hyper


class ClipByValue:
    """Clip every entry: min(max(g, -c), c), as ``torch.nn.utils.clip_grad_value_``."""

    def __init__(self, limit: Hyper) -> None:
        self._limit = limit

    def init(self, like: Tensor) -> State:
        """No state."""
        self._limit = cast(self._limit, like)
        return {}

    def __call__(self, value: Tensor, state: State, at: At) -> Tensor:
        """The clipped value, a fresh tensor."""
        if isinstance(self._limit, Tensor):
            return value.clamp(-self._limit, self._limit)
        return value.clamp(-self._limit, self._limit)


class ClipByGlobalNorm:
    """Rescale each member: g min(1, c / (|g| + 1e-6)), as ``torch.nn.utils.clip_grad_norm_``.

    Attributes:
        coefficient: [M], the factor of the last call.

    Source: Pascanu et al. (2013), algorithm 1; 1e-6 is torch's.
    """

    coefficient: Tensor

    def __init__(self, limit: Hyper) -> None:
        self._limit = limit

    def init(self, like: Tensor) -> State:
        """No state."""
        limit = cast(self._limit, like)
        self._limit = limit.squeeze(1) if isinstance(limit, Tensor) else limit
        return {}

    def __call__(self, value: Tensor, state: State, at: At) -> Tensor:
        """The clipped value, a fresh tensor."""
        norm = torch.linalg.vector_norm(value, dim=1) if at.norm is None else at.norm
        self.coefficient = (self._limit / (norm + 1e-6)).clamp_(max=1.0)
        return value * self.coefficient.unsqueeze(1)


class AddWeightDecay:
    """g + lambda x.

    Before the direction it is L2 regularisation; after it, where the learning rate multiplies
    both, it is decoupled decay, as in Loshchilov and Hutter (2019), algorithm 2, line 12.

    Attributes:
        weight_decay: lambda.
    """

    def __init__(self, weight_decay: Hyper) -> None:
        self.weight_decay = weight_decay

    def init(self, like: Tensor) -> State:
        """No state."""
        self.weight_decay = cast(self.weight_decay, like)
        return {}

    def __call__(self, value: Tensor, state: State, at: At) -> Tensor:
        """The value with decay, a fresh tensor."""
        if isinstance(self.weight_decay, Tensor):
            return torch.addcmul(value, at.parameters, self.weight_decay)
        return torch.add(value, at.parameters, alpha=self.weight_decay)


class Project:
    """Keep parameters in a box: u <- min(max(x + u, -c), c) - x, of an update u.

    It comes last, after the learning rate, so that x + u lies in [-c, c] up to rounding.

    Source: weight clipping, Arjovsky et al. (2017), algorithm 1, line 7.
    """

    def __init__(self, limit: Hyper) -> None:
        self._limit = limit

    def init(self, like: Tensor) -> State:
        """No state."""
        self._limit = cast(self._limit, like)
        return {}

    def __call__(self, value: Tensor, state: State, at: At) -> Tensor:
        """The update into the box, a fresh tensor."""
        ahead = at.parameters + value
        if isinstance(self._limit, Tensor):
            return ahead.clamp(-self._limit, self._limit).sub_(at.parameters)
        return ahead.clamp_(-self._limit, self._limit).sub_(at.parameters)


class Momentum:
    """Heavy ball: v <- mu v + g, direction v, as ``torch.optim.SGD(momentum=mu)``.

    Source: Polyak (1964); without dampening.
    """

    def __init__(self, momentum: Hyper) -> None:
        self._momentum = momentum

    def init(self, like: Tensor) -> State:
        """The velocity v [M, N], 0."""
        self._momentum = cast(self._momentum, like)
        return {"velocity": torch.zeros_like(like)}

    def __call__(self, value: Tensor, state: State, at: At) -> Tensor:
        """The velocity itself, which the next call overwrites."""
        return state["velocity"].mul_(self._momentum).add_(value)

    def stability(self, state: State, count: int | Tensor) -> tuple[Hyper, None]:
        """See ``stability``: 2 (1 + mu)."""
        return 2.0 * (1.0 + self._momentum), None


class Nesterov:
    """Nesterov momentum: v <- mu v + g, direction g + mu v, as ``torch.optim.SGD(nesterov=True)``.

    Source: Sutskever et al. (2013), equations 3 and 4, in torch's change of variables.
    """

    def __init__(self, momentum: Hyper) -> None:
        self._momentum = momentum

    def init(self, like: Tensor) -> State:
        """The velocity v [M, N], 0."""
        self._momentum = cast(self._momentum, like)
        self._scratch = torch.empty_like(like)
        return {"velocity": torch.zeros_like(like)}

    def __call__(self, value: Tensor, state: State, at: At) -> Tensor:
        """The direction in scratch memory."""
        velocity = state["velocity"].mul_(self._momentum).add_(value)
        return torch.mul(velocity, self._momentum, out=self._scratch).add_(value)

    def stability(self, state: State, count: int | Tensor) -> tuple[Hyper, None]:
        """See ``stability``: 2 (1 + mu) / (1 + 2 mu)."""
        return 2.0 * (1.0 + self._momentum) / (1.0 + 2.0 * self._momentum), None


class Adagrad:
    """Adagrad: s <- s + g^2, direction g / (sqrt(s) + eps), as ``torch.optim.Adagrad``.

    Source: Duchi et al. (2011), section 1.1, with a diagonal matrix.
    """

    def __init__(self, eps: Hyper, initial_accumulator: Hyper) -> None:
        self._eps = eps
        self._initial = initial_accumulator

    def init(self, like: Tensor) -> State:
        """The sum of squares s [M, N]."""
        self._eps = cast(self._eps, like)
        self._scratch = torch.empty_like(like)
        return {"sum": torch.zeros_like(like).add_(cast(self._initial, like))}

    def __call__(self, value: Tensor, state: State, at: At) -> Tensor:
        """The direction in scratch memory."""
        total = state["sum"].addcmul_(value, value)
        scale = torch.sqrt(total, out=self._scratch).add_(self._eps)
        return torch.div(value, scale, out=scale)

    def denominator(self, state: State, count: int | Tensor) -> tuple[Tensor, Hyper]:
        """sqrt(s) [M, N] and eps, of the last update."""
        return state["sum"].sqrt(), self._eps

    def stability(self, state: State, count: int | Tensor) -> tuple[Hyper, Tensor]:
        """See ``stability``: 2, under sqrt(s) + eps."""
        root, eps = self.denominator(state, count)
        return 2.0, root + eps


class RMSprop:
    """RMSprop, as ``torch.optim.RMSprop``.

        s <- alpha s + (1 - alpha) g^2
        a <- alpha a + (1 - alpha) g                 centered only, else a = 0
        d = g / (sqrt(s - a^2) + eps)
        v <- mu v + d, direction v                   with momentum, else the direction is d

    s - a^2 is kept from falling below 0, where torch's root gives NaN.

    Source: Tieleman and Hinton (2012), lecture 6e; centered: Graves (2013), equations 38-45.
    """

    def __init__(self, alpha: Hyper, eps: Hyper, *, centered: bool, momentum: Hyper) -> None:
        self._weight = 1.0 - alpha
        self._eps = eps
        self._centered = centered
        self._momentum = momentum

    def init(self, like: Tensor) -> State:
        """The mean square s, the mean a and the velocity v, each [M, N], where used."""
        self._weight = cast(self._weight, like)
        self._eps = cast(self._eps, like)
        self._momentum = cast(self._momentum, like)
        self._scratch = torch.empty_like(like)
        names = ["square"]
        names += ["mean"] if self._centered else []
        names += ["velocity"] if isinstance(self._momentum, Tensor) or self._momentum else []
        return {name: torch.zeros_like(like) for name in names}

    def __call__(self, value: Tensor, state: State, at: At) -> Tensor:
        """The direction in scratch memory, or the velocity itself."""
        scratch = self._scratch
        square = state["square"].lerp_(torch.mul(value, value, out=scratch), self._weight)
        if self._centered:
            mean = state["mean"].lerp_(value, self._weight)
            torch.addcmul(square, mean, mean, value=-1, out=scratch).clamp_(min=0.0).sqrt_()
        else:
            torch.sqrt(square, out=scratch)
        direction = torch.div(value, scratch.add_(self._eps), out=scratch)
        if "velocity" in state:
            return state["velocity"].mul_(self._momentum).add_(direction)
        return direction

    def denominator(self, state: State, count: int | Tensor) -> tuple[Tensor, Hyper]:
        """sqrt(s - a^2) [M, N] and eps, of the last update."""
        square = state["square"]
        if self._centered:
            square = torch.addcmul(square, state["mean"], state["mean"], value=-1).clamp_(min=0.0)
        return square.sqrt(), self._eps

    def stability(self, state: State, count: int | Tensor) -> tuple[Hyper, Tensor]:
        """See ``stability``: 2 (1 + mu), under sqrt(s - a^2) + eps."""
        root, eps = self.denominator(state, count)
        return 2.0 * (1.0 + self._momentum), root + eps


class Optimism:
    """Optimistic step: direction 2 d_t - d_t-1, with d_0 = d_1, so that the first is plain.

    On directions, as published for Adam; for gradient descent it is 2 g_t - g_t-1. The last
    direction is kept by value: a reference to a buffer that is written again would turn the
    method into plain descent, as in two published implementations.

    Source: Daskalakis et al. (2018), equation 3 and algorithm 1; d_0 = d_1 as in their code.
    """

    def init(self, like: Tensor) -> State:
        """The last direction [M, N]."""
        self._scratch = torch.empty_like(like)
        return {"last_direction": torch.zeros_like(like)}

    def __call__(self, value: Tensor, state: State, at: At) -> Tensor:
        """The direction in scratch memory."""
        last = state["last_direction"]
        if isinstance(at.count, Tensor):
            last.copy_(torch.where(at.count == 1, value, last))
        elif at.count == 1:
            last.copy_(value)
        torch.mul(value, 2.0, out=self._scratch).sub_(last)
        last.copy_(value)
        return self._scratch
