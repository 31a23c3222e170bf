#!/usr/bin/env python
"""Loss x penalty x schedule on ring and grid, ten members each: scripts/gan_table.py [WORD...].

The cells are the runs of the study ``mode_collapse``: all of a data set have the same budget of
gradient evaluations. Words choose the cells whose name has all of them (ring hinge). --also adds
any other cell of the study's losses, penalties, schedules and methods, as in
--also "grid: hinge, spectral norm". The same folder goes on where it was stopped, and
``scripts/reproduce.py mode_collapse --out`` the same folder reads the same runs. Prints the table
of docs/benchmarks.md beside the published rows.
"""

import argparse
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

from playground.machine import processors
from playground.record.directory import RecordError
from playground.record.reader import Run
from playground.schema import ConfigError
from playground.session import RunFailed
from playground.signals import Interrupted
from playground.study import plan
from playground.workers import side_by_side

HEAD = (
    "| data | loss | penalty | schedule | method | modes | high quality, % | reverse KL | "
    "iterations | wall time |\n" + "| --- " * 10 + "|"
)

PUBLISHED = """
| published (mean +- standard error) | ring modes of 8 | % | KL | grid modes of 25 | % | KL |
| --- | --- | --- | --- | --- | --- | --- |
| GAN (Srivastava et al. 2017, table 1) | 1 | 99.3 | | 3.3 | 0.5 | |
| unrolled GAN (the same) | 7.6 | 35.6 | | 23.6 | 16 | |
| VEEGAN (the same) | 8 | 52.9 | | 24.6 | 40 | |
| GAN (Lin et al. 2018, table 1) | 6.3 +- 0.5 | 98.2 +- 0.2 | 0.45 +- 0.09 | 17.3 +- 0.8 | \
94.8 +- 0.7 | 0.70 +- 0.07 |
| PacGAN2 (the same) | 7.9 +- 0.1 | 95.6 +- 2.0 | 0.07 +- 0.03 | 23.8 +- 0.7 | 91.3 +- 0.8 | \
0.13 +- 0.04 |
| PacGAN4 (the same) | 7.8 +- 0.1 | 95.9 +- 1.4 | 0.07 +- 0.02 | 24.8 +- 0.2 | 93.6 +- 0.6 | \
0.04 +- 0.01 |
"""
"""400,000 updates of larger networks; a mode counts there from one sample, here from a fifth."""


def spread(values: np.ndarray, digits: int) -> str:
    """Mean +- standard deviation over members."""
    deviation = f" +- {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{deviation}"


def row(name: str, run: Run, parts: tuple[str, ...]) -> str:
    """One line of the table, in Markdown."""
    scores = {key: run.metric(key) for key in ("modes", "high_quality", "reverse_kl")}
    iterations = int(scores["modes"][0][-1])
    modes, good, divergence = (values[-1] for _, values in scores.values())
    cells = [name.split(": ")[0], *parts, spread(modes, 1), spread(100 * good, 1),
             spread(divergence, 3), f"{iterations:,}",
             f"{run.manifest['seconds']:.0f} s"]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Run the cells, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("word", nargs="*", help="of a cell's name; all cells without one")
    parser.add_argument("--also", nargs="+", default=[], metavar="CELL", help="further cells")
    parser.add_argument("--out", type=Path, default=Path("runs/mode_collapse"))
    parser.add_argument("--quick", action="store_true", help="three cells, four members")
    parser.add_argument(
        "--jobs", type=int, default=processors(), help="cells at once (%(default)s)"
    )
    given = parser.parse_args()
    if given.jobs < 1:
        parser.error(f"--jobs {given.jobs}: must be at least 1")
    out = given.out.with_name(given.out.name + "_quick") if given.quick else given.out
    try:
        analysis, base, planned = plan("mode_collapse", quick=given.quick, out=out)
        chosen = cells(given, analysis, base, planned)
        tasks = {name: (path, overrides) for path, name, overrides in chosen}
        side_by_side(tasks, given.jobs, lambda name: print(name, flush=True))
    except (ConfigError, RunFailed, RecordError) as error:
        sys.exit(f"gan_table: {error}")
    except Interrupted as error:
        sys.stderr.write(f"gan_table: interrupted by {error}; go on with the same --out\n")
        sys.exit(128 + error.number)
    rows = [row(name, Run(path), analysis.parts(name.split(": ")[1])) for path, name, _ in chosen]
    print(f"\n{HEAD}")
    print("\n".join(rows))
    print(PUBLISHED)


def cells(
    given: argparse.Namespace, analysis: ModuleType, base: Path, planned: dict[str, list[str]]
) -> list[tuple[Path, str, list[str]]]:
    """(folder, name, overrides) of every cell asked for.

    Raises:
        ConfigError: no such cell.
    """
    chosen = [
        (base / str(number), name, overrides)
        for number, (name, overrides) in enumerate(planned.items())
        if all(word in name for word in given.word)
    ]
    if not chosen:
        raise ConfigError(f"{' '.join(given.word)}: in no cell of {'; '.join(planned)}")
    for name in given.also:
        folder = re.sub(r"[^a-z0-9]+", "-", name)
        try:
            chosen.append((base / folder, name, analysis.own(name)))
        except (KeyError, ValueError) as error:
            raise ConfigError(
                f"--also {name}: must be DATA: LOSS, PENALTY[, SCHEDULE[, METHOD]] of "
                "experiments/mode_collapse/config.yaml"
            ) from error
    return chosen


if __name__ == "__main__":
    main()
