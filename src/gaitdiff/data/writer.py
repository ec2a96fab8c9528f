"""The packed sequence store, write side: nothing stands at the target until all of it does."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from gaitdiff.data.header import FRAMES_FILE, HEADER_FILE, MANIFEST_FILE, Header
from gaitdiff.data.manifest import CROPS, Row, encode_manifest, problem_with
from gaitdiff.errors import UserError

_LOCK_FILE = "writer.lock"


class StoreWriter:
    """Builds a store; a context manager.

    The store grows in a hidden sibling folder, ``.NAME.partial``, which takes its place under the final
    name when the ``with`` block ends well, and is removed when it ends badly. An operating-system lock keeps
    a second writer of the same target out; what a killed writer left behind is cleared by the next one.

    Args:
        path: folder to create; must not exist.
        height: rows of every frame, in pixels.
        width: columns of every frame, in pixels.
        crop: "full" for aligned square frames, "cut" for frames whose outer columns are gone.
        source: where the frames come from, in words; kept in ``store.json``.

    Raises:
        UserError: the target exists, is being written by another process, or cannot be written; from the
            methods: a sequence that no store can hold, a full disk, or a ``with`` block that ended without
            any sequence.
    """

    def __init__(self, path: str | Path, *, height: int = 64, width: int = 64, crop: str = "full", source: str) -> None:
        if crop not in CROPS:
            raise UserError(f"crop is {crop!r} but must be one of {', '.join(map(repr, CROPS))}")
        self.path = Path(path).absolute()
        if not self.path.name:
            raise UserError(f"{self.path} cannot be a store: name a folder below it")
        self.height, self.width, self.crop, self.source = height, width, crop, source
        self._partial = self.path.with_name(f".{self.path.name}.partial")
        self._rows: list[Row] = []
        self._keys: set[tuple[str, str, str, str]] = set()
        self._end = 0
        self._lock = -1
        self._file: BinaryIO | None = None
        self._refuse_existing()

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows added so far."""
        return tuple(self._rows)

    def __enter__(self) -> StoreWriter:
        with self._explained():
            self._lock = _lock_folder(self._partial)
            try:
                self._refuse_existing()
                _clear(self._partial)
                self._file = open(self._partial / FRAMES_FILE, "wb", buffering=1 << 20)
            except BaseException:
                self._discard()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._discard()
            return
        try:
            with self._explained():
                self._commit()
        except BaseException:
            self._discard()
            raise

    def add(
        self,
        frames: np.ndarray,
        *,
        subject: str,
        condition: str,
        view: str,
        sequence: str,
        split: str,
        role: str = "",
    ) -> None:
        """Append one sequence.

        Args:
            frames: uint8 (T, height, width), T >= 1.
            subject, condition, view, sequence: the names; no two sequences have all four in common.
            split: "train" or "test".
            role: "probe", "gallery" or "".

        Raises:
            UserError: see the class.
        """
        if self._file is None:
            raise RuntimeError("StoreWriter.add() works only inside the writer's with block")
        if frames.dtype != np.uint8 or frames.ndim != 3 or frames.shape[1:] != (self.height, self.width):
            raise UserError(
                f"the frames of sequence {subject}/{sequence} are {frames.dtype} {frames.shape}, "
                f"but the store {self.path} takes uint8 (T, {self.height}, {self.width})"
            )
        row = Row(subject, condition, view, sequence, len(frames), split, role, self.crop, self._end, 0)
        problem = problem_with(row) or ("it is there already" if row.key in self._keys else "")
        if problem:
            raise UserError(f"the sequence {row.name!r} cannot be added to {self.path}: {problem}")
        data = np.ascontiguousarray(frames).data.cast("B")
        with self._explained():
            self._file.write(data)
        self._rows.append(replace(row, crc32=zlib.crc32(data)))
        self._keys.add(row.key)
        self._end += row.frames

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

    def _commit(self) -> None:
        if not self._rows:
            raise UserError(f"no sequence was added, so there is no store to create at {self.path}")
        assert self._file is not None
        if self._file.tell() != self._end * self.height * self.width:
            raise UserError(f"the store {self.path} is incomplete: adding a sequence to it had failed")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        manifest = encode_manifest(self._rows)
        header = Header(
            height=self.height,
            width=self.width,
            crop=self.crop,
            sequences=len(self._rows),
            frames=self._end,
            source=self.source,
            manifest_sha256=hashlib.sha256(manifest).hexdigest(),
        )
        _write_durably(self._partial / MANIFEST_FILE, manifest)
        _write_durably(self._partial / HEADER_FILE, header.encode())
        sync(self._partial)
        self._refuse_existing()
        os.rename(self._partial, self.path)
        sync(self.path.parent)
        (self.path / _LOCK_FILE).unlink(missing_ok=True)
        os.close(self._lock)

    def _discard(self) -> None:
        """Remove the partial folder and give the lock back; something worse is already on its way up."""
        if self._file is not None:
            with suppress(OSError):  # the buffered rest does not fit a full disk
                self._file.close()
        if self._lock >= 0:
            if _is_ours(self._partial, self._lock):
                shutil.rmtree(self._partial, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1

    def _refuse_existing(self) -> None:
        if os.path.lexists(self.path):
            raise UserError(f"{self.path} exists already: choose another --out or remove it")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn the operating system's errors into sentences."""
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UserError(
                    f"the disk is full: the store {self.path} did not fit, and what was written of it is "
                    "removed; free some space or choose another --out"
                ) from error
            raise UserError(f"cannot write the store {self.path} ({error}); choose another --out") from error


def _lock_folder(folder: Path) -> int:
    """Create ``folder`` and lock it; return the descriptor that holds the lock until it is closed.

    The lock is taken on a file inside the folder. Between opening and locking that file another process may
    have removed or renamed the folder, so the lock counts only if the path still leads to the locked file.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise UserError(
                f"another process is writing the store at {folder}: wait for it, or choose another --out"
            ) from None
        if _is_ours(folder, descriptor):
            return descriptor
        os.close(descriptor)


def _is_ours(folder: Path, descriptor: int) -> bool:
    """Whether the lock file in ``folder`` is the one that ``descriptor`` has open."""
    try:
        return os.path.samestat(os.stat(folder / _LOCK_FILE), os.fstat(descriptor))
    except OSError:
        return False


def _clear(folder: Path) -> None:
    """Remove what a killed writer left in ``folder``, but for the lock."""
    for entry in folder.iterdir():
        if entry.name != _LOCK_FILE:
            entry.unlink()


def _write_durably(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
