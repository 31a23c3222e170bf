"""Layer taps: what each layer of a network sees, and a place to differentiate by its output.

Networks apply their weights through ``linear``, ``conv`` and ``deconv``. Outside ``tapped`` these
are torch's functions and nothing else. Inside, every call is noted with its input x and its output
z before the activation, and a zero tensor is added to z, so that the derivative by that zero is
the layer's error signal delta = dL/dz. The gradient of a linear layer's weight is then the sum over
rows of delta x', its bias's the sum of delta: what a single row contributes can be told without
ever forming it (ghost norms).

    with tapped() as seen: network(tensors, x)              # once, to learn the shapes
    zeros = [torch.zeros(call.output.shape) for call in seen.calls]

    def loss(zeros):                                        # vmap, grad and vjp may map over it
        with tapped(zeros) as seen: ...
        return value, [call.input for call in seen.calls]

Calls inside a differentiation of the function's own (penalties on a slope) are counted, not
noted: their output is not all that the loss knows of the layer.

``add`` is for sums of branches (residual blocks, a recurrent network's two products), so that it
can be told what goes where: its output is a place like a layer's.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


@dataclass(frozen=True, slots=True)
class Call:
    """One application of a layer.

    Attributes:
        kind: ``linear``, ``conv``, ``deconv`` or ``add``.
        weight, bias: the very tensors that the layer was given, to be told by identity; a sum's
            weight is the branch's factor, if any.
        input: x [..., in] (conv: [B, in, h, w]); a sum's branch.
        output: z [..., out] before the activation.
        skip: what a sum adds the branch to.
    """

    kind: str
    weight: Tensor | None
    bias: Tensor | None
    input: Tensor
    output: Tensor
    skip: Tensor | None = None


@dataclass(slots=True)
class Seen:
    """What was called while taps were on.

    Attributes:
        calls: in order.
        hidden: calls inside a nested differentiation, which are not among them.
    """

    calls: list[Call] = field(default_factory=list)
    hidden: int = 0


@dataclass(slots=True)
class _Taps:
    """Taps that are on: how deep in torch.func's transforms, and what is added to outputs."""

    seen: Seen
    level: int | None
    zeros: Sequence[Tensor] | None

    def take(
        self,
        kind: str,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        out: Tensor,
        skip: Tensor | None = None,
    ) -> Tensor:
        """Note a call; its output with the zero added."""
        if _level() != self.level:
            self.seen.hidden += 1
            return out
        if self.zeros is not None:
            index = len(self.seen.calls)
            if index >= len(self.zeros):
                raise ValueError(f"{len(self.zeros)} zeros, but layer {index + 1} was called")
            out = out + self.zeros[index]
        self.seen.calls.append(Call(kind, weight, bias, x, out, skip))
        return out


_active: _Taps | None = None


@contextmanager
def tapped(zeros: Sequence[Tensor] | None = None) -> Iterator[Seen]:
    """Note the calls of every layer in a block.

    Args:
        zeros: one a call in order, in the shape of its output; None adds nothing.

    Raises:
        ValueError: more calls than zeros.
    """
    global _active  # noqa: PLW0603
    before, seen = _active, Seen()
    _active = _Taps(seen, _level(), zeros)
    try:
        yield seen
    finally:
        _active = before


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Map x to x W' + b, [..., in] to [..., out]."""
    out = F.linear(x, weight, bias)
    return out if _active is None else _active.take("linear", x, weight, bias, out)


def conv(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A convolution of kernel 4, stride 2, padding 1: the side halves."""
    out = F.conv2d(x, weight, bias, stride=2, padding=1)
    return out if _active is None else _active.take("conv", x, weight, bias, out)


def deconv(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The transposed convolution of kernel 4, stride 2, padding 1: the side doubles."""
    out = F.conv_transpose2d(x, weight, bias, stride=2, padding=1)
    return out if _active is None else _active.take("deconv", x, weight, bias, out)


def add(skip: Tensor, branch: Tensor, factor: Tensor | None = None) -> Tensor:
    """Add a branch [..., n] to skip [..., n]: skip + factor * branch, the factor [1]."""
    out = skip + (branch if factor is None else factor * branch)
    return out if _active is None else _active.take("add", branch, factor, None, out, skip)


def input_gradient(
    function: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradient of a scalar by the input, inside an objective: (grad f(x), aux).

    ``torch.func.grad``, which nests under vmap and compilation; where nothing is around, torch's
    tape gives the same numbers for two thirds of the time. Differentiable where gradients are on.

    Args:
        function: x -> (f(x), aux), pure.
        x: [...].
    """
    if torch.compiler.is_compiling() or _active is not None or _level() is not None:
        gradient, aux = torch.func.grad(function, has_aux=True)(x)
        return gradient, aux
    follow = torch.is_grad_enabled()
    with torch.enable_grad():
        here = x.view_as(x) if follow and x.requires_grad else x.detach().requires_grad_()
        value, aux = function(here)
        (gradient,) = torch.autograd.grad(
            value, here, create_graph=follow, materialize_grads=True
        )  # fmt: skip
    return gradient, aux if follow else aux.detach()


def _level() -> int | None:
    """How many transforms of torch.func are around; None is none. Not public in torch."""
    level: int | None = torch._C._functorch.maybe_current_level()
    return level
