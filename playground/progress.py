"""What a run shows while it runs: a live line on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

PLAIN_SECONDS = 10.0
"""Between two plain lines."""


class Reporter:
    """Prints the head, the progress and the end of a run."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(quiet=quiet, highlight=False, soft_wrap=True)
        self._live: Progress | None = None
        self._last = time.monotonic()
        self._shown = ""

    def say(self, line: str) -> None:
        """One line of text, never read as markup."""
        self.console.print(Text(line))

    def lines(self, lines: Iterable[str]) -> None:
        """Several lines."""
        for line in lines:
            self.say(line)

    def start(self) -> None:
        """Open the live line where there is a terminal."""
        if self.console.is_terminal and not self.console.quiet:
            self._live = Progress(
                TextColumn("{task.fields[left]}"),
                BarColumn(bar_width=24),
                TextColumn("{task.percentage:>3.0f}%"),
                TextColumn("{task.fields[right]}"),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            self._live.add_task("run", total=1.0, left="", right="")
            self._live.start()

    def due(self) -> bool:
        """Whether it is time to show something again."""
        wait = 0.1 if self._live is not None else PLAIN_SECONDS
        return time.monotonic() - self._last >= wait

    def update(self, share: float, left: str, right: str) -> None:
        """Show progress: share of the budget, the counter, throughput and main metric."""
        self._last = time.monotonic()
        if self._live is not None:
            task = self._live.task_ids[0]
            self._live.update(task, completed=share, left=escape(left), right=escape(right))
        else:
            self.say(f"{share:4.0%}  {left}  {right}")

    def stop(self) -> None:
        """Close the live line."""
        if self._live is not None:
            self._live.stop()
            self._live = None
