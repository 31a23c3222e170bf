"""Measuring a player where it lies: sums chunk by chunk, and as few copies as can be.

A cosine with the update before needs the gradient of that update, and an update is a difference
of parameters, so something of the player's size has to be kept at the updates that are measured
and those just before them. Three buffers give everything; one buffer, for large players, gives
everything but the update's ``cosine_previous``: it holds the previous gradient until that is
used, then the parameters, which become the update.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from playground.parameters import Layout
from playground.probes.tier0.formulas import Sums, pieces

Tensors = Sequence[Tensor]


class InPlace:
    """The buffers of one player, and the sums of the update that is being measured.

    Args:
        like: a tensor whose dtype and device buffers have.
        single: whether there is one buffer only.
    """

    def __init__(self, layout: Layout, like: Tensor, *, single: bool) -> None:
        self.layout, self.like, self.single = layout, like, single
        self._gradient: Tensor | None = None  # of update ``_held``
        self._held, self._tap, self._norms = 0, "", like
        self._moved: Tensor | None = None  # the update ``_moved_at``
        self._moved_at = 0
        self._buffer: Tensor | None = None  # parameters before this update
        self._spare: Tensor | None = None

    def before(
        self, gradients: Tensors, parameters: Tensors, norms: Tensor, update: int, tap: str,
        unscale: Tensor | None, *, due: bool,
    ) -> Sums | None:  # fmt: skip
        """Before an update that is measured (``due``), or whose successor is.

        Args:
            gradients: as they lie, to be multiplied with ``unscale``.
            parameters: as they lie.
            norms: [T] of the gradients, multiplied already.
            update: its index.
            tap: where the gradient was read.
            unscale: None is 1.
            due: whether this one is measured.
        """
        if not due:
            self._hold(gradients, norms, update, tap, unscale)
            if not self.single:
                self._buffer = self._filled(self._taken(), parameters)
            return None
        sums = Sums(self.layout, unscale)
        sums.known("gg", norms.double().square())
        held = None
        if self._gradient is not None and (self._held, self._tap) == (update - 1, tap):
            held = self._views(self._gradient)
            sums.known("vv", self._norms.double().square())
        if self.single and self._gradient is not None:  # which is read before it is written
            self._buffer, self._gradient = self._gradient, None
        else:
            self._buffer = self._taken()
        views = self._views(self._buffer)
        for tensor, (g, v, p, kept) in pieces(gradients, held, parameters, views):
            sums.add("gradient", tensor, g)
            if v is not None:
                sums.dot("vg", tensor, v, g)
            sums.dot("pp", tensor, p, p)
            kept.copy_(p)
        return sums

    def after(
        self, sums: Sums | None, gradients: Tensors | None, parameters: Tensors, norms: Tensor,
        update: int, tap: str, *, ahead: bool,
    ) -> None:  # fmt: skip
        """After it; ``gradients`` None is not those of this update any more."""
        buffer, self._buffer = self._buffer, None
        if buffer is None:
            return
        views = self._views(buffer)
        comparable = sums is not None and self._moved_at == update - 1
        before = self._views(self._moved) if comparable and self._moved is not None else None
        for tensor, (p, u, g, w) in pieces(parameters, views, gradients, before):
            torch.sub(p, u, out=u)
            if sums is None:
                continue
            sums.add("update", tensor, u)
            sums.dot("uu", tensor, u, u)
            if g is not None:
                sums.dot("gu", tensor, g, u)
            if w is not None:
                sums.dot("uw", tensor, u, w)
                sums.dot("ww", tensor, w, w)
        if sums is not None:
            if self.single:
                self._gradient, self._held = buffer, 0
            if ahead and gradients is not None:
                self._hold(gradients, norms, update, tap, None)
        if not self.single:
            self._spare, self._moved, self._moved_at = self._moved, buffer, update

    def _hold(
        self, gradients: Tensors, norms: Tensor, update: int, tap: str, unscale: Tensor | None
    ) -> None:
        """Keep a gradient for the next update."""
        if self._gradient is None:
            self._gradient = self._new()
        self._filled(self._gradient, gradients)
        if unscale is not None:
            self._gradient *= unscale
        self._held, self._tap, self._norms = update, tap, norms

    def _filled(self, buffer: Tensor, values: Tensors) -> Tensor:
        for view, value in zip(self._views(buffer), values, strict=True):
            view.copy_(value)
        return buffer

    def _taken(self) -> Tensor:
        """A buffer that nothing needs."""
        spare, self._spare = self._spare, None
        return self._new() if spare is None else spare

    def _new(self) -> Tensor:
        return torch.empty(self.layout.size, dtype=self.like.dtype, device=self.like.device)

    def _views(self, flat: Tensor) -> list[Tensor]:
        return list(self.layout.views(flat).values())
