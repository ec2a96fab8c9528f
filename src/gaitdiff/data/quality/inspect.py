"""Looking at a store: are its checksums right, what is in it, what does it look like."""

from __future__ import annotations

import io
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from rich.table import Table

from gaitdiff.data.store import SequenceStore
from gaitdiff.data.store.header import Header
from gaitdiff.data.store.manifest import Row
from gaitdiff.utils.files import require_output, write_whole
from gaitdiff.utils.pictures import note_of, png_note
from gaitdiff.utils.progress import answers, track

_ROWS, _COLUMNS = 12, 12  # of the contact sheet
_MADE_BY = "gaitdiff data inspect"  # the note in a sheet's file, by which it may be replaced
_GAP, _LABEL = 4, 190  # pixels
_PAPER, _INK, _FAINT = 34, 225, 140  # grey levels


@dataclass(frozen=True)
class Part:
    """The sequences of one split and role."""

    split: str
    role: str
    people: int
    sequences: int
    frames: int


@dataclass(frozen=True)
class Summary:
    """What a store holds; :meth:`tables` shows it."""

    path: Path
    header: Header
    people: int
    conditions: int
    views: int
    parts: tuple[Part, ...]
    lengths: tuple[int, float, int]  # shortest, median, longest sequence in frames
    foreground: float  # share of the pixels that are at least half white, 0..1
    bytes: int  # on disk
    sheet: Path  # the contact sheet

    def tables(self) -> tuple[Table, Table]:
        """Return the store's facts, and its splits and roles."""
        facts = Table(title=self.path.name, show_header=False, title_justify="left")
        shortest, median, longest = self.lengths
        header = self.header
        for name, value in (
            ("data set", header.dataset or "–"),
            ("people", f"{self.people:,}"),
            ("sequences", f"{header.sequences:,}"),
            ("frames", f"{header.frames:,}"),
            ("frames a sequence", f"{shortest:,} to {longest:,}, median {median:,g}"),
            ("conditions, views", f"{self.conditions:,}, {self.views:,}"),
            ("frame size", f"{header.height} x {header.width}, crop {header.crop!r}"),
            ("foreground", f"{self.foreground:.1%} of the pixels"),
            ("on disk", f"{self.bytes / 1e6:,.1f} MB, codec {header.codec!r}"),
            ("source", header.source),
            ("checksums", "all right"),
            ("contact sheet", str(self.sheet)),
        ):
            facts.add_row(name, value)
        splits = Table("split", "role")
        for column in ("people", "sequences", "frames"):
            splits.add_column(column, justify="right")
        for part in self.parts:
            counts = (part.people, part.sequences, part.frames)
            splits.add_row(part.split, part.role or "–", *(f"{count:,}" for count in counts))
        return facts, splits


def inspect(path: str | Path, *, sheet: str | Path | None = None) -> Summary:
    """Check every checksum of a store, count what it holds, draw a contact sheet, and print a table.

    Args:
        path: the store.
        sheet: where the contact sheet (PNG) goes; by default beside the store, as ``NAME-contact.png``.

    Returns:
        what the table says.

    Raises:
        UserError: the store cannot be used, a sequence is damaged, or the sheet cannot be written.
    """
    store = SequenceStore(path)
    target = store.path.with_name(f"{store.path.name}-contact.png") if sheet is None else Path(sheet).absolute()
    require_output(target, "--sheet", lambda file: note_of(file) == _MADE_BY)
    white = 0
    for sequence in track(store, f"Checking {store.path.name}"):  # touching it checks it
        white += int(np.count_nonzero(sequence.frames >= 128))
    _write_png(target, contact_sheet(store))
    lengths = [row.frames for row in store.rows]
    summary = Summary(
        path=store.path,
        header=store.header,
        people=len({row.subject for row in store.rows}),
        conditions=len({row.condition for row in store.rows if row.condition}),
        views=len({row.view for row in store.rows if row.view}),
        parts=_parts(store.rows),
        lengths=(min(lengths), float(np.median(lengths)), max(lengths)),
        foreground=white / (store.header.frames * store.height * store.width),
        bytes=sum(file.stat().st_size for file in store.path.iterdir()),
        sheet=target,
    )
    answers().print(*summary.tables(), sep="\n")
    return summary


