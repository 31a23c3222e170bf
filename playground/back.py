"""Back in time: what a replay and a fork are asked for, checked before anything heavy. Torch-free.

    replay=RUN at=4300 probes=full         the run again, bit for bit, up to the iteration that
                                           contains update 4300, which is measured by these probes
    fork=RUN at=4300 optimizer.lr=1e-3     the run again up to that iteration, from there on with
                                           other hyperparameters, to the original's budget

``at`` counts updates of the most-updated player, as ``budget.updates`` does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playground.config import Config, from_dict, to_dict
from playground.crosschecks import varied
from playground.explain import unknown
from playground.outside import CustomConfig
from playground.record.directory import RecordError, RunDirectory, RunExists, check_run_dir
from playground.record.sinks.config import require
from playground.schema import ConfigError

MAY_CHANGE = {
    "replay": ("probes",),
    "fork": ("optimizer", "players", "penalty", "algorithm", "stepper"),
}
"""{kind: groups of keys}: none of them changes the shape of a player's parameters."""

CHOSEN = ("probes", "optimizer", "stepper")
"""Groups whose option may be chosen anew."""


@dataclass(frozen=True)
class Asked:
    """A command that goes back.

    Attributes:
        kind: ``replay`` or ``fork``.
        run: the original's folder, as typed.
        at: the update.
    """

    kind: str
    run: str
    at: int

    def __str__(self) -> str:
        return f"{self.kind}={self.run} at={self.at}"


@dataclass(frozen=True)
class Journey:
    """A checked command.

    Attributes:
        original: the run's folder.
        before, after: its configuration, and the one from there on.
        iteration: the one that contains the update.
        updates: of the most-updated player, when that iteration had ended.
        changes: overrides that make the difference.
    """

    original: RunDirectory
    before: Config
    after: Config
    iteration: int
    updates: int
    changes: list[str]


def split(overrides: Sequence[str]) -> tuple[Asked | None, list[str]]:
    """What is asked for, None for another command, and the other overrides.

    Raises:
        ConfigError: one of the two keys without the other, or twice; an update that is none.
    """
    from playground.composition import parse

    mine = [item for item in overrides if item.partition("=")[0] in ("replay", "fork", "at")]
    if not mine:
        return None, list(overrides)
    runs = [item for item in mine if not item.startswith("at=")]
    updates = [item for item in mine if item.startswith("at=")]
    words = " ".join(mine)
    if len(runs) > 1 or len(updates) > 1:
        raise ConfigError(f"{words}: one run and one update only")
    if not runs:
        raise ConfigError(f"{words}: needs a run, as in replay=RUN at=1 or fork=RUN at=1")
    if not updates:
        raise ConfigError(f"{words}: needs an update, as in at=1000")
    rest = [item for item in overrides if item not in mine]
    if any(item.startswith("resume=") for item in rest):
        raise ConfigError(f"{words}: not together with resume")
    at = parse(updates)[0].value()
    if isinstance(at, bool) or not isinstance(at, int) or at < 1:
        raise ConfigError(f"{updates[0]}: must be a whole number, at least 1")
    return Asked(runs[0].partition("=")[0], str(parse(runs)[0].value()), at), rest


def check(asked: Asked, overrides: Sequence[str]) -> Journey:
    """The original, the configurations before and after, and the iteration to go to.

    Raises:
        ConfigError: no such run, one that cannot be repeated bit for bit, an update that it did
            not make, a key that may not change, or a folder in use.
    """
    from playground.composition import parse

    path = asked.run
    try:
        original = RunDirectory.open(path)
        before, manifest = from_dict(original.read_config()), original.read_manifest()
        iteration, updates = find(original, asked)
    except (RecordError, ConfigError) as error:
        text = str(error).removeprefix(f"{path}: ")
        raise ConfigError(text if text.startswith("at=") else f"{asked.kind}={path}: {text}") from (
            error
        )
    _check_repeatable(asked, manifest, iteration)
    given = [item for item in overrides if item.startswith("run_dir=")]
    changes = [item for item in overrides if item not in given]
    if asked.kind == "fork" and not changes:
        raise ConfigError(f"{asked}: needs what is to change, as in optimizer.lr=0.001")
    after = changed(before, changes or ["probes=full"], asked.kind)
    if asked.kind == "fork":
        require(after.sinks)
    folder = str(parse(given)[-1].value()) if given else _folder(original.path, asked)
    try:
        check_run_dir(folder)
    except RunExists as error:
        raise ConfigError(f"run_dir={error}") from error
    after.run_dir = folder
    return Journey(original, before, after, iteration, updates, changes or ["probes=full"])


