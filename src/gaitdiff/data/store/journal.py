"""The journal of a store in the making: what of it is whole, so that the next writer can go on where one was killed."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from gaitdiff.data.store.manifest import Row
from gaitdiff.utils.files import require_regular

JOURNAL_FILE = "journal.jsonl"


@dataclass(frozen=True)
class Entry:
    """A sequence that is done with."""

    row: Row | None  # None: it gave no frames
    note: dict[str, Any]  # what the caller wants to know of it when going on


class Journal:
    """Append-only file of lines, each with a checksum; the first tells which store, made from what, it belongs to."""

    def __init__(self, folder: Path, key: dict[str, Any]) -> None:
        self._path, self._key = folder / JOURNAL_FILE, key
        self._file: BinaryIO | None = None
        self._count = 0

    def read(self) -> list[tuple[Entry, int]]:
        """Return the entries up to the first torn or damaged line, each with the position of its end in the file.

        There are none where there is no journal, or that of another store.
        """
        try:
            lines = require_regular(self._path).read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        if not lines or _content(lines[0]) != self._key:
            return []
        end, entries = len(lines[0]), list[tuple[Entry, int]]()
        for line in lines[1:]:
            content = _content(line)
            if content is None or content["number"] != len(entries):
                break
            end += len(line)
            row = content["row"]
            entries.append((Entry(row and Row(**row), content["note"]), end))
        return entries

    def begin(self, count: int, end: int) -> None:
        """Open the journal for more, after its first ``count`` entries, which end at ``end``; anew if that is 0."""
        self._count = count
        if end:
            os.truncate(self._path, end)
        self._file = open(self._path, "ab" if end else "wb")  # noqa: SIM115 - close() ends it
        if not end:
            self._append([self._key])

    def write(self, entries: Iterable[Entry]) -> None:
        """Append entries, and wait until they are on disk."""
        contents = [
            {"number": number, "row": entry.row and asdict(entry.row), "note": entry.note}
            for number, entry in enumerate(entries, start=self._count)
        ]
        self._append(contents)
        self._count += len(contents)

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()

    def _append(self, contents: Iterable[dict[str, Any]]) -> None:
        assert self._file is not None
        self._file.write(b"".join(map(_line, contents)))
        self._file.flush()
        os.fsync(self._file.fileno())


def _line(content: dict[str, Any]) -> bytes:
    text = json.dumps(content, separators=(",", ":")).encode("ascii")
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _content(line: bytes) -> dict[str, Any] | None:
    """Return what a line says, or None if it is torn or damaged."""
    text = line[9:-1]
    if line != b"%08x %s\n" % (zlib.crc32(text), text):
        return None
    content: dict[str, Any] = json.loads(text)
    return content
