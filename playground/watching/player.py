"""One watched player: what an optimizer holds, read where the optimizer reads it.

The player is the optimizer's parameters; the model lends them their names. Its gradient is what
lies in ``.grad`` when the optimizer's step begins: after accumulation, unscaling and clipping.
With a closure it is what the first call of the closure leaves there. Nothing is written.
"""

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from playground.parameters import Layout
from playground.probes.tier0.formulas import Sums
from playground.schema import ConfigError
from playground.watching.allowed import check, inner, named
from playground.watching.inplace import InPlace

SMALL = 1 << 15
"""Parameters up to which a player is copied and measured many updates at a time (ours)."""

PIECE = 1 << 20
"""Elements of which a norm is summed at once, where tensors are larger (ours)."""

CADENCE = {"copies": 8, "in place": 32, "in place, one buffer": 64}
"""One update in so many is measured in full, by how a player is measured (8: as in a run; ours:
measuring a large player in full takes as long as ten norms of its gradient)."""

VALUES = 5
"""Values of a player's size that a megabyte limit is taken to hold."""


Broken = dict[str, tuple[int, int]]
"""{tensor: how many of its elements are NaN, how many infinite}."""


@dataclass(slots=True)
class Reading:
    """What the optimizer found in ``.grad``, before the update.

    Attributes:
        norms: [T] of the tensors before clipping, and ``raw`` their norm [1].
        read: norm [1] of what was read; ``raw`` where nothing clipped.
        tap: ``gradient``, or ``clipped`` where clipping was seen.
        coefficient: what clipping multiplied with, where it is known.
        broken: {tensor: NaN and infinite elements} where the host knows of any.
        gradient, parameters: [1, N] copies, where somebody wants them.
        kept: whether something was kept of a player that is measured where it lies.
        sums: of that player, where this update is measured.
    """

    norms: Tensor
    raw: Tensor
    read: Tensor
    tap: str
    coefficient: Tensor | None
    broken: Broken
    gradient: Tensor | None = None
    parameters: Tensor | None = None
    kept: bool = False
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


