"""The arithmetic of tier 0: sums over tensors, and the quantities that are made of them.

``measure`` takes values [K, M, N] that lie in one tensor; ``Sums`` takes the tensors of a loop
where they are, in chunks, and needs no memory of their size. What is undefined is NaN.

Shape legend: K updates, M members, N parameters, T tensors.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from playground.parameters import Layout

Table = dict[str, dict[str, np.ndarray]]
"""{tap: {quantity: [K, M, 1 + T]}}, the whole player first."""

CHUNK = {"cpu": 1 << 17}
"""Elements of a chunk by device (512 kB in float32: a share of a core's cache; ours)."""

LARGE = 1 << 24
"""Elements of a chunk elsewhere (ours)."""


def measure(ring: Mapping[str, Tensor], layout: Layout) -> Table:
    """Measure values [K, M, N]."""
    g, u, p = ring["gradient"], ring["update"], ring["parameters"]
    v, w = ring["previous_gradient"], ring["previous_update"]
    scratch = torch.empty_like(g)  # one buffer: fresh pages cost more than the arithmetic
    squares = {
        name: _per_tensor(torch.mul(a, b, out=scratch), layout)
        for name, (a, b) in {
            "gg": (g, g), "uu": (u, u), "pp": (p, p), "vv": (v, v), "ww": (w, w),
            "gv": (g, v), "uw": (u, w), "ug": (u, g),
        }.items()
    }  # fmt: skip
    sizes = {
        "gradient": _sizes(g, np.sqrt(squares["gg"]), layout, scratch),
        "update": _sizes(u, np.sqrt(squares["uu"]), layout, scratch),
    }
    return quantities(squares, sizes)


def quantities(squares: Mapping[str, np.ndarray], sizes: Table) -> Table:
    """Norms, ratios and cosines of inner products.

    Args:
        squares: <g, g>, <u, u>, <p, p>, <v, v>, <w, w>, <g, v>, <u, w>, <u, g> by two letters:
            gradient, update, parameters, and gradient and update of the update before.
        sizes: what needs a tap's value alone.
    """
    root = {key: np.sqrt(squares[key]) for key in ("gg", "uu", "pp", "vv", "ww")}
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return {
            "gradient": {
                **sizes["gradient"],
                "cosine_previous": squares["gv"] / (root["gg"] * root["vv"]),
            },
            "update": {
                **sizes["update"],
                "parameter_norm": root["pp"],
                "ratio": np.where(root["pp"] > 0, root["uu"] / root["pp"], np.nan),
                "cosine_previous": squares["uw"] / (root["uu"] * root["ww"]),
                "alignment": -squares["ug"] / (root["uu"] * root["gg"]),
            },
        }


def _sizes(
    value: Tensor, norm: np.ndarray, layout: Layout, scratch: Tensor
) -> dict[str, np.ndarray]:
    """Quantities of one tap that need the value alone."""
    sizes = np.array([layout.size, *layout.sizes])
    absolute = torch.abs(value, out=scratch)
    peaks = [part.amax(-1) for part in torch.split(absolute, list(layout.sizes), dim=-1)]
    top = torch.stack(peaks, dim=-1).cpu().numpy()
    top = np.concatenate([top.max(-1, keepdims=True), top], axis=-1)
    mean = _per_tensor(absolute, layout) / sizes
    if np.isfinite(norm[..., 0]).all():
        nonfinite = np.zeros_like(norm)
        zeros = sizes - _per_tensor(
            torch.sign(absolute, out=scratch), layout
        )  # far faster than counting
    else:
        nonfinite = _per_tensor((~torch.isfinite(value)).to(value.dtype), layout)
        zeros = _per_tensor((value == 0).to(value.dtype), layout)
    return {
        "norm": norm,
        "mean_abs": mean,
        "max_abs": top,
        "zero_share": zeros / sizes,
        "nonfinite": nonfinite,
    }


def _per_tensor(value: Tensor, layout: Layout) -> np.ndarray:
    """Sums per tensor [K, M, 1 + T] in float64, the whole player's first."""
    parts = [part.sum(-1) for part in torch.split(value, list(layout.sizes), dim=-1)]
    values = torch.stack(parts, dim=-1).to(torch.float64).cpu().numpy()
    return np.concatenate([values.sum(-1, keepdims=True), values], axis=-1)


class Sums:
    """Sums over the tensors of one member where they lie, chunk by chunk.

    Every value of a chunk is read from memory once for all of its sums; what is summed stays on
    the device until ``table``, which fetches everything together.

    Args:
        unscale: what the gradient that is added has to be multiplied with.
    """

    def __init__(self, layout: Layout, unscale: Tensor | None = None) -> None:
        self.layout, self.unscale = layout, unscale
        self._found: dict[str, list[list[Tensor]]] = {}

    def add(self, tap: str, values: Sequence[Tensor]) -> None:
        """Inner product with itself, sum and peak of |.|, non-zero and non-finite elements."""
        for index, value in enumerate(values):
            for part in chunks(value):
                self._take(f"{tap}/square", index, torch.dot(part, part))
                self._take(f"{tap}/sum", index, torch.linalg.vector_norm(part, ord=1))
                self._take(f"{tap}/peak", index, torch.linalg.vector_norm(part, ord=torch.inf))
                self._take(f"{tap}/nonzero", index, torch.count_nonzero(part))
                self._take(f"{tap}/nonfinite", index, (part - part).count_nonzero())

    def dot(self, key: str, a: Sequence[Tensor], b: Sequence[Tensor]) -> None:
        """Inner products of the tensors of two values."""
        for index, (one, other) in enumerate(zip(a, b, strict=True)):
            for x, y in zip(chunks(one), chunks(other), strict=True):
                self._take(key, index, torch.dot(x, y.to(x.dtype)))

    def known(self, key: str, values: Tensor) -> None:
        """A sum [T] that was taken elsewhere."""
        for index, value in enumerate(values.unbind()):
            self._take(key, index, value)

    def table(self) -> Table:
        """The quantities [1, 1, 1 + T]; sums that were not taken are undefined."""
        sums = self._fetch()
        blank = np.full((1, 1, len(self.layout.names) + 1), np.nan)
        keys = ("gg", "uu", "pp", "vv", "ww", "gv", "uw", "ug")
        squares = {key: sums.get(key, blank) for key in keys}
        elements = np.array([self.layout.size, *self.layout.sizes])
        sizes = {}
        for tap in ("gradient", "update"):
            squares[2 * tap[0]] = sums[f"{tap}/square"]
            sizes[tap] = {
                "norm": np.sqrt(sums[f"{tap}/square"]),
                "mean_abs": sums[f"{tap}/sum"] / elements,
                "max_abs": sums[f"{tap}/peak"],
                "zero_share": 1 - sums[f"{tap}/nonzero"] / elements,
                "nonfinite": sums[f"{tap}/nonfinite"],
            }
        return quantities(squares, sizes)

    def _take(self, key: str, tensor: int, value: Tensor) -> None:
        kept = self._found.setdefault(key, [[] for _ in self.layout.names])
        kept[tensor].append(value)

    def _fetch(self) -> dict[str, np.ndarray]:
        """{key: [1, 1, 1 + T]} in float64, the whole player's first."""
        rows = []
        for key, tensors in self._found.items():
            join = torch.amax if key.endswith("peak") else torch.sum
            rows.append(torch.stack([join(torch.stack(parts).double()) for parts in tensors]))
        fetched = torch.stack(rows).cpu().numpy()
        factor = 1.0 if self.unscale is None else float(self.unscale)
        powers = {"gradient/square": 2, "gradient/sum": 1, "gradient/peak": 1, "gv": 1}
        found = {}
        for key, row in zip(self._found, fetched, strict=True):
            whole = row.max() if key.endswith("peak") else row.sum()
            values = np.array([whole, *row]) * factor ** powers.get(key, 0)
            found[key] = values[None, None]
        return found


def chunks(value: Tensor) -> Iterator[Tensor]:
    """Flat pieces of a tensor, in its logical order and at least in float32."""
    for part in torch.split(value.detach().reshape(-1), CHUNK.get(value.device.type, LARGE)):
        yield part.float() if part.dtype.itemsize < 4 else part
