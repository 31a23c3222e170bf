"""Any ``gymnasium.vector.VectorEnv`` in the playground's step convention.

Whatever the vector does at an episode's end (``metadata["autoreset_mode"]``), the observation
there is the true last one, and the next step only resets. A vector steps all its environments
at once, so in modes SAME_STEP and DISABLED the environment that ought to reset is stepped too;
a masked, seeded reset afterwards makes that step undone: an episode depends on nothing but its
seed and its own actions.

Shape legend: V environments of the vector, D observation entries.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from playground.domains.rl.environments.protocol import Quota, Step, next_seed
from playground.domains.rl.environments.spaces import ActionSpace
from playground.domains.rl.environments.worker import ObservationSpace
from playground.randomness import generator_states, load_generator_states
from playground.schema import ConfigError


class Adapted:
    """A Gymnasium vector; its environments cannot be saved, so a resumed run begins new episodes.

    Args:
        vector: a ``gymnasium.vector.VectorEnv`` or what behaves like one.
        streams: of the episodes' seeds [V].
        actions: of one environment.
        space: of one environment.
        seeded: whether ``reset(seed=[V], options={"reset_mask": bool [V]})`` works. Without
            it, episodes come from the vector's own randomness, in mode NEXT_STEP only.

    Raises:
        ConfigError: a vector that does not say what it does at an episode's end, or that
            cannot be brought to the convention.
    """

    def __init__(
        self,
        vector: Any,
        streams: Sequence[np.random.Generator],
        actions: ActionSpace,
        space: ObservationSpace,
        seeded: bool = True,
    ) -> None:
        mode = vector.metadata.get("autoreset_mode")
        if mode is None:
            raise ConfigError(f'{vector}: metadata["autoreset_mode"] must be set')
        self.mode = mode if isinstance(mode, AutoresetMode) else AutoresetMode(mode)
        if not seeded and self.mode is not AutoresetMode.NEXT_STEP:
            raise ConfigError(f"{vector}: without masked resets the mode must be NEXT_STEP")
        self.vector, self.streams, self.seeded = vector, list(streams), seeded
        self.actions, self.space = actions, space

    def begin(self, episodes: np.ndarray | None = None) -> np.ndarray:
        """Start a new episode everywhere.

        Raises:
            ValueError: a number of episodes, for a vector without seeds.
        """
        if episodes is not None and not self.seeded:
            raise ValueError("a vector without seeds cannot count its episodes")
        count = len(self.streams)
        self.quota = Quota(count, episodes)
        self.ended = np.zeros(count, np.bool_)  # as the caller sees it
        self.over = np.zeros(count, np.bool_)  # whether the vector refuses to step it
        started = self.quota.start(np.arange(count))
        seeds = self._seeds(started)
        seen, _ = self.vector.reset(seed=[s or 0 for s in seeds]) if self.seeded else (
            self.vector.reset())  # fmt: skip
        observation = self._rows(seen)
        observation[self.quota.resting] = 0
        return observation

    def advance(self, actions: np.ndarray) -> Step:
        """One vector step; environments whose episode has ended reset instead."""
        if self.mode is AutoresetMode.DISABLED and self.over.any():
            self._reset(self.over, [0] * len(self.over))  # only so that it may be stepped
        native = self.actions.native(np.asarray(actions, self.actions.stored))
        seen, reward, terminated, truncated, infos = self.vector.step(native)
        observation = self._rows(seen)
        terminated, truncated = np.array(terminated), np.array(truncated)
        reward, self.over = np.array(reward, np.float64), terminated | truncated
        if self.mode is AutoresetMode.SAME_STEP:
            for i in self.over.nonzero()[0]:
                observation[i] = self._rows(np.asarray(infos["final_obs"][i])[None])
        started = self.quota.start(self.ended.nonzero()[0])
        if self.seeded and started.size:
            mask = np.zeros(len(self.ended), np.bool_)
            mask[started] = True
            observation[mask] = self._reset(mask, self._seeds(started))[mask]
            self.over[mask] = False
        for array in (reward, terminated, truncated):
            array[self.ended | self.quota.resting] = 0
        observation[self.quota.resting] = 0
        self.ended = terminated | truncated
        return observation, reward, terminated, truncated

    def capture(self) -> dict[str, Any]:
        """The streams."""
        return {"streams": generator_states(self.streams)}

    def restore(self, state: dict[str, Any]) -> np.ndarray:
        """New episodes from the saved streams; their first observations."""
        load_generator_states(self.streams, state["streams"])
        return self.begin()

    def _seeds(self, started: np.ndarray) -> list[int | None]:
        """Seeds [V] of the episodes that start; None elsewhere."""
        seeds: list[int | None] = [None] * len(self.streams)
        for i in started:
            seeds[i] = next_seed(self.streams[i])
        return seeds

    def _reset(self, mask: np.ndarray, seeds: Sequence[int | None]) -> np.ndarray:
        """Reset some environments; observations [V, D] of all."""
        seen, _ = self.vector.reset(seed=list(seeds), options={"reset_mask": mask.copy()})
        return self._rows(seen)

    def _rows(self, seen: Any) -> np.ndarray:
        """Observations as new rows [n, D]."""
        rows = np.zeros((len(seen), self.space.size), np.float32)
        if self.space.shape is not None:
            rows[:] = np.reshape(seen, rows.shape)
        else:
            rows[np.arange(len(rows)), np.asarray(seen, np.int64) - self.space.start] = 1
        return rows
