"""``playground -m``: a sweep by any Hydra launcher, one run folder a job.

The jobs lie in ``runs/<date>/<time>-<name>-<id>/<num>/`` (or below ``run_dir=``) beside
``sweep.yaml``. The same command with the same folder skips finished jobs and resumes others.
A job that fails leaves one line in ``<num>.error`` and stops nobody; the sweep ends with a
table of what failed.
"""

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from playground.composition import (
    check_hydra,
    conf_dir,
    for_hydra,
    hydra_overrides,
    jobs,
    quoted,
    register,
)
from playground.config import compose, from_dict
from playground.outside import CustomConfig
from playground.schema import ConfigError
from playground.workers import finished

CHECKED = 256
"""Jobs that are composed and checked before the first one starts."""


def sweep(overrides: Sequence[str]) -> int:
    """Run every job; 1 if any failed, after a table of failures, 130/143 if interrupted.

    Raises:
        ConfigError: a job's configuration is wrong; nothing was started or written.
    """
    where, rest = split(overrides)
    check_hydra(rest)
    planned = jobs([item for item in rest if not for_hydra(item)])
    check(planned)
    from playground.record.directory import RunDirectory, RunExists

    try:
        root = RunDirectory.create_sweep(where, rest, [_task(job) for job in planned])
    except RunExists as error:
        raise ConfigError(f"run_dir={error}") from error
    try:
        launch(rest, root)
    except SystemExit as stop:  # an interrupted job: the others are not started
        table(root, planned)
        return stop.code if isinstance(stop.code, int) else 1
    finally:
        (root / "multirun.yaml").unlink(missing_ok=True)
    return table(root, planned)


def split(overrides: Sequence[str]) -> tuple[str | None, list[str]]:
    """The sweep's folder and the other overrides.

    Raises:
        ConfigError: what has no meaning for a sweep.
    """
    from playground.composition import parse

    folder, rest = None, []
    for item in overrides:
        key = item.partition("=")[0].lstrip("+")
        if key in ("replay", "fork", "at"):
            raise ConfigError(f"{item}: no sweep goes back; give one command for each")
        if key == "resume":
            raise ConfigError(f"{item}: a sweep goes on by its own command with run_dir=FOLDER")
        if key in ("hydra.sweep.dir", "hydra.sweep.subdir", "hydra.run.dir", "hydra.output_subdir"):
            raise ConfigError(f"{item}: the folder of a sweep is run_dir")
        if key == "run_dir":
            folder = str(parse([item])[0].value())
        else:
            rest.append(item)
    return folder, rest


def check(planned: Sequence[Sequence[str]]) -> None:
    """Compose every job (the first ``CHECKED`` of them).

    Raises:
        ConfigError: naming the first that is wrong.
    """
    from playground.explain import CUSTOM

    for job in planned[:CHECKED]:
        config = compose(job)
        if isinstance(config.problem, CustomConfig):
            raise ConfigError(CUSTOM)
        if config.device.startswith("cuda"):
            from playground.run import check_device

            check_device(config)


def launch(overrides: Sequence[str], root: Path) -> None:
    """Hand the jobs to Hydra's sweeper and launcher."""
    import hydra

    before, home = sys.argv, Path.cwd()
    sys.argv = [before[0], "-m", f"hydra.sweep.dir={quoted(root)}", *hydra_overrides(overrides)]
    register()

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    def task(config: DictConfig) -> None:
        run_job(config, root if Path.cwd() == home else home / root)  # hydra.job.chdir

    try:
        task()
    finally:
        sys.argv = before


def run_job(config: DictConfig, root: Path) -> None:
    """One job, in this process or in a launcher's worker; failures are written, not raised."""
    from hydra.core.hydra_config import HydraConfig

    from playground.extend import Extensions
    from playground.progress import Reporter
    from playground.record.directory import RecordError
    from playground.run import execute, resume
    from playground.session import RunFailed
    from playground.signals import Interrupted

    number = str(HydraConfig.get().job.num)
    path, note, reporter = root / number, root / f"{number}.error", Reporter()
    note.unlink(missing_ok=True)
    reporter.say(f"[{number}] {' '.join(_task(HydraConfig.get().overrides.task))}")
    try:
        if not (path / "manifest.json").exists():
            data: Any = OmegaConf.to_container(config, resolve=True)
            execute(from_dict({**data, "run_dir": str(path)}), Extensions(), reporter)
        elif finished(path):
            reporter.say(f"[{number}] finished before: skipped")
        else:
            resume(str(path), [], Extensions(), reporter)
    except Interrupted as error:
        raise SystemExit(128 + error.number) from error
    except (ConfigError, RunFailed, RecordError) as error:
        note.write_text(f"{error}\n")
        reporter.say(f"[{number}] failed: {error}")
    except Exception as error:  # a defect: its place is worth more than one line
        note.write_text(f"{type(error).__name__}: {error}\n\n{traceback.format_exc()}")
        reporter.say(f"[{number}] failed: {type(error).__name__}: {error}")


def table(root: Path, planned: Sequence[Sequence[str]]) -> int:
    """Say how the jobs ended; 1 if one did not finish."""
    from playground.progress import Reporter
    from playground.record.directory import RunDirectory

    rows = []
    for number, job in enumerate(planned):
        path, note = root / str(number), root / f"{number}.error"
        manifest: dict[str, Any] = {}
        if (path / "manifest.json").exists():
            manifest = RunDirectory.open(path).read_manifest()
        status = manifest.get("status", "failed" if note.exists() else "not run")
        if status != "finished":
            lines = note.read_text().splitlines() if note.exists() else []
            rows.append((str(number), status, " ".join(_task(job)),
                         (lines or [manifest.get("reason", "")])[0]))  # fmt: skip
    if not rows:
        Reporter().say(f"sweep: {len(planned)} jobs finished, in {root}")
        return 0
    head = f"playground: {len(rows)} of {len(planned)} jobs did not finish, in {root}"
    rows.insert(0, ("job", "status", "overrides", "reason"))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = ["  ".join([*map(str.ljust, row[:3], widths), row[3]]).rstrip() for row in rows]
    sys.stderr.write("\n".join([head, *(f"  {line}" for line in lines)]) + "\n")
    return 1


def _task(job: Sequence[str]) -> list[str]:
    """A job's overrides as the user would type them, without Hydra's own."""
    return [item.lstrip("+") if item.startswith(("+vary.", "++")) else item
            for item in job if not item.startswith("hydra")]  # fmt: skip
