"""The packed sequence store, read side: silhouettes in a memory-mapped file, with random access to frames."""

from __future__ import annotations

import hashlib
import operator
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np

from gaitdiff.data.store.codec import CODECS, MOST_PIXELS_A_BYTE
from gaitdiff.data.store.header import FRAMES_FILE, HEADER_FILE, MANIFEST_FILE, Header
from gaitdiff.data.store.manifest import ROLES, SPLITS, Row, decode_manifest
from gaitdiff.errors import UserError, nearest
from gaitdiff.utils.files import read_regular
from gaitdiff.utils.progress import track

T = TypeVar("T")
_NAME_LETTERS = 200  # of a name that nobody has, as many as are looked at
_IMAGES = (".png", ".jpg", ".jpeg", ".bmp")
_MOST_BYTES = 1 << 30  # of a header or manifest; one of ten million sequences


class UnknownPersonError(UserError, KeyError):
    """Nobody in a store has this name; the sentence names the nearest one."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, eq=False)
class Sequence:
    """One walk."""

    frames: np.ndarray  # uint8 (T, H, W), read-only; of a raw store, memory-mapped
    row: Row


class SequenceStore:
    """Random access to the silhouettes of a store folder.

    The frames' file is memory-mapped: opening reads the manifest only, and what is held in memory is the operating
    system's page cache, shared by all processes; frames are decoded when they are asked for, and only those.
    A sequence's checksum is verified when it is first touched, so that a damaged file is noticed before a model
    learns from it. A store pickles as its path, and so passes to spawned workers; a forked worker uses the parent's
    mapping.

    Args:
        path: the store folder.

    Raises:
        UserError: the folder is missing, is no store, has another version, or is damaged; the sentence
            names the file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        _require_store(self.path)
        self.header: Header = _decoded(self.path / HEADER_FILE, Header.decode)
        self.rows: tuple[Row, ...] = self._read_manifest()
        self.height, self.width = self.header.height, self.header.width
        self._codec = CODECS[self.header.codec](self.height, self.width)
        self._bytes = self._map_frames()
        self._ends = np.cumsum([row.bytes for row in self.rows], dtype=np.int64)
        self._checked = bytearray(len(self.rows))

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"SequenceStore({str(self.path)!r}): {len(self)} sequences, {self.header.frames} frames"

    @overload
    def __getitem__(self, which: int | np.integer[Any]) -> Sequence: ...

    @overload
    def __getitem__(self, which: str | slice | list[int] | np.ndarray) -> list[Sequence]: ...

    def __getitem__(self, which: Any) -> Sequence | list[Sequence]:
        """Return sequences, all their frames decoded.

        Args:
            which: a row number, negative ones counting from the end; or for a list of sequences a person's name as the
                manifest has it, a slice, row numbers, as ``select`` gives them, or a bool (N,) that picks some.

        Raises:
            IndexError: there is no such row.
            UnknownPersonError: there is nobody of this name; it is a KeyError.
            TypeError: anything else.
            UserError: a sequence is damaged.
        """
        if isinstance(which, str):
            return [self._sequence(i) for i in self._rows_of(which)]
        if isinstance(which, slice):
            return [self._sequence(i) for i in range(len(self))[which]]
        if isinstance(which, np.ndarray) and which.dtype == np.bool_ and which.shape == (len(self),):
            which = np.flatnonzero(which)
        if isinstance(which, list) or (isinstance(which, np.ndarray) and which.ndim == 1):
            return [self._sequence(i) for i in [self._number(item) for item in which]]
        return self._sequence(self._number(which))

    def __contains__(self, person: object) -> bool:
        """Whether there is a person of this name."""
        return any(row.subject == person for row in self.rows)

    def __iter__(self) -> Iterator[Sequence]:
        return (self._sequence(i) for i in range(len(self)))

    def clip(self, i: int, index: np.ndarray) -> np.ndarray:
        """Return a copy of some frames of sequence ``i``, in the order asked for.

        Args:
            i: row number.
            index: int (n,), frame numbers within the sequence.

        Returns:
            uint8 (n, H, W).

        Raises:
            UserError: the sequence is damaged.
        """
        row = self.rows[i]
        with self._explained(row):
            return self._codec.decode(self._stored(i % len(self.rows)), row.frames, index)

    def select(self, split: str | None = None, role: str | None = None) -> np.ndarray:
        """Return the numbers of the rows with this split and this role (None: any), int64 (n,), ascending."""
        for what, value, known in (("split", split, SPLITS), ("role", role, ROLES)):
            if value is not None and value not in known:
                raise UserError(f"there is no {what} {value!r} in a store{nearest(value, known)}")
        chosen = [
            i
            for i, row in enumerate(self.rows)
            if (split is None or row.split == split) and (role is None or row.role == role)
        ]
        return np.array(chosen, dtype=np.int64)

    def verify(self) -> None:
        """Check every sequence against its checksum.

        Raises:
            UserError: names the first damaged sequence and the file.
        """
        for i in track(range(len(self)), f"Checking {self.path.name}"):
            self._verify_one(i)

    def __reduce__(self) -> tuple[Callable[[str, str], SequenceStore], tuple[str, str]]:
        return _reopen, (str(self.path), self.header.manifest_sha256)

    def _sequence(self, i: int) -> Sequence:
        row = self.rows[i]
        with self._explained(row):
            frames = self._codec.decode_all(self._stored(i), row.frames)
        frames.flags.writeable = False
        return Sequence(frames, row)

    def _number(self, which: Any) -> int:
        """A row's number, counted from the first."""
        try:
            if isinstance(which, bool | np.bool_):
                raise TypeError
            number = operator.index(which)
        except TypeError as error:
            raise TypeError(
                f"a store takes a row number, a person's name, a slice or a list of row numbers, not {which!r:.80}"
            ) from error
        if not -len(self) <= number < len(self):
            raise IndexError(f"there is no row {number} in {self.path}, which has {len(self)} sequences, from 0 on")
        return number % len(self)

    def _rows_of(self, person: str) -> list[int]:
        found = [i for i, row in enumerate(self.rows) if row.subject == person]
        if not found:
            people = sorted({row.subject for row in self.rows})
            hint = nearest(person[:_NAME_LETTERS], people)
            raise UnknownPersonError(
                f"there is no person {person[:_NAME_LETTERS]!r} in {self.path}{hint}; it has {len(people)}"
            )
        return found

    def _stored(self, i: int) -> np.ndarray:
        """Return the bytes of sequence ``i``, once its checksum is known to be right; uint8 (n,)."""
        if not self._checked[i]:
            self._verify_one(i)
        end = self._ends[i]
        return self._bytes[end - self.rows[i].bytes : end]

    def _verify_one(self, i: int) -> None:
        row, end = self.rows[i], self._ends[i]
        if zlib.crc32(self._bytes[end - row.bytes : end].data) != row.crc32:
            raise self._damaged(row, "does not match its checksum")
        self._checked[i] = 1

    @contextmanager
    def _explained(self, row: Row) -> Iterator[None]:
        """Turn the codec's complaints into a sentence."""
        try:
            yield
        except ValueError as error:
            raise self._damaged(row, f"cannot be decoded ({error})") from error

    def _damaged(self, row: Row, what: str) -> UserError:
        return UserError(
            f"{self.path / FRAMES_FILE} is damaged: sequence {row.name!r} {what}; copy or make the store anew"
        )

    def _read_manifest(self) -> tuple[Row, ...]:
        path = self.path / MANIFEST_FILE

        def decode(data: bytes) -> tuple[Row, ...]:
            rows = decode_manifest(data, self.header.height * self.header.width)
            if hashlib.sha256(data).hexdigest() != self.header.manifest_sha256:
                raise ValueError(f"its checksum is not the one in {HEADER_FILE}, so it was edited or damaged")
            if not rows or len(rows) != self.header.sequences:
                raise ValueError(f"it has {len(rows)} sequences, {HEADER_FILE} {self.header.sequences}")
            if rows[-1].first + rows[-1].frames != self.header.frames:
                raise ValueError(f"it has another number of frames than {HEADER_FILE}")
            if any(row.crop != self.header.crop for row in rows):
                raise ValueError(f"a sequence in it has another crop than {HEADER_FILE}")
            return rows

        return _decoded(path, decode)

    def _map_frames(self) -> np.ndarray:
        """Return the content of the frames' file, uint8 (n,), read-only."""
        path = self.path / FRAMES_FILE
        expected = sum(row.bytes for row in self.rows)
        try:
            found = path.stat().st_size
            if found != expected:
                state = "truncated" if found < expected else "too long"
                raise UserError(
                    f"{path} is {state}: {expected} bytes expected, {found} found; copy or make the store anew"
                )
            header = self.header
            if header.frames * header.height * header.width > MOST_PIXELS_A_BYTE * found:
                raise UserError(
                    f"{path} cannot hold {header.frames} frames of {header.height} x {header.width} in {found} bytes: "
                    f"{HEADER_FILE} or {MANIFEST_FILE} beside it is damaged; copy or make the store anew"
                )
            mapped = np.memmap(path, dtype=np.uint8, mode="r")
        except OSError as error:
            raise UserError(f"cannot read {path} ({error.strerror or error})") from error
        return mapped.view(np.ndarray)


