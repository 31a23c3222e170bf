#!/usr/bin/env python
"""The loss around a run's parameters: scripts/landscape.py RUN [--directions random].

Evaluates the objective, and the metrics of the evaluation (in rl the true return), on the plane of
the principal directions of the run's own path, or on a random or filter-normalised one, and draws
it: with the path, its true loss beside the plane's, its distance from the plane, and the variance
that the plane explains beside that of a random walk. One picture for every player that trains; the
others stay at their last parameters. KEY=VALUE changes the run's configuration for the
measurement, as problem.evaluation_episodes=20.

Exit codes: 0 drawn, 2 wrong command.
"""

import argparse
import sys
from pathlib import Path

ACTING = ("agent", "policy", "model")
"""Players whose parameters decide what an evaluation measures."""


def main() -> int:
    """Parse the command line, measure, keep and draw."""
    lines = (__doc__ or "").split("\n\n")
    parser = argparse.ArgumentParser(
        description="\n\n".join([lines[0].partition(":")[0] + ".", lines[1]]), epilog=lines[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--directions", default="principal",
                        help="principal, random or filter_normalised")  # fmt: skip
    parser.add_argument("--at", default="final", help="final, best, or a snapshot's iteration")
    parser.add_argument("--player", help="whose parameters move; all, one after the other")
    parser.add_argument("--member", type=int, default=0)
    parser.add_argument("--metrics", help="of the evaluation, as a,b, or none; else the main one "
                        "in rl and supervised")  # fmt: skip
    parser.add_argument("--points", type=int, help="along each direction (25)")
    parser.add_argument("--batches", type=int, default=8, help="of the objective")
    parser.add_argument("--burn-in", type=int, default=0, help="iterations dropped before")
    parser.add_argument("--seed", type=int, default=0, help="of data and random directions")
    given = parser.parse_args()
    from playground.record.atomic import RecordError
    from playground.schema import ConfigError

    try:
        for path in drawn(given):
            print(path)
    except (ConfigError, RecordError, ValueError) as error:
        sys.stderr.write(f"landscape: {error}\n")
        return 2
    return 0


def drawn(given: argparse.Namespace) -> list[Path]:
    """Measure and draw every player's slice; the pictures."""
    from playground.record.reader import Run, load
    from playground.schema import ConfigError
    from playground.slices import keep, landscape

    run = load(given.run)
    if not isinstance(run, Run):
        raise ConfigError(f"{given.run}: a sweep; give one of its runs")
    at = int(given.at) if given.at.isdecimal() else given.at
    free = [name for name in run.manifest["players"] if name not in run.config.get("frozen", [])]
    paths = []
    for player in [given.player] if given.player else free:
        found = landscape(
            run, given.directions, at=at, player=player, member=given.member,
            metrics=metrics(run.manifest, player, given.metrics), points=given.points,
            batches=given.batches, burn_in=given.burn_in, seed=given.seed,
            overrides=given.overrides,
        )  # fmt: skip
        name = keep(run, found, given.directions, player=player, member=given.member, at=at)
        paths.append(run.figure(name))
    return paths


def metrics(manifest, player: str, given: str | None) -> list[str] | None:  # type: ignore[no-untyped-def]
    """What is evaluated at every point; a critic, say, has no part in a return."""
    if given is not None:
        return [name for name in given.split(",") if name != "none"]
    domain = manifest["problem"].partition("/")[0]
    return None if domain in ("rl", "supervised") and player in ACTING else []


if __name__ == "__main__":
    sys.exit(main())
