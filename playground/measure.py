"""A finished run as a vector field: what ``probes.game`` has functions for, after the fact.

    field = run_field(run)                                    # on batches that it never saw
    start, end = snapshot(run, 0), snapshot(run)
    cosine, norm = path_angle(field, start, end, np.linspace(-0.1, 1.1, 61))
    spectrum(jacobian(field, end))

Games of ``gan/*`` and ``landscape/*``, whose batches do not depend on their players.
"""

from dataclasses import replace

import torch
from torch import Tensor

from playground.assembly import assemble
from playground.best_response import BATCHES, JUDGING, moves_of
from playground.config import from_dict
from playground.gradients import Differentiator
from playground.probes.game.formulas import Field, Point
from playground.record.checkpoint import load_checkpoint, load_snapshot
from playground.record.directory import RecordError
from playground.record.reader import Run
from playground.schema import ConfigError


def run_field(run: Run, *, batches: int = BATCHES) -> Field:
    """The mean field over fresh batches, the same at every point, of a run's game.

    Raises:
        ConfigError: a problem whose batches depend on its players, or of one's own.
    """
    config = from_dict(run.config)
    if config.problem.name.partition("/")[0] not in ("gan", "landscape"):
        raise ConfigError(f"problem={config.problem.name}: only gan/* and landscape/* have a field")
    parts = assemble(replace(config, seed=config.seed + JUDGING), None)
    moves = {name: moves_of(parts.problem, name, batches) for name in parts.players}
    differentiate = Differentiator(parts.players)

    def field(at: Point) -> Point:
        result: dict[str, Tensor] = {}
        for name, known in moves.items():
            found = [differentiate(move, at, create_graph=True).value for move in known]
            result[name] = torch.stack(found).mean(0)
        return result

    return field


def snapshot(run: Run, iteration: int | None = None) -> dict[str, Tensor]:
    """{player: [M, N]} of a snapshot, or of the last checkpoint.

    Raises:
        RecordError: there is none.
    """
    if iteration is not None:
        return load_snapshot(run.path, iteration)[1]
    content = load_checkpoint(run.path)
    if content is None:
        raise RecordError(f"{run.path}: no checkpoint")
    return {name: value["parameters"] for name, value in content[1]["players"].items()}
