"""``playground.watch(...)``: what may be watched, checked before any work."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from playground.probes.config import DIRECTION, CurvatureConfig, DirectionConfig, GameConfig
from playground.probes.curvature.probe import CurvatureProbe
from playground.probes.direction import Direction
from playground.probes.game.probe import GameProbe
from playground.probes.noise.probe import NoiseProbe
from playground.probes.passes import Pass
from playground.probes.probe import Probe
from playground.probes.terms import TermGradients
from playground.record.atomic import RecordError
from playground.record.directory import check_name
from playground.record.sinks.config import named
from playground.record.sinks.sink import Sink
from playground.schema import ConfigError
from playground.watching import folder
from playground.watching.folder import Settings
from playground.watching.objective import Loss
from playground.watching.player import Watched
from playground.watching.watcher import Watcher

Players = Mapping[str, tuple[nn.Module | None, Any]]


def watch(
    model: nn.Module | Players,
    optimizer: Any = None,
    run_dir: str | Path | None = None,
    probes: str | Sequence[str | Probe | Pass] = "light",
    objective: Loss | Mapping[str, Loss] | None = None,
    *,
    batch: Any = None,
    every: int | None = None,
    passes_every: int = 64,
    budget: float | None = None,
    metric: str = "loss",
    higher_is_better: bool = False,
    name: str = "watch",
    seed: int = 0,
    megabytes: int = 64,
    sinks: str | Sequence[str | Sink] = (),
) -> Watcher:
    """Record the gradients and updates of any PyTorch loop, as a run does.

    Args:
        model: a module, whose player is ``model``; or {player: (module, optimizer)}.
        optimizer: any ``torch.optim.Optimizer``; its parameters are the player.
        run_dir: where to, new or empty; null is ``runs/<date>/<time>-<name>-<id>``.
        probes: none, light, standard or full, and ``Probe`` or ``Pass`` objects of one's own.
        objective: ``loss(model, batch)``, or {player: ``loss(*models, batch)``}, for passes.
        batch: what the objective is measured on until ``watcher.batch`` gives another.
        every: one update in ``every`` is measured in full; null is 8, as in a run, of players of
            more than 32 768 parameters the second and one in 32, beyond ``megabytes`` in 64 (ours).
        passes_every: iterations between passes without a cadence of their own (ours).
        budget: share of wall time that passes may take, as .05: cadences stretch; null is none.
        metric: the logged value that figures show first.
        higher_is_better: the direction of that metric.
        name: of the run.
        seed: of the choice of updates and of probes' own draws.
        megabytes: above this for five values of a player it is measured in place.
        sinks: other trackers that mirror the records: tensorboard, mlflow, wandb, or
            ``playground.record.sinks.Sink`` objects.

    Raises:
        ConfigError: what cannot be watched, by name, before any work.

    Example:
        >>> with playground.watch(net, optimizer) as watcher:
        ...     for x, y in data:
        ...         optimizer.zero_grad()
        ...         loss = criterion(net(x), y)
        ...         loss.backward()
        ...         optimizer.step()
        ...         watcher.log(loss=loss)
        >>> playground.load(watcher.path).figure("overview")
    """
    counts = {"every": every, "passes_every": passes_every, "megabytes": megabytes}
    check_numbers({key: count for key, count in counts.items() if count is not None}, budget)
    kind, own = folder.chosen(probes, (Probe, Pass))
    mirrored, objects = named(sinks, Sink)
    watched = {n: Watched(n, m, o, megabytes << 20) for n, m, o in pairs(model, optimizer)}
    check_optimizers(watched)
    if objective is None and any(isinstance(probe, Pass) for probe in own):
        raise ConfigError("probes: a Pass needs objective=, a function of models and a batch")
    if objective is None and budget is not None:
        raise ConfigError("budget: is of passes, which need objective=")
    for player in watched.values():
        player.every = every or player.every
    cadence = max(player.every for player in watched.values())
    settings = Settings(
        kind, cadence, passes_every, metric, higher_is_better=higher_is_better, seed=seed,
        megabytes=megabytes,
    )  # fmt: skip
    direction = [Direction(DIRECTION, seed, DirectionConfig().megabytes)] if kind == "full" else []
    seeing = [*direction, *(probe for probe in own if isinstance(probe, Probe))]
    watcher = Watcher(watched, settings, seeing)
    if objective is not None:
        passes = [*passes_of(kind, len(watched)), *(p for p in own if isinstance(p, Pass))]
        shared = dict.fromkeys(watched, objective) if callable(objective) else objective
        watcher.take_objectives(shared, passes, budget)
        if batch is not None:
            watcher.batch(batch)
    where = None if run_dir is None else str(run_dir)
    watcher.open(folder.create(name, where, watched, settings))
    if mirrored.chosen or objects:
        watcher.mirror([*mirrored.build(), *objects], mirrored)
    return watcher


def check_numbers(counts: Mapping[str, int], budget: float | None) -> None:
    """Refuse counts below 1 and a budget that is no share.

    Raises:
        ConfigError: naming the argument.
    """
    for key, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"{key}={value}: must be an integer, at least 1")
    if budget is not None and not 0 < budget <= 1:
        raise ConfigError(f"budget={budget}: must be a share of wall time, above 0 and at most 1")


def check_optimizers(watched: Mapping[str, Watched]) -> None:
    """Refuse two players with one optimizer.

    Raises:
        ConfigError: naming both.
    """
    taken: dict[int, str] = {}
    for player, seen in watched.items():
        other = taken.setdefault(id(seen.optimizer), player)
        if other != player:
            raise ConfigError(f"players {other} and {player} have the same optimizer: give them as "
                              "one player, whose tensors are told apart by name")  # fmt: skip


def pairs(
    model: nn.Module | Players, optimizer: Any
) -> Iterator[tuple[str, nn.Module | None, Any]]:
    """Players, their modules and optimizers, one by one.

    Raises:
        ConfigError: neither of the two forms.
    """
    if isinstance(model, nn.Module):
        if optimizer is None:
            raise ConfigError("optimizer: watch(model, optimizer) needs one")
        several = isinstance(optimizer, list | tuple)
        for place, one in enumerate(optimizer if several else [optimizer]):
            yield f"model_{place}" if several else "model", model, one
        return
    if not isinstance(model, Mapping) or not model or optimizer is not None:
        raise ConfigError("model: must be a torch.nn.Module and an optimizer, or "
                          "{player: (module, optimizer)} alone")  # fmt: skip
    for name, pair in model.items():
        good = isinstance(pair, tuple | list) and len(pair) == 2
        if not good or not isinstance(pair[0], nn.Module | None):
            raise ConfigError(f"player {name}: must be (module, optimizer)")
        try:
            check_name(str(name))
        except RecordError as error:
            raise ConfigError(f"player {error}") from error
        yield str(name), pair[0], pair[1]


def passes_of(kind: str, players: int) -> list[Pass]:
    """The passes that an objective allows, as in a run with ``probes`` = kind."""
    if kind == "none":
        return []
    game = GameConfig()
    own = [GameProbe(None, game.dense, game.vectors, game.steps)] if players > 1 else []
    deep: list[Pass] = []
    if kind == "full":
        deep = [NoiseProbe(None), CurvatureProbe(CurvatureConfig())]
    return [*deep, TermGradients(None), *own]
