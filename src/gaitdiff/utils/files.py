"""Files and folders that appear whole or not at all, and reading those of others."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gaitdiff.errors import UserError

#: Drafts grow in hidden folders of such names, with the lock of whoever writes them.
_PREFIX, _SUFFIX, _LOCK, _REPLACED = ".gaitdiff-", ".partial", "draft.lock", "draft.replaced"
_MANY = 1000  # files that are not waited for one by one
_JSON_BYTES = 1 << 28  # of an output that is looked at before it is replaced, at most
_DRAFTS = re.compile(rf"{re.escape(_PREFIX)}\w{{8}}{re.escape(_SUFFIX)}")


class NamesAndDrafts(frozenset[str]):
    """A set of file names that has the names of all drafts, too."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, str) and _DRAFTS.fullmatch(name) is not None)


@contextmanager
def atomic_file(path: Path, remedy: str = "choose another --out") -> Iterator[Path]:
    """Give the path of a draft beside ``path``, which takes its place, on disk, when the block ends well.

    Nobody else's file is written over or followed, whatever it is called; what killed processes left of such a
    draft is cleared.

    Raises:
        UserError: it cannot be written, also by the block's own OSError; the sentence ends with ``remedy``.
    """
    try:
        with _draft_of(path) as draft:
            yield draft
            sync(draft)
            os.replace(draft, path)
            sync(path.parent)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error}): {remedy}") from error


@contextmanager
def atomic_folder(path: Path, remedy: str = "choose another --out", *, replaces: bool = False) -> Iterator[Path]:
    """Give a new folder beside ``path``, which takes its place, with all its files on disk, when the block ends well.

    What killed processes left of such a draft is cleared.

    Args:
        replaces: whether a folder that stands at ``path`` makes room; an empty one always does.

    Raises:
        UserError: it cannot be written, also by the block's own OSError; the sentence ends with ``remedy``. Or
            something stands at ``path``, as where another process was faster.
    """
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            sync(path.parent.parent)
        with _draft_of(path) as draft:
            draft.mkdir()
            yield draft
            sync_all([*draft.rglob("*"), draft])
            if replaces and path.is_dir():
                _exchange(path, draft)
            else:
                if not path.is_dir() or any(path.iterdir()):  # an empty one makes room by itself
                    refuse_existing(path)
                os.rename(draft, path)
            sync(path.parent)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error}): {remedy}") from error


def _exchange(path: Path, draft: Path) -> None:
    """Put a folder in place of another, of which there is none for a moment alone, however large they are."""
    before = draft.with_name(_REPLACED)
    os.rename(path, before)
    try:
        os.rename(draft, path)
    except OSError:
        os.rename(before, path)
        raise


@contextmanager
def _draft_of(path: Path) -> Iterator[Path]:
    """Give a path of the same name in a hidden folder beside ``path``, whose name nobody can foresee.

    The folder goes when the block ends. A killed process leaves it behind without its lock, by which it is known.
    """
    _clear_drafts(path)
    while True:
        folder = Path(tempfile.mkdtemp(_SUFFIX, _PREFIX, path.parent))
        lock = FileLock(folder / _LOCK, timeout=0, thread_local=False)
        try:
            with suppress(OSError):  # a file system without locks: there is nobody who could clear the folder
                lock.acquire()
        except Timeout:  # another process has just cleared it
            continue
        break
    try:
        yield folder / path.name
    finally:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


def _clear_drafts(path: Path) -> None:
    """Remove the drafts of ``path`` that no process is writing."""
    with os.scandir(path.parent) as entries:
        drafts = [Path(entry) for entry in entries if _DRAFTS.fullmatch(entry.name)]
    for draft in drafts:
        with suppress(OSError, Timeout):
            ours = stat.S_ISDIR(draft.lstat().st_mode) and stat.S_ISREG((draft / _LOCK).lstat().st_mode)
            if ours and {_LOCK, _REPLACED, path.name}.issuperset(os.listdir(draft)):
                with FileLock(draft / _LOCK, timeout=0, thread_local=False):
                    shutil.rmtree(draft, ignore_errors=True)


def write_whole(path: Path, data: bytes, remedy: str = "choose another --out") -> None:
    """Write a file of these bytes.

    Raises:
        UserError: it cannot be written; the sentence ends with ``remedy``.
    """
    with atomic_file(path, remedy) as draft:
        draft.write_bytes(data)


def write_json(path: Path, document: object, remedy: str = "choose another --out") -> None:
    """Write a document as JSON, all of it ASCII.

    Raises:
        UserError: see ``write_whole``.
    """
    write_whole(path, (json.dumps(document, indent=1) + "\n").encode("ascii"), remedy)


def require_regular(path: Path) -> Path:
    """The same path, unless what is there would keep its reader waiting (a pipe) or has no end (a device).

    Raises:
        OSError: it is no regular file, or is not there.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    return path


def read_regular(path: Path, limit: int) -> bytes:
    """Return a file's bytes.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file (a pipe would keep its reader waiting), or has more than ``limit`` bytes.
    """
    with open(path, "rb", buffering=0, opener=open_without_waiting) as file:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode):
            raise ValueError("is no regular file")
        if state.st_size > limit:
            raise ValueError(f"has more than {limit} bytes")
        return file.read()


def open_without_waiting(path: str, flags: int) -> int:
    """Open a file, as ``opener`` of ``open``; a pipe that nobody writes to would keep the usual way waiting."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def refuse_existing(path: Path, flag: str = "--out") -> None:
    """Refuse a path where something stands already.

    Raises:
        UserError: the sentence names the flag that chooses another.
    """
    if os.path.lexists(path):
        raise UserError(f"{path} exists already: choose another {flag} or remove it")


def require_new(path: Path, flag: str = "--out") -> None:
    """Refuse a path where something stands already, or whose folder does not exist or cannot be written.

    Raises:
        UserError: the sentence names the flag that chooses another.
    """
    refuse_existing(path, flag)
    parent = path.absolute().parent
    if not parent.is_dir():
        raise UserError(f"{path} cannot be written: its folder does not exist, make it or choose another {flag}")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"{path} cannot be written: its folder is not writable, choose another {flag}")


def require_output(path: Path, flag: str, earlier: Callable[[Path], bool]) -> None:
    """Refuse a path whose folder does not exist, or where something stands but an earlier output of the same kind.

    Args:
        earlier: whether a regular file is one, which may be replaced, as may an empty one; it may raise OSError or
            ValueError for others.

    Raises:
        UserError: the sentence names the flag.
    """
    if os.path.lexists(path):
        with suppress(OSError, ValueError):
            if require_regular(path).stat().st_size == 0 or earlier(path):
                return
    require_new(path, flag)


def parse_json(text: str | bytes, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """What JSON means.

    Args:
        object_pairs_hook: makes something of the pairs of an object, see ``json.loads``.

    Raises:
        ValueError: it is none, or is nested deeper than anybody means it.
    """
    try:
        return json.loads(text, object_pairs_hook=object_pairs_hook)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def json_object(path: Path) -> dict[str, Any]:
    """Return what a JSON file holds, nothing if that is no object.

    Raises:
        OSError, ValueError: it cannot be read, or is no JSON.
    """
    document = parse_json(read_regular(path, _JSON_BYTES))
    return document if isinstance(document, dict) else {}


def sync_all(paths: Sequence[Path]) -> None:
    """Wait until files and folders are on disk: very many by waiting for all that the system has to write."""
    if len(paths) > _MANY:
        os.sync()
        return
    for path in paths:
        sync(path)


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
