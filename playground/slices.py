"""Slices of a run's objectives and metrics through its parameters, with standard errors.

    found = playground.landscape(run, "principal")     # the plane of the run's own path
    found.values["objective"]      # what one iteration of training would descend [A, B]
    found.path.values["objective"] # the same where the path really was [T]
    found.path.outside             # how far from the plane that is [T]
    playground.landscape(run, [gradient, random], offsets=[[0, 1, 2], [-1, 0, 1]])

All points see the same data: the objective is that of batches taken at the centre, once for
each of K data seeds; metrics are evaluations with the same random streams at every point. Only
one player moves: the others stay where they are at the centre.

Shape legend: K data seeds, P points, N parameters of a player, A, B offsets, T points of a path.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from playground.extend import Wrap
from playground.game import Move, Problem
from playground.gradients import reduced
from playground.planes import Plane, plane
from playground.probes.landscape import Path, Slice, Values, evaluated, slices
from playground.randomness import stream_seed
from playground.record.loss_landscapes import save_slice
from playground.record.reader import Run
from playground.schema import ConfigError
from playground.temporary import Point, Source, Temporary, find_point, saved

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
    directions: str | Sequence[Tensor],
    offsets: Sequence[Sequence[float] | np.ndarray | Tensor] | None = None,
    *,
    at: str | int = "final",
    player: str | None = None,
    metrics: Sequence[str] | None = None,
    batches: int = 8,
    member: int = 0,
    seed: int = 0,
    burn_in: int = 0,
    at_once: int = 64,
    points: int | None = None,
    overrides: Sequence[str] = (),
    problem: Callable[[], Problem] | None = None,
    objectives: Mapping[str, Wrap] | None = None,
) -> Slice:
    """The objective and the metrics of a run on a line or a grid through one player's parameters.

    Args:
        source: a run, its folder, or overrides (their initial parameters).
        directions: ``principal`` (of the path through the snapshots that the run kept, up to
            ``at``; see ``playground.probes.principal``), ``random`` (of the parameters' norm),
            ``filter_normalised`` (Li et al. 2018), or one or two of one's own, each [N].
        offsets: along each direction, in its units; None is -1 to 1, or what holds the path.
        at: ``final``, ``best``, or the iteration of a snapshot.
        player: whose parameters; null is the only one, or the first.
        metrics: of the evaluation; None is the problem's main metric, [] none.
        batches: K, batches taken at the centre; the objective's error is that of their mean.
        member: whose parameters.
        seed: of the data and of random directions.
        burn_in: iterations collected and dropped before the batches are taken.
        at_once: points evaluated together.
        points: along each direction where offsets are None; null is 25, on a line 101.
        overrides: keys of the run to change, as ``problem.evaluation_episodes=1000``.
        problem: makes the problem, where it is one's own.
        objectives: as the run was given.

    Returns:
        A slice with ``objective``, ``objective/<term>`` and the metrics. The error of a metric
        is what the evaluation says: of episodes for a return, NaN where it is exact. Points
        share their seeds, so differences between them are known better than that. Along
        principal directions it has the ``path``: what the problem learned besides parameters,
        such as a normaliser's statistics, is the centre's at all its points.

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
    chosen = plane(source, point, name, directions, offsets, points, seed)
    move, players = _batches(setting)

    def values(where: Tensor) -> Values:
        found = _objective(setting, move, players, where)
        return found | _metrics(setting, where) if wanted else found

    found = slices(values, center, chosen.directions, chosen.offsets, at_once)
    return replace(found, path=_path(values, chosen, center, at_once))


def _path(
    values: Callable[[Tensor], Values], chosen: Plane, center: Tensor, at_once: int
) -> Path | None:
    """The function at a path's points and at their places on the plane."""
    if chosen.trail is None or chosen.principal is None or chosen.random_walk is None:
        return None
    own = chosen.principal
    shown = (center.double() + own.coordinates @ own.directions).to(center)
    where = torch.cat([chosen.trail.points.to(center), shown])
    found = evaluated(values, where, at_once)
    half = len(shown)
    (real, real_error), (flat, flat_error) = (
        [{name: value[part] for name, value in one.items()} for one in found]
        for part in (slice(None, half), slice(half, None))
    )
    return Path(chosen.trail.iterations, own.coordinates, own.outside, own.explained,
                chosen.random_walk, real, real_error, flat, flat_error)  # fmt: skip


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


def keep(
    run: Run,
    found: Slice,
    directions: str,
    *,
    player: str | None = None,
    member: int = 0,
    at: str | int = "final",
) -> str:
    """Keep a slice with its run, for ``run.figure``; the figure's name.

    Args:
        run: whose.
        found: what ``landscape`` gave.
        directions: as they were given to it by name, or a name for one's own.
        player: as it was given.
        member: as it was given.
        at: as it was given.

    Raises:
        RecordError: it cannot be written.
    """
    players = list(run.manifest["players"])
    name = players[0] if player is None else player
    parts = [directions, *([name] if len(players) > 1 else [])]
    parts += [f"member{member}"] if len(run.members) > 1 else []
    parts += [str(at)] if at != "final" else []
    about = {"directions": directions, "player": name, "member": member,
             "iteration": saved(run, at)[0]}  # fmt: skip
    save_slice(run.path, "-".join(parts), _arrays(found), about)
    return f"slice-{'-'.join(parts)}"


def _arrays(found: Slice) -> dict[str, np.ndarray]:
    """Everything that a picture needs, by name; not the directions, which are as large as nets."""
    kept = {f"offsets/{i}": axis for i, axis in enumerate(found.offsets)}
    groups = {"values": found.values, "stderr": found.stderr}
    if found.path is not None:
        own = vars(found.path)
        kept |= {f"path/{key}": value for key, value in own.items() if isinstance(value, Tensor)}
        groups |= {f"path/{key}": value for key, value in own.items() if isinstance(value, dict)}
    for group, values in groups.items():
        kept |= {f"{group}/{quantity}": value for quantity, value in values.items()}
    return {key: value.cpu().numpy() for key, value in kept.items()}
