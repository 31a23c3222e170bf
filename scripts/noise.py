#!/usr/bin/env python
"""How noisy a run's gradients are: scripts/noise.py RUN [--at 16] [KEY=VALUE...].

Takes independent gradient estimates at the run's parameters from fresh data, without touching
the run, and prints for every player the variance, the signal-to-noise ratio, the mean cosine
between two estimates, and the same for estimates of larger samples, each with its standard error.
KEY=VALUE changes the run's configuration for the measurement, as problem.num_envs=64.

Exit codes: 0 measured, 2 wrong command.
"""

import argparse
import sys
from pathlib import Path


def main() -> int:
    """Parse the command line, take the estimates, print the table."""
    lines = (__doc__ or "").split("\n\n")
    parser = argparse.ArgumentParser(
        description="\n\n".join([lines[0].partition(":")[0] + ".", lines[1]]), epilog=lines[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--at", default="final", help="final, best, or a snapshot's iteration")
    parser.add_argument("--member", type=int, default=0)
    parser.add_argument("--estimates", type=int, default=64)
    parser.add_argument("--moves", default="first", help="first move of an iteration, or mean")
    parser.add_argument("--burn-in", type=int, default=0, help="iterations dropped before")
    parser.add_argument("--seed", type=int, default=0, help="of the fresh data")
    given = parser.parse_args()
    from playground.estimates import gradient_estimates
    from playground.record.atomic import RecordError
    from playground.schema import ConfigError

    try:
        found = gradient_estimates(
            given.run, int(given.at) if given.at.isdecimal() else given.at,
            estimates=given.estimates, member=given.member, seed=given.seed, moves=given.moves,
            burn_in=given.burn_in, overrides=given.overrides,
        )  # fmt: skip
        rows = table(found)
    except (ConfigError, RecordError, ValueError) as error:
        sys.stderr.write(f"noise: {error}\n")
        return 2
    print("\n".join(rows))
    return 0


def table(found) -> list[str]:  # type: ignore[no-untyped-def]
    """One line for every player and number of estimates that are averaged into one."""
    names = ("variance", "norm_squared", "snr", "cosine")
    rows = [f"{'player':14}{'averaged':>9}" + "".join(f"{name:>24}" for name in names)]
    for player, values in found.values.items():
        size = 1
        while len(values) // size >= 4:
            noise = found.noise(player, size=size)
            cells = [f"{noise[n].value[0, 0]:.4g} +- {noise[n].stderr[0, 0]:.2g}" for n in names]
            rows.append(f"{player:14}{size:9d}" + "".join(f"{cell:>24}" for cell in cells))
            size *= 4
    return rows


if __name__ == "__main__":
    sys.exit(main())
