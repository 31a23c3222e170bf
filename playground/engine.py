"""The engine: the one door where gradients become updates.

``play(round)`` takes every move's gradient at the same point, lets the stepper and the
optimizer chains turn them into updates, shows both to the observers and adds them to the
parameters. ``gradient(move, params)`` is public and differentiable in every player's
parameters. The engine knows nothing of environments, data, evaluation, checkpoints or plots.

A non-finite gradient or update is never applied: the member freezes there, and the gradient
is kept so that its tensor can be named.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from playground.game import (
    Gradient,
    Move,
    Observation,
    Observer,
    Outcome,
    Outcomes,
    Player,
    Round,
)  # fmt: skip
from playground.gradients import Differentiator, MoveGeometry
from playground.optim.optimizer import Optimizer, Step
from playground.optim.steppers.first_order import Direct, Stepper, placed


@dataclass(frozen=True, slots=True)
class Failure:
    """The first non-finite gradient or update of a member."""

    member: int
    player: str
    update: int
    gradient: Tensor  # [N], as it was


class Engine:
    """Plays rounds for a fixed set of players.

    Args:
        stepper: how a round becomes gradients.
        observers: see every update before it is applied.
        before: see every round before anything happens, to make passes of their own.
        held: players that do not train. Their gradients are taken and seen, they stay.

    Attributes:
        names: players that train.
        gradient_evaluations: int64 [M], gradients taken of any player, and passes of steppers.
        frozen: bool [M], members that met a non-finite value.
        failures: the first failure of each frozen member.
        progress: share of the budget used, set by the run for schedules.
        round_index: rounds played since the iteration began, set to 0 by the run.
    """

    def __init__(
        self,
        players: Mapping[str, Player],
        optimizers: Mapping[str, Optimizer],
        stepper: Stepper | None = None,
        observers: Sequence[Observer] = (),
        *,
        before: Sequence[Callable[[Round], None]] = (),
        held: Collection[str] = (),
        compiled: bool = False,
    ) -> None:
        self.players = dict(players)
        self.optimizers = dict(optimizers)
        self.stepper = stepper or Direct()
        self.observers = tuple(observers)
        self.before = tuple(before)
        self.names = tuple(name for name in self.players if name not in held)
        self.differentiate = Differentiator(players, compiled=compiled)
        first = next(iter(self.players.values())).parameters.values
        self.members, self.device = first.shape[0], first.device
        self._updates = torch.zeros(len(self.players), self.members, dtype=torch.int64,
                                    device=self.device)  # fmt: skip
        self._counts = dict(zip(self.players, self._updates, strict=True))
        self.gradient_evaluations = np.zeros(self.members, np.int64)
        self.frozen = torch.zeros(self.members, dtype=torch.bool, device=self.device)
        self.failures: dict[int, Failure] = {}
        self.progress = 0.0
        self.round_index = 0
        self._remote = self.device.type != "cpu"
        self._kept: dict[str, tuple[Tensor, Tensor]] = {}
        self._played = dict.fromkeys(self.players, 0)

    @property
    def updates(self) -> dict[str, np.ndarray]:
        """{player: number of updates so far}; int64 [M], one read of an accelerator for all."""
        return dict(zip(self.players, self._updates.cpu().numpy(), strict=True))

    def play(self, moves: Round) -> Outcomes:
        """Take all gradients at the same point, then apply all updates."""
        for look in self.before:
            look(moves)
        free = tuple(move for move in moves if move.player in self.names)
        stepped = iter(self.stepper(free, self) if free else ())
        gradients = [next(stepped) if m.player in self.names else self.gradient(m) for m in moves]
        outcomes = {}
        for move, gradient in zip(moves, gradients, strict=True):
            still = None if move.player in self.names else torch.zeros_like(self.frozen)
            mine = move if still is None else replace(move, active=still)  # held: nobody is active
            report = self._apply(mine, gradient.value)
            outcomes[move.player] = Outcome(gradient.terms, gradient.diagnostics | report)
        for name, values in (self.stepper.corrections(self) if free else {}).items():
            here = self.players[name].parameters.values
            here.copy_(torch.where(self.frozen[:, None], here, values))
        self.round_index += 1
        return outcomes

    def gradient(
        self, move: Move, at: Mapping[str, Tensor] | None = None, *, create_graph: bool = False
    ) -> Gradient:
        """The gradient of a move's objective by its mover; see ``Differentiator``."""
        self.gradient_evaluations += 1
        return self.differentiate(move, at, create_graph=create_graph)

    def ahead(self, move: Move, gradient: Gradient) -> Tensor:
        """The mover's parameters after one optimizer step; its parameters stay as they are."""
        parameters = self.players[move.player].parameters.values
        norm = torch.linalg.vector_norm(gradient.value, dim=1)
        bad = self._nonfinite(move, norm, gradient.value)
        if bad is not None:  # named here: the gradient at the point ahead may be finite
            self._freeze(move.player, bad, gradient.value, self._played[move.player] + 1)
        return parameters + self._step(move, gradient.value, norm).update

    def point(self, player: str) -> Tensor:
        """A player's parameters [M, N]; not to be written to."""
        return self.players[player].parameters.values

    def learning_rate(self, player: str) -> float | Tensor:
        """Of a player's next update; a float or [M, 1]."""
        return self.optimizers[player].learning_rate(self.progress)

    def count(self, evaluations: int) -> None:
        """Count passes of a stepper's own, in gradient evaluations."""
        self.gradient_evaluations += evaluations

    def settle(self) -> dict[int, Failure]:
        """Failures so far; waits for an accelerator, once an iteration, as ``updates`` does."""
        if self._remote:
            for player, (kept, index) in self._kept.items():
                self._name(player, self.frozen & (index >= 0), kept, index.tolist())
        return self.failures

    def state(self) -> dict[str, Any]:
        """Counters, frozen members and optimizer states, as tensors and plain containers."""
        return {
            "optimizers": {name: opt.state() for name, opt in self.optimizers.items()},
            "updates": {name: count.tolist() for name, count in self.updates.items()},
            "played": dict(self._played),
            "gradient_evaluations": self.gradient_evaluations.tolist(),
            "frozen": self.frozen.tolist(),
            "stepper": self.stepper.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` gave."""
        for name, saved in state["optimizers"].items():
            self.optimizers[name].load_state(saved)
        for name, count in state["updates"].items():
            self._counts[name].copy_(torch.tensor(count))
        self._played = dict(state["played"])
        self.gradient_evaluations = np.array(state["gradient_evaluations"], np.int64)
        self.frozen = torch.tensor(state["frozen"], device=self.device)
        self.stepper.load_state(placed(state.get("stepper", {}), self.device))
        self.failures = {
            member: Failure(member, "", -1, torch.empty(0))
            for member in self.frozen.nonzero().flatten().tolist()
        }

    def _apply(self, move: Move, gradient: Tensor) -> dict[str, Tensor]:
        """Optimizer chain, finite check, observers, parameters += update; the chain's report."""
        player = self.players[move.player]
        values = player.parameters.values
        self._played[move.player] += 1
        norm = torch.linalg.vector_norm(gradient, dim=1)
        bad = self._nonfinite(move, norm, gradient)
        if bad is not None:
            self._freeze(move.player, bad, gradient, self._played[move.player])
        step = self._step(move, gradient, norm)
        update = step.update
        overflow = self._nonfinite(move, torch.linalg.vector_norm(update, dim=1), update)
        if overflow is not None:
            self._freeze(move.player, overflow, gradient, self._played[move.player])
            update = torch.where(self.frozen[:, None], 0.0, update)
        mask = self._mask(move)
        self._counts[move.player].add_(1 if mask is None else mask)
        if self.observers:
            observation = Observation(
                move.player, player.parameters.layout, gradient, norm, step.clipped,
                step.clip_coefficient, step.update, values, step.learning_rate,
                self._played[move.player], self.round_index,
            )  # fmt: skip
            for observer in self.observers:
                observer(observation)
        values.add_(update)
        return step.report

    def _step(self, move: Move, gradient: Tensor, norm: Tensor) -> Step:
        """The optimizer's step; frozen members stay, as far as the host knows them."""
        optimizer = self.optimizers[move.player]
        geometry = MoveGeometry(self.differentiate, move) if optimizer.uses_geometry else None
        step = optimizer.step(
            gradient, self.players[move.player].parameters.values, norm=norm,
            progress=self.progress, active=move.active,
            frozen=self.frozen if self.failures and not self._remote else None,
            geometry=geometry,
        )  # fmt: skip
        self.gradient_evaluations += geometry.evaluations if geometry is not None else 0
        return step

    def _mask(self, move: Move) -> Tensor | None:
        """Bool [M] of the members whose parameters move; None where the host knows: all."""
        mask = move.active
        if self.failures or self._remote:
            mask = ~self.frozen if mask is None else mask & ~self.frozen
        return mask

    def _nonfinite(self, move: Move, norm: Tensor, value: Tensor) -> Tensor | None:
        """Bool [M] of active members newly non-finite; None where the host knows of none."""
        if not self._remote and np.isfinite(norm.numpy()).all():
            return None
        bad = ~torch.isfinite(value).all(dim=1)  # a norm may overflow by itself
        bad &= ~self.frozen if move.active is None else move.active & ~self.frozen
        return bad if self._remote or bool(bad.any()) else None

    def _freeze(self, player: str, new: Tensor, gradient: Tensor, index: int) -> None:
        """Freeze members where ``new`` and keep the gradient they failed at."""
        self.frozen = self.frozen | new
        if not self._remote:
            self._name(player, new, gradient, [index] * self.members)
            return
        kept, at = self._kept.get(
            player, (torch.zeros_like(gradient), torch.full_like(new, -1, dtype=torch.int64))
        )
        self._kept[player] = (
            torch.where(new[:, None], gradient, kept),
            torch.where(new, index, at),
        )

    def _name(self, player: str, bad: Tensor, gradient: Tensor, updates: list[int]) -> None:
        for member in bad.nonzero().flatten().tolist():
            if member not in self.failures:
                self.failures[member] = Failure(
                    member, player, updates[member], gradient[member].clone()
                )
