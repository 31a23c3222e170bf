"""A callback of Stable-Baselines3 that watches whatever its algorithm optimizes."""

from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from torch import nn

from playground.watching.entry import watch
from playground.watching.watcher import Watcher


class StableBaselines3(BaseCallback):  # type: ignore[misc, unused-ignore]
    """Watches one call of ``learn``.

    The player is ``agent`` where one optimizer has everything (PPO, A2C, DQN), else ``actor``,
    ``critic`` and, where it is learned, ``entropy`` (SAC, TD3, DDPG). What the algorithm logs is
    recorded under its own names, the mean return of its last 100 episodes as ``train/return``.

    Args:
        run_dir: where to, as in ``playground.watch``, which also takes the options.

    Attributes:
        watcher: from the beginning of ``learn`` on.
    """

    watcher: Watcher

    def __init__(self, run_dir: Any = None, **options: Any) -> None:
        super().__init__()
        self.run_dir = run_dir
        self.options = {"metric": "train/return", "higher_is_better": True, **options}

    def _on_training_start(self) -> None:
        found = players(self.model)
        self.options.setdefault("name", type(self.model).__name__.lower())
        self.watcher = watch(found, None, self.run_dir, **self.options)

    def _on_rollout_end(self) -> None:
        self._log()

    def _on_training_end(self) -> None:
        self._log()
        self.watcher.close()

    def _on_step(self) -> bool:
        return True

    def _log(self) -> None:
        """Values that the algorithm has logged, and its return."""
        logged = self.model.logger.name_to_value
        values = {k: v for k, v in logged.items() if isinstance(v, int | float) or plain(v)}
        episodes = [info["r"] for info in self.model.ep_info_buffer or ()]
        if episodes:
            values["train/return"] = sum(episodes) / len(episodes)
        self.watcher.log(values)


def players(model: Any) -> dict[str, tuple[nn.Module | None, Any]]:
    """{player: (module, optimizer)} of an algorithm."""
    policy = model.policy
    if getattr(policy, "optimizer", None) is not None:
        return {"agent": (policy, policy.optimizer)}
    found: dict[str, tuple[nn.Module | None, Any]] = {
        name: (getattr(policy, name), getattr(policy, name).optimizer)
        for name in ("actor", "critic")
    }
    entropy = getattr(model, "ent_coef_optimizer", None)
    return found if entropy is None else {**found, "entropy": (None, entropy)}


def plain(value: Any) -> bool:
    """Whether a value is one NumPy number."""
    return getattr(value, "ndim", 1) == 0
