"""Configuration of the reinforcement-learning domain. Torch-free."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from playground.schema import ConfigError, choice, number, text

if TYPE_CHECKING:
    from playground.game import Problem

ACTIVATIONS = ("tanh", "relu", "gelu", "silu", "elu", "leaky_relu", "sigmoid", "linear")


@dataclass(slots=True)
class RLConfig:
    """A Gymnasium environment with discrete actions, and the agent's networks."""

    name: str = text("rl/cartpole")
    env: str = text("CartPole-v1", "id of a Gymnasium environment with discrete actions")
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    num_envs: int = number(8, minimum=1, doc="environments of a member")  # zoo: 8
    widths: list[int] = number([64, 64], minimum=1, doc="hidden layers of policy and value")
    activation: str = choice("tanh", ACTIVATIONS, "of hidden layers (tanh: SB3)")
    initialisation: str = choice(
        "orthogonal", ("orthogonal", "torch", "he", "glorot", "lecun"), "of weights"
    )  # orthogonal, heads 0.01 and 1: the 37 details of PPO, detail 2
    evaluation_episodes: int = number(100, minimum=1, doc="per member and evaluation")
    default_budget: dict[str, Any] = field(default_factory=lambda: {"env_steps": 100_000})
    tuned: dict[str, Any] = field(default_factory=dict)

    counts: ClassVar[tuple[str, ...]] = ("samples", "env_steps")
    groups: ClassVar[tuple[str, ...]] = ("algorithm",)
    dtype: ClassVar[str] = "float32"

    def players(self) -> tuple[str, ...]:
        """Names of the players that an algorithm may have."""
        return ("agent", "policy", "value")

    def validate(self) -> None:
        """Check what ranges alone cannot."""

    def build(self, config: Any) -> "Problem":
        """The problem that this configuration describes."""
        from playground.domains.rl.problem import build

        return build(self, config.algorithm)


@dataclass(slots=True)
class PPOConfig:
    """Proximal policy optimization with a clipped surrogate (Schulman et al. 2017)."""

    name: str = "ppo"
    num_steps: int = number(128, minimum=1, doc="vector steps of a rollout")
    batch_size: int = number(256, minimum=2, doc="rows of a minibatch")
    epochs: int = number(4, minimum=1, doc="passes over a rollout")
    gamma: float = number(0.99, minimum=0, maximum=1, doc="discount")
    gae_lambda: float = number(0.95, minimum=0, maximum=1, doc="GAE's lambda")
    clip: float = number(0.2, above=0, doc="clip range of the ratio (Schulman et al. 2017)")
    clip_schedule: str = choice("constant", ("constant", "linear"), "linear anneals clip to 0")
    clip_value: float | None = number(None, above=0, doc="clip range of the value, null is off")
    value_coefficient: float = number(0.5, minimum=0, doc="of (V - target)^2 (SB3)")
    entropy_coefficient: float = number(0.0, minimum=0, doc="of the entropy bonus")
    normalize_advantage: bool = text(True, "per minibatch, after masking (SB3)")

    players: ClassVar[tuple[str, ...]] = ("agent",)

    @property
    def anneals(self) -> bool:
        """Whether anything of the algorithm is annealed over the budget."""
        return self.clip_schedule != "constant"

    def validate(self, problem: RLConfig) -> None:
        """Minibatches must divide the rollout, so that batch shapes are constant.

        Raises:
            ConfigError: naming the sizes.
        """
        rows = problem.num_envs * self.num_steps
        if rows % self.batch_size:
            raise ConfigError(
                f"algorithm.batch_size={self.batch_size}: must divide num_envs x num_steps = {rows}"
            )


@dataclass(slots=True)
class ReinforceConfig:
    """REINFORCE (Williams 1992) on complete episodes, with a learned baseline or none."""

    name: str = "reinforce"
    gamma: float = number(0.99, minimum=0, maximum=1, doc="discount")
    baseline: str = choice("learned", ("learned", "none"), "subtracted from the return-to-go")
    discount_weight: bool = text(False, "weight step t by gamma^t, as the theorem has it")
    value_updates: int = number(20, minimum=1, doc="updates of the baseline an iteration (ours)")

    players: ClassVar[tuple[str, ...]] = ("policy", "value")
    compiles: ClassVar[bool] = False
    anneals: ClassVar[bool] = False

    def validate(self, problem: RLConfig) -> None:
        """Nothing beyond ranges."""


ALGORITHMS: dict[str, type] = {"ppo": PPOConfig, "reinforce": ReinforceConfig}
CONFIG = RLConfig
GROUPS: dict[str, dict[str, type]] = {"algorithm": ALGORITHMS}
