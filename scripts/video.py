#!/usr/bin/env python
"""A GIF of a run's policy: scripts/video.py RUN [--episodes 3] [--member 0] [--at best].

The policy plays the episodes of an evaluation in an environment that renders; the GIF goes into
the run's figures/, or where --out says.

Exit codes: 0 written, 2 wrong command.
"""

import argparse
import sys
from pathlib import Path


def main() -> int:
    """Parse the command line, write the GIF."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory")
    parser.add_argument("--at", default="final", help="final, best, or a snapshot's iteration")
    parser.add_argument("--member", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=1)
    parser.add_argument("--sample", action="store_true", help="draw actions, not the mode")
    parser.add_argument("--out", type=Path, help="the file")
    given = parser.parse_args()
    import playground
    from playground.record.atomic import RecordError
    from playground.schema import ConfigError

    try:
        path = playground.video(
            given.run, at=int(given.at) if given.at.isdecimal() else given.at, path=given.out,
            member=given.member, episodes=given.episodes, sample=given.sample,
        )  # fmt: skip
    except (ConfigError, RecordError) as error:
        sys.stderr.write(f"video: {error}\n")
        return 2
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
