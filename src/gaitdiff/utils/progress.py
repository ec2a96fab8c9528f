"""Progress bars for anything that takes more than a moment; silent when the output is not a terminal."""

from __future__ import annotations

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

#: What the program says beside its results goes to stderr, so that stdout can be piped.
console = Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """Write a note to stderr as it stands: brackets are no markup, and lines are broken by the terminal alone."""
    console.print(text, markup=False, soft_wrap=True)


@contextmanager
def progress_bar(what: str, total: int | None = None) -> Iterator[ProgressHandle]:
    """Show a bar with counts, elapsed and remaining time while the block runs; nothing when stderr is no terminal."""
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
        yield ProgressHandle(progress, what, total)


class ProgressHandle:
    """One bar: ``advance()`` it, and say something beside it with ``note``."""

    def __init__(self, progress: Progress, what: str, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task(what, total=total, note="")

    def advance(self, steps: int = 1, note: str | None = None) -> None:
        """Move ``steps`` on; ``note`` replaces the text at the bar's end."""
        if note is None:
            self._progress.update(self._task, advance=steps)
        else:
            self._progress.update(self._task, advance=steps, note=note)


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Iterate over ``items`` under a progress bar."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress_bar(what, total) as bar:
        for item in items:
            yield item
            bar.advance()
