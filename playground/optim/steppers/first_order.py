"""Steppers: how a round becomes the gradients that are applied.

A stepper gets the round's moves and the ``Game`` that the engine is: gradients here or
elsewhere, where one optimizer step would lead, current points and learning rates. It returns
one gradient per move, and the engine applies them through each player's optimizer, so that
every stepper works with every optimizer unless it says otherwise. After the round it may hand
back whole points (``corrections``), which the engine writes. A stepper never writes itself.

Write z for all players' parameters, F(z) for the gradients of all moves (each by its mover),
J = dF/dz and eta for learning rates. Every method says what it costs in gradient evaluations a
move and update; ``products.PASS`` says what a pass through a gradient counts.

    direct               F(z)                                                          1
    extragradient        F(z - eta F(z))                                               2
    past_extragradient   F(z - eta F(y)), y the point of the last gradient             1
    lookahead            F_i(z_i, z_j - eta F_j(z))                                    2
    lookahead_minimax    direct or extragradient, pulled back every k updates     1 or 2
    optimistic           direct; the optimizer's direction is 2 d - d_previous         1
    consensus, sga, cgd, lola, unrolled: ``second_order``
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from playground.game import Gradient, Move
from playground.schema import ConfigError


class Game(Protocol):
    """What a stepper may ask of the engine."""

    @property
    def names(self) -> Collection[str]:
        """Players that train, in their order."""

    def gradient(
        self, move: Move, at: Mapping[str, Tensor] | None = None, *, create_graph: bool = False
    ) -> Gradient:
        """The gradient at the current point, or where ``at`` {player: [M, N]} says."""

    def ahead(self, move: Move, gradient: Gradient) -> Tensor:
        """The mover's parameters [M, N] after one optimizer step that is not written.

        The optimizer's state, its count included, advances.
        """

    def point(self, player: str) -> Tensor:
        """The player's parameters [M, N]; not to be written to."""

    def learning_rate(self, player: str) -> float | Tensor:
        """Of the player's next update; a float or [M, 1]."""

    def count(self, evaluations: int) -> None:
        """Count passes that were not made by ``gradient``."""


class Stepper:
    """Turns a round into the gradients that are applied.

    Attributes:
        name: as in ``stepper=name``.
    """

    name = "direct"

    def __call__(self, moves: Sequence[Move], game: Game) -> list[Gradient]:
        """One gradient per move, in the order of the moves."""
        return [game.gradient(move) for move in moves]

    def corrections(self, game: Game) -> Mapping[str, Tensor]:
        """{player: [M, N]}: points to go to now that the round is applied; usually none."""
        return {}

    def state(self) -> dict[str, Any]:
        """What a resumed run needs, as tensors and plain containers."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` gave."""


class Direct(Stepper):
    """Gradients at the current point: z <- z - eta F(z).

    Simultaneous descent where a round has several moves. One evaluation.
    """


class Extragradient(Stepper):
    """Gradients at the point that one step of every mover would reach.

        y = z - eta F(z);  z <- z - eta F(y)

    Two evaluations. The optimizer's state, its count included, advances at both: with Adam this
    is ExtraAdam.

    Raises:
        ConfigError: a player moves twice in the round.

    Source: Korpelevich (1976); with adaptive optimizers Gidel et al. (2019), algorithm 4.
    """

    name = "extragradient"

    def __call__(self, moves: Sequence[Move], game: Game) -> list[Gradient]:
        """Gradients at y."""
        once(moves, self.name)
        first = [game.gradient(move) for move in moves]
        ahead = {
            move.player: game.ahead(move, value) for move, value in zip(moves, first, strict=True)
        }
        return [game.gradient(move, ahead) for move in moves]


