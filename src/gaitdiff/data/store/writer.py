"""The packed sequence store, write side: nothing stands at the target until all of it does."""

from __future__ import annotations

import errno
import hashlib
import os
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from gaitdiff.data.store.codec import CODECS, DEFAULT_CODEC, Encoded
from gaitdiff.data.store.header import FRAMES_FILE, HEADER_FILE, MANIFEST_FILE, Header
from gaitdiff.data.store.journal import JOURNAL_FILE, Entry, Journal
from gaitdiff.data.store.lock import LOCK_FILE, clear, is_ours, lock_folder
from gaitdiff.data.store.manifest import CROPS, Row, encode_manifest, problem_with
from gaitdiff.errors import UserError
from gaitdiff.utils.files import refuse_existing, sync
from gaitdiff.utils.progress import say
from gaitdiff.utils.text import counted

#: A resumable writer saves what it has after so many bytes, or seconds: a kill loses no more than that.
_SAVE_BYTES, _SAVE_SECONDS = 16 << 20, 1.0


class StoreWriter:
    """Builds a store; a context manager.

    The store grows in a hidden sibling folder, ``.NAME.partial``, which takes its place under the final
    name when the ``with`` block ends well, and is removed when it ends badly. An operating-system lock keeps
    a second writer of the same target out; what a killed writer left behind is cleared by the next one, which refuses
    a folder of that name in which anything else lies.

    A writer with a ``resume`` fingerprint can be interrupted: when its process is killed, or its ``with`` block is
    ended by any error, the hidden folder stays with what is whole in it, and the next writer of the same target with
    the same fingerprint goes on from there; a UserError says so at its end, with other errors it is printed. On
    entering it has the sequences that were whole, each verified by its checksum, and :attr:`notes` says which those
    are; what is torn, damaged or comes after that is dropped. The finished store has the bytes of one that was written
    in one go.

    Args:
        path: folder to create; must not exist.
        height: rows of every frame, in pixels.
        width: columns of every frame, in pixels.
        crop: "full" for aligned square frames, "cut" for frames whose outer columns are gone.
        source: where the frames come from, in words; kept in ``store.json``.
        dataset: the data set's name, from which its evaluation protocol follows, such as "gait3d"; "" for none.
        resume: a text that changes with everything the store's content depends on (source, options, version of the
            importer). None: the store is written in one go or not at all.
        codec: how the frames are coded, a name in :data:`gaitdiff.data.store.codec.CODECS`. The default takes about a
            ninth of the bytes of "raw", from which clips are read three times as fast.

    Raises:
        UserError: the target exists, is being written by another process, or cannot be written, or its hidden sibling
            was not created by a writer; from the methods: a sequence that no store can hold, a full disk, or a ``with``
            block that ended without any sequence.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        height: int = 64,
        width: int = 64,
        crop: str = "full",
        source: str,
        dataset: str = "",
        resume: str | None = None,
        codec: str = DEFAULT_CODEC,
    ) -> None:
        if crop not in CROPS:
            raise UserError(f"crop is {crop!r} but must be one of {', '.join(map(repr, CROPS))}")
        if codec not in CODECS:
            raise UserError(f"codec is {codec!r} but must be one of {', '.join(map(repr, CODECS))}")
        self.path = Path(path).absolute()
        if not self.path.name:
            raise UserError(f"{self.path} cannot be a store: name a folder below it")
        self.height, self.width, self.crop, self.codec = height, width, crop, codec
        self.source, self.dataset = source, dataset
        self._encode = CODECS[codec](height, width).encode
        self._partial = self.path.with_name(f".{self.path.name}.partial")
        self._rows: list[Row] = []
        self._keys: set[tuple[str, str, str, str]] = set()
        self._notes: list[dict[str, Any]] = []
        self._frames = self._bytes = 0
        self._lock = -1
        self._parents: list[Path] = []
        self._file: BinaryIO | None = None
        key = {"resume": resume, "height": height, "width": width, "crop": crop, "codec": codec}
        self._journal = Journal(self._partial, key) if resume is not None else None
        self._unsaved: list[Entry] = []
        self._saved_bytes, self._saved_at = 0, 0.0
        refuse_existing(self.path)

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows added so far."""
        return tuple(self._rows)

    @property
    def notes(self) -> tuple[dict[str, Any], ...]:
        """The notes of all sequences that are done with, added or skipped, in order."""
        return tuple(self._notes)

    def __enter__(self) -> StoreWriter:
        try:
            with self._explained():
                self._parents = [folder for folder in self._partial.parents if not folder.exists()]
                self._lock = lock_folder(self._partial)
                refuse_existing(self.path)
                self._begin()
        except BaseException as error:
            self._give_up(error)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._give_up(error)
            return
        try:
            with self._explained():
                self._commit()
        except BaseException as failure:
            self._give_up(failure, keep=bool(self._rows))
            raise

    def add(
        self,
        frames: np.ndarray | Encoded,
        *,
        subject: str,
        condition: str,
        view: str,
        sequence: str,
        split: str,
        role: str = "",
        note: dict[str, Any] | None = None,
    ) -> None:
        """Append one sequence.

        Args:
            frames: uint8 (T, height, width), T >= 1; or what :func:`gaitdiff.data.store.codec.encode` made of them.
            subject, condition, view, sequence: the names; no two sequences have all four in common.
            split: "train", "val" or "test".
            role: "probe", "gallery" or "".
            note: what :attr:`notes` gives back to the writer that goes on from here; values that JSON keeps.

        Raises:
            UserError: see the class.
        """
        file = self._opened()
        if not isinstance(frames, np.ndarray | Encoded):
            raise UserError(
                f"frames must be an array, uint8 (T, {self.height}, {self.width}), not {type(frames).__name__}"
            )
        if not all(isinstance(name, str) for name in (subject, condition, view, sequence)):
            raise UserError(f"names are text, not {subject!r}, {condition!r}, {view!r}, {sequence!r}")
        kind = frames.dtype.name if isinstance(frames, np.ndarray) else frames.codec
        if kind not in ("uint8", self.codec) or frames.shape[1:] != (self.height, self.width):
            raise UserError(
                f"the frames of sequence {subject}/{sequence} are {kind} {frames.shape}, "
                f"but the store {self.path} takes uint8 (T, {self.height}, {self.width})"
            )
        if isinstance(frames, np.ndarray) and frames.size and frames.max() == 1:
            raise UserError(
                f"the frames of sequence {subject}/{sequence} hold 0 and 1, but white is 255: multiply them by 255"
            )
        row = Row(subject, condition, view, sequence, frames.shape[0], split, role, self.crop, self._frames, 0, 0)
        problem = problem_with(row) or ("it is there already" if row.key in self._keys else "")
        if problem:
            raise UserError(f"the sequence {row.name!r} cannot be added to {self.path}: {problem}")
        data = self._encode(frames) if isinstance(frames, np.ndarray) else frames.data
        with self._explained():
            file.write(data)
            self._done(Entry(replace(row, crc32=zlib.crc32(data), bytes=len(data)), note or {}))

    def skip(self, note: dict[str, Any]) -> None:
        """Note a sequence that gave no frames, so that a writer that goes on from here need not try it again."""
        self._opened()
        with self._explained():
            self._done(Entry(None, note))

    def assign(self, splits_and_roles: Sequence[tuple[str, str]]) -> None:
        """Replace the (split, role) of every row, in the order in which the sequences were added.

        For importers, which know only at the end which sequences turned out usable.
        """
        rows = [
            replace(row, split=split, role=role)
            for row, (split, role) in zip(self._rows, splits_and_roles, strict=True)
        ]
        for row in rows:
            if problem := problem_with(row):
                raise UserError(f"the sequence {row.name!r} cannot be added to {self.path}: {problem}")
        self._rows = rows

    def _opened(self) -> BinaryIO:
        if self._file is None:
            raise RuntimeError("a StoreWriter takes sequences only inside its with block")
        return self._file

    def _begin(self) -> None:
        """Open the files, after what an earlier writer left if that can be gone on from, else anew."""
        end = self._take_over() if self._journal else 0
        if not end:
            clear(self._partial)
        self._file = open(self._partial / FRAMES_FILE, "ab", buffering=1 << 20)  # noqa: SIM115 - _close() ends it
        if self._journal:
            self._journal.begin(len(self._notes), end)
            sync(self._partial)
            self._saved_bytes, self._saved_at = self._bytes, time.monotonic()

    def _take_over(self) -> int:
        """Count what an earlier writer left as written, up to the first torn or damaged sequence.

        Returns:
            the end of its last entry in the journal, 0 if there is nothing to go on from.
        """
        assert self._journal is not None
        end, path = 0, self._partial / FRAMES_FILE
        if not path.exists():
            return 0
        with open(path, "rb") as file:
            for entry, entry_end in self._journal.read():
                if entry.row and zlib.crc32(file.read(entry.row.bytes)) != entry.row.crc32:
                    break
                self._count(entry)
                end = entry_end
        os.truncate(path, self._bytes)
        return end

    def _done(self, entry: Entry) -> None:
        self._count(entry)
        if self._journal:
            self._unsaved.append(entry)
            fresh = self._bytes - self._saved_bytes
            if fresh >= _SAVE_BYTES or time.monotonic() - self._saved_at >= _SAVE_SECONDS:
                self._save()

    def _count(self, entry: Entry) -> None:
        self._notes.append(entry.note)
        if entry.row:
            self._rows.append(entry.row)
            self._keys.add(entry.row.key)
            self._frames += entry.row.frames
            self._bytes += entry.row.bytes

    def _save(self) -> None:
        """Bring the frames to disk, and then the journal that vouches for them."""
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        if self._journal:
            self._journal.write(self._unsaved)
            self._unsaved = []
            self._saved_bytes, self._saved_at = self._bytes, time.monotonic()

    def _commit(self) -> None:
        if not self._rows:
            raise UserError(f"no sequence was added, so there is no store to create at {self.path}")
        assert self._file is not None
        if self._file.tell() != self._bytes:
            raise UserError(f"the store {self.path} is incomplete: adding a sequence to it had failed")
        self._save()
        self._close()
        manifest = encode_manifest(self._rows)
        header = Header(
            height=self.height,
            width=self.width,
            crop=self.crop,
            sequences=len(self._rows),
            frames=self._frames,
            source=self.source,
            codec=self.codec,
            dataset=self.dataset,
            manifest_sha256=hashlib.sha256(manifest).hexdigest(),
        )
        _write_durably(self._partial / MANIFEST_FILE, manifest)
        _write_durably(self._partial / HEADER_FILE, header.encode())
        sync(self._partial)
        refuse_existing(self.path)
        os.rename(self._partial, self.path)
        sync(self.path.parent)
        clear_tools(self.path)
        os.close(self._lock)
        self._lock = -1

    def _give_up(self, error: BaseException, keep: bool = True) -> None:
        """Give the lock back; remove what was made, folders above it too, unless the next writer can go on from it.

        Raises:
            UserError: the error, if it is one, with how much is kept for the next writer.
        """
        with suppress(OSError):  # the buffered rest does not fit a full disk; something worse is on its way up
            if self._journal is not None and self._unsaved:
                self._save()
        with suppress(OSError):
            self._close()
        kept = self._kept() if keep else ""
        if self._lock >= 0:
            if not kept and is_ours(self._partial, self._lock):
                with suppress(OSError):
                    clear(self._partial)
                    (self._partial / LOCK_FILE).unlink()
                    self._partial.rmdir()
            os.close(self._lock)
            self._lock = -1
        if not kept:
            with suppress(OSError):  # others have put something there by now
                for folder in self._parents:
                    folder.rmdir()
        elif isinstance(error, UserError):
            raise UserError(f"{error}; {kept}") from error
        elif isinstance(error, Exception):
            say(f"{self.path}: {kept}")

    def _kept(self) -> str:
        """Say how much the journal vouches for, from which the next writer can go on; "" where that is nothing."""
        if self._lock < 0 or self._journal is None:
            return ""
        try:
            count = len(self._journal.read())
        except OSError:
            return "what is done so far is kept: the same command continues"
        return (
            f"what is done so far is kept ({counted(count, 'sequence')}): the same command continues" if count else ""
        )

    def _close(self) -> None:
        for file in (self._journal, self._file):
            if file is not None:
                file.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn the operating system's errors into sentences."""
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UserError(
                    f"the disk is full: the store {self.path} did not fit; free some space or choose another --out"
                ) from error
            raise UserError(
                f"cannot write the store {self.path} ({error.strerror or error}); choose another --out"
            ) from error


def clear_tools(store: Path) -> None:
    """Remove from a store that is whole what served to make it; a kill just before leaves it there."""
    for name in (JOURNAL_FILE, LOCK_FILE):
        (store / name).unlink(missing_ok=True)


def _write_durably(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
