"""Stub."""

from pathlib import Path

import yaml

CONFIG = yaml.safe_load((Path(__file__).parent / "config.yaml").read_text())


def runs(quick: bool) -> dict[str, list[str]]:
    """A run a domain, all its members in one."""
    size = "quick" if quick else "full"
    return {
        name: [
            *CONFIG["base"], *domain["overrides"], f"members={CONFIG[size]['members']}",
            f"budget.iterations={domain[size]['iterations']}",
            f"evaluate.every={domain[size]['every']}",
            f"probes.game.every={domain[size]['every']}",
        ]
        for name, domain in CONFIG["domains"].items()
    }  # fmt: skip
def claims(runs, folder):
    return []
