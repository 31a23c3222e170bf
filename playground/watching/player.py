"""One watched player: what an optimizer holds, read where the optimizer reads it.

The player is the optimizer's parameters; the model lends them their names. Its gradient is what
lies in ``.grad`` when the optimizer's step begins: after accumulation, unscaling and clipping.
With a closure it is what the first call of the closure leaves there. Nothing is written.
"""

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from playground.parameters import Layout
from playground.probes.quantities import Sums
from playground.schema import ConfigError
from playground.watching.allowed import check, inner, named

VALUES = 5
"""Values of a player's size that measuring with copies holds."""


Broken = dict[str, tuple[int, int]]
"""{tensor: how many of its elements are NaN, how many infinite}."""


@dataclass(slots=True)
class Reading:
    """What the optimizer found in ``.grad``, before the update.

    Attributes:
        norms: [T] of the tensors as read.
        raw: [T] before clipping; the same where nothing clipped.
        tap: ``gradient``, or ``clipped`` where clipping was seen.
        coefficient: what clipping multiplied with, where it is known.
        broken: {tensor: NaN and infinite elements} where the host knows of any.
        rates: learning rate, or of the whole player (NaN) and each tensor.
        gradient, parameters: [1, N] copies, where somebody wants them.
        sums: of a player too large to be copied.
    """

    norms: Tensor
    raw: Tensor
    tap: str
    coefficient: Tensor | None
    broken: Broken
    rates: float | Tensor
    gradient: Tensor | None = None
    parameters: Tensor | None = None
    sums: Sums | None = None


@dataclass(slots=True)
class _Clip:
    """What clipping did since the last update."""

    raw: Tensor | None = None
    of: tuple[weakref.ref[Tensor], int] | None = None  # which gradient, as it was left
    broken: Broken = field(default_factory=dict)
    seen: bool = False
    coefficient: Tensor | None = None
    unknown: bool = False

    def merge(self, coefficient: Tensor | None) -> None:
        """One more clipping."""
        self.seen = True
        if coefficient is None or self.unknown:
            self.unknown, self.coefficient = True, None
        else:
            before = 1.0 if self.coefficient is None else self.coefficient
            self.coefficient = coefficient * before


@dataclass(slots=True)
class _Kept:
    """The one buffer of a large player and what stands in it."""

    buffer: Tensor | None = None
    update: int = 0  # whose gradient the buffer holds
    tap: str = ""
    norms: Tensor | None = field(default=None)


