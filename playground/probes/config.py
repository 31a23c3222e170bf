"""Configuration of the probes: which, and how often. Torch-free."""

from dataclasses import dataclass, field

from playground.schema import choice, number

SMALL = 64
"""Parameters of all players up to which ``light`` and ``standard`` measure a game (ours)."""

DIRECTION = 32
"""Updates between two measurements of the direction under ``full`` (ours)."""


@dataclass(slots=True)
class GameConfig:
    """The game's vector field: Jacobian, spectrum, rotation."""

    every: int | None = number(
        None,
        minimum=0,
        doc="iterations, 0 is never; null is at evaluations, of games with up to 64 parameters"
        " (full: of all)",
    )
    dense: int = number(300, minimum=0, doc="parameters up to which the Jacobian is formed (ours)")
    vectors: int = number(8, minimum=2, doc="random vectors of the estimates beyond (ours)")
    steps: int = number(20, minimum=1, doc="Arnoldi steps for the spectral radius beyond (ours)")

    def wanted(self, name: str, players: int, size: int) -> bool:
        """Whether a run measures it, by its probes' name, players and parameters in all."""
        if self.every is not None or name == "none":
            return bool(self.every)
        return players > 1 and (size <= SMALL or name == "full")


@dataclass(slots=True)
class CurvatureConfig:
    """Each player's Hessian: ends of the spectrum, trace, density, kind of a critical point."""

    every: int | None = number(
        None, minimum=0, doc="iterations, 0 is never; null is at evaluations, if probes=full"
    )
    data: str = choice(
        "batch",
        ("batch", "all"),
        "what the Hessian is of: the player's next batch, or all data (supervised/*)",
    )
    products: int = number(15, minimum=2, doc="Hessian products for both ends, at most (ours)")
    tolerance: float = number(
        1e-2, above=0.0, doc="residual that is enough, share of the largest |eigenvalue| (ours)"
    )
    dense: int = number(300, minimum=0, doc="parameters up to which the Hessian is formed (ours)")
    vectors: int = number(8, minimum=2, doc="random vectors of the trace (ours)")
    density: int | None = number(
        None,
        minimum=0,
        doc="random vectors of the spectral density, 0 is none; null is 4 if probes=full (ours)",
    )
    density_steps: int = number(
        30, minimum=1, doc="products for each; 90 in Ghorbani et al. (2019), 30 ours"
    )
    critical: float = number(
        1e-4,
        above=0.0,
        doc="gradient that counts as 0, share of |H| max(|parameters|, 1) (ours)",
    )

    def wanted(self, name: str) -> bool:
        """Whether a run measures it, by its probes' name."""
        return name == "full" if self.every is None else self.every > 0

    def densities(self, name: str) -> int:
        """Random vectors of the density, by its probes' name."""
        if self.density is None:
            return 4 if name == "full" else 0
        return self.density


@dataclass(slots=True)
class FlowConfig:
    """Signals through networks: mean squares a layer, dead units, singular values."""

    every: int | None = number(
        None, minimum=0, doc="iterations, 0 is never; null is at evaluations, if probes=full"
    )
    dormant: float = number(
        0.025,
        minimum=0.0,
        doc="score up to which a unit is dormant (.025 to .1: Sokar et al. 2023)",
    )
    svd: int = number(
        1024, minimum=0, doc="smaller side of weights up to which singular values are found (ours)"
    )

    def wanted(self, name: str) -> bool:
        """Whether a run measures it, by its probes' name."""
        return name == "full" if self.every is None else self.every > 0


@dataclass(slots=True)
class TermsConfig:
    """Gradients of an objective's terms: norms, shares, cosines."""

    every: int | None = number(
        None, minimum=0, doc="iterations, 0 is never; null is at evaluations"
    )

    def wanted(self, name: str) -> bool:
        """Whether a run measures them, by its probes' name."""
        return name != "none" if self.every is None else self.every > 0


@dataclass(slots=True)
class NoiseConfig:
    """The noise of the gradient: variance, noise scale, tests, agreement."""

    every: int | None = number(
        None, minimum=0, doc="iterations, 0 is never; null is at evaluations of probes=full"
    )
    method: str = choice(
        "auto",
        ("auto", "taps", "samples", "chunks"),
        "from layers, every cluster's gradient, or groups of clusters; the first two are exact",
    )
    chunks: int = number(16, minimum=4, doc="groups of clusters where they are grouped (ours)")

    def wanted(self, name: str) -> bool:
        """Whether a run measures it, by its probes' name."""
        return name == "full" if self.every is None else self.every > 0


@dataclass(slots=True)
class StepConfig:
    """The optimizer's own doing: step length, promised and actual change, rates, magnitudes."""

    every: int | None = number(
        None, minimum=0, doc="iterations, 0 is never; null is at evaluations of probes=full"
    )

    def wanted(self, name: str) -> bool:
        """Whether a run measures it, by its probes' name."""
        return name == "full" if self.every is None else self.every > 0


@dataclass(slots=True)
class DirectionConfig:
    """Where training goes: cosines over time, distance, path, directions, agreement."""

    every: int | None = number(
        None, minimum=0, doc=f"updates, 0 is never; null is {DIRECTION} of probes=full"
    )
    megabytes: int = number(
        16, minimum=1, doc="of a player's kept vectors; larger ones are sketched (ours)"
    )

    def cadence(self, name: str) -> int:
        """Updates between two measurements, by its probes' name; 0 is never."""
        if self.every is not None:
            return self.every
        return DIRECTION if name == "full" else 0


@dataclass(slots=True)
class ProbesConfig:
    """A set of probes with its cadence."""

    name: str = choice("light", ("none", "light", "standard", "full"), "set of probes")
    every: int = number(
        8, minimum=0, doc="tier 0: one update in `every`, drawn inside each window; 0 is none"
    )  # 8: ours, the cadence at which tier 0 costs under 5 %
    megabytes: int = number(64, minimum=1, doc="size of the device-side ring of copies")  # ours
    budget: float | None = number(
        None, above=0.0, maximum=1.0,
        doc="share of wall time that passes may take, as 0.05: cadences stretch; null is no limit",
    )  # fmt: skip
    game: GameConfig = field(default_factory=GameConfig)
    terms: TermsConfig = field(default_factory=TermsConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    step: StepConfig = field(default_factory=StepConfig)
    direction: DirectionConfig = field(default_factory=DirectionConfig)
    curvature: CurvatureConfig = field(default_factory=CurvatureConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
