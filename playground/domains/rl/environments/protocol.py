"""What a vector of environments is, and which of its episodes start when.

Every episode starts with ``reset(seed=next of that environment's stream)``, so the state of
an environment is its episode seed and the actions since. All vectors follow Gymnasium's
NEXT_STEP autoreset: the step after an episode's end only resets (its action is ignored, its
reward 0), and the observation at an end is the true last one. A vector that begins with a
number of episodes for each environment lets those that have played theirs rest: their
observation and reward are 0, no flag is set, and no seed is drawn. So what an environment
draws never depends on how long its neighbours, or other members, play.

Shape legend: V environments of the vector, D observation entries.
"""

from typing import Any, Protocol

import numpy as np

Step = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Observation [V, D], reward [V], terminated [V], truncated [V]."""


class Environments(Protocol):
    """A vector of environments with exact state; ``streams`` gives their episodes' seeds."""

    streams: list[np.random.Generator]

    def begin(self, episodes: np.ndarray | None = None) -> np.ndarray:
        """Start a new episode everywhere; observations [V, D].

        Args:
            episodes: how many episodes each environment plays before it rests [V]; None is
                any number.
        """

    def advance(self, actions: np.ndarray) -> Step:
        """One vector step with stored actions [V, *shape] (see ``spaces.ActionSpace``)."""

    def capture(self) -> dict[str, Any]:
        """Plain containers and tensors from which ``restore`` brings everything back."""

    def restore(self, state: dict[str, Any]) -> np.ndarray:
        """Take back what ``capture`` gave; the current observations [V, D]."""


def next_seed(stream: np.random.Generator) -> int:
    """The seed of an environment's next episode."""
    return int(stream.integers(2**31 - 1))


class Quota:
    """How many episodes each environment of a vector may still start, and which rest.

    Attributes:
        left: int64 [V], or None for any number.
        resting: bool [V].
    """

    def __init__(self, num_envs: int, episodes: np.ndarray | None = None) -> None:
        self.left = None if episodes is None else np.array(episodes, dtype=np.int64)
        self.resting = np.zeros(num_envs, np.bool_)

    def start(self, which: np.ndarray) -> np.ndarray:
        """Those of the environments ``which`` that may start an episode; the others rest."""
        if self.left is None:
            return which
        self.resting[which] = self.left[which] == 0
        which = which[~self.resting[which]]
        self.left[which] -= 1
        return which

    def capture(self) -> dict[str, Any]:
        """Plain containers for ``restored``."""
        left = None if self.left is None else self.left.tolist()
        return {"left": left, "resting": self.resting.tolist()}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> "Quota":
        """Take back what ``capture`` gave."""
        quota = cls(len(state["resting"]), state["left"])
        quota.resting = np.array(state["resting"], np.bool_)
        return quota
