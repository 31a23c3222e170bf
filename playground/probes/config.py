"""Configuration of the probes: which, and how often. Torch-free."""

from dataclasses import dataclass

from playground.schema import choice, number


@dataclass(slots=True)
class ProbesConfig:
    """A set of probes with its cadence."""

    name: str = choice("light", ("none", "light", "standard"), "set of probes")
    every: int = number(
        8, minimum=0, doc="tier 0: one update in `every`, drawn inside each window; 0 is none"
    )  # 8: ours, the cadence at which tier 0 costs under 5 %
    megabytes: int = number(64, minimum=1, doc="size of the device-side ring of copies")  # ours
