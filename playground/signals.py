"""Signals that end a run: the first is noted, and the iteration finishes; the second exits."""

import signal
from types import FrameType
from typing import Self


class Interrupted(Exception):
    """A signal ended the run, after a checkpoint where ``saved``."""

    saved = True

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def __str__(self) -> str:
        return signal.Signals(self.number).name


class Signals:
    """Notes SIGINT and SIGTERM in a ``with``; outside the main thread they are somebody else's.

    Attributes:
        number: of the first, None until then.
    """

    number: int | None = None

    def __enter__(self) -> Self:
        try:
            self._before = {
                number: signal.signal(number, self._note)
                for number in (signal.SIGINT, signal.SIGTERM)
            }
        except ValueError:  # not the main thread
            self._before = {}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.number is not None:
            raise SystemExit(128 + number)
        self.number = number