class Watched:
    """A player of somebody's loop.

    Attributes:
        layout: names and shapes; ``parameters`` are the tensors in that order.
        large: whether it is measured where it lies, with one buffer of its size.
        missing: names of tensors without a gradient at the last update.
    """

    def __init__(self, name: str, model: nn.Module | None, optimizer: Any, capacity: int) -> None:
        self.name, self.model = name, model
        self.optimizer = inner(name, optimizer)
        held = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.groups = len(self.optimizer.param_groups)
        known = {} if model is None else {id(p): n for n, p in named(model)}
        if known and not any(id(p) in known for p in held):
            raise ConfigError(f"player {name}: its optimizer holds no parameter of its model")
        kept = [(place, p) for place, p in enumerate(held) if is_lazy(p) or p.numel()]
        self.parameters = [p for _, p in kept]
        self.names = [known.get(id(p), f"param_groups.{place}") for place, p in kept]
        self.outside = [n for n, p in zip(self.names, self.parameters, strict=True)
                        if id(p) not in known]  # fmt: skip
        check(name, self.names, self.parameters)
        shapes = {n: tuple(p.shape) for n, p in zip(self.names, self.parameters, strict=True)}
        self.layout = Layout(shapes)
        self.device = self.parameters[0].device
        wide = any(p.dtype == torch.float64 for p in self.parameters)
        self.dtype = torch.float64 if wide else torch.float32
        self.ids = frozenset(map(id, self.parameters))
        self.large = VALUES * self.layout.size * self.dtype.itemsize > capacity
        self.missing: list[str] = []
        self._clip, self._kept = _Clip(), _Kept()

    def clipping(self, parameters: frozenset[int]) -> None:
        """Keep the norms of the raw gradient; see ``clipping.Listener``."""
        if not self.ids & parameters:
            return
        if not self._same():  # of a step that was skipped
            self._clip = _Clip()
        if self._clip.raw is None:
            with torch.no_grad():
                gradients = self._gradients()
                self._clip.raw = self._norms(gradients)
                self._clip.broken = self._broken(gradients, self._clip.raw)

    def clipped(self, parameters: frozenset[int], coefficient: Tensor | None) -> None:
        """Keep what clipping did; see ``clipping.Listener``."""
        if self.ids & parameters:
            self._clip.merge(coefficient if self.ids <= parameters else None)
            first = self._first()
            self._clip.of = None if first is None else (weakref.ref(first), first._version)

    @torch.no_grad()
    def read(self, update: int, *, copy: bool, due: bool, ahead: bool) -> Reading:
        """Read what the optimizer is about to read.

        Args:
            update: this one's index.
            copy: whether somebody wants values.
            due: whether tier 0 measures this update.
            ahead: whether it measures the next one.
        """
        gradients, unscale = self._gradients(), self._unscale()
        norms = self._norms(gradients)
        clip, self._clip = self._clip if self._same(left=False) else _Clip(), _Clip()
        raw = norms if clip.raw is None else clip.raw
        broken = self._broken(gradients, norms) if clip.raw is None else clip.broken
        if unscale is not None:
            norms, raw = norms * unscale, raw * unscale
        seen = Reading(
            norms, raw, "clipped" if clip.seen else "gradient", clip.coefficient,
            broken, self._rates(),
        )  # fmt: skip
        self.missing = [
            n for n, p in zip(self.names, self.parameters, strict=True) if p.grad is None
        ]
        if self.large and not copy:
            self._in_place(seen, update, gradients, unscale, due=due, ahead=ahead)
        elif copy or due or ahead:
            seen.gradient = self.flat(gradients)
            if unscale is not None:
                seen.gradient *= unscale
            seen.parameters = self.flat(self.parameters)
        self._kept.norms = norms
        return seen

    @torch.no_grad()
    def finish(self, seen: Reading, update: int, *, ahead: bool, again: bool) -> Tensor | None:
        """After the update: the update [1, N], or its sums where ``seen`` takes sums.

        Args:
            seen: what was read before it.
            update: its index.
            ahead: whether the next update is measured.
            again: whether a closure was called again, so that ``.grad`` is another's by now.
        """
        if seen.parameters is not None:
            return self.flat(self.parameters).sub_(seen.parameters)
        if seen.sums is None:
            return None
        assert self._kept.buffer is not None
        update_views = self._views(self._kept.buffer)
        for view, parameter in zip(update_views, self.parameters, strict=True):
            torch.sub(parameter, view, out=view)
        seen.sums.add("update", update_views)
        if not again:
            gradients = self._gradients()
            seen.sums.dot("ug", update_views, gradients)
            if ahead:
                self._hold(update, seen.tap, gradients, None)
        return None

    def flat(self, values: Sequence[Tensor]) -> Tensor:
        """A copy of tensors as [1, N]."""
        return torch.cat([value.detach().reshape(-1).to(self.dtype) for value in values])[None]

    def _in_place(
        self, seen: Reading, update: int, gradients: list[Tensor], unscale: Tensor | None, *,
        due: bool, ahead: bool,
    ) -> None:  # fmt: skip
        """Sums of a large player; its buffer holds the last gradient, then the parameters."""
        kept = self._kept
        if due:
            seen.sums = sums = Sums(self.layout, unscale)
            sums.add("gradient", gradients)
            if kept.update == update - 1 and kept.tap == seen.tap and kept.norms is not None:
                assert kept.buffer is not None
                sums.dot("gv", gradients, self._views(kept.buffer))
                sums.known("vv", kept.norms.square())
            sums.dot("pp", self.parameters, self.parameters)
            self._hold(0, "", self.parameters, None)
        elif ahead:
            self._hold(update, seen.tap, gradients, unscale)

    def _hold(self, update: int, tap: str, values: Sequence[Tensor], factor: Tensor | None) -> None:
        """Copy values into the buffer."""
        kept = self._kept
        if kept.buffer is None:
            kept.buffer = torch.empty(self.layout.size, dtype=self.dtype, device=self.device)
        for view, value in zip(self._views(kept.buffer), values, strict=True):
            view.copy_(value)
        if factor is not None:
            kept.buffer *= factor
        kept.update, kept.tap = update, tap

    def _views(self, flat: Tensor) -> list[Tensor]:
        return list(self.layout.views(flat).values())

    def _first(self) -> Tensor | None:
        """The first gradient that is there."""
        return next((p.grad for p in self.parameters if p.grad is not None), None)

    def _same(self, *, left: bool = True) -> bool:
        """Whether the gradient is the one last clipped, and as clipping left it."""
        if self._clip.of is None:
            return False
        (clipped, version), first = self._clip.of, self._first()
        return clipped() is first is not None and not (left and first._version != version)

    def _gradients(self) -> list[Tensor]:
        """``.grad`` of every tensor; zeros, which take no memory, where there is none."""
        return [
            p.grad.to_dense() if p.grad is not None and p.grad.is_sparse else
            p.grad if p.grad is not None else p.new_zeros(()).expand(p.shape)
            for p in self.parameters
        ]  # fmt: skip

    def _norms(self, gradients: list[Tensor]) -> Tensor:
        """L2 norms [T], by the function that torch's own clipping uses: all in one call."""
        return torch.stack(torch._foreach_norm(gradients, 2, dtype=self.dtype))

    def _unscale(self) -> Tensor | None:
        """What a fused optimizer multiplies its gradient with under a GradScaler."""
        scale = getattr(self.optimizer, "grad_scale", None)
        return None if scale is None else torch.as_tensor(scale, device=self.device).reciprocal()

    def _broken(self, gradients: list[Tensor], raw: Tensor) -> Broken:
        """Tensors with non-finite elements, where looking does not wait for a device."""
        if self.device.type != "cpu" or math.isfinite(raw.sum().item()):
            return {}
        return {
            name: (int(gradient.isnan().sum()), int(gradient.isinf().sum()))
            for name, gradient, norm in zip(self.names, gradients, raw.tolist(), strict=True)
            if not math.isfinite(norm)
        }

    def _rates(self) -> float | Tensor:
        """Learning rate of all tensors, or [1, 1 + T] with NaN for the whole player."""
        groups = self.optimizer.param_groups
        rates = [float(group.get("lr", math.nan)) for group in groups]
        if all(rate == rates[0] for rate in rates):
            return rates[0]
        own = {id(p): rate for g, rate in zip(groups, rates, strict=True) for p in g["params"]}
        return torch.tensor([[math.nan, *(own.get(id(p), math.nan) for p in self.parameters)]])
