"""What a user can set about steppers. Torch-free.

Every stepper has a dataclass of its own that says what it needs and builds it; methods and
formulas are in ``first_order`` and ``second_order``. Imports of torch happen in ``build``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from playground.optim.config import OptimizerConfig
from playground.schema import ConfigError, choice, number, text

if TYPE_CHECKING:
    from playground.optim.steppers.first_order import Stepper
    from playground.optim.transforms import Transform


@dataclass(slots=True)
class StepperConfig:
    """How a round becomes the gradients that are applied; formulas and costs beside this file."""

    name: str = choice("direct", ("direct",), doc="gradients at the current point")

    whole: ClassVar[bool] = False
    """Whether every player must move in each round."""

    players: ClassVar[int | None] = None
    """How many players it is defined for; None is any number."""

    optimizers: ClassVar[tuple[str, ...] | None] = None
    """Which optimizers it makes sense with; None is all."""

    def build(self) -> "Stepper":
        """The stepper of one run."""
        from playground.optim.steppers.first_order import Direct

        return Direct()

    def links(self) -> "list[Transform]":
        """Transforms that it adds to every player's chain, after the direction."""
        return []

    def validate(
        self, players: Sequence[str], rounds: str, optimizers: Mapping[str, OptimizerConfig]
    ) -> None:
        """Refuse a game that the method is not defined for.

        Args:
            players: names of those that train; empty where they are not known yet.
            rounds: simultaneous, alternating, or empty where the problem does not say.
            optimizers: {config path: optimizer}.

        Raises:
            ConfigError: naming key, value and what is allowed.
        """
        if self.whole and rounds == "alternating":
            raise ConfigError(
                f"stepper={self.name}: needs every player in each round, so "
                "problem.rounds=simultaneous, not alternating"
            )
        if self.players is not None and players and len(players) != self.players:
            raise ConfigError(
                f"stepper={self.name}: is defined for {self.players} players that train, not "
                f"{len(players)} ({', '.join(players)})"
            )
        for path, optimizer in optimizers.items():
            if self.optimizers is not None and optimizer.name not in self.optimizers:
                raise ConfigError(
                    f"stepper={self.name}: its step is the optimizer's, so {path} must be "
                    f"{' or '.join(self.optimizers)}, not {optimizer.name}"
                )


@dataclass(slots=True)
class Extragradient(StepperConfig):
    """Extragradient (Korpelevich 1976; ExtraAdam of Gidel et al. 2019 with adam)."""

    name: str = choice("extragradient", ("extragradient",), doc="gradients a step ahead")

    def build(self) -> "Stepper":
        """The stepper of one run."""
        from playground.optim.steppers.first_order import Extragradient as Method

        return Method()


@dataclass(slots=True)
class PastExtragradient(StepperConfig):
    """Extrapolation from the past (Popov 1980; Gidel et al. 2019, section 3.3)."""

    name: str = choice(
        "past_extragradient", ("past_extragradient",), doc="a step ahead by the last gradient"
    )

    def build(self) -> "Stepper":
        """The stepper of one run."""
        from playground.optim.steppers.first_order import PastExtragradient as Method

        return Method()


@dataclass(slots=True)
class Optimistic(StepperConfig):
    """Optimistic mirror descent and optimistic Adam (Daskalakis et al. 2018, algorithm 1)."""

    name: str = choice("optimistic", ("optimistic",), doc="direction 2 d - d_previous")

    def links(self) -> "list[Transform]":
        """2 d - d_previous, after the direction."""
        from playground.optim.transforms import Optimism

        return [Optimism()]


@dataclass(slots=True)
class LookAhead(StepperConfig):
    """LookAhead (Zhang and Lesser 2010; Letcher et al. 2019)."""

    name: str = choice("lookahead", ("lookahead",), doc="gradients where the others will be")
    rate: float | None = number(
        None, above=0.0, doc="of the others' step; null is their learning rate"
    )

    whole: ClassVar[bool] = True

    def build(self) -> "Stepper":
        """The stepper of one run."""
        from playground.optim.steppers.first_order import LookAhead as Method

        return Method(self.rate)


@dataclass(slots=True)
class LookaheadMinimax(StepperConfig):
    """Lookahead-minimax (Chavdarova et al. 2021); k and alpha of their image experiments."""

    name: str = choice(
        "lookahead_minimax", ("lookahead_minimax",), doc="pulled back every k updates"
    )
    k: int = number(5, minimum=1, doc="updates between pulls")
    alpha: float = number(0.5, above=0.0, maximum=1.0, doc="share of the way that is kept")
    inner: str = choice("direct", ("direct", "extragradient"), doc="stepper between pulls")

    def build(self) -> "Stepper":
        """The stepper of one run."""
        from playground.optim.steppers.first_order import Direct, LookaheadMinimax
        from playground.optim.steppers.first_order import Extragradient as Inner

        return LookaheadMinimax(Direct() if self.inner == "direct" else Inner(), self.k, self.alpha)