def find(original: RunDirectory, asked: Asked) -> tuple[int, int]:
    """The iteration that contains an update, and the updates when it had ended.

    Raises:
        ConfigError: the run did not get there.
        RecordError: its records cannot be read.
    """
    from playground.record.reader import Run

    rows = Run(original.path).metrics
    updates, iterations = rows["updates"].to_numpy(), rows["iteration"].to_numpy()
    done = int(updates.max(initial=0))
    if asked.at > done:
        raise ConfigError(f"at={asked.at}: {asked.run} made {done} updates")
    iteration = int(iterations[updates >= asked.at].min())
    return iteration, int(updates[iterations == iteration].max())


def _check_repeatable(asked: Asked, manifest: Mapping[str, Any], iteration: int) -> None:
    """Refuse runs that have no such past, or not one of their own."""
    start = f"{asked.kind}={asked.run}"
    if manifest.get("resume", "exact") != "exact":
        raise ConfigError(
            f"{start}: {manifest.get('problem')} cannot be repeated bit for bit, its environments "
            "keep a state that nobody can restore"
        )
    if "replay" in manifest:
        raise ConfigError(f"{start}: is a replay; go back in {manifest['replay']['run']}")
    fork = manifest.get("fork")
    if fork and iteration <= fork["from"]:
        raise ConfigError(
            f"at={asked.at}: {asked.run} is a fork and begins later; go back in {fork['run']}"
        )


def changed(config: Config, overrides: Sequence[str], kind: str) -> Config:
    """The configuration with what a replay or a fork may change.

    Raises:
        ConfigError: any other key, or a value that does not fit.
    """
    data = to_dict(config)
    allowed = MAY_CHANGE[kind]
    choices = [item for item in overrides if _chosen(item) in allowed]
    if choices:
        chosen = _compose(config, choices)
        for item in choices:
            key, _, player = item.partition("=")[0].partition("@players.")
            if player:
                data["players"][player] = chosen["players"][player]
            else:
                data[key] = chosen[key]
    several = varied(config)
    for item in overrides:
        key = item.partition("=")[0]
        if item in choices:
            continue
        if key.partition(".")[0] not in allowed or "." not in key:
            words = ", ".join(f"{name}.*" for name in allowed)
            raise ConfigError(f"{item}: a {kind} takes {words} and run_dir only")
        if key in several:
            raise ConfigError(f"{item}: {key} varies between the members of the run")
        _set(data, item)
    return from_dict(data)


def _chosen(item: str) -> str:
    """The group whose option an override chooses, empty for other overrides."""
    key = item.partition("=")[0]
    if key.startswith("optimizer@players."):
        return "optimizer"
    return key if key in CHOSEN else ""


def _compose(config: Config, choices: Sequence[str]) -> dict[str, Any]:
    """Options as this problem has them: its tuned learning rates."""
    from playground.composition import composed, custom_overrides

    if isinstance(config.problem, CustomConfig):
        return composed(custom_overrides(choices))
    base = [f"problem={config.problem.name}"]
    if config.algorithm is not None:
        base.append(f"algorithm={config.algorithm.name}")
    return composed([*base, *choices])


def _set(data: dict[str, Any], item: str) -> None:
    """Put an override's value into plain containers."""
    from playground.composition import parse

    value = parse([item])[0].value()
    names = item.partition("=")[0].split(".")
    node = data
    for depth, name in enumerate(names):
        known = list(node)
        free = depth > 0 and names[depth - 1] == "kwargs"
        if name not in node and not free:
            if names[:depth] == ["players"]:
                raise ConfigError(
                    f"{item}: player {name} has no optimizer of its own; "
                    f"choose one by optimizer@players.{name}=..."
                )
            raise ConfigError(unknown(item, "no such key", name, [k for k in known if k != "name"]))
        if depth < len(names) - 1:
            if not isinstance(node[name], dict):
                raise ConfigError(f"{item}: the run has no {'.'.join(names[: depth + 1])}.*")
            node = node[name]
    if isinstance(node.get(names[-1]), dict) and not isinstance(value, dict):
        raise ConfigError(f"{item}: must be a group of keys")
    node[names[-1]] = value


def _folder(original: Path, asked: Asked) -> str:
    """Beside the original, with a number where a journey to the same update went before."""
    whole = original.resolve()
    name = f"{whole.name}-{asked.kind}-{asked.at}"
    path, number = whole.parent / name, 1
    while path.exists():
        number += 1
        path = whole.parent / f"{name}-{number}"
    return str(path)
