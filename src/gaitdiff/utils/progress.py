"""Progress of anything that takes more than a moment: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")

_QUIET_SECONDS = 30.0  # at most, between two lines where there is no terminal

#: What the program says beside its results goes to stderr, so that stdout can be piped.
console = Console(stderr=True, highlight=False)

_PIPED_WIDTH = 10_000  # of stdout that is no terminal: nobody reads it there, so tables need break no names


def say(text: str) -> None:
    """Write a note to stderr as it stands: brackets are no markup, and lines are broken by the terminal alone."""
    console.print(text, markup=False, soft_wrap=True)


def answers() -> Console:
    """Stdout, where results go: brackets are no markup, and where it is piped tables are as wide as they need."""
    stdout = Console(markup=False, highlight=False)
    if not stdout.is_terminal and "COLUMNS" not in os.environ:
        stdout.width = _PIPED_WIDTH
    return stdout


@contextmanager
def progress_bar(what: str, total: int | None = None, done: int = 0) -> Iterator[ProgressHandle]:
    """Show a bar with counts, elapsed and remaining time while the block runs.

    Where stderr is no terminal, there are lines instead: one in half a minute, and whenever there is something to tell.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        yield ProgressHandle(progress, what, total, done)


class ProgressHandle:
    """One bar: ``advance()`` it, and ``tell`` something beside it."""

    def __init__(self, progress: Progress, what: str, total: int | None, done: int) -> None:
        self._progress, self._what, self._total = progress, what, total
        self._task = progress.add_task(what, total=total, completed=done, note="")
        self._begun, self._done = done, done
        self._started = self._last = time.monotonic()

    def advance(self, steps: int = 1) -> None:
        """Move ``steps`` on."""
        self._done += steps
        self._progress.update(self._task, advance=steps)
        if self._progress.disable and time.monotonic() - self._last > _QUIET_SECONDS:
            self.tell("")

    def tell(self, text: str, done: int | None = None) -> None:
        """Say something of what is done so far: at the bar's end, or on a line of its own.

        Args:
            done: how many are done by now, where ``advance`` has not been told yet.
        """
        self._progress.update(self._task, note=text)
        if self._progress.disable:
            self._last = time.monotonic()
            say(f"{self._what}: {self._counts(self._done if done is None else done)}{', ' if text else ''}{text}")

    def _counts(self, done: int) -> str:
        if self._total is None:
            return f"{done:,}"
        pace = (time.monotonic() - self._started) / max(done - self._begun, 1)
        return f"{done:,}/{self._total:,}, {_duration(pace * (self._total - done))} left"


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Iterate over ``items`` under a progress bar."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress_bar(what, total) as bar:
        for item in items:
            yield item
            bar.advance()
