"""The words of the project as types: training is a differentiable game.

A *problem* has one or more *players*, each with parameters and an objective. It yields
*rounds*: moves whose gradients are all taken at the same point before any is applied.
Alternating descent is a sequence of rounds of one move; simultaneous descent is one
round of n moves; minimising a function is the one-player game.

    problem.iteration() --round--> engine --> per move:
        terms, diagnostics = objective(params, batch)    # one member's pure function
        gradient [M, N] -> optimizer chain -> update [M, N] -> parameters += update

Shape legend: M members, N parameters of a player, B samples of a batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from playground.parameters import Layout, Parameters

Params = Mapping[str, Mapping[str, Tensor]]
"""{player: {tensor: value}} of one member, every player's."""

Batch = dict[str, Tensor]
"""Named tensors with leading axis M. The key ``weight`` holds per-sample weights [M, B]; the key
``cluster`` says by equal integers [M, B] which samples are dependent, where any are."""

Terms = dict[str, Tensor]
"""Named values of one member: per sample [B], or a scalar where samples do not separate."""

Objective = Callable[[Params, Batch], tuple[Terms, Terms]]
"""``(params, batch) -> (terms, diagnostics)`` of one member: pure, re-callable, without I/O
and without hidden randomness. The objective is the sum of its terms; diagnostics carry no
gradient."""


@dataclass(frozen=True)
class Player:
    """A named set of parameters that has an optimizer of its own.

    ``module`` builds an ``nn.Module`` whose ``state_dict`` keys are the tensor names, for
    handing a trained player to other code; None where a player is not a network.
    """

    name: str
    parameters: Parameters
    module: Callable[[], torch.nn.Module] | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """One player, one objective, one batch.

    ``active`` is bool [M]: a member that has stopped keeps its parameters and optimizer
    state untouched. ``divergence(params, batch)`` gives trust regions their metric.
    """

    player: str
    objective: Objective
    batch: Batch
    active: Tensor | None = None
    divergence: Objective | None = None


Round = tuple[Move, ...]
"""Moves whose gradients are all taken at the same point before any is applied."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a round returned for one player: reduced terms and diagnostics, each [M]."""

    terms: Terms
    diagnostics: Terms


Outcomes = dict[str, Outcome]
"""{player: Outcome}, what ``yield round`` evaluates to."""


@dataclass(frozen=True, slots=True)
class Gradient:
    """A player's gradient [M, N] with the reduced terms and diagnostics, each [M]."""

    value: Tensor
    terms: Terms
    diagnostics: Terms


@dataclass(frozen=True, slots=True)
class Observation:
    """What an observer sees of one update: plain values at the taps, before it is applied.

    Attributes:
        gradient: [M, N], tap ``gradient`` (raw).
        norm: [M], its L2 norm.
        clipped: [M, N] or None, tap ``clipped``.
        clip_coefficient: [M] or None.
        update: [M, N], tap ``update``: what is added to the parameters.
        parameters: [M, N] before the update.
        learning_rate: float or [M, 1].
        index: how many updates the player has had, this one included.
        round_index: of the round within its iteration.
        read: the tap where ``gradient`` was read; ``clipped`` in loops that clip in place, where
            the raw gradient is gone and ``norm`` is all that is left of it.
    """

    player: str
    layout: Layout
    gradient: Tensor
    norm: Tensor
    clipped: Tensor | None
    clip_coefficient: Tensor | None
    update: Tensor
    parameters: Tensor
    learning_rate: float | Tensor
    index: int
    round_index: int
    read: str = "gradient"


Observer = Callable[[Observation], None]


@dataclass(frozen=True, slots=True)
class Stability:
    """Where an optimizer starts to oscillate on a quadratic, its preconditioner held.

    It is stable while every eigenvalue of P^-1/2 (H + decay I) P^-1/2 lies in (0, limit).

    Attributes:
        limit: [M], in units of curvature under P.
        decay: [M], coupled weight decay.
        scale: [M, N], the diagonal of P; None is the identity.
    """

    limit: Tensor
    decay: Tensor
    scale: Tensor | None = None


@dataclass(frozen=True)
class Context:
    """What a problem gets from the run: the members' seeds, where and how to compute."""

    seeds: tuple[int, ...]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32

    @property
    def members(self) -> int:
        """M, the number of independent replicas."""
        return len(self.seeds)


@dataclass
class Evaluation:
    """Metrics {name: [M]}, their standard errors where estimated, and arrays for pictures.

    Every array has the leading axis M, or 1 where all members share it.
    """

    metrics: dict[str, np.ndarray]
    stderr: dict[str, np.ndarray] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


class Problem(ABC):
    """A task with players, data and evaluation.

    Life: ``setup(context)`` once, then ``iteration`` again and again, ``evaluate`` between
    iterations, ``state``/``load_state`` for checkpoints. No state lives in the generator
    between iterations.

    Attributes:
        name: what the user calls it, such as ``rl/cartpole``.
        main_metric: the metric shown in the progress line and used to pick the best
            snapshot; ``higher_is_better`` tells its direction.
        epochs: rounds of an epoch and epochs of an iteration, where one passes over the same
            data several times; (0, 0) elsewhere.
        counters: int64 [M] arrays of what the problem counts itself (``samples``,
            ``env_steps``); budgets may refer to them.
        rounds: ``simultaneous`` or ``alternating`` where every iteration is so; steppers that
            need every player in each round refuse the latter before any work.
        dtype: of an object's parameters unless ``dtype=`` is given; None is float32.
    """

    name: str = "custom"
    rounds: str = ""
    dtype: str | None = None
    main_metric: str = "loss"
    higher_is_better: bool = False
    epochs: tuple[int, int] = (0, 0)
    counters: dict[str, np.ndarray]

    @abstractmethod
    def setup(self, context: Context) -> dict[str, Player]:
        """Make the players, their initial parameters and every random stream."""

    @abstractmethod
    def iteration(
        self, progress: float
    ) -> Generator[Round, Outcomes, dict[str, np.ndarray] | None]:
        """Yield the rounds of one iteration; return its training metrics {name: [M]}.

        Args:
            progress: share of the budget used so far, in [0, 1], for schedules that
                belong to the problem.
        """

    @abstractmethod
    def evaluate(self) -> Evaluation:
        """Measure every member with randomness that training never sees."""

    def whole(self, player: str) -> "Move | None":
        """A player's move on all the data that its batches are of; None where there is no end."""
        return None

    def replaced(self) -> None:  # noqa: B027
        """Forget what was derived from the initial parameters: they are another run's now."""

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs, as tensors and plain containers."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Take back what ``state`` gave."""

    def adopt(self, state: dict[str, Any], member: int) -> None:  # noqa: B027
        """Give every member what one member of a saved state learned besides parameters.

        That is what the gradient depends on, such as the statistics of normalisers; streams,
        environments and positions in the data stay. It serves measurements away from a run.
        """


def reduce_term(term: Tensor, share: Tensor | None) -> Tensor:
    """Reduce one member's term to a scalar: sum(w t) / sum(w).

    Args:
        term: [B] per sample, or a scalar, which passes.
        share: [B], w / sum(w), all 0 where sum(w) = 0; None for equal weights. A chunk of a
            batch divides by the whole batch's sum(w).
    """
    if term.ndim == 0:
        return term
    return term.mean() if share is None else torch.dot(term, share)
