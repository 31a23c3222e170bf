#!/usr/bin/env python
"""What three tools show of planted faults: scripts/planted_comparison.py [--seeds 10].

The same loops under playground.watch, wandb.watch (offline) and Lightning's grad_norm: a small
classifier in whose backward passes NaN, infinity and spikes of one update (x 1000) are planted, at
random tensors and updates that the seed decides, and the same loops without. *Said*: the tool
itself names tensor, update and kind. *Held*: its log at that update differs from a healthy one, if
one knows where to look: a histogram that has lost elements, a norm that is not finite, a largest
value or norm ten times the largest of the 64 before. What is not installed is left out.

Exit codes: 0 measured, 2 wrong command.
"""

import argparse
import csv
import logging
import math
import re
import sys
import tempfile
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import playground

KINDS = ("nan", "inf", "spike")
SPIKE = 1000.0
EACH = 3
"""Faults of each kind in a loop."""
FIRST = 24
"""Earliest update of a fault: what a spike is takes some updates to know."""

Place = tuple[int, str]
"""Update, from 1, and tensor."""


@dataclass
class Found:
    """What a tool made of a loop: {place: kind} by its own word, and places where its log shows."""

    said: dict[Place, str] = field(default_factory=dict)
    held: dict[Place, str] = field(default_factory=dict)


class Loop:
    """A classifier, its data, and the faults of one seed; no two in neighbouring updates."""

    def __init__(self, seed: int, updates: int, *, healthy: bool = False) -> None:
        torch.manual_seed(seed)
        self.net = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(),
                                 nn.Linear(16, 3))  # fmt: skip
        self.updates, self.update = updates, 0
        draw = np.random.default_rng(seed)
        names = [name for name, _ in self.net.named_parameters()]
        places = draw.choice(np.arange(FIRST, updates, 2), EACH * len(KINDS), replace=False)
        self.plants: dict[Place, str] = {} if healthy else {
            (int(u), names[draw.integers(len(names))]): KINDS[i % len(KINDS)]
            for i, u in enumerate(places)
        }  # fmt: skip
        self._start = {name: value.clone() for name, value in self.net.state_dict().items()}
        for name, parameter in self.net.named_parameters():
            parameter.register_hook(lambda gradient, name=name: self._plant(name, gradient))

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """As many batches as updates, the same for all loops."""
        draw = torch.Generator().manual_seed(7)
        for _ in range(self.updates):
            x = torch.randn(16, 6, generator=draw)
            yield x, (x[:, :3] + 0.5 * torch.randn(16, 3, generator=draw)).argmax(1)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss of the next update."""
        self.update += 1
        return nn.functional.cross_entropy(self.net(x), y)

    def mend(self) -> None:
        """After a fault, parameters as at the start: a NaN would end every loop."""
        if any(update == self.update for update, _ in self.plants):
            self.net.load_state_dict(self._start)

    def _plant(self, name: str, gradient: Tensor) -> Tensor | None:
        kind = self.plants.get((self.update, name))
        if kind is None:
            return None
        if kind == "spike":
            return gradient * SPIKE
        spoiled = gradient.clone()
        spoiled.view(-1)[self.update % gradient.numel()] = math.nan if kind == "nan" else math.inf
        return spoiled


def ours(loop: Loop, folder: Path, every: int) -> Found:
    """``playground.watch``: its events; ``every`` is the cadence of what is not a norm."""
    optimizer = torch.optim.SGD(loop.net.parameters(), lr=1e-2)
    with playground.watch(loop.net, optimizer, run_dir=folder, every=every):
        for x, y in loop.batches():
            optimizer.zero_grad()
            loop.loss(x, y).backward()
            optimizer.step()
            loop.mend()
    found = Found()
    for event in playground.load(folder).events.to_pylist():
        tensor, kind = named(event["kind"], event["message"])
        found.said[event["iteration"], tensor] = kind
    found.held = dict(found.said)
    return found


def named(kind: str, message: str) -> tuple[str, str]:
    """Tensor and kind that an event names: ``non-finite gradient of 2.bias (1 NaN, ...``."""
    tensor, count = re.match(r".*gradient of (\S+) (?:\((\d+) NaN)?", message).groups()
    return tensor, {None: kind, "0": "inf"}.get(count, "nan")


def wandbs(loop: Loop, folder: Path, every: int) -> Found:
    """``wandb.watch``: the histograms that it logs; of itself it says nothing."""
    import wandb

    folder.mkdir()
    run = wandb.init(mode="offline", dir=folder, settings=wandb.Settings(silent=True))
    logged: dict[Place, tuple[float, float]] = {}
    real = run._log

    def log(data, *arguments, **options):  # type: ignore[no-untyped-def]
        for name, value in data.items():
            if isinstance(value, wandb.Histogram):
                ends = max(abs(value.bins[0]), abs(value.bins[-1]))
                logged[loop.update, name.removeprefix("gradients/")] = sum(value.histogram), ends
        return real(data, *arguments, **options)

    run._log = log
    wandb.watch(loop.net, log="gradients", log_freq=every, idx=0)  # else names get a prefix
    optimizer = torch.optim.SGD(loop.net.parameters(), lr=1e-2)
    for x, y in loop.batches():
        optimizer.zero_grad()
        loss = loop.loss(x, y)
        loss.backward()
        optimizer.step()
        wandb.log({"loss": loss.item()})
        loop.mend()
    run.finish()
    found = Found()
    for name, parameter in loop.net.named_parameters():
        spiked = Spikes()
        for update in range(every, loop.updates + 1, every):
            count, largest = logged.get((update, name), (0.0, 0.0))
            if count < parameter.numel():  # NaN and infinity alike
                found.held[update, name] = "non-finite"
            elif spiked(largest):
                found.held[update, name] = "spike"
    return found


def lightnings(loop: Loop, folder: Path, every: int) -> Found:
    """Lightning's ``grad_norm``, logged where its documentation logs it; it says nothing itself."""
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.loggers import CSVLogger
    from lightning.pytorch.utilities import grad_norm

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = loop.net

        def training_step(self, batch, index):  # type: ignore[no-untyped-def]
            return loop.loss(*batch)

        def on_before_optimizer_step(self, optimizer) -> None:  # type: ignore[no-untyped-def]
            self.log_dict(grad_norm(self, norm_type=2))

        def on_train_batch_end(self, outputs, batch, index) -> None:  # type: ignore[no-untyped-def]
            loop.mend()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=1e-2)

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logger = CSVLogger(folder)
    trainer = Trainer(max_steps=loop.updates, logger=logger, log_every_n_steps=every,
                      accelerator="cpu", enable_checkpointing=False, enable_progress_bar=False,
                      enable_model_summary=False)  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(Module(), loop.batches())
    found = Found()
    spikes = {name: Spikes() for name, _ in loop.net.named_parameters()}
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            for name, spiked in spikes.items():
                norm = float(row.get(f"grad_2.0_norm/net.{name}") or "0")
                place = int(row["step"]) + 1, name
                if not math.isfinite(norm):
                    found.held[place] = "nan" if math.isnan(norm) else "inf"
                elif spiked(norm):
                    found.held[place] = "spike"
    return found