class PastExtragradient(Stepper):
    """Extragradient that goes ahead by the gradient of the last update.

        y_t = z_t - eta F(y_t-1);  z_t+1 = z_t - eta F(y_t);  F(y_-1) = 0

    One evaluation. With SGD, y follows optimistic descent. The optimizer's state advances at
    both half-steps.

    Source: Popov (1980); Gidel et al. (2019), section 3.3, algorithm 4, option "past".
    """

    name = "past_extragradient"

    def __init__(self) -> None:
        self.past: dict[str, Tensor] = {}

    def __call__(self, moves: Sequence[Move], game: Game) -> list[Gradient]:
        """Gradients at y, which are also the next past."""
        once(moves, self.name)
        ahead = {}
        for move in moves:
            here = game.point(move.player)
            past = Gradient(self.past.get(move.player, torch.zeros_like(here)), {}, {})
            ahead[move.player] = game.ahead(move, past)
        found = [game.gradient(move, ahead) for move in moves]
        for move, gradient in zip(moves, found, strict=True):
            finite = torch.isfinite(gradient.value).all(dim=1, keepdim=True)
            self.past[move.player] = torch.where(finite, gradient.value, 0.0)
        return found

    def state(self) -> dict[str, Any]:
        """The last gradient of every player [M, N]."""
        return {name: value.clone() for name, value in self.past.items()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` gave."""
        self.past = dict(state)


class LookAhead(Stepper):
    """Every mover's gradient where the others will be after a step of theirs.

        F_i(z_i, z_j - rate F_j(z)), the others' step not differentiated

    Two evaluations. On bilinear games it equals extragradient.

    Args:
        rate: of the others' step; None is their own learning rate.

    Source: Zhang and Lesser (2010), as written by Letcher et al. (2019), section 2.3.
    """

    name = "lookahead"

    def __init__(self, rate: float | None) -> None:
        self.rate = rate

    def __call__(self, moves: Sequence[Move], game: Game) -> list[Gradient]:
        """Gradients with the others ahead."""
        whole(moves, game, self.name)
        ahead = {}
        for move in moves:
            step = rate(self.rate, game, move.player) * game.gradient(move).value
            ahead[move.player] = game.point(move.player) - step
        result = []
        for move in moves:
            others = {name: there for name, there in ahead.items() if name != move.player}
            result.append(game.gradient(move, others))
        return result


class LookaheadMinimax(Stepper):
    """Fast steps, of which every k-th is followed by a pull towards where the last pull ended.

        after every k updates:  z <- s + alpha (z - s);  s <- z

    All players are pulled at the same moment, when the one with the fewest updates since the
    last pull has had k: in alternating games too, at the end of the k-th iteration. The pull is
    no update: optimizers, counters and taps do not see it. No evaluation of its own.

    Args:
        inner: the stepper of the fast steps.
        k: updates between pulls.
        alpha: share of the way that is kept.

    Source: Chavdarova et al. (2021), algorithm 1.
    """

    name = "lookahead_minimax"

    def __init__(self, inner: Stepper, k: int, alpha: float) -> None:
        self.inner, self.k, self.alpha = inner, k, alpha
        self.slow: dict[str, Tensor] = {}
        self.since: dict[str, int] = {}
        self.moved: dict[str, Tensor] = {}

    def __call__(self, moves: Sequence[Move], game: Game) -> list[Gradient]:
        """The inner stepper's gradients; who moves is remembered."""
        for name in game.names:  # all of them, before any has moved
            if name not in self.slow:
                self.slow[name] = game.point(name).clone()
                self.since[name] = 0
                self.moved[name] = torch.zeros(
                    (len(self.slow[name]), 1), dtype=torch.bool, device=self.slow[name].device
                )
        for move in moves:
            self.since[move.player] += 1
            mine = True if move.active is None else move.active.unsqueeze(1)
            self.moved[move.player] = self.moved[move.player] | mine
        return self.inner(moves, game)

    def corrections(self, game: Game) -> Mapping[str, Tensor]:
        """The pulled points, every k updates; a member that has stopped is not pulled."""
        if min(self.since.values()) < self.k:
            return {}
        result = {}
        for name, slow in self.slow.items():
            here = game.point(name)
            pulled = torch.where(self.moved[name], slow + self.alpha * (here - slow), here)
            self.slow[name] = result[name] = pulled
            self.since[name] = 0
            self.moved[name] = torch.zeros_like(self.moved[name])
        return result

    def state(self) -> dict[str, Any]:
        """Slow points, counts and who has moved, and the inner stepper's."""
        return {
            "slow": {name: value.clone() for name, value in self.slow.items()},
            "since": dict(self.since),
            "moved": {name: value.clone() for name, value in self.moved.items()},
            "inner": self.inner.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` gave."""
        self.slow, self.since = dict(state["slow"]), dict(state["since"])
        self.moved = dict(state["moved"])
        self.inner.load_state(state["inner"])


def once(moves: Sequence[Move], name: str) -> None:
    """Refuse a round in which a player moves twice.

    Raises:
        ConfigError: naming the stepper.
    """
    if len({move.player for move in moves}) < len(moves):
        raise ConfigError(f"stepper={name}: a player moves twice in one round")


def whole(moves: Sequence[Move], game: Game, name: str, players: int | None = None) -> None:
    """Refuse a round in which not every player moves once.

    Args:
        moves: the round.
        game: who trains.
        name: the stepper's.
        players: how many there must be; None takes any number.

    Raises:
        ConfigError: naming the stepper.
    """
    once(moves, name)
    if len(moves) < len(game.names):
        raise ConfigError(
            f"stepper={name}: needs every player in each round, as with problem.rounds=simultaneous"
        )
    if players is not None and len(moves) != players:
        raise ConfigError(f"stepper={name}: needs {players} players that train, not {len(moves)}")


def rate(given: float | None, game: Game, player: str) -> float | Tensor:
    """A rate in the type of the player's parameters; None is the player's learning rate."""
    value = game.learning_rate(player) if given is None else given
    return value.to(game.point(player).dtype) if isinstance(value, Tensor) else value


def settled(gradient: Gradient, value: Tensor) -> Gradient:
    """A gradient with another value, and without any graph."""
    terms = {name: term.detach() for name, term in gradient.terms.items()}
    return replace(gradient, value=value.detach(), terms=terms)


def placed(state: Any, device: torch.device) -> Any:
    """A state with its tensors on a device."""
    if isinstance(state, Tensor):
        return state.to(device)
    if isinstance(state, dict):
        return {key: placed(value, device) for key, value in state.items()}
    return state
