"""Composing YAML and overrides with Hydra. Torch-free.

``parse`` refuses what cannot be an override before Hydra sees it, ``raw`` composes without
checking, ``jobs`` lists what a sweep would run. Schemas lie in Hydra's store, where YAML files
find them as ``/schema/<name>@_here_``.
"""

import re
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import cache, lru_cache
from itertools import product
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from playground import outside
from playground.schema import ConfigError

CHOSEN_BY_GROUP = re.compile(
    r"\+*((?:problem|algorithm|loss|optimizer|stepper|probes)|players\.\w+)\.name"
)
"""Keys that say which option was chosen; writing one would mix two options."""

OPEN = re.compile(r"((optimizer|players\.\w+)\.kwargs|problem\.env_kwargs)[.=]")
"""Keys that hold whatever somebody else's code takes."""


def conf_dir() -> Path:
    """The folder of YAML files: beside this module in a wheel, else the checkout's."""
    here = Path(__file__).resolve().parent
    packaged = here / "conf"
    return packaged if packaged.is_dir() else here.parent / "conf"


def options(group: str) -> list[str]:
    """Names of a group's options, those of other packages included, sorted."""
    root = conf_dir() / group
    files = root.rglob("*.yaml") if root.is_dir() else []
    names = [file.relative_to(root).with_suffix("").as_posix() for file in files]
    found: dict[str, Any] = {"problem": outside.problems, "optimizer": outside.optimizers}.get(
        group, dict
    )()
    return sorted({name for name in names if name != "custom"} | set(found))


@cache
def register_own() -> None:
    """Put the playground's own schemas where YAML files find them."""
    from hydra.core.config_store import ConfigStore

    from playground.config import DOMAINS, Config, domain_of
    from playground.optim.config import OPTIMIZERS
    from playground.optim.steppers.config import STEPPERS
    from playground.probes.config import ProbesConfig

    store = ConfigStore.instance()
    schemas: dict[str, type] = {**OPTIMIZERS, **STEPPERS, "probes": ProbesConfig}
    schemas["custom"] = outside.CustomConfig
    for domain in DOMAINS:
        module = domain_of(domain)
        assert module is not None
        schemas[domain] = module.CONFIG
        for group in module.GROUPS.values():
            schemas.update(group)
    store.store(name="base_config", node=Config)
    for name, node in schemas.items():
        store.store(group="schema", name=name, node=node)


def register() -> None:
    """Put all schemas into Hydra's store, those of other packages as options too."""
    from hydra.core.config_store import ConfigStore

    register_own()
    store = ConfigStore.instance()
    for name, optimizer in outside.optimizers().items():
        store.store(group="schema", name=f"outside_{name}", node=optimizer)
        rate = f"${{oc.select:problem.tuned.{name}.lr,{optimizer().lr}}}"
        own: dict[str, Any] = {"name": name, "lr": rate}
        own["defaults"] = [f"/schema/outside_{name}@_here_", "_self_"]
        store.store(group="optimizer", name=name, node=own)
    for name, problem in outside.problems().items():
        key = name.replace("/", "_")
        slots = [{f"/optimizer@_global_.players.{p}": None} for p in problem().players()]
        store.store(group="schema", name=f"outside_{key}", node=problem)
        group, _, option = f"problem/{name}".rpartition("/")
        own = {"name": name, "defaults": [f"/schema/outside_{key}@_here_", *slots, "_self_"]}
        store.store(group=group, name=option, package="problem", node=own)


@contextmanager
def composer() -> Iterator[Any]:
    """Hydra, ready to compose from ``conf/``; yields its config loader."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    register()
    with initialize_config_dir(str(conf_dir()), job_name="playground", version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


def for_hydra(item: str) -> bool:
    """Whether an override is of Hydra's own configuration, such as ``hydra/launcher=basic``."""
    return item.lstrip("+~").startswith(("hydra/", "hydra."))


def check_hydra(overrides: Sequence[str]) -> None:
    """Compose Hydra's own configuration from the overrides that are of it.

    Raises:
        ConfigError: naming the first that is wrong.
    """
    from hydra import compose as hydra_compose

    from playground.explain import one_line

    given = [item for item in overrides if for_hydra(item)]
    for item, parsed in zip(given, parse(given, sweep=True), strict=True):
        if parsed.is_sweep_override():
            raise ConfigError(f"{item}: Hydra's own keys have one value in all jobs of a sweep")
    for count, item in enumerate(given, 1):
        try:
            with composer():
                made = hydra_compose("config", overrides=given[:count], return_hydra_config=True)
                OmegaConf.to_container(made.hydra.launcher, resolve=True)
        except Exception as error:  # Hydra and OmegaConf raise many kinds
            known = getattr(error, "options", None)
            allowed = f" (allowed are {', '.join(known)})" if known else ""
            raise ConfigError(f"{item}: {one_line(error)}{allowed}") from error


