"""Configuration of the landscape domain. Torch-free."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from playground.schema import ConfigError, choice, number, text

if TYPE_CHECKING:
    from playground.game import Problem

FUNCTIONS = (
    "quadratic", "rosenbrock", "beale", "himmelblau", "rastrigin", "saddle", "monkey_saddle",
)  # fmt: skip
GAMES = ("bilinear", "quadratic_game", "matching_pennies")


@dataclass(slots=True)
class LandscapeConfig:
    """An analytic function, or a two-player game with analytic gradients."""

    name: str = text("landscape/quadratic")
    function: str = choice("quadratic", FUNCTIONS + GAMES, "what is minimised")
    dimension: int = number(2, minimum=1, doc="of quadratic and rastrigin, of each player's vector")
    condition: float = number(
        10.0, minimum=1, doc="quadratic: largest over smallest eigenvalue (log-spaced between)"
    )
    interaction: float = number(1.0, doc="sigma of the games' coupling term sigma x.y")
    matrix: Any = text(
        None, "bilinear, quadratic_game: rows of B in the coupling term sigma x'By; null is I"
    )
    curvature: float = number(0.1, doc="quadratic_game: own curvature mu of each player")
    noise: float = number(
        0.0, minimum=0, doc="standard deviation of Gaussian noise added to every gradient entry"
    )
    start: Any = text(None, "a point [x, y, ...], grid, or random; null is the function's own")
    spread: float = number(1.0, above=0, doc="half-width of grid and random starts")
    rounds: str = choice("simultaneous", ("simultaneous", "alternating"), "games: order of moves")
    first: str = choice("x", ("x", "y"), "games: who moves first when alternating")
    default_budget: dict[str, Any] = field(default_factory=lambda: {"iterations": 500})
    tuned: dict[str, Any] = field(default_factory=dict)

    counts: ClassVar[tuple[str, ...]] = ()
    groups: ClassVar[tuple[str, ...]] = ()
    dtype: ClassVar[str] = "float64"

    def players(self) -> tuple[str, ...]:
        """Names of the players."""
        return ("x", "y") if self.function in GAMES else ("x",)

    def validate(self) -> None:
        """Check what ranges alone cannot.

        Raises:
            ConfigError: naming key and value.
        """
        self._validate_matrix()
        size = self.total_dimension()
        if isinstance(self.start, str) and self.start not in ("grid", "random"):
            raise ConfigError(
                f"problem.start={self.start}: allowed are grid, random or a list of {size} numbers"
            )
        if isinstance(self.start, list) and (
            len(self.start) != size or not all(isinstance(v, int | float) for v in self.start)
        ):
            raise ConfigError(f"problem.start={self.start}: must be a list of {size} numbers")
        if self.start == "grid" and size != 2:
            raise ConfigError(f"problem.start=grid: needs two dimensions in all, not {size}")

    def _validate_matrix(self) -> None:
        if self.matrix is None:
            return
        given = f"problem.matrix={self.matrix}".replace(" ", "")
        if self.function not in ("bilinear", "quadratic_game"):
            raise ConfigError(f"{given}: only bilinear and quadratic_game have one")
        rows = self.matrix if isinstance(self.matrix, list) else []
        shapes = {len(row) if isinstance(row, list) else 0 for row in rows}
        numbers = [v for row in rows if isinstance(row, list) for v in row]
        if len(shapes) != 1 or 0 in shapes or not all(
            isinstance(v, int | float) and not isinstance(v, bool) for v in numbers
        ):  # fmt: skip
            raise ConfigError(f"{given}: must be rows of numbers, as in [[1,2],[0,1]]")
        if self.dimension != 1:
            raise ConfigError(f"{given}: says the dimensions, so problem.dimension must be 1")

    def dimensions(self) -> tuple[int, ...]:
        """Of every player's vector."""
        if self.function not in GAMES:
            return (self.total_dimension(),)
        if self.function == "matching_pennies":
            return (1, 1)
        if self.matrix is not None:
            return (len(self.matrix), len(self.matrix[0]))
        return (self.dimension, self.dimension)

    def total_dimension(self) -> int:
        """Dimensions of all players together."""
        if self.function in GAMES:
            return sum(self.dimensions())
        return self.dimension if self.function in ("quadratic", "rastrigin") else 2

    def build(self, config: Any) -> "Problem":
        """The problem that this configuration describes."""
        from playground.domains.landscape.problem import LandscapeProblem

        return LandscapeProblem(self)


CONFIG = LandscapeConfig
GROUPS: dict[str, dict[str, type]] = {}