def contact_sheet(store: SequenceStore) -> np.ndarray:
    """Draw frames of sequences of several people, evenly spaced in time; uint8 (H, W)."""
    chosen = _choose(store.rows)
    height, width = store.height, store.width
    pitch_y, pitch_x = height + _GAP, width + _GAP
    columns = min(_COLUMNS, max(store.rows[i].frames for i in chosen))
    sheet = np.full((_GAP + len(chosen) * pitch_y, _LABEL + columns * pitch_x), _PAPER, np.uint8)
    for line, i in enumerate(chosen):
        frames, row = store[i].frames, store.rows[i]
        top = _GAP + line * pitch_y
        _draw_label(sheet[top : top + height, : _LABEL - _GAP], row)
        index = np.unique(np.linspace(0, len(frames) - 1, columns).round().astype(np.int64))
        for column, frame in enumerate(frames[index]):
            left = _LABEL + column * pitch_x
            sheet[top : top + height, left : left + width] = frame
    return sheet


def _draw_label(area: np.ndarray, row: Row) -> None:
    """Write a sequence's name, length and role into a piece of the sheet."""
    place = ", ".join(dict.fromkeys(part for part in (row.condition, row.view, row.sequence) if part))
    facts = f"{row.frames} frames, {row.split} {row.role}".rstrip()
    lines = ((row.subject, 0.45, _INK), (place, 0.36, _FAINT), (facts, 0.36, _FAINT))
    for number, (text, scale, ink) in enumerate(lines):
        shown = _shorten(_to_ascii(text), scale, area.shape[1] - 8)
        cv2.putText(area, shown, (8, 20 + 17 * number), cv2.FONT_HERSHEY_SIMPLEX, scale, ink, 1, cv2.LINE_AA)


def _to_ascii(text: str) -> str:
    """Drop accents, and put ? for the letters that OpenCV's font does not know."""
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return plain.encode("ascii", "replace").decode()


def _shorten(text: str, scale: float, width: int) -> str:
    """Cut the middle out of a text that is wider than ``width`` pixels; no letter is narrower than one of them."""
    if len(text) > 2 * width:
        text = text[:width] + text[-width:]
    kept, shown = len(text), text
    while kept > 2 and cv2.getTextSize(shown, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0] > width:
        kept -= 1
        shown = f"{text[: kept - kept // 2]}..{text[len(text) - kept // 2 :]}"
    return shown


def _choose(rows: tuple[Row, ...]) -> list[int]:
    """Return the sequences to show: of people evenly spread over the store, two or more each where they have them."""
    walks: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        walks[row.subject].append(i)
    several = any(len(numbers) > 1 for numbers in walks.values())
    people = _spread(list(walks), _ROWS // 2 if several else _ROWS)
    each = max(_ROWS // len(people), 1)
    return [i for person in people for i in _spread(walks[person], each)]


def _spread(items: list, count: int) -> list:
    """Return ``count`` of the items, or all if they are fewer, evenly spaced."""
    if len(items) <= count:
        return items
    return [items[round(k * (len(items) - 1) / max(count - 1, 1))] for k in range(count)]


def _parts(rows: tuple[Row, ...]) -> tuple[Part, ...]:
    people: dict[tuple[str, str], set[str]] = defaultdict(set)
    sequences: Counter[tuple[str, str]] = Counter()
    frames: Counter[tuple[str, str]] = Counter()
    for row in rows:
        key = (row.split, row.role)
        people[key].add(row.subject)
        sequences[key] += 1
        frames[key] += row.frames
    order = sorted(people, key=lambda key: (key[0] != "train", key))
    return tuple(Part(*key, len(people[key]), sequences[key], frames[key]) for key in order)


def _write_png(path: Path, image: np.ndarray) -> None:
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG", pnginfo=png_note(_MADE_BY))
    write_whole(path, data.getvalue(), "choose another --sheet")
