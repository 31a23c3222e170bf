"""Slices of a run's objectives and metrics through its parameters, with standard errors.

    found = playground.landscape(run, [gradient_direction, random_direction],
                                 offsets=[[0, 1, 2], [-1, 0, 1]])
    found.values["objective"]      # what one iteration of training would descend [A, B]
    found.values["return"]         # the metric that an evaluation measures there [A, B]

All points see the same data: the objective is that of batches taken at the centre, once for
each of K data seeds; metrics are evaluations with the same random streams at every point.

Shape legend: K data seeds, P points, N parameters of a player, A, B offsets.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from playground.extend import Wrap
from playground.game import Move, Problem
from playground.gradients import reduced
from playground.probes.landscape import Slice, Values, slices
from playground.randomness import stream_seed
from playground.schema import ConfigError
from playground.temporary import Point, Source, Temporary, find_point

OBJECTIVE = "objective"


@dataclass(frozen=True)
class _Setting:
    """What the evaluation of points needs to know."""

    point: Point
    player: str
    seed: int
    batches: int
    burn_in: int
    metrics: tuple[str, ...]


def landscape(
    source: Source,
    directions: Sequence[Tensor],
    offsets: Sequence[Sequence[float] | np.ndarray | Tensor],
    *,
    at: str | int = "final",
    player: str | None = None,
    metrics: Sequence[str] | None = None,
    batches: int = 8,
    member: int = 0,
    seed: int = 0,
    burn_in: int = 0,
    at_once: int = 64,
    overrides: Sequence[str] = (),
    problem: Callable[[], Problem] | None = None,
    objectives: Mapping[str, Wrap] | None = None,
) -> Slice:
    """The objective and the metrics of a run on a line or a grid through one player's parameters.

    Args:
        source: a run, its folder, or overrides (their initial parameters).
        directions: one or two, each [N] of the player.
        offsets: along each direction, in its units.
        at: ``final``, ``best``, or the iteration of a snapshot.
        player: whose parameters; null is the only one, or the first.
        metrics: of the evaluation; None is the problem's main metric, [] none.
        batches: K, batches taken at the centre; the objective's error is that of their mean.
        member: whose parameters.
        seed: of the data.
        burn_in: iterations collected and dropped before the batches are taken.
        at_once: points evaluated together.
        overrides: keys of the run to change, as ``problem.evaluation_episodes=1000``.
        problem: makes the problem, where it is one's own.
        objectives: as the run was given.

    Returns:
        A slice with ``objective``, ``objective/<term>`` and the metrics. The error of a metric
        is what the evaluation says: of episodes for a return, NaN where it is exact. Points
        share their seeds, so differences between them are known better than that.

    Raises:
        ConfigError: what does not fit.
        RecordError: the run has no such snapshot.
    """
    point = find_point(
        source, at, member, overrides=overrides, problem=problem, objectives=objectives
    )
    name = next(iter(point.parameters)) if player is None else player
    if name not in point.parameters:
        raise ConfigError(f"player={name}: allowed are {', '.join(point.parameters)}")
    wanted = (point.make().main_metric,) if metrics is None else tuple(metrics)
    setting = _Setting(point, name, seed, batches, burn_in, wanted)
    center = point.parameters[name]
    stacked = torch.stack([d.to(center) for d in directions])
    axes = [torch.as_tensor(axis, dtype=torch.float64) for axis in offsets]
    move, players = _batches(setting)

    def values(where: Tensor) -> Values:
        found = _objective(setting, move, players, where)
        return found | _metrics(setting, where) if wanted else found

    return slices(values, center, stacked, axes, at_once)


def _batches(setting: _Setting) -> tuple[Move, Temporary]:
    """The player's first move at the centre, on K data seeds at once."""
    seeds = [stream_seed(setting.seed, f"landscape/{k}") for k in range(setting.batches)]
    temporary = Temporary(setting.point, seeds)
    temporary.burn_in(setting.burn_in)
    for move, _ in temporary.moves():
        if move.player == setting.player:
            return move, temporary
    raise ConfigError(f"player={setting.player}: it has no move in an iteration")


def _objective(setting: _Setting, move: Move, temporary: Temporary, where: Tensor) -> Values:
    """The objective and its terms at points [P, N]: mean over K batches, and its error."""
    players = {name: p.parameters for name, p in temporary.players.items()}
    fixed = {name: p.layout.views(p.values[0]) for name, p in players.items()}

    def value(theta: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        own = players[setting.player].layout.views(theta)
        total, (terms, _) = reduced(move.objective, {**fixed, setting.player: own}, batch)
        return {OBJECTIVE: total, **{f"{OBJECTIVE}/{name}": term for name, term in terms.items()}}

    over_batches = torch.func.vmap(value, in_dims=(None, 0))
    batch = move.batch or {"": torch.zeros(setting.batches)}  # vmap wants something
    with torch.no_grad():
        each = [over_batches(theta, batch) for theta in where]
    found: Values = {}
    for name in each[0]:
        own = torch.stack([one[name] for one in each]).double().cpu()  # [P, K]
        K = own.shape[1]
        error = own.std(1) / K**0.5 if K > 1 else torch.full_like(own[:, 0], torch.nan)
        found[name] = own.mean(1), error
    return found


def _metrics(setting: _Setting, where: Tensor) -> Values:
    """Metrics of the evaluation at points [P, N], all with the same streams."""
    seeds = [stream_seed(setting.seed, "landscape/evaluation")] * len(where)
    temporary = Temporary(setting.point, seeds)
    temporary.place(setting.player, where)
    result = temporary.problem.evaluate()
    found: Values = {}
    for name in setting.metrics:
        if name not in result.metrics:
            raise ConfigError(f"metrics={name}: allowed are {', '.join(result.metrics)}")
        value = torch.from_numpy(np.asarray(result.metrics[name], np.float64))
        error = result.stderr.get(name)
        nothing = torch.full_like(value, torch.nan)
        found[name] = value, nothing if error is None else torch.from_numpy(np.asarray(error))
    return found
