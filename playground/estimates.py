"""Independent gradient estimates of any problem at fixed parameters, for bias and noise.

    run = playground.run(["problem=rl/cartpole"])
    found = playground.gradient_estimates(run, at="final", estimates=100)
    found.values["agent"]              # [K, N]
    found.noise("agent")["cosine"]     # mean pairwise cosine with its standard error

An estimate is what one iteration of training would see: REINFORCE's episodes, PPO's rollout, a
GAN's batch, each from data streams of its own.

Shape legend: K estimates, N parameters of a player.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from playground.extend import Wrap
from playground.game import Problem
from playground.parameters import Layout
from playground.probes.noise.estimates import Measured, grouped, noise
from playground.randomness import stream_seed
from playground.schema import ConfigError
from playground.temporary import Point, Source, Temporary, find_point

AT_ONCE = 64
"""Temporary members built together (ours: what a rollout of small networks needs little for)."""


@dataclass(frozen=True)
class Estimates:
    """Independent gradient estimates at one point.

    Attributes:
        values: {player: [K, N]} of the gradient that training would descend.
        layouts: {player: layout}.
        point: where they were taken.
    """

    values: dict[str, Tensor]
    layouts: dict[str, Layout]
    point: Point

    def mean(self, player: str) -> Tensor:
        """The mean of all [N], a reference for other estimates."""
        return self.values[player].mean(0)

    def noise(
        self, player: str, reference: Tensor | None = None, *, size: int = 1
    ) -> dict[str, Measured]:
        """Variance, signal-to-noise, cosines and bias; see ``playground.probes.noise.estimates``.

        Args:
            player: whose.
            reference: [N], the exact gradient or the mean of very many other estimates. It is
                taken as exact: the variance of a mean of R estimates, over R, is part of the bias.
            size: estimates that are averaged into one, for larger samples.

        Returns:
            {quantity: value and standard error [1, 1 + T]}.
        """
        values = grouped(self.values[player], size).unsqueeze(1)
        r = None if reference is None else reference.unsqueeze(0)
        return noise(values, self.layouts[player], r)


def gradient_estimates(
    source: Source,
    at: str | int = "final",
    *,
    estimates: int = 32,
    member: int = 0,
    seed: int = 0,
    moves: str = "first",
    burn_in: int = 0,
    progress: float = 0.0,
    at_once: int = AT_ONCE,
    overrides: Sequence[str] = (),
    problem: Callable[[], Problem] | None = None,
    objectives: Mapping[str, Wrap] | None = None,
) -> Estimates:
    """K independent estimates of every player's gradient at fixed parameters.

    Args:
        source: a run, its folder, or overrides (their initial parameters).
        at: ``final``, ``best``, or the iteration of a snapshot. Only ``final`` has what the
            problem learned besides parameters, such as the statistics of normalisers.
        estimates: K.
        member: whose parameters.
        seed: of the estimates' data; other seeds give independent estimates.
        moves: ``first`` takes each player's first move of an iteration (PPO's first minibatch),
            ``mean`` the mean over all its moves (PPO's whole batch), at the same parameters.
        burn_in: iterations collected and dropped before, so that environments are not all in
            their first steps; episodes that begin with the iteration (reinforce) need none.
        progress: share of the budget that the problem's own schedules are told.
        at_once: temporary members built together; it changes memory and speed, not the draws.
        overrides: keys of the run to change for the measurement.
        problem: makes the problem, where it is one's own.
        objectives: as the run was given.

    Raises:
        ConfigError: what does not fit.
        RecordError: the run has no such snapshot.
    """
    if moves not in ("first", "mean"):
        raise ConfigError(f"moves={moves}: allowed are first, mean")
    for key, given, least in (("estimates", estimates, 1), ("burn_in", burn_in, 0)):
        if given < least:
            raise ConfigError(f"{key}={given}: must be at least {least}")
    point = find_point(
        source, at, member, overrides=overrides, problem=problem, objectives=objectives
    )
    seeds = [stream_seed(seed, f"estimate/{k}") for k in range(estimates)]
    pieces: dict[str, list[Tensor]] = {}
    layouts: dict[str, Layout] = {}
    for begin in range(0, estimates, at_once):
        temporary = Temporary(point, seeds[begin : begin + at_once])
        temporary.burn_in(burn_in, progress)
        layouts = {name: p.parameters.layout for name, p in temporary.players.items()}
        for name, value in _gradients(temporary, moves, progress).items():
            pieces.setdefault(name, []).append(value)
    return Estimates({name: torch.cat(parts) for name, parts in pieces.items()}, layouts, point)


def _gradients(temporary: Temporary, moves: str, progress: float) -> dict[str, Tensor]:
    """{player: [K, N]}: the first move's gradient, or the mean over the iteration's moves."""
    total: dict[str, Tensor] = {}
    count: dict[str, int] = {}
    for move, gradient in temporary.moves(progress):
        name = move.player
        if name not in total:
            total[name], count[name] = gradient.value.clone(), 1
        elif moves == "mean":
            total[name] += gradient.value
            count[name] += 1
        if moves == "first" and len(total) == len(temporary.players):
            break
    return {name: value / count[name] for name, value in total.items()}
