"""Configuration of the supervised domain. Torch-free."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from playground.schema import ConfigError, choice, number, text

if TYPE_CHECKING:
    from playground.game import Problem

DATA = ("linear_regression", "two_moons", "digits", "chebyshev", "adding")
ACTIVATIONS = ("tanh", "relu", "gelu", "silu", "elu", "leaky_relu", "sigmoid", "linear", "selu",
               "softplus", "softsign", "mish")  # fmt: skip
INITIALISATIONS = ("torch", "he", "glorot", "lecun", "orthogonal", "he_uniform", "he_fan_out",
                   "he_fan_out_uniform", "glorot_normal", "lecun_uniform", "sparse", "normal",
                   "truncated_normal", "identity")  # fmt: skip
NETWORKS = ("mlp", "residual", "conv", "recurrent")
BRANCHES = ("plain", "scaled", "zero", "fixup", "rezero")

DIGITS_TRAIN = 1437
"""Training images of digits: 1797 less 20 %, rounded up to 360 by ``train_test_split``."""

OWN_KEYS = {
    "samples": ("linear_regression", "two_moons", "chebyshev", "adding"),
    "test_samples": ("linear_regression", "two_moons", "chebyshev", "adding"),
    "noise": ("linear_regression", "two_moons"),
    "dimension": ("linear_regression",),
    "condition": ("linear_regression",),
    "degree": ("chebyshev",),
    "length": ("adding",),
    "activation": ("two_moons", "digits", "chebyshev", "adding"),
}
"""Keys that only some data have: null elsewhere, where they would have no effect."""

NETWORK_KEYS = {
    "branch": ("residual",),
    "channels": ("conv",),
    "recurrent_initialisation": ("recurrent",),
    "recurrent_gain": ("recurrent",),
    "depth": ("mlp", "residual"),
    "gain": ("mlp", "residual", "recurrent"),
}
"""Keys that only some networks have; null elsewhere."""

FITTING = {
    "linear_regression": ("mlp",),
    "digits": ("mlp", "residual", "conv"),
    "adding": ("recurrent",),
}
"""Networks of data that are not points."""


@dataclass(slots=True)
class SupervisedConfig:
    """A data set, a network and how batches are drawn."""

    name: str = text("supervised/digits")
    data: str = choice("digits", DATA, "what is learned")
    network: str = choice("mlp", NETWORKS, "residual blocks, convolutions (digits) or recurrent")
    widths: list[int] = number(
        [64, 64],
        minimum=1,
        doc="hidden layers (recurrent: its units; conv: after the maps); [] is a linear model",
    )
    depth: int | None = number(
        None, minimum=2, doc="layers with weights, all hidden ones of the one width given"
    )
    activation: str | None = choice(None, ACTIVATIONS, "between layers")
    initialisation: str = choice(
        "torch", INITIALISATIONS, "of the weights; sources in playground/initialisations.py"
    )
    gain: float | None = number(
        None, above=0, doc="factor of all weights but the last layer's and, if recurrent, those "
        "from step to step; null: 1, sqrt(2) for orthogonal hidden layers",
    )  # fmt: skip
    branch: str | None = choice(
        None, BRANCHES, "residual: how blocks start, domains/supervised/residual.py; null: plain"
    )
    channels: int | None = number(
        None, minimum=1, doc="conv: maps at half of the image's side; null: 32"
    )
    recurrent_initialisation: str | None = choice(
        None, INITIALISATIONS, "recurrent: of the weights from step to step; null: orthogonal"
    )
    recurrent_gain: float | None = number(
        None, above=0, doc="recurrent: factor of the weights from step to step; null: 1"
    )
    batch_size: Any = text(64, "samples of a batch, or full")
    replacement: bool = text(False, "draw batches with replacement, not by epochs")
    split_seed: int = number(
        0, minimum=0, doc="of the digits' split and of random data; the same for all members"
    )
    samples: int | None = number(None, minimum=2, doc="synthetic data: size of the training set")
    test_samples: int | None = number(None, minimum=2, doc="synthetic data: size of the test set")
    noise: float | None = number(
        None, minimum=0, doc="standard deviation: of targets (regression), of points (two_moons)"
    )
    dimension: int | None = number(None, minimum=1, doc="linear_regression: number of inputs")
    condition: float | None = number(
        None, minimum=1, doc="linear_regression: largest over smallest variance of the inputs"
    )
    degree: int | None = number(None, minimum=1, doc="chebyshev: of the polynomial")
    length: int | None = number(None, minimum=2, doc="adding: steps of a sequence")
    default_budget: dict[str, Any] = field(default_factory=lambda: {"samples": 64_000})
    tuned: dict[str, Any] = field(default_factory=dict)

    counts: ClassVar[tuple[str, ...]] = ("samples",)
    groups: ClassVar[tuple[str, ...]] = ()
    dtype: ClassVar[str] = "float32"

    def players(self) -> tuple[str, ...]:
        """Names of the players."""
        return ("model",)

    def validate(self) -> None:
        """Check what ranges alone cannot.

        Raises:
            ConfigError: naming key and value.
        """
        for key, owners in OWN_KEYS.items():
            value = getattr(self, key)
            if self.data in owners and value is None:
                raise ConfigError(f"problem.{key}=null: {self.data} needs a value")
            if self.data not in owners and value is not None:
                raise ConfigError(f"problem.{key}={value}: has no effect on {self.data}")
        if self.data == "linear_regression" and self.widths:
            raise ConfigError(
                f"problem.widths={self.widths}: linear_regression has a linear model, []"
            )
        if self.data == "chebyshev" and self.split_seed:
            raise ConfigError(
                f"problem.split_seed={self.split_seed}: has no effect on chebyshev, "
                "where nothing is random"
            )
        self._validate_network()
        self._validate_batch()

    def hidden(self) -> list[int]:
        """Widths of the hidden layers, ``depth`` spelt out."""
        return self.widths if self.depth is None else self.widths * (self.depth - 1)

    def train_size(self) -> int:
        """N, the number of training samples."""
        return DIGITS_TRAIN if self.samples is None else self.samples

    def batch(self) -> int:
        """B, the number of samples of a batch."""
        return self.train_size() if self.batch_size == "full" else int(self.batch_size)

    def build(self, config: Any) -> "Problem":
        """The problem that this configuration describes."""
        from playground.domains.supervised.problem import SupervisedProblem

        return SupervisedProblem(self)

    def _validate_network(self) -> None:
        network, allowed = self.network, FITTING.get(self.data, ("mlp", "residual"))
        if network not in allowed:
            raise ConfigError(
                f"problem.network={network}: allowed are {', '.join(allowed)} for {self.data}"
            )
        for key, owners in NETWORK_KEYS.items():
            value = getattr(self, key)
            if network not in owners and value is not None:
                raise ConfigError(f"problem.{key}={value}: has no effect on network={network}")
        depth = "null" if self.depth is None else self.depth
        if network == "residual" and (self.depth is None or self.depth < 4 or self.depth % 2):
            raise ConfigError(
                f"problem.depth={depth}: must be 4, 6, 8, ...: residual blocks have 2 layers "
                "each, beside the first and the last"
            )
        if len(self.widths) != 1 and (self.depth is not None or network == "recurrent"):
            why = f"network={network}" if self.depth is None else f"problem.depth={self.depth}"
            raise ConfigError(f"problem.widths={self.widths}: must be one number for {why}")
        if self.gain is not None and not self.widths:
            raise ConfigError(f"problem.gain={self.gain}: has no effect without hidden layers")

    def _validate_batch(self) -> None:
        size, limit = self.batch_size, self.train_size()
        if size == "full":
            if self.replacement:
                raise ConfigError(
                    "problem.replacement=true: has no effect on problem.batch_size=full; "
                    f"give the size in figures to draw {limit} with replacement"
                )
            return
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= limit:
            raise ConfigError(
                f"problem.batch_size={size}: allowed are full and 1 to {limit}, "
                f"the training samples of {self.data}"
            )


CONFIG = SupervisedConfig
GROUPS: dict[str, dict[str, type]] = {}
