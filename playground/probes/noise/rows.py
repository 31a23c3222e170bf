"""What the rows of layers' calls add to weights and biases, and the inner products of that.

A row is a sample, or one of its places or time steps; a weight's gradient is the sum over rows
of outer products of inputs x and error signals delta, so its inner products are products of
<x_n, x_m> and <delta_n, delta_m> (ghost norms, Goodfellow 2015), or formed where that is cheaper.

Shape legend: M members, R rows of a layer's call, P places, C clusters, T tensors.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from playground.parameters import Layout
from playground.probes.layers import Layer

DOUBLE = 2**24
"""Multiplications of one layer's inner products up to which they are in float64 (ours)."""

MATERIAL = 2**25
"""Numbers of one layer's rows' gradients that may be formed (ours)."""


def too_large(layer: Layer) -> bool:
    """Whether a layer with several places a row has more numbers than may be formed."""
    x, z = layer.input, layer.output
    if layer.kind == "add" or (layer.kind == "linear" and x.ndim == 3):
        return False
    features = (x.shape[-1], z.shape[-1]) if layer.kind == "linear" else (x.shape[2], z.shape[2])
    size = features[0] * features[1] * (1 if layer.kind == "linear" else 16)
    return x.shape[0] * x.shape[1] * size > MATERIAL


def weight_gram(calls: Sequence[tuple[Layer, Tensor, Tensor | None]], number: int) -> Tensor:
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
    return scattered_gram(sums, number)


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


def bias_rows(layer: Layer, delta: Tensor) -> Tensor:
    """What every row adds to the bias [M, R, out]."""
    if layer.kind == "linear":
        return delta.flatten(2, -2).sum(2) if delta.ndim > 3 else delta
    return delta.flatten(3).sum(3)


def _owners(owner: Tensor | None, rows: Tensor) -> Tensor:
    """The cluster of every row [M, R]; None is each its own."""
    if owner is not None:
        return owner
    return torch.arange(rows.shape[1], device=rows.device).expand(rows.shape[:2])


def scattered_gram(sums: Sequence[tuple[Tensor, Tensor | None]], number: int) -> Tensor:
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


def summed(layers: Sequence[Layer], deltas: Sequence[Tensor], layout: Layout) -> Tensor:
    """The gradient [M, N] that the taps' rows add up to."""
    parts: dict[str, Tensor] = {}
    for layer, delta in zip(layers, deltas, strict=True):
        x, d = _factors(layer, delta)
        product = torch.einsum("mrpi,mrpo->moi", x, d)
        weight = product.flatten(1)
        parts[layer.weight] = parts.get(layer.weight, torch.zeros_like(weight)) + weight
        if layer.bias:
            bias = bias_rows(layer, delta).sum(1)
            parts[layer.bias] = parts.get(layer.bias, torch.zeros_like(bias)) + bias
    return torch.cat([parts[name] for name in layout.names], dim=1)
