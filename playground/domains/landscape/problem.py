"""Analytic landscapes and two-player games as problems: one iteration is one update each."""

import math
from collections.abc import Generator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from playground.domains.landscape.config import GAMES, LandscapeConfig
from playground.domains.landscape.objectives import (
    MINIMISERS,
    STARTS,
    coupling,
    function,
    minimise,
    play,
)
from playground.game import Context, Evaluation, Move, Outcomes, Player, Problem, Round
from playground.parameters import Parameters
from playground.randomness import Streams, stream_seed

GRID = 121
"""Points a side of the contour's grid (ours)."""

REACH = 6.0
"""How far a contour follows a trail that runs away, in each coordinate (ours)."""


class LandscapeProblem(Problem):
    """Player x (and y, in games) moves on an analytic landscape."""

    main_metric = "distance"

    def __init__(self, config: LandscapeConfig) -> None:
        self.config = config
        self.name = config.name
        self.counters = {}
        self.game = config.function in GAMES
        if self.game:
            curvature = config.curvature if config.function == "quadratic_game" else 0.0
            self.coupling = coupling(config.function, config.matrix)
            self.objectives = {
                player: play(player, config.interaction, curvature, self.coupling)
                for player in ("x", "y")
            }
        else:
            self.function = function(config.function, config.condition)
            self.objectives = {"x": minimise(self.function)}
            if config.function in ("saddle", "monkey_saddle"):
                self.main_metric = "value"

    def setup(self, context: Context) -> dict[str, Player]:
        """Place every member at its start."""
        self.context = context
        # On a grid a seed is a place, so that the values of ``vary`` get the same starts.
        self.places = {seed: i for i, seed in enumerate(dict.fromkeys(context.seeds))}
        points = torch.stack([self._start(k) for k in range(context.members)])
        pieces = torch.split(points, list(self.config.dimensions()), dim=1)
        self.players = {}
        for name, piece in zip(self.config.players(), pieces, strict=True):
            parameters = Parameters.build(
                lambda k, name=name, piece=piece: {name: piece[k]},  # type: ignore[misc]
                context.members, context.device, context.dtype,
            )  # fmt: skip
            self.players[name] = Player(name, parameters)
        self.noise = Streams(context.seeds, "data", context.device)
        self.trail = [self._position()]
        self.window: list[list[float]] = []
        return self.players

    def iteration(self, progress: float) -> Generator[Round, Outcomes, dict[str, np.ndarray]]:
        """One move of every player, in one round or in turn."""
        moves = {
            name: Move(name, self.objectives[name], self._batch(name)) for name in self.players
        }
        if self.config.rounds == "simultaneous":
            yield tuple(moves.values())
        else:
            for name in sorted(moves, reverse=self.config.first == "y"):
                yield (moves[name],)
        self.trail.append(self._position())
        return {}

    def evaluate(self) -> Evaluation:
        """Value and distance to the nearest minimiser (to the equilibrium, in games)."""
        position = self._position()
        origin = [[0.0] * position.shape[1]]
        targets = torch.tensor(MINIMISERS.get(self.config.function, origin), dtype=position.dtype)
        away = (position[:, None, :] - targets.to(position.device)).norm(dim=-1)
        metrics = {"distance": away.amin(dim=1).cpu().numpy()}
        if self.game:
            x, y = (player.parameters.values for player in self.players.values())
            metrics["value"] = (self.config.interaction * self.coupling(x, y)).cpu().numpy()
        else:
            metrics["value"] = self.function(position).cpu().numpy()
        trail = torch.stack(self.trail, dim=1).cpu().numpy()
        self.trail = self.trail[-1:]
        arrays = {"trajectory": trail}
        if trail.shape[1] == 1:  # before the first iteration
            arrays["targets"] = targets.numpy()[None]
        if not self.game and position.shape[1] == 2:
            arrays |= self._contour(trail)
        return Evaluation(metrics, arrays=arrays)

    def replaced(self) -> None:
        """Begin the trail at the new parameters."""
        self.trail = [self._position()]

    def state(self) -> dict[str, Any]:
        """The noise streams, the part of the trail that no evaluation has written, the window."""
        trail = torch.stack(self.trail)
        return {"noise": self.noise.state(), "trail": trail, "window": self.window}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` gave."""
        self.noise.load_state(state["noise"])
        self.trail = list(state["trail"].unbind())
        self.window = state["window"]

    def _batch(self, player: str) -> dict[str, Tensor]:
        if not self.config.noise:
            return {}
        size = self.players[player].parameters.layout.size
        return {"noise": self.config.noise * self.noise.normal(size, dtype=self.context.dtype)}

    def _position(self) -> Tensor:
        return torch.cat([p.parameters.values for p in self.players.values()], dim=1)

    def _start(self, member: int) -> Tensor:
        """Start of one member, all players together [n] in float64."""
        size = self.config.total_dimension()
        default = STARTS.get(self.config.function, (1.0,) * size)
        center = torch.tensor(default, dtype=torch.float64)
        start, spread = self.config.start, self.config.spread
        if isinstance(start, list):
            return torch.tensor(start, dtype=torch.float64)
        if start == "random":
            generator = torch.Generator()
            generator.manual_seed(stream_seed(self.context.seeds[member], "init/start"))
            drawn = torch.rand(size, generator=generator, dtype=torch.float64)
            return center + spread * (2 * drawn - 1)
        if start == "grid":
            side = math.isqrt(len(self.places) - 1) + 1
            row, column = divmod(self.places[self.context.seeds[member]], side)
            step = 2 * spread / max(side - 1, 1)
            offset = [column * step - spread, row * step - spread]
            return center + torch.tensor(offset, dtype=torch.float64)
        return center

    def _contour(self, trail: np.ndarray) -> dict[str, np.ndarray]:
        """The function on a grid, anew whenever the trail leaves the window drawn so far."""
        finite = trail[np.isfinite(trail).all(axis=-1)]
        known = np.array(MINIMISERS.get(self.config.function, [(0.0, 0.0)]))
        points = np.concatenate([finite.reshape(-1, 2).clip(-REACH, REACH), known])
        low, high = points.min(0), points.max(0)
        if self.window:
            seen = np.array(self.window)
            if (low >= seen[0]).all() and (high <= seen[1]).all():
                return {}
            low, high = np.minimum(low, seen[0]), np.maximum(high, seen[1])
        span = high - low
        margin = 0.15 * np.maximum(span, 0.5) + np.maximum(0.7 * span.max() - span, 0) / 2
        self.window = [(low - margin).tolist(), (high + margin).tolist()]
        axes = [np.linspace(a, b, GRID) for a, b in zip(*self.window, strict=True)]
        grid = torch.tensor(np.stack(np.meshgrid(*axes), axis=-1))
        return {
            "contour_axes": np.stack(axes)[None],
            "contour": self.function(grid).numpy()[None],
        }
