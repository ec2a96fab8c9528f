"""Checking a store: is every byte as it was written, are the frames aligned, does any sequence look wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from gaitdiff.data.quality.measure import Measures, measure
from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError
from gaitdiff.utils.counts import Counts
from gaitdiff.utils.files import json_object, require_output, write_json
from gaitdiff.utils.parallel import check_workers, in_order, processors
from gaitdiff.utils.progress import answers, progress_bar

TWICE = "sequences that are there twice"

_PERCENTILES = (1, 5, 50, 95, 99)
_AT_ONCE = 16  # sequences that a process takes at a time
_LITTLE = 500  # so many are measured sooner than other processes start
_USUAL_WIDTH = (0.25, 0.46)  # of the frame's height: a store's median person


@dataclass(frozen=True)
class Finding:
    """Something about one sequence.

    Attributes:
        row: its number in the store.
        sequence: its name.
        what: the kind, such as "upside-down sequences"; for damaged ones the sentence.
        detail: the numbers behind it.
    """

    row: int
    sequence: str
    what: str
    detail: str = ""


@dataclass(frozen=True)
class Spread:
    """Mean and percentiles 1, 5, 50, 95, 99 of a quantity over frames."""

    mean: float
    percentiles: tuple[float, ...]

    def __str__(self) -> str:
        low, high = self.percentiles[0], self.percentiles[-1]
        return f"mean {self.mean:.3g}, median {self.percentiles[2]:.3g}, {low:.3g} to {high:.3g} (98% of the frames)"


@dataclass(frozen=True)
class Verification:
    """What was found; shares are of the frames that are not empty.

    Attributes:
        path: the store.
        sequences, frames: how many were read.
        damaged: sequences that cannot be trusted.
        suspicious: sequences that a person should look at, by row.
        empty: frames with next to no foreground.
        top, bottom: share of frames whose foreground reaches the first row, the last row, 0..1.
        offset: columns from the middle to the column that halves the mass.
        height: rows that the person takes up, as a share of the frame's.
        foreground: share of the frame's pixels.
        width: columns of the median sequence's person.
        note: what is odd about the store as a whole, or "".
    """

    path: Path
    sequences: int
    frames: int
    damaged: tuple[Finding, ...]
    suspicious: tuple[Finding, ...]
    empty: int
    top: float
    bottom: float
    offset: Spread
    height: Spread
    foreground: Spread
    width: float
    note: str

    def document(self) -> dict[str, Any]:
        """Everything, as ``--json`` writes it."""

        def spread(values: Spread) -> dict[str, float]:
            named = {f"p{p}": value for p, value in zip(_PERCENTILES, values.percentiles, strict=True)}
            return {"mean": values.mean, **named}

        def listed(findings: tuple[Finding, ...]) -> list[dict[str, Any]]:
            return [dict(vars(finding)) for finding in findings]

        spreads = {name: spread(getattr(self, name)) for name in ("offset", "height", "foreground")}
        numbers = {name: getattr(self, name) for name in ("sequences", "frames", "empty", "top", "bottom", "width")}
        findings = {name: listed(getattr(self, name)) for name in ("damaged", "suspicious")}
        return {"store": str(self.path), **numbers, **spreads, "note": self.note, **findings}

    def table(self) -> Table:
        """The facts for the terminal."""
        table = Table(title=self.path.name, show_header=False, title_justify="left")
        odd = Counts()
        for finding in self.suspicious:
            odd.add(finding.what, f"{finding.sequence} ({finding.detail})")
        for name, value in (
            ("read", f"{self.sequences:,} sequences, {self.frames:,} frames"),
            ("damaged", f"{len(self.damaged):,} sequences" if self.damaged else "nothing"),
            ("empty frames", f"{self.empty:,}"),
            ("person reaches", f"the top row in {self.top:.1%} of the frames, the bottom row in {self.bottom:.1%}"),
            ("columns off centre", str(self.offset)),
            ("height used", str(self.height)),
            ("foreground", str(self.foreground)),
            ("person's width", f"{self.width:g} columns"),
            ("look at", "\n".join(filter(None, [self.note, *odd.lines()])) or "nothing suspicious"),
        ):
            table.add_row(name, value)
        return table


def verify_store(path: str | Path, *, json_file: str | Path | None = None, workers: int | None = None) -> Verification:
    """Read every sequence of a store, check it, measure it, and print what was found.

    Args:
        path: the store.
        json_file: write everything there too, the suspicious sequences without end.
        workers: processes; as many as there are processors by default.

    Returns:
        What was found; suspicious sequences are no error.

    Raises:
        UserError: the store cannot be used, or a sequence is damaged (all the same the report is printed and written
            first); the JSON file cannot be written.
    """
    check_workers(workers)
    store = SequenceStore(path)
    if json_file is not None:
        require_output(Path(json_file), "--json", lambda file: {"store", "suspicious"} <= json_object(file).keys())
    found = _verified(store, workers or (1 if len(store) < _LITTLE else processors()))
    answers().print(found.table())
    if json_file is not None:
        write_json(Path(json_file), found.document(), "choose another --json")
    if found.damaged:
        first = found.damaged[0].what
        several = f"{len(found.damaged)} of {found.sequences} sequences are damaged, the first: "
        raise UserError(first if len(found.damaged) == 1 else several + first)
    return found


def _verified(store: SequenceStore, workers: int) -> Verification:
    """Add up what :func:`measure` says of every sequence; counts, not values, are kept, whatever the store's size."""
    columns, rows = store.width, store.height
    offset, height = np.zeros(2 * columns + 1, np.int64), np.zeros(rows + 1, np.int64)
    foreground = np.zeros(rows * columns + 1, np.int64)
    digest, width = np.zeros(len(store), np.uint64), np.full(len(store), np.nan, np.float32)
    whole = np.zeros(len(store), bool)
    top = bottom = 0
    damaged, odd = [], []
    for i, measures in _measured(store, workers):
        name = store.rows[i].name
        if isinstance(measures, UserError):
            damaged.append(Finding(i, name, str(measures)))
            continue
        whole[i], digest[i] = True, measures.digest
        if len(measures.offset):
            width[i] = measures.width
        top, bottom = top + measures.top, bottom + measures.bottom
        offset += np.bincount(measures.offset + columns, minlength=len(offset))
        height += np.bincount(measures.height, minlength=len(height))
        foreground += np.bincount(measures.foreground, minlength=len(foreground))
        odd += [Finding(i, name, what, detail) for what, detail in measures.odd]
    read, full = int(foreground.sum()), max(int(height.sum()), 1)
    person = float(np.nanmedian(width)) if not np.isnan(width).all() else 0.0
    return Verification(
        path=store.path,
        sequences=len(store),
        frames=read,
        damaged=tuple(damaged),
        suspicious=tuple(sorted([*odd, *_twice(store, digest, whole)], key=lambda finding: finding.row)),
        empty=read - int(height.sum()),
        top=top / full,
        bottom=bottom / full,
        offset=_spread(offset, np.arange(-columns, columns + 1)),
        height=_spread(height, np.arange(rows + 1) / rows),
        foreground=_spread(foreground, np.arange(rows * columns + 1) / (rows * columns)),
        width=person,
        note=_note(person, rows),
    )


