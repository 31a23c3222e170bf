"""What the parts share: checks, a page, and a run's objective as a function of parameters."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
import yaml
from torch import Tensor

from playground.gradients import reduced
from playground.record.reader import Run
from playground.report.drawing.style import Sheet
from playground.study import Claim
from playground.temporary import Source, Temporary, find_point

CONFIG = yaml.safe_load((Path(__file__).parent / "config.yaml").read_text())

GOOD, CONDITIONAL, BAD, OPEN = "#1B7F4B", "#B8860B", "#C1121F", "#666666"
BADGES = {"HOLDS": GOOD, "HOLDS UNDER A CONDITION": CONDITIONAL, "DOES NOT HOLD": BAD}


@dataclass(frozen=True)
class Check(Claim):
    """A claim that stands for the article's words, or that breaks them.

    Attributes:
        role: ``holds`` or ``breaks``.
        part: whose.
    """

    role: str = "holds"
    part: str = ""

    def of(self, part: str) -> "Check":
        """The same with its part, and named after it and after its role."""
        role = "" if self.role == "holds" else ", counterexample"
        return replace(self, name=f"{part}{role}: {self.name}", part=part)


def page(
    part: str, question: str, caption: str, panels: int, *, body: float = 3.7, width: float = 12.5
) -> tuple[Sheet, list[Any]]:
    """A sheet under the article's words, with that many cells in a row."""
    sheet = Sheet.make(question, f"The article: \u201c{CONFIG[part]['quote']}\u201d", caption,
                       width=width, body=body, margins=(0.85, 0.3))  # fmt: skip
    grid = sheet.grid(1, panels, wspace=0.3)
    return sheet, [grid[0, k] for k in range(panels)]


def badge(sheet: Sheet, verdict: str) -> None:
    """Say the verdict at the top right."""
    height = float(sheet.figure.get_figheight())
    sheet.figure.text(
        sheet.right, 1 - 0.3 / height, f" {verdict} ", ha="right", va="center", color="white",
        fontsize=10.5, weight="bold",
        bbox={"facecolor": BADGES.get(verdict, OPEN), "linewidth": 0, "boxstyle": "round,pad=0.4"},
    )  # fmt: skip


class Loss:
    """One move of a run's problem as a function of its mover's parameters, on one batch.

    Attributes:
        at: where the run is [N].
        gradient: what the engine would take there [N].
        evaluations: of the function so far.
    """

    def __init__(
        self, source: Source, member: int = 0, player: str = "", at: str | int = "final",
        overrides: tuple[str, ...] = (), seed: int = 0,
    ) -> None:  # fmt: skip
        point = find_point(source, at, member, overrides=overrides)
        self.player = player or next(iter(point.parameters))
        self.temporary = Temporary(point, [seed])
        found = (pair for pair in self.temporary.moves() if pair[0].player == self.player)
        self.move, gradient = next(found)
        self.gradient = gradient.value[0]
        own = {name: p.parameters for name, p in self.temporary.players.items()}
        self.layout, self.at = own[self.player].layout, own[self.player].values[0].clone()
        self._fixed = {name: p.layout.views(p.values[0]) for name, p in own.items()}
        self._batch = {name: value[0] for name, value in self.move.batch.items()}
        self.evaluations = 0

    def __call__(self, where: Tensor, at_once: int = 256) -> Tensor:
        """Values [P] at parameters [P, N]."""

        def value(theta: Tensor) -> Tensor:
            views = {**self._fixed, self.player: self.layout.views(theta)}
            return reduced(self.move.objective, views, self._batch)[0]

        self.evaluations += len(where)
        with torch.no_grad():
            return torch.func.vmap(value, chunk_size=at_once)(where)

    def slopes(self, directions: Tensor, h: float) -> Tensor:
        """Central differences [P] along directions [P, N]."""
        ends = [self(self.at + sign * h * directions) for sign in (1, -1)]
        return (ends[0] - ends[1]) / (2 * h)


def directions(count: int, like: Tensor, seed: int) -> Tensor:
    """Random unit vectors [count, N]."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(count, len(like), generator=generator, dtype=torch.float64)
    return (drawn / drawn.norm(dim=1, keepdim=True)).to(like)


def norms(run: Run, player: str) -> np.ndarray:
    """Norm of the player's raw gradient at every update [T, M]."""
    table = run.gradients.select(["update", "member", "player", "tensor", "tap", "norm"])
    for column, value in (("player", player), ("tensor", ""), ("tap", "gradient")):
        table = table.filter(pc.equal(table[column], value))
    update = table["update"].to_numpy()
    values = np.full((int(update.max(initial=0)), len(run.members)), np.nan)
    values[update - 1, table["member"].to_numpy()] = table["norm"].to_numpy()
    return values


def measured(run: Run, probe: str, quantity: str, player: str) -> tuple[np.ndarray, np.ndarray]:
    """A quantity of a whole player: iterations [T] and values [T, M]."""
    table = run.measurements
    for column, value in (("probe", probe), ("quantity", quantity), ("player", player),
                          ("tensor", "")):  # fmt: skip
        table = table.filter(pc.equal(table[column], value))
    at, row = np.unique(table["iteration"].to_numpy(), return_inverse=True)
    values = np.full((len(at), len(run.members)), np.nan)
    values[row, table["member"].to_numpy()] = table["value"].to_numpy()
    return at, values


def trajectory(run: Run) -> np.ndarray:
    """Where a landscape's members were [M, T + 1, n]."""
    from playground.report.drawing.trajectory import trail

    found = trail(run.arrays)
    assert found is not None
    return found.points


def rates(run: Run) -> np.ndarray:
    """The learning rate of every member [M]."""
    return np.array([member["values"]["optimizer.lr"] for member in run.members])