def raw(overrides: Sequence[str]) -> DictConfig:
    """Compose YAML and overrides, unresolved and unchecked.

    What the chosen options give is composed once a process and copied; what sets a value is then
    applied by Hydra itself, as in a composition of both.
    """
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra.core.override_parser.overrides_parser import OverridesParser

    root, optimizers, problems = conf_dir(), outside.optimizers(), outside.problems()
    folders = {f"problem/{name}".rpartition("/")[0] for name in problems}
    choices: list[str] = []
    values: list[str] = []
    for item in hydra_overrides(overrides):
        group = item.partition("=")[0].lstrip("+").partition("@")[0]
        chosen = group in folders or (root / group).is_dir()
        (choices if chosen else values).append(item)
    written = max(file.stat().st_mtime_ns for file in root.rglob("*.yaml"))
    known = (root, written, *optimizers.items(), *problems.items())
    config = deepcopy(_of_options(tuple(choices), known))
    parsed = OverridesParser.create().parse_overrides(values)
    ConfigLoaderImpl._apply_overrides_to_config(parsed, config)
    return config


@lru_cache(maxsize=64)
def _of_options(choices: tuple[str, ...], known: Hashable) -> DictConfig:
    """Composed from chosen options alone; ``known`` changes when what can be chosen does."""
    from hydra import compose as hydra_compose

    with composer():
        return hydra_compose("config", overrides=list(choices))


def composed(overrides: Sequence[str]) -> dict[str, Any]:
    """Composed and resolved, as plain containers.

    Raises:
        ConfigError: one line that names key, value and what is allowed.
    """
    from playground.explain import explain

    parse(overrides)
    try:
        return OmegaConf.to_container(raw(overrides), resolve=True)  # type: ignore[return-value]
    except ConfigError:
        raise
    except Exception as error:  # Hydra and OmegaConf raise many kinds
        raise ConfigError(explain(error, list(overrides))) from error


def hydra_overrides(overrides: Iterable[str]) -> list[str]:
    """Overrides as Hydra wants those that add keys: ``+vary.x``, ``++optimizer.kwargs``."""
    return [
        f"+{item}" if item.startswith("vary.") else f"++{item}" if OPEN.match(item) else item
        for item in overrides
    ]


def parse(overrides: Sequence[str], loader: Any = None, *, sweep: bool = False) -> list[Any]:
    """Hydra's view of every override.

    Args:
        overrides: as typed.
        loader: Hydra's config loader, for ``glob(...)`` in sweeps.
        sweep: whether an override may list several values.

    Raises:
        ConfigError: naming the first that is none.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create(config_loader=loader)
    result = []
    for item, typed in zip(overrides, hydra_overrides(overrides), strict=True):
        _check_form(item)
        try:
            override = parser.parse_override(typed)
            override.config_loader = loader
        except HydraException as error:
            raise ConfigError(f"{item}: cannot be read; {_reading_hint(item)}") from error
        if override.is_sweep_override() and not sweep:
            raise ConfigError(
                f"{item}: several values are a sweep, which needs -m; a list is "
                f"{item.partition('=')[0]}=[...]"
            )
        result.append(override)
    return result


def custom_overrides(overrides: Sequence[str]) -> list[str]:
    """Overrides for a problem object, whose players no YAML file has slots for.

    Raises:
        ConfigError: another problem is chosen too.
    """
    for item in overrides:
        if item.startswith("problem="):
            raise ConfigError(f"{item}: a problem object is given too")
    slots = [f"+{item}" if item.startswith("optimizer@players.") else item for item in overrides]
    return ["problem=custom", *slots]


def quoted(path: object) -> str:
    """A path as an override's value."""
    text = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


def _check_form(item: str) -> None:
    key, equals, value = item.partition("=")
    if item.startswith("~"):
        raise ConfigError(f"{item}: keys cannot be taken away; give {key[1:]} another value")
    if not equals or not key.strip("+"):
        raise ConfigError(f"{item}: must be key=value, as in seed=1 or optimizer=adam")
    if not value.strip():
        raise ConfigError(f"{item}: a value is missing; null stands for none")
    chosen = CHOSEN_BY_GROUP.fullmatch(key)
    if chosen:
        group = chosen.group(1)
        group = f"optimizer@{group}" if group.startswith("players.") else group
        raise ConfigError(f"{item}: choose by the group, as in {group}={value}")


def _reading_hint(item: str) -> str:
    value = item.partition("=")[2]
    if any(value.count(quote) % 2 for quote in "'\""):
        return "a quote is not closed"
    for left, right in ("[]", "{}", "()"):
        if value.count(left) != value.count(right):
            return f"{left} and {right} do not match"
    return "put a value with special characters in quotes, as in \"name='a b'\""


def jobs(overrides: Sequence[str]) -> list[list[str]]:
    """Every job's overrides of a sweep, in Hydra's order: the last key fastest.

    Raises:
        ConfigError: an override that cannot be read.
    """
    choices = []
    with composer() as loader:
        parsed = parse(overrides, loader, sweep=True)
        for given, item in zip(overrides, parsed, strict=True):
            key = given.partition("=")[0]
            if not item.is_sweep_override():
                values = [item.get_value_element_as_str()]
            elif item.is_discrete_sweep():
                values = list(item.sweep_string_iterator())
            else:
                raise ConfigError(f"{given}: list the values, as in {key}=1,2,3")
            if not values:
                raise ConfigError(f"{given}: matches nothing")
            choices.append([f"{key}={value}" for value in values])
    return [list(job) for job in product(*choices)]
