"""What a watched update leaves in the records."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from playground.game import Observation
from playground.probes.probe import Measuring
from playground.probes.tier0.probe import Clip, Norms, Stamp, unclipped
from playground.watching.player import Reading, Watched


def record(
    norms: Norms | None, measuring: Sequence[Measuring], player: Watched, seen: Reading,
    moved: Tensor | None, stamp: Stamp,
) -> None:  # fmt: skip
    """Rows of one update: from copies, from sums, or of its norm alone."""
    coefficient = None if seen.coefficient is None else seen.coefficient.reshape(1)
    if seen.gradient is not None and seen.parameters is not None and moved is not None:
        observation = Observation(
            player.name, player.layout, seen.gradient, seen.raw, None, coefficient, moved,
            seen.parameters, player.rates(), stamp[1], stamp[2], seen.tap,
        )  # fmt: skip
        for probe in (norms, *measuring):
            if probe is not None:
                probe.iteration = stamp[0]
                probe(observation)
    elif norms is not None and seen.sums is not None:
        in_place(norms, player, seen, coefficient, stamp)
    elif norms is not None:
        clip = Clip(coefficient, seen.read) if seen.tap == "clipped" else None
        norms.note(player.name, player.layout, stamp, seen.raw, clip)


def in_place(
    norms: Norms, player: Watched, seen: Reading, coefficient: Tensor | None, stamp: Stamp
) -> None:
    """Rows of an update that was measured where it lay, from its sums."""
    assert seen.sums is not None
    found = seen.sums.table()
    rates = torch.as_tensor(player.rates()).reshape(1, 1, -1).numpy()
    table = {seen.tap: found["gradient"], "update": {**found["update"], "learning_rate": rates}}
    if seen.tap == "clipped":
        norm = seen.raw.cpu().reshape(1, 1, 1).numpy()
        if coefficient is None:
            norms.emit(player.name, player.layout, stamp, {"gradient": {"norm": norm}}, [""])
        else:
            factor = coefficient.cpu().reshape(1, 1).numpy()
            table["gradient"] = unclipped(table["clipped"], factor)
            table["gradient"]["norm"][..., :1] = norm
            table["clipped"]["clip_coefficient"] = factor[..., None]
    norms.emit(player.name, player.layout, stamp, table)


def number(value: Any) -> Tensor | np.ndarray:
    """A value [1]; one on an accelerator stays there.

    Raises:
        ValueError: not one number.
    """
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"log: a value must be one number, not {tuple(value.shape)}")
        if value.device.type != "cpu":
            return value.detach().reshape(1).clone()
        value = value.detach().item()
    return np.array([float(value)])
