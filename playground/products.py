"""Products with the Jacobian of a vector field: J v and J^T u, without ever forming J.

A field is given as values F_i [M, N_i] and the leaves z_j [M, N_j] that they were computed
from with ``create_graph=True``; J = dF/dz. Members are independent, so one pass serves all.

    J^T u    one reverse pass through F                                     (Pearlmutter 1994)
    J v      one reverse pass through J^T u, which is linear in u, so that its transpose is J

Against one evaluation of F, a reverse pass through it costs about two: ``PASS``.

Shape legend: M members, N_i parameters of block i.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

PASS = 2
"""Gradient evaluations that one reverse pass through a gradient counts: the gradient's graph is
a forward and a backward pass, three times the objective's work in all, and the pass through it
twice that."""

Blocks = list[Tensor]
"""One tensor [M, N_i] a block."""


class Products:
    """J v and J^T u of a field at one point.

    Args:
        values: F, one [M, N_i] a block, with their graph.
        leaves: z, one [M, N_j] a block.
    """

    def __init__(self, values: Sequence[Tensor], leaves: Sequence[Tensor]) -> None:
        self.values, self.leaves = list(values), list(leaves)
        self._probe: Blocks | None = None
        self._pulled: Blocks = []

    def transposed(self, u: Sequence[Tensor]) -> Blocks:
        """J^T u, one [M, N_j] a leaf."""
        return _pull(self.values, self.leaves, u)

    def forward(self, v: Sequence[Tensor]) -> Blocks:
        """J v, one [M, N_i] a value; the first call costs one pass more."""
        if self._probe is None:
            self.both(self.values)
        assert self._probe is not None
        return _pull(self._pulled, self._probe, v)

    def both(self, u: Sequence[Tensor]) -> tuple[Blocks, Blocks]:
        """(J^T u, J u) of one and the same vector, a pass each."""
        self._probe = [block.detach().requires_grad_() for block in u]
        self._pulled = _pull(self.values, self.leaves, self._probe, create_graph=True)
        ahead = _pull(self._pulled, self._probe, [block.detach() for block in u])
        return [block.detach() for block in self._pulled], ahead


def _pull(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor],
    *,
    create_graph: bool = False,
) -> Blocks:
    """sum_i <weights_i, outputs_i> differentiated by every input; 0 where nothing depends."""
    used = [(o, w) for o, w in zip(outputs, weights, strict=True) if o.requires_grad]
    if not used:
        return [torch.zeros_like(value) for value in inputs]
    return list(
        torch.autograd.grad(
            [output for output, _ in used], list(inputs), [weight for _, weight in used],
            retain_graph=True, create_graph=create_graph, materialize_grads=True,
        )
    )  # fmt: skip
