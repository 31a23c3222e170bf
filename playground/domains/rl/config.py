"""Configuration of the reinforcement-learning domain. Torch-free."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from playground.schema import ConfigError, choice, number, text

if TYPE_CHECKING:
    from playground.game import Problem

ACTIVATIONS = ("tanh", "relu", "gelu", "silu", "elu", "leaky_relu", "sigmoid", "linear")


@dataclass(slots=True)
class RLConfig:
    """A Gymnasium environment, and the agent's networks."""

    name: str = text("rl/cartpole")
    env: str = text("CartPole-v1", "id of a Gymnasium environment")
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    vectorization: str | None = choice(
        None, ("native", "sync", "async", "envpool"), "null: native where there is one, else sync"
    )
    num_envs: int = number(8, minimum=1, doc="environments of a member")  # zoo: 8
    widths: list[int] = number([64, 64], minimum=1, doc="hidden layers of policy and value")
    activation: str = choice("tanh", ACTIVATIONS, "of hidden layers (tanh: SB3)")
    initialisation: str = choice(
        "orthogonal", ("orthogonal", "torch", "he", "glorot", "lecun"), "of weights"
    )  # orthogonal, heads 0.01 and 1: the 37 details of PPO, detail 2
    shared_trunk: bool = text(False, "policy and value share all layers but the last")
    memory: int | None = number(
        None, minimum=1, doc="units of a GRU before the hidden layers of policy and of value"
    )
    log_std: float = number(0.0, doc="log std of continuous actions at the start (37 details)")
    squash: bool = text(False, "squash continuous actions into their bounds by tanh")
    gsde: bool = text(False, "state-dependent exploration of continuous actions (Raffin 2022)")
    gsde_steps: int | None = number(None, minimum=1, doc="steps of one gsde noise; null: rollout")
    normalize_observations: bool = text(False, "by running mean and std (SB3's VecNormalize)")
    normalize_rewards: bool = text(False, "by the running std of the return (SB3's VecNormalize)")
    clip_observations: float = number(10.0, above=0, doc="of normalised observations (SB3)")
    clip_rewards: float = number(10.0, above=0, doc="of normalised rewards (SB3)")
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
        """Check what ranges alone cannot.

        Raises:
            ConfigError: options that exclude each other or have no effect.
        """
        if self.squash and self.gsde:
            raise ConfigError("problem.squash=true problem.gsde=true: only one of them")
        if self.gsde_steps is not None and not self.gsde:
            raise ConfigError(f"problem.gsde_steps={self.gsde_steps}: needs problem.gsde=true")
        if self.memory is not None and self.shared_trunk:
            raise ConfigError(
                f"problem.memory={self.memory} problem.shared_trunk=true: policy and value have a "
                "memory each"
            )

    def build(self, config: Any) -> "Problem":
        """The problem that this configuration describes."""
        from playground.domains.rl.problem import build

        return build(self, config.algorithm)


JOINT, SEPARATE = ("agent",), ("policy", "value")


@dataclass(slots=True)
class AlgorithmConfig:
    """What every algorithm has."""

    name: str = text(doc="which algorithm")
    gamma: float = number(0.99, minimum=0, maximum=1, doc="discount")

    trust_region: ClassVar[tuple[str, ...]] = ()  # players whose moves have a divergence
    compiles: ClassVar[bool] = True

    @property
    def players(self) -> tuple[str, ...]:
        """Names of the players: who holds the policy first, who holds the value last."""
        return SEPARATE

    @property
    def anneals(self) -> bool:
        """Whether anything of the algorithm is annealed over the budget."""
        return False

    def validate(self, problem: RLConfig) -> None:
        """Check what depends on the problem.

        Raises:
            ConfigError: a trunk that two players would share.
        """
        if problem.shared_trunk and len(self.players) > 1:
            raise ConfigError(
                f"problem.shared_trunk=true: {self.name} has two players, policy and value"
            )


@dataclass(slots=True)
class RolloutConfig(AlgorithmConfig):
    """Algorithms on rollouts of a fixed length with generalised advantages."""

    num_steps: int = number(128, minimum=1, doc="vector steps of a rollout")
    gae_lambda: float = number(0.95, minimum=0, maximum=1, doc="GAE's lambda; 1 is n-step")
    normalize_advantage: bool = text(True, "subtract the mean, divide by the std, after masking")


@dataclass(slots=True)
class ActorCriticConfig(RolloutConfig):
    """Algorithms that move policy and value together."""

    value_coefficient: float = number(0.5, minimum=0, doc="of (V - target)^2 (SB3)")
    entropy_coefficient: float = number(0.0, minimum=0, doc="of the entropy bonus")
    separate: bool = text(False, "two players, policy and value, instead of one agent")

    @property
    def players(self) -> tuple[str, ...]:
        """``agent``, or policy and value where they are separate."""
        return SEPARATE if self.separate else JOINT


