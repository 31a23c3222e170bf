"""Studies: published results as runs, claims and a verdict.

A study is a folder ``experiments/<key>/`` with a README, a ``config.yaml`` (overrides common
to all runs, and those of a quick run) and an ``analysis.py`` with two functions:

    runs(quick) -> {name: overrides}          what to run; may start from an earlier one
    claims(runs, folder) -> list[Claim]       records in, figures and claims out

A study in parts names its runs ``part/run``; ``only=part`` runs and judges that part alone, and
``claims`` gets its runs alone. ``conclusions(claims) -> {part: words}``, where there is one, says
what the claims of each part come to. Other files of the folder are imported by ``from . import``.

A claim holds where the 95 % interval of its estimate lies inside the tolerance (PASS), fails
where it lies outside (FAIL), and is INCONCLUSIVE in between. A study's verdict is the worst
of its claims.
"""

import difflib
import importlib.util
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from playground.record.directory import write_atomic
from playground.record.formats import dump_json
from playground.schema import ConfigError
from playground.workers import Task, side_by_side

if TYPE_CHECKING:
    pass

PASS, INCONCLUSIVE, FAIL, SMOKE = "PASS", "INCONCLUSIVE", "FAIL", "SMOKE"
EXIT = {PASS: 0, SMOKE: 0, FAIL: 1, INCONCLUSIVE: 3}

T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179,
        2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064,
        2.060, 2.056, 2.052, 2.048, 2.045, 2.042)  # fmt: skip
"""Two-sided 95 % quantiles of Student's t with 1 to 30 degrees of freedom."""


def interval(values: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
    """Mean and 95 % t interval over independent replicas: (mean, low, high).

    All three are NaN where a value is not finite, and equal where there is one value only.
    """
    array = np.asarray(values, float)
    if not np.isfinite(array).all():
        return np.nan, np.nan, np.nan
    mean = float(array.mean())
    if len(array) < 2:
        return mean, mean, mean
    degrees = len(array) - 1
    quantile = T_95[degrees - 1] if degrees <= len(T_95) else 1.96 + 2.4 / degrees
    half = quantile * float(array.std(ddof=1)) / np.sqrt(len(array))
    return mean, mean - half, mean + half


@dataclass(frozen=True)
class Claim:
    """One number of a published result.

    Attributes:
        name: what is claimed.
        published: the published value, as text.
        values: our estimates, one per independent replica.
        low, high: the tolerance.
        unit: of the values.
    """

    name: str
    published: str
    values: Sequence[float]
    low: float = -np.inf
    high: float = np.inf
    unit: str = ""
    estimate: tuple[float, float, float] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "estimate", interval(self.values))

    @property
    def verdict(self) -> str:
        """PASS, FAIL or INCONCLUSIVE."""
        mean, low, high = self.estimate
        if not np.isfinite(mean):
            return FAIL
        if self.low <= low and high <= self.high:
            return PASS
        return FAIL if high < self.low or low > self.high else INCONCLUSIVE


def worst(verdicts: Sequence[str]) -> str:
    """The worst of several verdicts."""
    for verdict in (FAIL, INCONCLUSIVE):
        if verdict in verdicts:
            return verdict
    return PASS


def experiments_dir() -> Path:
    """The checkout's folder of studies.

    Raises:
        ConfigError: the package is installed without a checkout.
    """
    path = Path(__file__).resolve().parent.parent / "experiments"
    if not path.is_dir():
        raise ConfigError("studies need a checkout of the repository; a wheel has none")
    return path


