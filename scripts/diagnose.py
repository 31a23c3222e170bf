#!/usr/bin/env python
"""What the records of runs show, in words: scripts/diagnose.py RUN_OR_SWEEP...

Every finding with its evidence, what it means, what to try, what would refute it, and the source
of its criterion; or the list of all rules with --rules.

Exit codes: 0 looked, 2 wrong command.
"""

import argparse
import sys
from pathlib import Path


def main() -> int:
    """Parse the command line, print the findings."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", nargs="*", type=Path, metavar="RUN_OR_SWEEP")
    parser.add_argument("--rules", action="store_true", help="list the rules")
    given = parser.parse_args()
    if not given.run and not given.rules:
        parser.error("a run or sweep directory is needed, or --rules")
    from playground.diagnosis import RULES, diagnose, words
    from playground.record.atomic import RecordError
    from playground.record.reader import Sweep, load

    for rule in RULES.values() if given.rules else ():
        where = ", ".join(rule.domains) or "everywhere"
        print(f"{rule.name} ({where})\n  {rule.says}\n  Source: {rule.source}.\n")
    try:
        for path in given.run:
            found = load(path)
            for run in found.children if isinstance(found, Sweep) else [found]:
                paragraphs = words(diagnose(run), len(run.members))
                print(f"{run.path}: {len(paragraphs) or 'no'} finding"
                      f"{'s' if len(paragraphs) != 1 else ''}")  # fmt: skip
                print("".join(f"\n{paragraph}\n" for paragraph in paragraphs))
    except RecordError as error:
        sys.stderr.write(f"diagnose: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