class Watched:
    """A player of somebody's loop.

    Args:
        capacity: bytes that five values of its size may take; beyond, one has to do.

    Attributes:
        layout: names and shapes; ``parameters`` are the tensors in that order.
        mode: ``copies`` of a small player, else ``in place``, or ``in place, one buffer``.
        every: of its updates, one in so many is measured in full.
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
        self._uniform = all(p.dtype == self.dtype for p in self.parameters)
        self.ids = frozenset(map(id, self.parameters))
        self._long = self._uniform and self.device.type == "cpu" and max(self.layout.sizes) > PIECE
        large = VALUES * self.layout.size * self.dtype.itemsize > capacity
        self.mode = "in place, one buffer" if large else "in place"
        if self.layout.size <= SMALL and not large:
            self.mode = "copies"
        self._place = InPlace(
            self.layout, torch.empty(0, dtype=self.dtype, device=self.device), single=large
        )
        self.every = CADENCE[self.mode]
        self.missing: list[str] = []
        self._clip, self._norms_read = _Clip(), torch.empty(0)

    def clipping(self, parameters: frozenset[int]) -> None:
        """Keep the norms of the raw gradient; see ``clipping.Listener``."""
        if not self.ids & parameters:
            return
        if not self._same():  # of a step that was skipped
            self._clip = _Clip()
        if self._clip.raw is None:
            with torch.no_grad():
                gradients = self._gradients()
                norms = self._clip.raw = self._norms(gradients)
                self._clip.broken = self._broken(gradients, norms, norms.sum())

    def clipped(self, parameters: frozenset[int], coefficient: Tensor | None) -> None:
        """Keep what clipping did; see ``clipping.Listener``."""
        if self.ids & parameters:
            if coefficient is not None:  # in half precision where the gradients are
                coefficient = coefficient.to(self.dtype)
            self._clip.merge(coefficient if self.ids <= parameters else None)
            first = self._first()
            self._clip.of = None if first is None else (weakref.ref(first), first._version)

    def read(self, update: int, *, copy: bool, due: bool, ahead: bool) -> Reading:
        """Read what the optimizer is about to read; without autograd, as all that follows.

        Args:
            update: this one's index.
            copy: whether somebody wants values.
            due: whether tier 0 measures this update.
            ahead: whether it measures the next one.
        """
        gradients, unscale = self._gradients(), self._unscale()
        norms = self._norms(gradients)
        clip = self._clip
        if clip.raw is not None:
            clip = clip if self._same(left=False) else _Clip()
            self._clip = _Clip()
        before = norms if clip.raw is None else clip.raw
        if unscale is not None:
            norms, before = norms * unscale, before * unscale
        read = torch.linalg.vector_norm(norms, keepdim=True)
        raw = read if before is norms else torch.linalg.vector_norm(before, keepdim=True)
        broken = self._broken(gradients, norms, read) if clip.raw is None else clip.broken
        tap = "clipped" if clip.seen else "gradient"
        seen = Reading(before, raw, read, tap, clip.coefficient, broken)
        if copy or (self.mode == "copies" and (due or ahead)):
            seen.gradient = self.flat(gradients)
            if unscale is not None:
                seen.gradient *= unscale
            seen.parameters = self.flat(self.parameters)
        elif due or ahead:
            seen.kept, self._norms_read = True, norms
            seen.sums = self._place.before(
                gradients, self.parameters, norms, update, tap, unscale, due=due
            )
        return seen

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
        if seen.kept:
            gradients = None if again else self._gradients()
            self._place.after(
                seen.sums, gradients, self.parameters, self._norms_read, update, seen.tap,
                ahead=ahead,
            )  # fmt: skip
        return None

    def flat(self, values: Sequence[Tensor]) -> Tensor:
        """A copy of tensors as [1, N]."""
        if self._uniform:
            return torch.cat([value.reshape(-1) for value in values])[None]
        return torch.cat([value.reshape(-1).to(self.dtype) for value in values])[None]

    def rates(self) -> float | Tensor:
        """Learning rate of all tensors, or [1, 1 + T] with NaN for the whole player."""
        groups = self.optimizer.param_groups
        rates = [float(group.get("lr", math.nan)) for group in groups]
        if all(rate == rates[0] for rate in rates):
            return rates[0]
        own = {id(p): rate for g, rate in zip(groups, rates, strict=True) for p in g["params"]}
        return torch.tensor([[math.nan, *(own.get(id(p), math.nan) for p in self.parameters)]])

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
        found = [p.grad for p in self.parameters]
        if not any(g is None or g.is_sparse for g in found):
            self.missing = []
            return cast(list[Tensor], found)
        self.missing = [n for n, g in zip(self.names, found, strict=True) if g is None]
        return [
            p.new_zeros(()).expand(p.shape) if g is None else g.to_dense() if g.is_sparse else g
            for p, g in zip(self.parameters, found, strict=True)
        ]

    def _norms(self, gradients: list[Tensor]) -> Tensor:
        """L2 norms [T], by the function that torch's own clipping uses: all in one call.

        Large tensors on a CPU are summed in pieces: a fifth faster than that, and more exact.
        """
        dtype = None if self._uniform else self.dtype
        if not self._long or not all(g.is_contiguous() for g in gradients):
            return torch.stack(torch._foreach_norm(gradients, 2, dtype=dtype))
        squares = [
            sum(torch.dot(piece, piece).item() for piece in torch.split(g.view(-1), PIECE))
            for g in gradients
        ]
        return torch.tensor(squares, dtype=torch.float64).sqrt().to(self.dtype)

    def _unscale(self) -> Tensor | None:
        """What a fused optimizer multiplies its gradient with under a GradScaler."""
        scale = getattr(self.optimizer, "grad_scale", None)
        return None if scale is None else torch.as_tensor(scale, device=self.device).reciprocal()

    def _broken(self, gradients: list[Tensor], norms: Tensor, whole: Tensor) -> Broken:
        """Tensors with non-finite elements, where looking does not wait for a device."""
        if self.device.type != "cpu" or math.isfinite(whole.item()):
            return {}
        return {
            name: (int(gradient.isnan().sum()), int(gradient.isinf().sum()))
            for name, gradient, norm in zip(self.names, gradients, norms.tolist(), strict=True)
            if not math.isfinite(norm)
        }
