"""Randomness: one stream per member and purpose.

Member k of a run with seed s draws what the single run with seed s + k draws, whatever the
other members, the probes or the evaluation do.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def stream_seed(seed: int, purpose: str) -> int:
    """A 63-bit seed of the stream ``(seed, purpose)``.

    NumPy's ``SeedSequence`` mixes the member's seed with the bytes of the purpose.
    """
    entropy = [seed, *purpose.encode()]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generators(seeds: Sequence[int], purpose: str) -> list[np.random.Generator]:
    """NumPy generators, one per member, for environments and everything on the host."""
    return [np.random.Generator(np.random.PCG64(stream_seed(seed, purpose))) for seed in seeds]


class Streams:
    """Torch generators, one per member, drawing tensors with leading axis M on one device."""

    def __init__(self, seeds: Sequence[int], purpose: str, device: torch.device) -> None:
        self.device = device
        self._generators = []
        for seed in seeds:
            generator = torch.Generator(device=device)
            generator.manual_seed(stream_seed(seed, purpose))
            self._generators.append(generator)

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal [M, *shape]."""
        out = torch.empty((len(self._generators), *shape), dtype=dtype, device=self.device)
        for row, generator in zip(out, self._generators, strict=True):
            row.normal_(generator=generator)
        return out

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Uniform on [0, 1) [M, *shape]."""
        out = torch.empty((len(self._generators), *shape), dtype=dtype, device=self.device)
        for row, generator in zip(out, self._generators, strict=True):
            row.uniform_(generator=generator)
        return out

    def integers(self, high: int, *shape: int) -> Tensor:
        """Uniform integers in [0, high) [M, *shape]."""
        out = torch.empty((len(self._generators), *shape), dtype=torch.int64, device=self.device)
        for row, generator in zip(out, self._generators, strict=True):
            row.random_(0, high, generator=generator)
        return out

    def permutation(self, n: int) -> Tensor:
        """One permutation of 0..n-1 per member [M, n]."""
        return torch.stack(
            [torch.randperm(n, generator=g, device=self.device) for g in self._generators]
        )

    def state(self) -> list[Tensor]:
        """The generators' states, as byte tensors on the host."""
        return [generator.get_state() for generator in self._generators]

    def load_state(self, state: Sequence[Tensor]) -> None:
        """Take back what ``state`` gave."""
        for generator, value in zip(self._generators, state, strict=True):
            generator.set_state(value)


def generator_states(sources: Sequence[np.random.Generator]) -> list[dict[str, object]]:
    """PCG64 states as plain containers (integers beyond 64 bits as text)."""
    result: list[dict[str, object]] = []
    for source in sources:
        raw = source.bit_generator.state
        result.append(
            {
                "state": str(raw["state"]["state"]),
                "inc": str(raw["state"]["inc"]),
                "has_uint32": int(raw["has_uint32"]),
                "uinteger": int(raw["uinteger"]),
            }
        )
    return result


def load_generator_states(
    sources: Sequence[np.random.Generator], states: Sequence[dict[str, object]]
) -> None:
    """Take back what ``generator_states`` gave."""
    for source, saved in zip(sources, states, strict=True):
        source.bit_generator.state = {
            "bit_generator": "PCG64",
            "state": {"state": int(str(saved["state"])), "inc": int(str(saved["inc"]))},
            "has_uint32": int(str(saved["has_uint32"])),
            "uinteger": int(str(saved["uinteger"])),
        }