@dataclass(slots=True)
class Consensus(StepperConfig):
    """Consensus optimization (Mescheder et al. 2017); gamma 10 as in their experiments."""

    name: str = choice("consensus", ("consensus",), doc="F + gamma J^T F")
    gamma: float = number(10.0, minimum=0.0, doc="weight of 1/2 |F|^2")

    whole: ClassVar[bool] = True

    def build(self) -> "Stepper":
        """The stepper of one run."""
        from playground.optim.steppers.second_order import Consensus as Method

        return Method(self.gamma)


@dataclass(slots=True)
class SGA(StepperConfig):
    """Symplectic gradient adjustment (Balduzzi et al. 2018); strength 1 and alignment theirs."""

    name: str = choice("sga", ("sga",), doc="F + strength A^T F, A antisymmetric part of J")
    strength: float = number(1.0, minimum=0.0, doc="lambda")
    align: bool = text(True, "choose lambda's sign so that it attracts to stable points only")

    whole: ClassVar[bool] = True

    def build(self) -> "Stepper":
        """The stepper of one run."""
        from playground.optim.steppers.second_order import SymplecticAdjustment

        return SymplecticAdjustment(self.strength, align=self.align)


@dataclass(slots=True)
class CGD(StepperConfig):
    """Competitive gradient descent (Schafer and Anandkumar 2019)."""

    name: str = choice("cgd", ("cgd",), doc="both players' answer to the bilinear game")
    tolerance: float = number(
        1e-6, above=0.0, below=1.0, doc="of the solver, relative to F, beyond 32 parameters (ours)"
    )
    iterations: int = number(20, minimum=1, doc="of the solver at most, 4 evaluations each (ours)")

    whole: ClassVar[bool] = True
    players: ClassVar[int | None] = 2
    optimizers: ClassVar[tuple[str, ...] | None] = ("sgd",)

    def build(self) -> "Stepper":
        """The stepper of one run."""
        from playground.optim.steppers.second_order import CompetitiveDescent

        return CompetitiveDescent(self.tolerance, self.iterations)


@dataclass(slots=True)
class LOLA(StepperConfig):
    """Learning with opponent-learning awareness (Foerster et al. 2018), not expanded."""

    name: str = choice("lola", ("lola",), doc="shapes the others' next step")
    rate: float | None = number(
        None, above=0.0, doc="of the others' step; null is their learning rate"
    )

    whole: ClassVar[bool] = True

    def build(self) -> "Stepper":
        """The stepper of one run."""
        from playground.optim.steppers.second_order import Lola

        return Lola(self.rate)


@dataclass(slots=True)
class Unrolled(StepperConfig):
    """Unrolled GANs (Metz et al. 2017); 5 steps as in their 2-D experiments."""

    name: str = choice("unrolled", ("unrolled",), doc="differentiates through the opponent's steps")
    player: str = text("generator", "who looks ahead")
    k: int = number(5, minimum=0, doc="steps of the opponent")
    rate: float | None = number(
        None, above=0.0, doc="of the opponent's steps; null is its learning rate"
    )

    whole: ClassVar[bool] = True

    def build(self) -> "Stepper":
        """The stepper of one run."""
        from playground.optim.steppers.second_order import Unrolled as Method

        return Method(self.player, self.k, self.rate)

    def validate(
        self, players: Sequence[str], rounds: str, optimizers: Mapping[str, OptimizerConfig]
    ) -> None:
        """Also refuse a player that does not train."""
        if players and self.player not in players:
            raise ConfigError(
                f"stepper.player={self.player}: allowed are {', '.join(players)}, the players that "
                "train"
            )
        StepperConfig.validate(self, players, rounds, optimizers)  # slots: no zero-argument super


STEPPERS: dict[str, type[StepperConfig]] = {
    "direct": StepperConfig,
    "extragradient": Extragradient,
    "past_extragradient": PastExtragradient,
    "optimistic": Optimistic,
    "lookahead": LookAhead,
    "lookahead_minimax": LookaheadMinimax,
    "consensus": Consensus,
    "sga": SGA,
    "cgd": CGD,
    "lola": LOLA,
    "unrolled": Unrolled,
}
