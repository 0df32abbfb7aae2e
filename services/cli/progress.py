"""Progress: bars with the time left on a terminal, plain lines in a log."""

import os
import sys
import time
from abc import ABC, abstractmethod
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

SECONDS_BETWEEN_LINES = 10.0


class Reporter(ABC):
    """Told how work goes on."""

    @abstractmethod
    def say(self, text: str) -> None:
        """A line of its own."""

    @abstractmethod
    def update(self, name: str, completed: int, total: int, note: str = "") -> None:
        """`completed` of `total` steps of `name` are done."""


class Progress(Reporter):
    """Tells a person how far named pieces of work have come, on standard error."""

    def __init__(self, *, silent: bool = False) -> None:
        # rich takes FORCE_COLOR for a terminal, and would fill logs with bars.
        terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not silent
        self._console = Console(file=sys.stderr, force_terminal=terminal, quiet=silent)
        self._bars = Bars(
            TextColumn("{task.description:<24}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._lines: dict[str, tuple[float, int, float]] = {}
        self._ended: set[str] = set()

    def __enter__(self) -> "Progress":
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """A line of its own, above the bars."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def update(self, name: str, completed: int, total: int, note: str = "") -> None:
        """`completed` of `total` steps of `name` are done."""
        if not self._console.is_terminal:
            self._update_line(name, completed, total, note)
            return
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, note=note)
        self._bars.update(self._tasks[name], completed=completed, total=total, note=note)

    def _update_line(self, name: str, completed: int, total: int, note: str) -> None:
        now = time.monotonic()
        began, first, last = self._lines.setdefault(name, (now, completed, float("-inf")))
        ended = completed >= total
        if name in self._ended or (not ended and now - last < SECONDS_BETWEEN_LINES):
            return
        known = completed > first and not ended and now > began
        left = f", {self._left(began, completed - first, total - first)} left" if known else ""
        self.say(f"{name}: {completed} of {total}{left}{'  ' + note if note else ''}")
        self._lines[name] = (began, first, now)
        if ended:
            self._ended.add(name)

    @staticmethod
    def _left(began: float, completed: int, total: int) -> str:
        seconds = (time.monotonic() - began) * (total - completed) / completed
        return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