def find(key: str) -> Path:
    """The folder of a study.

    Raises:
        ConfigError: no such study.
    """
    root = experiments_dir()
    known = sorted(p.parent.name for p in root.glob("*/analysis.py"))
    if key not in known:
        close = difflib.get_close_matches(key, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(f"study {key}: unknown{hint} (allowed are {', '.join(known)})")
    return root / key


def load_analysis(folder: Path) -> ModuleType:
    """The module ``analysis.py`` of a study, which may import its neighbours relatively."""
    spec = importlib.util.spec_from_file_location(
        f"study_{folder.name}", folder / "analysis.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def reproduce(
    key: str,
    *,
    quick: bool = False,
    out: Path | None = None,
    only: str | None = None,
    jobs: int = 1,
) -> int:
    """Run a study, print its claims, write its figures and ``claims.json``; the exit code.

    The runs lie in the folder like those of a sweep, so that ``playground.load`` reads them all;
    the same command with the same folder skips what is finished.

    Args:
        key: the study's folder name.
        quick: a smoke run: it says SMOKE, never PASS, and fails only what is plainly outside.
        out: folder of runs and results; null is below ``runs/``.
        only: a part of the study; null is all of it.
        jobs: runs at once, each in a process of its own.

    Raises:
        ConfigError: no such study or part, or the folder holds something else.
        RunFailed, RecordError: a run stopped.
    """
    from playground.progress import Reporter
    from playground.record.reader import Run

    began = time.monotonic()
    analysis, base, planned = plan(key, quick=quick, out=out, only=only)
    reporter = Reporter()

    tasks = {name: (base / str(n), keys) for n, (name, keys) in enumerate(planned.items())}
    names = list(tasks)

    def say(name: str) -> None:
        place = f"[{names.index(name) + 1}/{len(names)}]"
        reporter.say(f"{place} {name}: playground {' '.join(planned[name])}")

    side_by_side(tasks, jobs, say, earlier(tasks))
    runs = {name: Run(path) for name, (path, _) in tasks.items()}
    claims = analysis.claims(runs, base)
    verdict = smoke(worst([claim.verdict for claim in claims]), quick=quick)
    seconds = sum(run.manifest["seconds"] for run in runs.values())
    results = [{"claim": c.name, "published": c.published, "mean": c.estimate[0],
                "low": c.estimate[1], "high": c.estimate[2], "replicas": len(c.values),
                "tolerance": [c.low, c.high], "unit": c.unit,
                "verdict": smoke(c.verdict, quick=quick)} for c in claims]  # fmt: skip
    content = {"study": key, "verdict": verdict, "seconds": round(seconds, 1), "claims": results}
    concluded = analysis.conclusions(claims) if hasattr(analysis, "conclusions") else {}
    content |= {"only": only} if only else {}
    content |= {"conclusions": concluded} if concluded else {}
    write_atomic(base / "claims.json", dump_json(content))
    reporter.lines(table(claims, quick=quick))
    reporter.lines(f"{part}: {words}" for part, words in concluded.items())
    took = f"{time.monotonic() - began:.0f} s ({seconds:.0f} s of runs)"
    reporter.say(f"{key}: {verdict} in {took}; runs, figure and claims.json in {base}")
    return EXIT[verdict]


def plan(
    key: str, *, quick: bool, out: Path | None, only: str | None = None
) -> tuple[ModuleType, Path, dict[str, list[str]]]:
    """A study's analysis, the folder of its runs, and {name: overrides}; run n lies in folder/n.

    ``snapshot.run=<name of another run of the study>`` becomes that run's folder.

    Raises:
        ConfigError: no such study or part, or the folder holds something else.
    """
    from playground.record.directory import RunDirectory, RunExists

    analysis = load_analysis(find(key))
    planned: dict[str, list[str]] = analysis.runs(quick)
    title = [f"name={key}", f"quick={str(quick).lower()}"]
    if only is not None:
        planned = part(key, planned, only)
        title.append(f"only={only}")
    try:
        base = RunDirectory.create_sweep(out, title, list(planned.values()))
    except RunExists as error:
        raise ConfigError(f"--out {error}") from error
    starts = {f"snapshot.run={name}": begins(base / str(n)) for n, name in enumerate(planned)}
    found = {name: [starts.get(item, item) for item in own] for name, own in planned.items()}
    return analysis, base, found


def begins(path: Path) -> str:
    """The override of a run that begins where another ended."""
    from playground.composition import quoted

    return f"snapshot.run={quoted(path)}"


def earlier(tasks: Mapping[str, Task]) -> dict[str, str]:
    """{run: the one that it begins from}, where it begins from one of its study."""
    from_run = {begins(path): name for name, (path, _) in tasks.items()}
    return {name: from_run[item] for name, (_, own) in tasks.items() for item in own
            if item in from_run}  # fmt: skip


def part(key: str, planned: Mapping[str, list[str]], only: str) -> dict[str, list[str]]:
    """The runs of one part of a study.

    Raises:
        ConfigError: it has no such part, or none at all.
    """
    known = list(dict.fromkeys(name.partition("/")[0] for name in planned if "/" in name))
    if only not in known:
        close = difflib.get_close_matches(only, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        allowed = f"allowed are {', '.join(known)}" if known else f"{key} has no parts"
        raise ConfigError(f"only={only}: no such part{hint} ({allowed})")
    return {name: own for name, own in planned.items() if name.partition("/")[0] == only}


def smoke(verdict: str, *, quick: bool) -> str:
    """A verdict as a quick run may say it."""
    return SMOKE if quick and verdict != FAIL else verdict


def table(claims: Sequence[Claim], *, quick: bool) -> list[str]:
    """Claims as aligned lines."""
    rows: list[tuple[Any, ...]] = [("claim", "published", "ours (95 % interval)", "verdict")]
    for claim in claims:
        mean, low, high = claim.estimate
        ours = f"{mean:.6g} [{low:.6g}, {high:.6g}]{' ' + claim.unit if claim.unit else ''}"
        rows.append((claim.name, claim.published, ours, smoke(claim.verdict, quick=quick)))
    widths = [max(len(str(row[i])) for row in rows) for i in range(4)]
    return [
        "  ".join(str(c).ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
