"""The manifest of a store: one row for each sequence, kept as a CSV file that any tool can read."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from operator import attrgetter

#: The values a row's split, role and crop may have.
SPLITS = ("train", "val", "test")
ROLES = ("", "probe", "gallery")
CROPS = ("full", "cut")


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence of a store, which is one line of ``manifest.csv``."""

    subject: str  # who walks
    condition: str  # clothes, bag, day, …; may be empty
    view: str  # camera or angle; may be empty
    sequence: str  # name of this walk among those of the same subject, condition and view
    frames: int  # number of frames
    split: str  # "train", "val" (to choose checkpoints by) or "test"
    role: str  # "probe", "gallery", or "" where the split has no roles
    crop: str  # "full": aligned and square (64 of 64 columns); "cut": the outer columns are gone (44 of 64)
    first: int  # number of the first frame, counted through the store
    crc32: int  # of the sequence's bytes in frames.bin
    bytes: int  # how many those are; they lie end to end, in the order of the rows

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What tells this sequence from all others of its store."""
        return (self.subject, self.condition, self.view, self.sequence)

    @property
    def name(self) -> str:
        """The key as people write it, ``subject/condition/view/sequence`` without the empty parts."""
        return "/".join(part for part in self.key if part)


COLUMNS = tuple(field.name for field in fields(Row))
_NUMBERS = ("frames", "first", "crc32", "bytes")
_DIGITS = 15  # at most, of a number
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def encode_manifest(rows: Iterable[Row]) -> bytes:
    """Return the rows as CSV in UTF-8, the first line naming the columns."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(map(attrgetter(*COLUMNS), rows))
    return text.getvalue().encode("utf-8")


def decode_manifest(data: bytes, frame_bytes: int) -> tuple[Row, ...]:
    """Read what :func:`encode_manifest` wrote; columns may stand in any order, unknown ones are passed over.

    Args:
        data: the file's content.
        frame_bytes: of an uncoded frame; tells the bytes of a sequence in old stores, which lack that column.

    Raises:
        ValueError: not UTF-8, not CSV, a column is missing, a value is out of its range, two rows have the
            same key, or the rows do not lie end to end in the frames file. The text says which line.
    """
    reader = csv.reader(io.StringIO(data.decode("utf-8"), newline=""), strict=True)
    try:
        lines = list(reader)
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num} is not CSV ({error})") from error
    header = lines[0] if lines else []
    missing = [column for column in COLUMNS if column not in header and column != "bytes"]
    if missing:
        raise ValueError(f"the column {missing[0]!r} is missing")
    rows = tuple(_parse(number, header, line, frame_bytes) for number, line in enumerate(lines[1:], start=2))
    _check_rows(rows)
    return rows


def problem_with(row: Row) -> str:
    """Say what is wrong with a row's values, or "" when all is well."""
    if row.frames < 1:
        return "it has no frames"
    if not row.subject or not row.sequence:
        return "its subject and sequence must have names"
    if _CONTROL.search("".join(row.key)):
        return "a name in it holds control characters"
    for what, value, allowed in (
        ("split", row.split, SPLITS),
        ("role", row.role, ROLES),
        ("crop", row.crop, CROPS),
    ):
        if value not in allowed:
            return f"its {what} is {value!r} but must be one of {', '.join(map(repr, allowed))}"
    return ""


def _parse(number: int, header: list[str], line: list[str], frame_bytes: int) -> Row:
    if len(line) != len(header):
        raise ValueError(f"line {number} has {len(line)} values instead of {len(header)}")
    values: dict[str, str] = dict(zip(header, line, strict=True))
    numbers: dict[str, int] = {}
    for column in (column for column in _NUMBERS if column in values):
        if not (values[column].isascii() and values[column].isdigit()):
            raise ValueError(f"line {number}: {column} is {values[column]!r}, which is no whole number")
        if len(values[column]) > _DIGITS:
            raise ValueError(f"line {number}: {column} has {len(values[column])} digits, which no store's has")
        numbers[column] = int(values[column])
    numbers.setdefault("bytes", numbers["frames"] * frame_bytes)
    words = {column: values[column] for column in COLUMNS if column not in _NUMBERS}
    return Row(**words, **numbers)  # type: ignore[arg-type]


def _check_rows(rows: tuple[Row, ...]) -> None:
    end = 0
    seen: set[tuple[str, str, str, str]] = set()
    for number, row in enumerate(rows, start=2):
        problem = problem_with(row)
        if not problem and row.first != end:
            problem = f"it should begin at frame {end}, not {row.first}"
        if not problem and row.key in seen:
            problem = "another sequence has the same name"
        if problem:
            raise ValueError(f"line {number} ({row.name}): {problem}")
        seen.add(row.key)
        end += row.frames
