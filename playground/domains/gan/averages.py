"""Averages of a player's parameters along training, kept beside them."""

from typing import Any

from torch import Tensor


class Averages:
    """Averages [M, N] of a player's parameters over its updates t = 1, 2, ...

    ema: weights proportional to decay^(t - s), the start left out (the bias correction of
    Kingma and Ba 2015, section 3, applied to parameters); average: equal weights. Both are
    a <- a + w (p - a), with w = (1 - decay) / (1 - decay^t) and w = 1 / t.
    """

    def __init__(self, values: Tensor, decay: float) -> None:
        self.decay = decay
        self.values = {"ema": values.clone(), "average": values.clone()}
        self.count = 0

    def add(self, values: Tensor) -> None:
        """Take in the parameters after an update."""
        self.count += 1
        weight = (1 - self.decay) / (1 - self.decay**self.count)
        self.values["ema"].lerp_(values, weight)
        self.values["average"].lerp_(values, 1 / self.count)

    def state(self) -> dict[str, Any]:
        """Averages and the number of updates in them."""
        return {"count": self.count, **{k: v.clone() for k, v in self.values.items()}}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` gave."""
        self.count = int(state["count"])
        for name, value in self.values.items():
            value.copy_(state[name])
