"""The gradient playground: one engine, one optimizer module, one gradient probe.

They train policy-gradient agents, GANs, supervised networks and analytic landscapes alike.

    import playground
    run = playground.run(["problem=gan/ring", "members=4"])
    run.metric("modes")           # iterations [T], values [T, M]
    playground.load("runs/...")   # the same object, later or live
"""

import os
from typing import TYPE_CHECKING, Any

from playground.moved import install

__version__ = "0.1.1"

# Before Arrow is imported: its own pool keeps, for every thread, what the largest reading of the
# records took, so that a run grows with its records; the system's gives it back.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

install()

if TYPE_CHECKING:
    from playground.diagnosis import diagnose
    from playground.estimates import gradient_estimates
    from playground.game import Context, Evaluation, Move, Player, Problem
    from playground.games import Game
    from playground.probes.passes import Pass, Reading
    from playground.probes.probe import Probe
    from playground.record.reader import load
    from playground.run import run
    from playground.slices import landscape
    from playground.videos import video
    from playground.watching.entry import watch

_HOMES = {
    "diagnose": "playground.diagnosis",
    "run": "playground.run",
    "gradient_estimates": "playground.estimates",
    "landscape": "playground.slices",
    "load": "playground.record.reader",
    "video": "playground.videos",
    "Context": "playground.game",
    "Evaluation": "playground.game",
    "Game": "playground.games",
    "Move": "playground.game",
    "Pass": "playground.probes.passes",
    "Player": "playground.game",
    "Probe": "playground.probes.probe",
    "Problem": "playground.game",
    "Reading": "playground.probes.passes",
    "watch": "playground.watching.entry",
}

__all__ = [
    "Context", "Evaluation", "Game", "Move", "Pass", "Player", "Probe", "Problem", "Reading",
    "__version__", "diagnose", "gradient_estimates", "landscape", "load", "run", "video", "watch",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import the public names when they are first asked for: help must not wait for torch."""
    from importlib import import_module

    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'playground' has no attribute {name!r}")
