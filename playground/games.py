"""``playground.Game``: any differentiable game of n functions, in a line a player.

    game = playground.Game({"x": lambda x, y: x * y, "y": lambda x, y: -x * y},
                           start={"x": 1.0, "y": 0.5}, equilibrium=[0, 0])
    playground.run(["stepper=extragradient", "optimizer=sgd"], problem=game)

Shape legend: M members, n numbers of all players together.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from playground.game import (
    Batch,
    Context,
    Evaluation,
    Move,
    Objective,
    Outcomes,
    Params,
    Player,
    Problem,
    Round,
    Terms,
)
from playground.parameters import Parameters
from playground.randomness import stream_seed
from playground.schema import ConfigError

Loss = Callable[..., Tensor]
"""``f(*points) -> scalar``: what one player minimises, given every player's point."""


class Game(Problem):
    """A game of one function a player, zero-sum or not, in float64.

    Args:
        functions: {player: what it minimises}. Each is called with all players' points, tensors
            in the order and shape of ``start``, and returns a scalar; it must be pure.
        start: {player: a number or nested list}.
        rounds: ``simultaneous``, or ``alternating`` in the order of ``functions``.
        equilibrium: the players' points in a row [n], to measure the distance from.
        spread: half-width of a uniform cube around the start, drawn for each member.
        name: of the run.

    Raises:
        ConfigError: names that do not match, or a start that is no finite number.

    Metrics: ``value/<player>``, ``field`` = |F|, the length of all players' gradients together,
    which is 0 at an equilibrium, and ``distance`` where the equilibrium is given.
    """

    dtype = "float64"

    def __init__(
        self,
        functions: Mapping[str, Loss],
        start: Mapping[str, Any],
        *,
        rounds: str = "simultaneous",
        equilibrium: Sequence[float] | None = None,
        spread: float = 0.0,
        name: str = "game",
    ) -> None:
        if not functions or set(functions) != set(start):
            raise ConfigError(f"start={sorted(start)}: must name the players {sorted(functions)}")
        if rounds not in ("simultaneous", "alternating"):
            raise ConfigError(f"rounds={rounds}: allowed are simultaneous, alternating")
        self.functions = dict(functions)
        self.start = {name: _point(name, start[name]) for name in self.functions}
        self.rounds, self.spread, self.name = rounds, spread, name
        size = sum(point.numel() for point in self.start.values())
        self.equilibrium = None
        if equilibrium is not None:
            self.equilibrium = _point("equilibrium", list(equilibrium))
            if self.equilibrium.shape != (size,):
                raise ConfigError(f"equilibrium={equilibrium}: must be a list of {size} numbers")
        self.main_metric = "field" if equilibrium is None else "distance"
        self.counters = {}
        self.objectives = {name: self._objective(name) for name in self.functions}

    def setup(self, context: Context) -> dict[str, Player]:
        """Place every member at its start."""
        self.players = {
            name: Player(
                name,
                Parameters.build(
                    lambda k, name=name: {name: self._begin(context, k, name)},  # type: ignore[misc]
                    context.members, context.device, context.dtype,
                ),
            )
            for name in self.functions
        }  # fmt: skip
        self.trail = [self._position()]
        return self.players

    def iteration(self, progress: float) -> Generator[Round, Outcomes, dict[str, np.ndarray]]:
        """One move of every player, in one round or in turn."""
        moves = [Move(name, objective, {}) for name, objective in self.objectives.items()]
        if self.rounds == "simultaneous":
            yield tuple(moves)
        else:
            for move in moves:
                yield (move,)
        self.trail.append(self._position())
        return {}

    def evaluate(self) -> Evaluation:
        """Every player's value, the field's length, the distance, and the path since the last."""
        views = [player.parameters.views[name] for name, player in self.players.items()]
        metrics, squares = {}, []
        for index, (name, function) in enumerate(self.functions.items()):
            slope, value = torch.func.vmap(torch.func.grad_and_value(function, index))(*views)
            metrics[f"value/{name}"] = value.detach().cpu().numpy()
            squares.append(slope.flatten(1).square().sum(1) if slope.ndim > 1 else slope.square())
        metrics["field"] = torch.stack(squares).sum(0).sqrt().cpu().numpy()
        arrays = {"trajectory": torch.stack(self.trail, dim=1).cpu().numpy()}
        if self.equilibrium is not None:
            away = self._position() - self.equilibrium.to(self.trail[-1])
            metrics["distance"] = away.norm(dim=1).cpu().numpy()
            arrays["targets"] = self.equilibrium.numpy()[None, None]
        self.trail = self.trail[-1:]
        return Evaluation(metrics, arrays=arrays)

    def replaced(self) -> None:
        """Begin the path at the new parameters."""
        self.trail = [self._position()]

    def state(self) -> dict[str, Any]:
        """The part of the path that no evaluation has written."""
        return {"trail": torch.stack(self.trail)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` gave."""
        self.trail = list(state["trail"].unbind())

    def _objective(self, player: str) -> Objective:
        function, names = self.functions[player], list(self.functions)

        def objective(params: Params, batch: Batch) -> tuple[Terms, Terms]:
            return {"value": function(*(params[name][name] for name in names))}, {}

        return objective

    def _begin(self, context: Context, member: int, name: str) -> Tensor:
        """The start of one member and player."""
        point = self.start[name]
        if not self.spread:
            return point
        generator = torch.Generator()
        generator.manual_seed(stream_seed(context.seeds[member], f"init/{name}"))
        drawn = torch.rand(point.shape, generator=generator, dtype=torch.float64)
        return point + self.spread * (2 * drawn - 1)

    def _position(self) -> Tensor:
        return torch.cat([p.parameters.values for p in self.players.values()], dim=1)


def _point(name: str, value: Any) -> Tensor:
    """A start as a tensor in float64."""
    try:
        point = torch.tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise ConfigError(f"{name}={value}: must be a number or a list of numbers") from None
    if not torch.isfinite(point).all() or not point.numel():
        raise ConfigError(f"{name}={value}: must be finite and not empty")
    return point
