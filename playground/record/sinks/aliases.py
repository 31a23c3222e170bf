"""Other programs' names beside ours, where the quantity is the same. docs/sinks.md has the table.

Each alias is a formula of what our records hold, checked against the source of CleanRL's
``ppo.py`` and Stable-Baselines3 2.9. What differs gets no name of theirs: CleanRL's losses are
those of the last minibatch of an iteration, ours are means over all, as Stable-Baselines3's.
"""

from collections.abc import Callable, Mapping
from typing import Any

Values = Mapping[str, float]
Alias = Callable[[Values], float | None]
"""From our scalars of one member and point to theirs; None where it has none."""


def aliases(config: Mapping[str, Any]) -> dict[str, Alias]:
    """{their name: formula} for a run of this configuration; none outside reinforcement learning.

    Scalars are those of ``Scalars``, and ``env_steps`` and ``seconds``.
    """
    if not str((config.get("problem") or {}).get("name", "")).startswith("rl/"):
        return {}
    algorithm = config.get("algorithm") or {}
    name = algorithm.get("name", "")
    found: dict[str, Alias] = {
        "charts/SPS": speed,
        "time/fps": speed,
        "charts/episodic_return": same("train/episode_return"),
        "rollout/ep_rew_mean": same("train/return"),
        "eval/mean_reward": same("return"),
        "eval/mean_ep_length": same("episode_length"),
    }
    if name in ("ppo", "a2c"):
        found["train/learning_rate"] = same("agent/update/learning_rate")
        found["train/explained_variance"] = same("explained_variance")
    if name == "ppo":
        found["charts/learning_rate"] = same("agent/update/learning_rate")
        found["losses/explained_variance"] = same("explained_variance")
    if name == "a2c" or (name == "ppo" and algorithm.get("target_kl") is None):
        found |= means(name, algorithm)
    return found


def means(name: str, algorithm: Mapping[str, Any]) -> dict[str, Alias]:
    """Means over an iteration's minibatches, all of which were used."""
    policy = "train/policy_gradient_loss" if name == "ppo" else "train/policy_loss"
    found = {policy: player("loss/policy"), "train/entropy_loss": player("entropy", -1.0)}
    coefficient = float(algorithm.get("value_coefficient") or 0)
    if coefficient and algorithm.get("clip_value") is None:
        found["train/value_loss"] = player("loss/value", 1 / coefficient)
    if name == "ppo":
        found["train/clip_fraction"] = found["losses/clipfrac"] = player("clip_fraction")
        found["train/approx_kl"] = same(f"approx_kl/epoch_{algorithm.get('epochs')}")
    return found


def speed(values: Values) -> float | None:
    """Environment steps a second since the start, of this member."""
    steps, seconds = values.get("env_steps"), values.get("seconds")
    return steps / seconds if steps and seconds else None


def same(name: str) -> Alias:
    """Our scalar of a name, where it is a number."""

    def formula(values: Values) -> float | None:
        value = values.get(name)
        return None if value is None or value != value else value

    return formula


def player(name: str, factor: float = 1.0) -> Alias:
    """Our scalar of the player that has it, times a factor."""

    def formula(values: Values) -> float | None:
        for owner in ("agent", "policy", "value"):
            value = values.get(f"{owner}/{name}")
            if value is not None:
                return factor * value
        return None

    return formula