def _measured(store: SequenceStore, workers: int) -> Iterator[tuple[int, Measures | UserError]]:
    """Measure all sequences, in order."""
    firsts = range(0, len(store), _AT_ONCE)
    with (
        progress_bar(f"Verifying {store.path.name}", len(store)) as bar,
        closing(in_order(partial(_measure_some, store), firsts, min(workers, len(firsts)))) as measuring,
    ):
        for first, results in zip(firsts, measuring, strict=True):
            yield from enumerate(results, start=first)
            bar.advance(len(results))


def _measure_some(store: SequenceStore, first: int) -> list[Measures | UserError]:
    return [_measure_one(store, i) for i in range(first, min(first + _AT_ONCE, len(store)))]


def _measure_one(store: SequenceStore, i: int) -> Measures | UserError:
    try:
        return measure(store[i].frames)
    except UserError as error:  # damaged: the others are read all the same
        return error


def _twice(store: SequenceStore, digest: np.ndarray, whole: np.ndarray) -> list[Finding]:
    """Sequences whose frames are those of an earlier one, to the byte."""
    rows = np.flatnonzero(whole)
    order = rows[np.argsort(digest[rows], kind="stable")]
    found = []
    first = -1
    for before, row in zip(order[:-1].tolist(), order[1:].tolist(), strict=True):
        if digest[before] != digest[row]:
            first = -1
            continue
        first = before if first < 0 else first
        found.append(Finding(row, store.rows[row].name, TWICE, f"the same frames as {store.rows[first].name}"))
    return found


def _note(width: float, rows: int) -> str:
    """Say whether people are too wide or too narrow throughout; 0 columns: nothing to say."""
    low, high = (round(share * rows) for share in _USUAL_WIDTH)
    if width == 0 or low <= width <= high:
        return ""
    how = "stretched" if width > high else "squeezed or cut twice"
    return f"half of the people are {'over' if width > high else 'under'} {width:g} columns wide: frames {how}?"


def _spread(counts: np.ndarray, values: np.ndarray) -> Spread:
    """Mean and percentiles of values that were met so many times."""
    total = int(counts.sum())
    if total == 0:
        return Spread(0.0, (0.0,) * len(_PERCENTILES))
    below = counts.cumsum()
    ranks = [np.searchsorted(below, p / 100 * (total - 1), side="right") for p in _PERCENTILES]
    return Spread(float(counts @ values / total), tuple(float(values[rank]) for rank in ranks))