class Spikes:
    """Ten times the largest of the 64 before, of which 16 are known: what our events go by."""

    def __init__(self) -> None:
        self.before: deque[float] = deque(maxlen=64)

    def __call__(self, value: float) -> bool:
        """Whether the next value of a tensor is a spike."""
        spiked = len(self.before) >= 16 and value > 10 * max(self.before)
        if not spiked:
            self.before.append(value)
        return spiked


TOOLS: dict[str, tuple[Callable[[Loop, Path, int], Found], int, str]] = {
    "playground.watch": (ours, 8, "as it comes"),
    "wandb.watch, as it comes": (wandbs, 1000, "log_freq=1000"),
    "wandb.watch, every update": (wandbs, 1, "log_freq=1"),
    "Lightning grad_norm, as it comes": (lightnings, 50, "log_every_n_steps=50"),
    "Lightning grad_norm, every update": (lightnings, 1, "log_every_n_steps=1"),
}
"""{name: (what runs a loop under it, cadence, its setting)}."""


def counts(
    tool: Callable[[Loop, Path, int], Found], every: int, seeds: int, updates: int
) -> dict[str, tuple[int, ...]]:
    """{kind: (planted, said with its kind, held with its kind, held)}, and of healthy loops."""
    rows = {kind: np.zeros(4, int) for kind in KINDS}
    healthy = np.zeros(4, int)
    for seed in range(seeds):
        for well in (False, True):
            loop = Loop(seed, updates, healthy=well)
            with tempfile.TemporaryDirectory() as folder:
                found = tool(loop, Path(folder) / "run", every)
            for place, kind in loop.plants.items():
                rows[kind] += (1, found.said.get(place) == kind, found.held.get(place) == kind,
                               place in found.held)  # fmt: skip
            false = [len(set(part) - set(loop.plants)) for part in (found.said, found.held)]
            healthy += (0, false[0], false[1], false[1])
    return {k: tuple(int(n) for n in v) for k, v in {**rows, "false": healthy}.items()}


def main() -> int:
    """Parse the command line, run the loops, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--updates", type=int, default=1000)
    given = parser.parse_args()
    if given.seeds < 1 or given.updates < 100:
        sys.stderr.write("planted_comparison: at least one seed and 100 updates\n")
        return 2
    print("| tool | setting | said: NaN | infinity | spike | held: NaN | infinity | spike | false "
          "|\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |")  # fmt: skip
    for name, (tool, every, setting) in TOOLS.items():
        try:
            found = counts(tool, every, given.seeds, given.updates)
        except ImportError as error:
            print(f"| {name} | not installed: {error.name} |", flush=True)
            continue
        said = " | ".join(f"{found[kind][1]} of {found[kind][0]}" for kind in KINDS)
        held = " | ".join(f"{found[kind][3]} of {found[kind][0]}" for kind in KINDS)
        print(f"| {name} | {setting} | {said} | {held} | {found['false'][2]} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
