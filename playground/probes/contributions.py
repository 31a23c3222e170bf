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
from torch.nn import functional as F  # noqa: N812

from playground.parameters import Layout
from playground.probes.layers import Layer, Trace

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-8}
"""Of the taps' check, relative to the largest: far above rounding, far below a wrong row (ours)."""

ROUNDING = 64
"""Roundings of the sum of magnitudes that the rows' sum may be off the gradient (ours)."""

GOLDEN = 0.6180339887
"""Multiples of it, modulo 1, are spread evenly and never equal."""

AT_ONCE = 2**23
"""Numbers of gradients that one batched backward pass makes (ours)."""

DOUBLE = 2**24
"""Multiplications of one layer's inner products up to which they are in float64 (ours)."""

MATERIAL = 2**25
"""Numbers of one layer's rows' gradients that may be formed (ours)."""


@dataclass(frozen=True, slots=True)
class Clusters:
    """Which samples are dependent.

    Attributes:
        index: of every sample's cluster [M, B], those of a member first; C is nobody's: samples
            without weight.
        share: of the weights [M, C], 0 where a member has fewer.
        samples: n [M], see ``clusters``.
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
    if any(_too_large(layer) for _, layer in layers):
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
    error = _gradient([layer for _, layer in layers], _picked(plain, layers), layout) - gradient
    scale = _gradient(
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
        parts[weight] = _weight_gram(calls, clusters.number)
        bias = calls[0][0].bias
        if bias:
            sums = [(_bias_rows(layer, delta), owner) for layer, delta, owner in calls]
            parts[bias] = _scattered_gram(sums, clusters.number)
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


def _too_large(layer: Layer) -> bool:
    """Whether a layer with several places a row has more numbers than may be formed."""
    x, z = layer.input, layer.output
    if layer.kind == "add" or (layer.kind == "linear" and x.ndim == 3):
        return False
    features = (x.shape[-1], z.shape[-1]) if layer.kind == "linear" else (x.shape[2], z.shape[2])
    size = features[0] * features[1] * (1 if layer.kind == "linear" else 16)
    return x.shape[0] * x.shape[1] * size > MATERIAL


def _weight_gram(calls: Sequence[tuple[Layer, Tensor, Tensor | None]], number: int) -> Tensor:
    """Inner products [M, C, C] of what clusters add to one weight, over its calls."""
    x, delta = _factors(*calls[0][:2])
    members, rows, places, inputs = x.shape
    size = inputs * delta.shape[-1]
    ghosts = sum(call[1].shape[1] for call in calls) ** 2 * (inputs + delta.shape[-1])
    formed = len(calls) * rows * places * size + number**2 * size
    if places == 1 and (ghosts < formed or members * rows * size > MATERIAL):
        pairs = [_factors(layer, d) for layer, d, _ in calls]
        xs, ds = (torch.cat([p[i].squeeze(2) for p in pairs], 1) for i in (0, 1))
        if members * ghosts <= DOUBLE:
            xs, ds = xs.double(), ds.double()
        gram = (xs @ xs.mT).double() * (ds @ ds.mT)
        if len(calls) == 1 and calls[0][2] is None:
            return gram
        owners = torch.cat([_owners(owner, d) for _, d, owner in calls], 1)
        return _joined(gram, owners, number)
    sums = []
    for factors, errors, owner in _alike(calls):
        x, delta = torch.cat(factors, 2), torch.cat(errors, 2)
        each = torch.einsum("mrpi,mrpo->mrio", x, delta).flatten(2)
        sums.append((each, owner))
    return _scattered_gram(sums, number)


def _alike(
    calls: Sequence[tuple[Layer, Tensor, Tensor | None]],
) -> list[tuple[list[Tensor], list[Tensor], Tensor | None]]:
    """Factors of calls whose rows have the same owners (a recurrent network's steps), together."""
    groups: dict[tuple[int, int], tuple[list[Tensor], list[Tensor], Tensor | None]] = {}
    for layer, d, owner in calls:
        xs, ds, _ = groups.setdefault((d.shape[1], id(owner)), ([], [], owner))
        x, delta = _factors(layer, d)
        xs.append(x)
        ds.append(delta)
    return list(groups.values())


def _factors(layer: Layer, delta: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs [M, R, P, in] and deltas [M, R, P, out] whose products over P are a row's gradient."""
    x = layer.input
    if layer.kind == "linear":
        return _places(x), _places(delta)
    if layer.kind == "add":  # the factor's gradient is <branch, delta>
        return x.flatten(2).unsqueeze(3), delta.flatten(2).unsqueeze(3)
    if layer.kind == "conv":
        return _patches(x), delta.flatten(3).mT
    return _patches(delta), x.flatten(3).mT  # the transposed convolution: the roles are exchanged


def _places(value: Tensor) -> Tensor:
    """[M, R, ..., F] as [M, R, P, F]."""
    return value.flatten(2, -2) if value.ndim > 3 else value.unsqueeze(2)


def _patches(value: Tensor) -> Tensor:
    """Patches [M, R, P, F 16] of kernel 4, stride 2, padding 1 of maps [M, R, F, h, w]."""
    lead = value.shape[:2]
    patches = F.unfold(value.flatten(0, 1), 4, stride=2, padding=1)
    return patches.view(*lead, *patches.shape[1:]).mT


def _bias_rows(layer: Layer, delta: Tensor) -> Tensor:
    """What every row adds to the bias [M, R, out]."""
    if layer.kind == "linear":
        return delta.flatten(2, -2).sum(2) if delta.ndim > 3 else delta
    return delta.flatten(3).sum(3)


def _owners(owner: Tensor | None, rows: Tensor) -> Tensor:
    """The cluster of every row [M, R]; None is each its own."""
    if owner is not None:
        return owner
    return torch.arange(rows.shape[1], device=rows.device).expand(rows.shape[:2])


def _scattered_gram(sums: Sequence[tuple[Tensor, Tensor | None]], number: int) -> Tensor:
    """Inner products [M, C, C] of rows' parts [M, R, P], added up by owner [M, R]."""
    rows, owner = sums[0]
    if owner is None and len(sums) == 1:
        whole = rows.double()
        return whole @ whole.mT
    total = rows.new_zeros(len(rows), number + 1, rows.shape[2], dtype=torch.float64)
    for each, owner in sums:
        place = _owners(owner, each).unsqueeze(2).expand_as(each)
        total.scatter_add_(1, place, each.double())
    kept = total[:, :number]
    return kept @ kept.mT


def _joined(gram: Tensor, owner: Tensor, number: int) -> Tensor:
    """Inner products of rows [M, R, R] as those of clusters [M, C, C]."""
    one_hot = F.one_hot(owner, number + 1)[..., :number].to(gram)
    return one_hot.mT @ gram @ one_hot


def _gradient(layers: Sequence[Layer], deltas: Sequence[Tensor], layout: Layout) -> Tensor:
    """The gradient [M, N] that the taps' rows add up to."""
    parts: dict[str, Tensor] = {}
    for layer, delta in zip(layers, deltas, strict=True):
        x, d = _factors(layer, delta)
        product = torch.einsum("mrpi,mrpo->moi", x, d)
        weight = product.flatten(1)
        parts[layer.weight] = parts.get(layer.weight, torch.zeros_like(weight)) + weight
        if layer.bias:
            bias = _bias_rows(layer, delta).sum(1)
            parts[layer.bias] = parts.get(layer.bias, torch.zeros_like(bias)) + bias
    return torch.cat([parts[name] for name in layout.names], dim=1)


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
