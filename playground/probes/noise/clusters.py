"""What every cluster of a batch adds to a gradient, as inner products: three exact or cheap ways.

    taps      exact: a linear layer's <a_n, a_m> = <x_n, x_m> <delta_n, delta_m> for rows n, m
              (ghost norms, Goodfellow 2015); small and convolutional layers row by row. One
              forward and one backward pass
    samples   exact, any objective with samples: every cluster's gradient, by a batched backward
              pass a cluster
    chunks    clusters joined to K groups: a backward pass a group

The taps find out for themselves whether they apply: with random weights c on the clusters, the
error signal of each row must be that of the plain objective times its cluster's c, and the rows
must add up to the gradient. That holds of neither penalties on a slope, spectral normalisation,
statistics of a batch, nor parameters outside layers.

Shape legend: M members, B samples, C clusters, R rows of a layer's call, T tensors.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from playground.parameters import Layout
from playground.probes.layers import Layer, Trace
from playground.probes.noise.rows import bias_rows, scattered_gram, summed, too_large, weight_gram

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-8}
"""Of the taps' check, relative to the largest: far above rounding, far below a wrong row (ours)."""

ROUNDING = 64
"""Roundings of the sum of magnitudes that the rows' sum may be off the gradient (ours)."""

GOLDEN = 0.6180339887
"""Multiples of it, modulo 1, are spread evenly and never equal."""

AT_ONCE = 2**23
"""Numbers of gradients that one batched backward pass makes (ours)."""


@dataclass(frozen=True, slots=True)
class Clusters:
    """Which samples are dependent.

    Attributes:
        index: of every sample's cluster [M, B], those of a member first; C is nobody's: samples
            without weight.
        share: of the weights [M, C], 0 where a member has fewer.
        samples: n [M], see ``formulas``.
        alone: whether every sample is a cluster, in order.
    """

    index: Tensor
    share: Tensor
    samples: Tensor
    alone: bool = False

    @property
    def number(self) -> int:
        """C, of the member that has most."""
        return self.share.shape[1]

    @property
    def counts(self) -> Tensor:
        """Clusters of every member [M]."""
        return (self.share > 0).sum(1)

    def grouped(self, groups: int) -> "Clusters":
        """Cluster c in group c mod K, K at most C; samples without weight in none."""
        groups = min(groups, self.number)
        index = torch.where(self.index < self.number, self.index % groups, groups)
        member = torch.arange(self.number, device=index.device) % groups
        share = self.share.new_zeros(len(index), groups).index_add_(1, member, self.share)
        return Clusters(index, share, self.samples)


def declared(cluster: Tensor | None, weight: Tensor | None, like: Tensor) -> Clusters:
    """The clusters of a batch.

    Args:
        cluster: any integers [M, B]; None is every sample for itself.
        weight: [M, B] or None.
        like: anything [M, B].
    """
    members, size = like.shape
    if cluster is None and weight is None:
        index = torch.arange(size, device=like.device).expand(members, size)
        share = torch.full((members, size), 1 / size, dtype=torch.float64, device=like.device)
        return Clusters(index, share, share.sum(1) * size, alone=True)
    if cluster is None:
        cluster = torch.arange(size, device=like.device).expand(members, size)
    weight = torch.ones_like(like, dtype=torch.float64) if weight is None else weight.double()
    names, index = torch.unique(cluster, return_inverse=True)
    mass = weight.new_zeros(members, len(names)).scatter_add_(1, index, weight)
    present = mass > 0
    number = int(present.sum(1).max())
    place = torch.where(present, present.cumsum(1) - 1, number)
    share = mass.new_zeros(members, number + 1).scatter_add_(1, place, mass)[:, :number]
    total = weight.sum(1)
    samples = total.square() / weight.square().sum(1)
    return Clusters(place.gather(1, index), share / total[:, None], samples)


