"""The arithmetic of tier 0: sums over tensors, and the quantities that are made of them.

``measure`` takes values [K, M, N] that lie in one tensor; ``Sums`` takes the tensors of a loop
where they are, in chunks, and needs no memory of their size. What is undefined is NaN.

Shape legend: K updates, M members, N parameters, T tensors.
"""

import math
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

    A chunk is read from memory once for all sums of one ``add``; sums stay on the device until
    ``table``, which fetches everything together.

    Args:
        unscale: what the gradient that is added has to be multiplied with.
    """

    def __init__(self, layout: Layout, unscale: Tensor | None = None) -> None:
        self.layout, self.unscale = layout, unscale
        self._keys: dict[str, int] = {}
        self._codes: list[int] = []  # key x tensors + tensor
        self._values: list[Tensor] = []
        self._scratch: Tensor | None = None

    def add(self, tap: str, values: Sequence[Tensor]) -> None:
        """Sum and peak of |.|, how many elements are not zero and how many not finite."""
        for index, value in enumerate(values):
            begin = len(self._values)
            for part in chunks(value):
                magnitude = torch.abs(part, out=self._like(part))
                self._take(f"{tap}/sum", index, magnitude.sum())
                self._take(f"{tap}/peak", index, magnitude.amax())
                self._take(f"{tap}/nonzero", index, magnitude.sign_().sum())
            if value.device.type == "cpu":
                peaks = [float(peak) for peak in self._values[begin + 1 :: 3]]
                if not math.isfinite(sum(peaks)):
                    self._count(tap, index, value, begin)
            else:
                self._count(tap, index, value, begin)

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
        """The quantities [1, 1, 1 + T]; inner products that were not taken are undefined."""
        sums = self._fetch()
        blank = np.full((1, 1, len(self.layout.names) + 1), np.nan)
        keys = ("gg", "uu", "pp", "vv", "ww", "gv", "uw", "ug")
        squares = {key: sums.get(key, blank) for key in keys}
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

    def _count(self, tap: str, index: int, value: Tensor, begin: int) -> None:
        """Count elements one by one: a NaN has no sign."""
        self._take(f"{tap}/nonfinite", index, (value - value).count_nonzero())
        for place in range(begin + 2, len(self._values) - 1, 3):
            self._values[place] = torch.zeros_like(self._values[place])
        self._take(f"{tap}/nonzero", index, value.count_nonzero())

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
        values = torch.stack([value.double() for value in self._values]).cpu().numpy()
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
            scaled = key in ("gradient/sum", "gradient/peak", "gv")
            found[key] = np.array([whole, *row])[None, None] * (factor if scaled else 1.0)
        return found


def chunks(value: Tensor) -> Iterator[Tensor]:
    """Flat pieces of a tensor, in its logical order and at least in float32."""
    flat = value.detach().reshape(-1)
    size = CHUNK.get(value.device.type, LARGE)
    for part in (flat,) if len(flat) <= size else torch.split(flat, size):
        yield part.float() if part.dtype.itemsize < 4 else part
