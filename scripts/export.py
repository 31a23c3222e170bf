#!/usr/bin/env python
"""Runs into another tracker: scripts/export.py RUN_OR_SWEEP... --to tensorboard [KEY=VALUE...].

The same scalars as sinks=[...] gives while a run trains, for runs that had no sink, or whose sink
missed something. Nothing is written into records. KEY=VALUE are the keys of --help sinks=[...],
as members=mean, tensors=['*.0.weight'] or wandb.project=mine.

Exit codes: 0 exported, 1 some of it was refused by the tracker, 2 wrong command.
"""

import argparse
import sys
from pathlib import Path


def main() -> int:
    """Parse the command line, export run by run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("items", nargs="+", metavar="RUN_OR_SWEEP | KEY=VALUE")
    parser.add_argument("--to", required=True, help="tensorboard, mlflow or wandb")
    parser.add_argument("--out", type=Path, help="tensorboard: a folder that gets one for each run")
    given = parser.parse_intermixed_args()
    from playground.config import compose
    from playground.record.atomic import RecordError
    from playground.record.reader import Sweep, load
    from playground.record.sinks.export import export
    from playground.schema import ConfigError

    keys = [item for item in given.items if "=" in item and not Path(item).exists()]
    code = 0
    try:
        overrides = [f"sinks=[{given.to}]", *(f"sinks.{key}" for key in keys)]
        if given.out is not None:
            overrides.append(f"sinks.tensorboard.dir='{given.out}'")
        settings = compose(overrides).sinks
        for path in (item for item in given.items if item not in keys):
            found = load(path)
            for run in found.children if isinstance(found, Sweep) else [found]:
                (sink,) = settings.build()
                report = export(run, sink, settings)
                print(f"{run.path}: {report.scalars:,} scalars to {report.where}")
                if report.trouble():
                    sys.stderr.write(f"export: {run.path}: {report.trouble()}\n")
                    code = 1
    except (ConfigError, RecordError) as error:
        sys.stderr.write(f"export: {error}\n")
        return 2
    return code


if __name__ == "__main__":
    sys.exit(main())
