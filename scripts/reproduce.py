#!/usr/bin/env python
"""Reproduce a published result: scripts/reproduce.py KEY [--quick] [--only PART] [--jobs N].

Exit codes: 0 PASS (or SMOKE with --quick), 1 FAIL, 2 wrong command, 3 INCONCLUSIVE.
"""

import argparse
import sys
from pathlib import Path


def main() -> int:
    """Parse the command line and run the study."""
    from playground.machine import processors
    from playground.schema import ConfigError
    from playground.study import experiments_dir, find

    known = sorted(path.parent.name for path in experiments_dir().glob("*/analysis.py"))
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], epilog=(__doc__ or "").split("\n\n")[1]
    )
    parser.add_argument("key", metavar="KEY", help=f"one of {', '.join(known)}")
    parser.add_argument("--quick", action="store_true", help="a smoke run; says SMOKE, never PASS")
    parser.add_argument("--only", metavar="PART", help="one part of a study that is in parts")
    parser.add_argument("--out", type=Path, help="folder of runs and results; go on where it is")
    parser.add_argument(
        "--jobs", type=int, default=processors(), metavar="N",
        help="runs at once, each on a processor of its own (%(default)s)",
    )  # fmt: skip
    given = parser.parse_args()
    if given.jobs < 1:
        parser.error(f"--jobs {given.jobs}: must be at least 1")
    try:
        find(given.key)  # a wrong key must not wait for torch
        return run(given)
    except ConfigError as error:
        return fail(str(error), 2)


def run(given: argparse.Namespace) -> int:
    """Run the study; a run that stops is one line."""
    from playground.record.directory import RecordError
    from playground.session import RunFailed
    from playground.signals import Interrupted
    from playground.study import reproduce

    try:
        return reproduce(
            given.key, quick=given.quick, out=given.out, only=given.only, jobs=given.jobs
        )
    except (RunFailed, RecordError) as error:
        return fail(f"run failed: {error}", 1)
    except Interrupted as error:
        return fail(f"interrupted by {error}; go on with the same --out", 128 + error.number)


def fail(message: str, code: int) -> int:
    """One line on stderr."""
    sys.stderr.write(f"reproduce: {message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
