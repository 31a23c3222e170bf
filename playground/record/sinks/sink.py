"""What a sink is: the one small interface between a run's records and another tracker."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Track:
    """What a tracker shows as one curve: a member, or the mean of those with the same values.

    Attributes:
        name: ``member-3`` or ``optimizer.lr=0.001``; empty where a run has one track.
        members, seeds: whose.
        values: hyperparameters that vary along the member axis.
    """

    name: str
    members: tuple[int, ...]
    seeds: tuple[int, ...]
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Opening:
    """A run as a sink meets it.

    Attributes:
        path: the run directory, where a sink may make a folder.
        name: of the run among others.
        config, manifest: its resolved configuration, and where it comes from.
        tracks: at least one.
        attempt: 0, or how often the run was resumed.
        stands: the iteration that this attempt goes on from; -1 where nothing stands before it.
    """

    path: Path
    name: str
    config: Mapping[str, Any]
    manifest: Mapping[str, Any]
    tracks: tuple[Track, ...]
    attempt: int = 0
    stands: int = -1

    def label(self, track: Track) -> str:
        """A name of a track among those of all runs."""
        return f"{self.name}/{track.name}" if track.name else self.name


@dataclass(frozen=True, slots=True)
class Point:
    """When scalars were taken.

    Attributes:
        iteration: of the run.
        step: the tracker's: ``env_steps`` where they are counted, else the iteration.
        seconds: of the run's wall time, earlier attempts included.
        time: the same as seconds since 1970.
    """

    iteration: int
    step: int
    seconds: float
    time: float


class Sink(ABC):
    """Another tracker. Calls come from one thread; whatever is raised is caught and counted.

    Attributes:
        name: what the manifest calls it.
        where: the folder, store or project that ``open`` found.
    """

    name: ClassVar[str]
    where: str = ""

    @abstractmethod
    def open(self, run: Opening) -> None:
        """Begin, or go on with, a run.

        What the records hold up to ``run.stands`` is given first; a tracker that has some of it
        leaves that out.
        """

    @abstractmethod
    def scalars(self, track: int, point: Point, values: Mapping[str, float]) -> None:
        """All scalars of a track at a point; the points of a track are in order."""

    def text(self, track: int, point: Point, kind: str, message: str) -> None:  # noqa: B027
        """An event; ignored unless overridden."""

    def flush(self) -> None:  # noqa: B027
        """Called after the points of a flush of the records, at least every few seconds."""

    @abstractmethod
    def close(self, status: str) -> None:
        """The run is ``finished``, ``failed`` or ``interrupted``."""
