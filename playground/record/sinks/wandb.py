"""Weights & Biases, and trackio, which has the same calls: one of its runs a track.

Nothing leaves the machine unless WANDB_MODE is set: ``wandb sync RUN/wandb/offline-run-*`` sends
what is kept in the run directory. A step can only grow there and offline runs cannot be gone on
with, so a resumed run is a run of its own that holds everything from the start.
"""

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from playground.record.sinks.sink import Opening, Point, Sink, Track


class WandB(Sink):
    """Weights & Biases.

    Args:
        project: its project.
        module: ``wandb`` or ``trackio``.
    """

    name = "wandb"

    def __init__(self, project: str = "playground", module: str = "wandb") -> None:
        self.project, self.module = project, module

    def open(self, run: Opening) -> None:
        """Begin a run for every track, in one group."""
        options = self._offline(run) if self.module == "wandb" else {}
        library = import_module(self.module)
        if self.module == "wandb":
            # No consoles, code, repositories or machines: a sink mirrors scalars.
            options["settings"] = library.Settings(
                console="off", silent=True, save_code=False, disable_git=True,
                x_disable_stats=True, x_disable_meta=True,
            )  # fmt: skip
        self.where = f"{options.get('dir', self.module)} {self.project}"
        again = f"-{run.attempt}" if run.attempt else ""
        self._runs = [
            library.init(
                project=self.project, name=run.label(track) + again, group=run.name,
                config=settings(run, track), **options,
            )
            for track in run.tracks
        ]  # fmt: skip

    def scalars(self, track: int, point: Point, values: Mapping[str, float]) -> None:
        """One row of the history."""
        row = {**values, "iteration": point.iteration, "seconds": point.seconds}
        self._runs[track].log(row, step=point.step)

    def close(self, status: str) -> None:
        """The end of the runs, an error code where they failed."""
        for one in self._runs:
            if self.module == "wandb":
                one.finish(exit_code=int(status != "finished"))
            else:
                one.finish()

    def _offline(self, run: Opening) -> dict[str, Any]:
        """Options of ``wandb.init``, and an environment that sends nothing by itself."""
        options: dict[str, Any] = {"dir": str(run.path), "reinit": "create_new"}
        if not os.environ.get("WANDB_MODE"):
            options["mode"] = "offline"
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        return options


def settings(run: Opening, track: Track) -> dict[str, Any]:
    """The configuration, with the track's seeds and values."""
    own = {"members": list(track.members), "seeds": list(track.seeds), **track.values}
    return {**run.config, "track": own, "attempt": run.attempt}