def _reopen(path: str, manifest_sha256: str) -> SequenceStore:
    """Open a pickled store again, unless another one has taken its place meanwhile."""
    store = SequenceStore(path)
    if store.header.manifest_sha256 != manifest_sha256:
        raise UserError(f"the store {path} was replaced by another while it was in use; start again")
    return store


def _require_store(path: Path) -> None:
    if not path.exists():
        raise UserError(f"there is no store at {path}: gaitdiff data import makes one, or gaitdiff data walkers")
    if not path.is_dir():
        raise UserError(f"{path} is a file, but a store is a folder with {HEADER_FILE} in it")
    if not (path / HEADER_FILE).is_file():
        remedy = f"`gaitdiff data import {path} --as frames --out STORE`"
        hint = f"; it holds images: import them with {remedy}" if _has_images(path) else ""
        raise UserError(f"{path} is not a store: it has no {HEADER_FILE}{hint}")


def _has_images(folder: Path) -> bool:
    """Whether the first few hundred entries below ``folder`` include an image."""
    entries = folder.rglob("*")
    return any(entry.suffix.lower() in _IMAGES for entry, _ in zip(entries, range(500), strict=False))


def _decoded(path: Path, decode: Callable[[bytes], T]) -> T:
    """Read a file of the store and decode it; whatever is wrong with it becomes one sentence."""
    try:
        data = read_regular(path, _MOST_BYTES)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error})") from error
    except ValueError as error:
        raise UserError(f"{path} {error}: copy or make the store anew") from error
    try:
        return decode(data)
    except ValueError as error:
        raise UserError(f"{path} cannot be used: {error}") from error
