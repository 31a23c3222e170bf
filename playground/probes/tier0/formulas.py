"""The arithmetic of tier 0: sums over tensors, and the quantities that are made of them.

``measure`` takes copies of many updates that lie in one tensor; ``Sums`` takes values where they
are, in pieces, and needs no memory of their size. What is undefined is NaN.

Shape legend: K updates, M members, N parameters, T tensors.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from playground.parameters import Layout

Table = dict[str, dict[str, np.ndarray]]
"""{tap: {quantity: [K, M, 1 + T]}}, the whole player first."""

VALUES = ("previous_gradient", "gradient", "update", "previous_update", "parameters")
"""What is measured: v, g, u, w and p."""

PRODUCTS = ("vv", "gg", "uu", "ww", "pp", "vg", "gu", "uw")

CHUNK = {"cpu": 1 << 17}
"""Elements of a chunk by device (512 kB in float32: a share of a core's cache; ours)."""

LARGE = 1 << 24
"""Elements of a chunk elsewhere (ours)."""


def measure(values: Sequence[Tensor], layout: Layout) -> Table:
    """Measure ``VALUES``, each [K, M, N] in any strides."""
    named = dict(zip("vguwp", values, strict=True))
    scratch = torch.empty_like(values[0], memory_format=torch.contiguous_format)
    squares = {
        key: _per_tensor(torch.mul(named[key[0]], named[key[1]], out=scratch), layout)
        for key in PRODUCTS
    }  # one scratch: fresh pages cost more than the arithmetic
    sizes = {
        tap: _sizes(named[tap[0]], np.sqrt(squares[2 * tap[0]]), layout, scratch)
        for tap in ("gradient", "update")
    }
    return quantities(squares, sizes)


def measure_in_place(values: Sequence[Tensor], layout: Layout) -> Table:
    """Measure one update's ``VALUES``, each [M, N]; large members piece by piece."""
    if layout.size < CHUNK.get(values[0].device.type, LARGE):
        return measure([value[None] for value in values], layout)
    tables = []
    for member in zip(*values, strict=True):
        sums = Sums(layout)
        for tensor, parts in pieces(*(list(layout.views(value).values()) for value in member)):
            found = dict(zip("vguwp", parts, strict=True))
            for key in PRODUCTS:
                sums.dot(key, tensor, found[key[0]], found[key[1]])
            sums.add("gradient", tensor, found["g"])
            sums.add("update", tensor, found["u"])
        tables.append(sums.table())
    return {
        tap: {key: np.concatenate([t[tap][key] for t in tables], axis=1) for key in columns}
        for tap, columns in tables[0].items()
    }


def quantities(squares: Mapping[str, np.ndarray], sizes: Table) -> Table:
    """Norms, ratios and cosines of inner products.

    Args:
        squares: inner products by the letters of ``PRODUCTS``.
        sizes: what needs a tap's value alone.
    """
    root = {key: np.sqrt(squares[key]) for key in ("gg", "uu", "pp", "vv", "ww")}
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return {
            "gradient": {
                **sizes["gradient"],
                "cosine_previous": squares["vg"] / (root["gg"] * root["vv"]),
            },
            "update": {
                **sizes["update"],
                "parameter_norm": root["pp"],
                "ratio": np.where(root["pp"] > 0, root["uu"] / root["pp"], np.nan),
                "cosine_previous": squares["uw"] / (root["uu"] * root["ww"]),
                "alignment": -squares["gu"] / (root["uu"] * root["gg"]),
            },
        }


def _sizes(
    value: Tensor, norm: np.ndarray, layout: Layout, scratch: Tensor
) -> dict[str, np.ndarray]:
    """Quantities that need a value alone; values are [..., N]."""
    sizes = np.array([layout.size, *layout.sizes])
    absolute = torch.abs(value, out=scratch)
    peaks = [part.amax(-1) for part in torch.split(absolute, list(layout.sizes), dim=-1)]
    top = torch.stack(peaks, dim=-1).cpu().numpy()
    top = np.concatenate([top.max(-1, keepdims=True), top], axis=-1)
    mean = _per_tensor(absolute, layout) / sizes
    if np.isfinite(norm[..., 0]).all():
        nonfinite = np.zeros_like(norm)
        nonzero = _per_tensor(absolute.sign_(), layout)  # far faster than counting
    else:
        nonfinite = _per_tensor((~torch.isfinite(value)).to(value.dtype), layout)
        nonzero = _per_tensor((value != 0).to(value.dtype), layout)
    return {
        "norm": norm,
        "mean_abs": mean,
        "max_abs": top,
        "zero_share": 1 - nonzero / sizes,
        "nonfinite": nonfinite,
    }


def _per_tensor(value: Tensor, layout: Layout) -> np.ndarray:
    """Sums per tensor [..., 1 + T] in float64, the whole player's first."""
    parts = [part.sum(-1) for part in torch.split(value, list(layout.sizes), dim=-1)]
    values = torch.stack(parts, dim=-1).to(torch.float64).cpu().numpy()
    return np.concatenate([values.sum(-1, keepdims=True), values], axis=-1)


class Sums:
    """Sums over the tensors of one member where they lie, piece by piece (see ``pieces``).

    Sums stay on the device until ``table``, which fetches everything together.

    Args:
        unscale: what the gradient that is added has to be multiplied with.
    """

    def __init__(self, layout: Layout, unscale: Tensor | None = None) -> None:
        self.layout, self.unscale = layout, unscale
        self._keys: dict[str, int] = {}
        self._codes: list[int] = []  # key x tensors + tensor
        self._values: list[Tensor] = []
        self._known: dict[str, Tensor] = {}
        self._scratch: Tensor | None = None

    def add(self, tap: str, tensor: int, part: Tensor) -> None:
        """Sum and peak of |.|, how many elements are not zero and how many not finite."""
        magnitude = torch.abs(part, out=self._like(part))
        peak = magnitude.amax()
        self._take(f"{tap}/sum", tensor, magnitude.sum())
        self._take(f"{tap}/peak", tensor, peak)
        if part.device.type == "cpu" and math.isfinite(peak.item()):
            self._take(f"{tap}/nonzero", tensor, magnitude.sign_().sum())  # faster than counting
        else:
            self._take(f"{tap}/nonzero", tensor, part.count_nonzero())
            self._take(f"{tap}/nonfinite", tensor, (part - part).count_nonzero())

    def dot(self, key: str, tensor: int, a: Tensor, b: Tensor) -> None:
        """The inner product of two pieces."""
        self._take(key, tensor, torch.dot(a, b.to(a.dtype)))

    def known(self, key: str, values: Tensor) -> None:
        """Sums [T] that were taken elsewhere."""
        self._known[key] = values.double()

    def table(self) -> Table:
        """The quantities [1, 1, 1 + T]; inner products that were not taken are undefined."""
        sums = self._fetch()
        blank = np.full((1, 1, len(self.layout.names) + 1), np.nan)
        squares = {key: sums.get(key, blank) for key in PRODUCTS}
        elements = np.array([self.layout.size, *self.layout.sizes])
        sizes = {
            tap: {
                "norm": np.sqrt(squares[2 * tap[0]]),
                "mean_abs": sums[f"{tap}/sum"] / elements,
                "max_abs": sums[f"{tap}/peak"],
                "zero_share": 1 - sums[f"{tap}/nonzero"] / elements,
                "nonfinite": sums.get(f"{tap}/nonfinite", np.zeros_like(blank)),
            }
            for tap in ("gradient", "update")
        }
        return quantities(squares, sizes)

    def _take(self, key: str, tensor: int, value: Tensor) -> None:
        code = self._keys.setdefault(key, len(self._keys))
        self._codes.append(code * len(self.layout.names) + tensor)
        self._values.append(value)

    def _like(self, part: Tensor) -> Tensor:
        """Scratch of a chunk's size: fresh pages cost more than the arithmetic."""
        if self._scratch is None or len(self._scratch) < len(part):
            self._scratch = torch.empty_like(part)
        if self._scratch.dtype != part.dtype:
            return torch.empty_like(part)
        return self._scratch[: len(part)]

    def _fetch(self) -> dict[str, np.ndarray]:
        """{key: [1, 1, 1 + T]} in float64, the whole player's first."""
        values = torch.stack(self._values).double().cpu().numpy()
        codes, tensors = np.array(self._codes), len(self.layout.names)
        sums = np.bincount(codes, values, len(self._keys) * tensors)
        peaks = np.zeros(len(sums))
        with np.errstate(invalid="ignore"):  # a NaN stays one
            np.maximum.at(peaks, codes, values)
        factor = 1.0 if self.unscale is None else float(self.unscale)
        found = {}
        for key, place in self._keys.items():
            rows = slice(place * tensors, (place + 1) * tensors)
            row = peaks[rows] if key.endswith("peak") else sums[rows]
            whole = row.max() if key.endswith("peak") else row.sum()
            scaled = key in ("gradient/sum", "gradient/peak", "vg")
            found[key] = np.array([whole, *row])[None, None] * (factor if scaled else 1.0)
        for key, known in self._known.items():
            row = known.cpu().numpy()
            found[key] = np.array([row.sum(), *row])[None, None]
        return found


def pieces(*values: Sequence[Tensor] | None) -> Iterator[tuple[int, list[Any]]]:
    """(tensor, the same flat piece of every value), None where a value is None.

    Each piece comes from memory once, whatever is taken of it; pieces of all values lie in a
    core's cache together.
    """
    given = [value for value in values if value is not None]
    for tensor, parts in enumerate(zip(*given, strict=True)):
        for cut in zip(*map(chunks, parts), strict=True):
            left = iter(cut)
            yield tensor, [None if value is None else next(left) for value in values]


def chunks(value: Tensor) -> Iterator[Tensor]:
    """Flat pieces of a tensor, in its logical order and at least in float32."""
    flat = value.detach().reshape(-1)
    size = CHUNK.get(value.device.type, LARGE)
    for part in (flat,) if len(flat) <= size else torch.split(flat, size):
        yield part.float() if part.dtype.itemsize < 4 else part
