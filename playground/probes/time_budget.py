"""A share of wall time that passes may take; cadences stretch where they would take more.

Each of K probes has an equal part of the share s: due at time t after the run began, with c seconds
spent and the last measurement having taken d, it measures if c + d <= s t / K, and else waits for
the next time that its cadence names. The first measurement of each is free, for its cost is not
known before. What is measured when then depends on the clock; training does not.
"""

import time
from collections.abc import Callable


class Allowance:
    """Keeps the accounts of the probes of one run.

    Args:
        share: s, of wall time.
        names: of the probes.
        clock: seconds.

    Attributes:
        spent: {probe: seconds}.
        measured, skipped: {probe: times it was due}.
    """

    def __init__(
        self, share: float, names: list[str], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.share, self.clock = share, clock
        self.spent = dict.fromkeys(names, 0.0)
        self.measured = dict.fromkeys(names, 0)
        self.skipped = dict.fromkeys(names, 0)
        self._last = dict.fromkeys(names, 0.0)
        self._began = clock()

    def grants(self, name: str) -> bool:
        """Whether a probe that is due may measure."""
        allowed = self.share * (self.clock() - self._began) / len(self.spent)
        granted = self.spent[name] + self._last[name] <= allowed or not self.measured[name]
        (self.measured if granted else self.skipped)[name] += 1
        return granted

    def spend(self, name: str, seconds: float) -> None:
        """Note what a measurement took."""
        self.spent[name] += seconds
        self._last[name] = seconds

    def summary(self) -> str:
        """What every probe measured and took; empty where nothing was skipped."""
        if not any(self.skipped.values()):
            return ""
        lasted = max(1e-9, self.clock() - self._began)
        parts = [
            f"{name} {self.measured[name]} of {self.measured[name] + self.skipped[name]} times, "
            f"{100 * self.spent[name] / lasted:.1f} %"
            for name in self.spent
        ]
        return f"probes.budget={self.share:g} stretched cadences: {'; '.join(parts)} of wall time"
