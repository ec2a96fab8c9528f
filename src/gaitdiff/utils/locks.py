"""Folders that one process writes at a time."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

from filelock import FileLock, Timeout

from gaitdiff.errors import BusyError, UserError
from gaitdiff.utils.files import parse_json, read_regular, write_whole
from gaitdiff.utils.progress import say

#: What operating systems say where a file system has no locks.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)

#: The file that is locked, and the one that says by whom.
LOCK_FILE, HOLDER_FILE = ".lock", ".writer.json"
_HOLDER_BYTES = 1 << 16  # at most

#: How long one waits for another process that is about to end, in seconds: a scheduler starts a job anew while it ends.
PATIENCE = 10.0


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Create a folder, and be the one process that writes it while the block runs.

    Raises:
        UserError: another process is at it, or it cannot be created.
    """
    lock = FolderLock(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}): choose another --out") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def try_lock(file: Path) -> Iterator[bool]:
    """Whether this process is the one that has a lock file while the block runs; nobody is waited for.

    Where a file system has no locks, everybody has it.

    Raises:
        UserError: its folder cannot be written.
    """
    lock = FileLock(file, timeout=0, thread_local=False)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        yield False
        return
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise UserError(f"{file} cannot be written ({error.strerror}): choose another --out") from error
    try:
        yield True
    finally:
        lock.release()


class FolderLock:
    """The right to write a folder, which the operating system takes back when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = FileLock(folder / LOCK_FILE, timeout=0, thread_local=False)

    def acquire(self) -> None:
        """Take the lock, and write down who has it; who has it already is given ten seconds to end.

        Raises:
            BusyError: another process has it; the sentence says which.
            OSError: the folder does not exist or cannot be written.
        """
        try:
            try:
                self._lock.acquire()
            except Timeout:
                say(f"{self.folder} is being written by {self._holder()}: waiting {PATIENCE:.0f} s for its end")
                self._lock.acquire(timeout=PATIENCE, poll_interval=0.1)
        except Timeout:
            raise BusyError(
                f"{self.folder} is being written by {self._holder()}: wait until it ends, or choose another --out"
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            say(
                f"{self.folder} lies on a file system without locks: see to it yourself that one process writes it",
            )
            return
        now = datetime.now(timezone.utc).isoformat(" ", "seconds")
        holder = {"process": os.getpid(), "host": socket.gethostname(), "since": now}
        write_whole(self.folder / HOLDER_FILE, json.dumps(holder).encode(), "choose another --out")

    def release(self) -> None:
        """Give the lock back; nothing happens where it is not held."""
        if self._lock.is_locked:
            with suppress(OSError):
                (self.folder / HOLDER_FILE).unlink(missing_ok=True)
            self._lock.release()

    def _holder(self) -> str:
        try:
            holder = parse_json(read_regular(self.folder / HOLDER_FILE, _HOLDER_BYTES))
            return f"process {holder['process']} on {holder['host']}, since {holder['since']}"
        except (OSError, ValueError, TypeError, KeyError):  # it has only just begun
            return "another process"