def by_products(trace: Trace, clusters: Clusters, layout: Layout) -> Tensor:
    """Inner products [M, 1 + T, C, C] of the clusters' gradients, by a backward pass each."""
    members, size = trace.leaf.shape
    number = clusters.number
    found = []
    step = max(1, AT_ONCE // (members * size))
    for begin in range(0, number, step):
        which = torch.arange(begin, min(begin + step, number), device=clusters.index.device)
        found.append(trace.products(which[:, None, None] == clusters.index))
    each = torch.cat(found).transpose(0, 1)  # [M, C, N]
    parts = [each[..., piece].double() for piece in layout.slices.values()]
    return _with_whole([part @ part.mT for part in parts])


@dataclass(frozen=True, slots=True)
class Attributed:
    """How the rows of every tapped call of the player's belong to samples.

    Attributes:
        calls: (place in ``Trace.layers``, its rows are blocks of the batch).
        problem: why the taps do not apply; "" where they do.
        sure: False where all error signals are 0, which says nothing.
    """

    calls: Sequence[tuple[int, bool]] = ()
    problem: str = ""
    sure: bool = True


def attribute(trace: Trace, clusters: Clusters, player: str, layout: Layout) -> Attributed:
    """Find and check how rows belong to samples; costs a backward pass and the gradient."""
    if trace.samples is None:
        return Attributed(problem="its terms do not separate into samples")
    if trace.hidden:
        return Attributed(problem="the objective differentiates layers itself")
    layers = [(k, layer) for k, layer in enumerate(trace.layers) if layer.player == player]
    known = {name for _, layer in layers for name in (layer.weight, layer.bias)}
    missing = [name for name in layout.names if name not in known]
    if missing:
        return Attributed(problem=f"{missing[0]} is not a layer's")
    if any(too_large(layer) for _, layer in layers):
        return Attributed(problem="a convolution's rows are too large to form")
    plain = trace.deltas()
    largest = max(_peak(delta) for delta in _picked(plain, layers))
    tolerance = TOLERANCE.get(trace.leaf.dtype, TOLERANCE[torch.float32])
    steps = torch.arange(clusters.number + 1, device=trace.leaf.device)
    c = (0.5 + torch.frac(GOLDEN * steps)).to(trace.leaf)[clusters.index]  # [M, B]
    calls = []
    for (k, _), delta in zip(layers, _picked(trace.deltas(c), layers), strict=True):
        blocks = _belongs(c, plain[k], delta, tolerance * largest)
        if blocks is None:
            return Attributed(problem=f"rows of {trace.layers[k].weight} are not one sample's")
        calls.append((k, blocks))
    (gradient,) = torch.autograd.grad(
        trace.total.sum(), trace.leaf, retain_graph=True, materialize_grads=True
    )
    error = summed([layer for _, layer in layers], _picked(plain, layers), layout) - gradient
    scale = summed(
        [replace(layer, input=layer.input.abs()) for _, layer in layers],
        [delta.abs() for delta in _picked(plain, layers)], layout,
    )  # fmt: skip
    if _peak(error) > ROUNDING * torch.finfo(gradient.dtype).eps * _peak(scale):
        return Attributed(problem="layers do not add up to the gradient")
    return Attributed(calls, sure=largest > 0)


def by_taps(trace: Trace, clusters: Clusters, found: Attributed, layout: Layout) -> Tensor:
    """Inner products [M, 1 + T, C, C] of the clusters' gradients, from the layers."""
    deltas = trace.deltas()
    grams: dict[str, list[tuple[Layer, Tensor, Tensor | None]]] = {}
    owners: dict[tuple[int, bool], Tensor | None] = {}
    for k, blocks in found.calls:
        layer, delta = trace.layers[k], deltas[k]
        rows = delta.shape[1]
        if (rows, blocks) not in owners:
            plain = clusters.alone and rows == clusters.number
            owner = None if plain else _spread(clusters.index, rows, blocks=blocks)
            owners[rows, blocks] = owner
        grams.setdefault(layer.weight, []).append((layer, delta, owners[rows, blocks]))
    parts = {}
    for weight, calls in grams.items():
        parts[weight] = weight_gram(calls, clusters.number)
        bias = calls[0][0].bias
        if bias:
            sums = [(bias_rows(layer, delta), owner) for layer, delta, owner in calls]
            parts[bias] = scattered_gram(sums, clusters.number)
    return _with_whole([parts[name] for name in layout.names])


def _belongs(c: Tensor, plain: Tensor, mixed: Tensor, tolerance: float) -> bool | None:
    """Whether rows are blocks of the batch (True) or a sample's neighbours (False), by c [M, B].

    None where they are neither.
    """
    for blocks in (True, False):
        factor = _spread(c, plain.shape[1], blocks=blocks)
        if factor is None:
            return None
        factor = factor.view(*factor.shape, *[1] * (plain.ndim - 2))
        if _peak(mixed - factor * plain) <= tolerance:
            return blocks
    return None


def _peak(value: Tensor) -> float:
    """The largest magnitude of what is a number: members that failed say nothing."""
    return float(value.nan_to_num(0.0, 0.0, 0.0).abs().max())


def _picked(values: Sequence[Tensor], layers: Sequence[tuple[int, Layer]]) -> list[Tensor]:
    return [values[k] for k, _ in layers]


def _spread(value: Tensor, rows: int, *, blocks: bool) -> Tensor | None:
    """[M, B] over rows [M, R]: blocks of the batch after one another, or neighbours of a sample.

    None where R is no multiple of B.
    """
    repeat, left = divmod(rows, value.shape[1])
    if left or not repeat:
        return None
    return value.repeat(1, repeat) if blocks else value.repeat_interleave(repeat, dim=1)


def _with_whole(parts: Sequence[Tensor]) -> Tensor:
    """The tensors' inner products [M, 1 + T, C, C] after their sum."""
    members, number = parts[0].shape[:2]
    found = parts[0].new_zeros(members, 1 + len(parts), number, number)
    for k, part in enumerate(parts, start=1):
        found[:, k] = part
        found[:, 0] += part
    return found
