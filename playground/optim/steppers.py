"""Steppers: how a round becomes the gradients that are applied.

A stepper gets the round's moves and two functions of the engine's. ``gradient(move, at)``
evaluates a move's gradient at the current parameters, or with some players' parameters
replaced; ``extrapolate(move, gradient)`` says where one optimizer step would take the mover,
which advances the optimizer's state but writes no parameters. A stepper returns one gradient
per move, and the engine applies them. What a gradient is, is the engine's affair.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from torch import Tensor

from playground.game import Move

G = TypeVar("G")
G_co = TypeVar("G_co", covariant=True)


class GradientFn(Protocol[G_co]):
    """Evaluates the gradient of a move."""

    def __call__(self, move: Move, at: Mapping[str, Tensor] | None = None) -> G_co:
        """The gradient at the current parameters, or where ``at`` {player: [M, N]} says."""


ExtrapolateFn = Callable[[Move, G], Tensor]
"""(move, gradient) -> the mover's parameters [M, N] after one step that is not written."""


class Stepper(Protocol):
    """Turns a round into the gradients that are applied."""

    def __call__(
        self, moves: Sequence[Move], gradient: GradientFn[G], extrapolate: ExtrapolateFn[G]
    ) -> list[G]:
        """One gradient per move, in the order of the moves."""


def direct(
    moves: Sequence[Move], gradient: GradientFn[G], extrapolate: ExtrapolateFn[G]
) -> list[G]:
    """Gradients at the current point: simultaneous descent where a round has several moves.

    x <- x - eta F(x)
    """
    return [gradient(move) for move in moves]


def extragradient(
    moves: Sequence[Move], gradient: GradientFn[G], extrapolate: ExtrapolateFn[G]
) -> list[G]:
    """Gradients at the point that one step of every mover would reach.

    y = x - eta F(x);  x <- x - eta F(y)

    Costs two gradient evaluations per move and update. The optimizer's state, its count
    included, advances at both: with Adam this is ExtraAdam.

    Raises:
        ValueError: a player moves twice in the round.

    Source: Korpelevich (1976); with adaptive optimizers Gidel et al. (2019), algorithm 4.
    """
    if len({move.player for move in moves}) < len(moves):
        raise ValueError("extragradient: a player moves twice in one round")
    first = [gradient(move) for move in moves]
    ahead = {
        move.player: extrapolate(move, value) for move, value in zip(moves, first, strict=True)
    }
    return [gradient(move, ahead) for move in moves]


STEPPERS: dict[str, Stepper] = {"direct": direct, "extragradient": extragradient}