@dataclass(slots=True)
class MinibatchConfig(ActorCriticConfig):
    """Algorithms that pass several times over a rollout."""

    batch_size: int = number(256, minimum=2, doc="rows of a minibatch")
    epochs: int = number(4, minimum=1, doc="passes over a rollout")

    def validate(self, problem: RLConfig) -> None:
        """As every algorithm; minibatches must divide the rollout, so that shapes are constant."""
        AlgorithmConfig.validate(self, problem)
        check_minibatches(problem, self.num_steps, self.batch_size)


def check_minibatches(problem: RLConfig, num_steps: int, batch_size: int) -> None:
    """Raise ConfigError where minibatches do not divide a rollout, or cut its sequences."""
    rows = problem.num_envs * num_steps
    if rows % batch_size:
        raise ConfigError(
            f"algorithm.batch_size={batch_size}: must divide num_envs x num_steps = {rows}"
        )
    if problem.memory is not None and batch_size % num_steps:
        raise ConfigError(
            f"algorithm.batch_size={batch_size}: must be a multiple of num_steps = {num_steps} "
            f"where problem.memory={problem.memory}: minibatches are whole sequences"
        )


@dataclass(slots=True)
class PPOConfig(MinibatchConfig):
    """Proximal policy optimization with a clipped surrogate (Schulman et al. 2017)."""

    name: str = "ppo"
    clip: float = number(0.2, above=0, doc="clip range of the ratio (Schulman et al. 2017)")
    clip_schedule: str = choice("constant", ("constant", "linear"), "linear anneals clip to 0")
    clip_value: float | None = number(None, above=0, doc="clip range of the value, null is off")
    target_kl: float | None = number(
        None,
        above=0,
        doc="a member stops after a minibatch with KL (k3) beyond 1.5 of it",
    )

    @property
    def anneals(self) -> bool:
        """Whether the clip range is annealed over the budget."""
        return self.clip_schedule != "constant"


@dataclass(slots=True)
class PPOKLConfig(MinibatchConfig):
    """PPO with an adaptive penalty on the KL (Schulman et al. 2017, section 4)."""

    name: str = "ppo_kl"
    beta: float = number(1.0, above=0, doc="penalty at the start (the paper's)")
    target_kl: float = number(0.01, above=0, doc="KL of an iteration, nats (the paper's median)")


@dataclass(slots=True)
class A2CConfig(ActorCriticConfig):
    """Advantage actor-critic (Mnih et al. 2016), synchronous; defaults of SB3."""

    name: str = "a2c"
    num_steps: int = number(5, minimum=1, doc="vector steps of a rollout")
    gae_lambda: float = number(1.0, minimum=0, maximum=1, doc="GAE's lambda; 1 is n-step")
    normalize_advantage: bool = text(False, "subtract the mean, divide by the std")


@dataclass(slots=True)
class TRPOConfig(RolloutConfig):
    """A step in the trust region (Schulman et al. 2015); optimizer@players.policy=trust_region."""

    name: str = "trpo"
    num_steps: int = number(256, minimum=1, doc="vector steps of a rollout")
    batch_size: int = number(128, minimum=2, doc="rows of a minibatch of the critic (SB3)")
    value_epochs: int = number(10, minimum=1, doc="passes of the critic over a rollout (SB3)")

    trust_region: ClassVar[tuple[str, ...]] = ("policy",)

    def validate(self, problem: RLConfig) -> None:
        """As every algorithm; the critic's minibatches must divide the rollout."""
        AlgorithmConfig.validate(self, problem)
        check_minibatches(problem, self.num_steps, self.batch_size)


@dataclass(slots=True)
class NPGConfig(TRPOConfig):
    """Natural policy gradient (Kakade 2001); optimizer@players.policy=natural_gradient."""

    name: str = "npg"


@dataclass(slots=True)
class ReinforceConfig(AlgorithmConfig):
    """REINFORCE (Williams 1992) on complete episodes."""

    name: str = "reinforce"
    baseline: str = choice(
        "learned", ("learned", "mean", "none"),
        "subtracted from the return-to-go: V(s), the other episodes' mean, nothing",
    )  # fmt: skip
    discount_weight: bool = text(False, "weight step t by gamma^t, as the theorem has it")
    value_updates: int = number(20, minimum=1, doc="updates of the baseline an iteration (ours)")

    compiles: ClassVar[bool] = False

    def validate(self, problem: RLConfig) -> None:
        """As every algorithm; its batches are whole episodes, without sequences."""
        AlgorithmConfig.validate(self, problem)
        if problem.memory is not None:
            raise ConfigError(
                f"problem.memory={problem.memory}: {self.name} has no recurrent policy; "
                "those that have: a2c, ppo, ppo_kl, npg, trpo"
            )


ALGORITHMS: dict[str, type] = {
    "reinforce": ReinforceConfig, "a2c": A2CConfig, "ppo": PPOConfig, "ppo_kl": PPOKLConfig,
    "npg": NPGConfig, "trpo": TRPOConfig,
}  # fmt: skip
CONFIG = RLConfig
GROUPS: dict[str, dict[str, type]] = {"algorithm": ALGORITHMS}
