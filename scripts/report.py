#!/usr/bin/env python
"""Draw runs and sweeps side by side: scripts/report.py RUN_OR_SWEEP... [--out DIR] [--animate].

One run: its own figures. Several, or a sweep: a table and the comparison, the race of
optimizers on a landscape, curves over a learning rate that varies, and the cross-domain figure.
Everything is read from the run directories; live runs are drawn as far as they are.

Exit codes: 0 drawn, 1 a folder cannot be written, 2 wrong command.
"""

import argparse
import sys
import time
from pathlib import Path


def main() -> int:
    """Parse the command line, draw, print the table and the paths."""
    lines = (__doc__ or "").split("\n\n")
    parser = argparse.ArgumentParser(
        description="\n\n".join([lines[0].partition(":")[0] + ".", lines[1]]),
        epilog="example: scripts/report.py runs/2026-01-31/* --out /tmp/figures\n\n" + lines[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="RUN_OR_SWEEP",
                        help="a run directory, or a sweep's")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="DIR",
                        help="where files go; else figures/ of the only run or sweep, or "
                        "runs/<date>/<time>-report")  # fmt: skip
    parser.add_argument("--animate", action="store_true",
                        help="also a GIF of training, of the only run, a GAN's")  # fmt: skip
    given = parser.parse_args()
    from playground.record.atomic import RecordError
    from playground.record.reader import Run, load
    from playground.report import animate, draw_all
    from playground.report.comparison.report import report

    try:
        records = [load(path) for path in given.paths]
    except RecordError as error:
        sys.stderr.write(f"report: {error}\n")
        return 2
    only = records[0] if len(records) == 1 else None
    if given.animate and not isinstance(only, Run):
        sys.stderr.write("report: --animate takes one run\n")
        return 2
    out = given.out or (
        only.path / "figures" if only else Path("runs") / time.strftime("%Y-%m-%d/%H-%M-%S-report")
    )
    try:
        drawn = draw_all(only, out) if isinstance(only, Run) else []
        if given.animate and isinstance(only, Run):
            drawn.append(animate(only, out))
        written, table = report(given.paths, out)
    except (RecordError, ValueError) as error:
        sys.stderr.write(f"report: {error}\n")
        return 1
    print(table)
    for path in [*drawn, *written]:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
