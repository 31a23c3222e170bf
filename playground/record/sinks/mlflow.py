"""MLflow: one of its runs a track, in a database or on a server.

A track is found again by a tag, and another tag says up to which iteration it has metrics, so
that a resumed run goes on where it was; an export adds what is missing.
"""

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from playground.record.sinks.sink import Opening, Point, Sink, Track

TRACK, ITERATION = "playground.track", "playground.iteration"
"""Tags: which track an MLflow run is, and the last iteration that it has."""

BATCH, PARAMETERS = 1000, 100
"""Metrics and parameters that MLflow takes in one call (its limits)."""

STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


class MLflow(Sink):
    """An MLflow store.

    Args:
        uri: of the store; None is MLflow's own: MLFLOW_TRACKING_URI, or mlflow.db here.
        experiment: made where it is not there.
    """

    name = "mlflow"

    def __init__(self, uri: str | None = None, experiment: str = "playground") -> None:
        self.uri, self.experiment = uri, experiment

    def open(self, run: Opening) -> None:
        """Find or make the MLflow runs; what they have already is left out by itself."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing leaves this machine
        mlflow = import_module("mlflow")
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        self._entities = import_module("mlflow.entities")
        self._client = mlflow.MlflowClient(self.uri)
        self.where = f"{self._client.tracking_uri} {self.experiment}"
        experiment = self._experiment()
        self._runs: list[str] = []
        self._done: list[int] = []
        self._waiting: list[list[Any]] = []
        for track in run.tracks:
            identity, done = self._run(run, track, experiment)
            self._runs.append(identity)
            self._done.append(done)
            self._waiting.append([])

    def scalars(self, track: int, point: Point, values: Mapping[str, float]) -> None:
        """Keep them until the flush: one call to a database for many."""
        if point.iteration <= self._done[track]:
            return
        when = int(1000 * point.time)
        metric = self._entities.Metric
        self._waiting[track] += [metric(k, v, when, point.step) for k, v in values.items()]
        self._done[track] = point.iteration

    def text(self, track: int, point: Point, kind: str, message: str) -> None:
        """A tag, which holds the latest event of its kind."""
        self._client.set_tag(self._runs[track], f"event.{kind}", message[:5000])

    def flush(self) -> None:
        """Send what waits; what a call refuses is not sent again."""
        for track, waiting in enumerate(self._waiting):
            while waiting:
                part = waiting[:BATCH]
                del waiting[:BATCH]
                tags = []
                if not waiting:
                    tags = [self._entities.RunTag(ITERATION, str(self._done[track]))]
                self._client.log_batch(self._runs[track], metrics=part, tags=tags)

    def close(self, status: str) -> None:
        """Say how the run ended."""
        for identity in self._runs:
            self._client.set_terminated(identity, STATUS[status])

    def _experiment(self) -> str:
        """The experiment's id; another process may make it at the same time."""
        found = self._client.get_experiment_by_name(self.experiment)
        if found is None:
            try:
                made: str = self._client.create_experiment(self.experiment)
                return made
            except Exception:
                found = self._client.get_experiment_by_name(self.experiment)
                if found is None:
                    raise
        return str(found.experiment_id)

    def _run(self, run: Opening, track: Track, experiment: str) -> tuple[str, int]:
        """The id of a track's MLflow run, and the iteration up to which it has metrics."""
        content = f"{run.name} {run.manifest.get('started')} {track.name}"
        key = hashlib.sha256(content.encode()).hexdigest()[:32]
        found = self._client.search_runs([experiment], f"tags.`{TRACK}` = '{key}'", max_results=1)
        if found:
            identity = found[0].info.run_id
            self._client.update_run(identity, status="RUNNING")
            # An export gives everything again: MLflow keeps equal metrics once, gaps are filled.
            return identity, int(found[0].data.tags.get(ITERATION, -1)) if run.attempt else -1
        tags = {TRACK: key, "playground.run": run.name, "playground.path": str(run.path.resolve())}
        made = self._client.create_run(experiment, tags=tags, run_name=run.label(track))
        values = {"members": track.members, "seeds": track.seeds, **track.values}
        pairs = [
            self._entities.Param(name, str(value)[:6000])
            for name, value in {**dict(flat(run.config)), **values}.items()
        ]
        for i in range(0, len(pairs), PARAMETERS):
            self._client.log_batch(made.info.run_id, params=pairs[i : i + PARAMETERS])
        return made.info.run_id, -1


def flat(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of a configuration, without what is null."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{path}{key}.")
        elif value is not None:
            yield f"{path}{key}", value
