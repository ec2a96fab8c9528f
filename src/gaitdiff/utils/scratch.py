"""Folders for what is too large for memory."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from gaitdiff.utils.locks import LOCK_FILE, try_lock

_PREFIX = "gaitdiff-scratch-"
_FRESH_S = 60  # a folder as new as this may not have its lock yet


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Give a folder among the temporary ones that is gone afterwards; what killed processes left there goes, too."""
    _clear()
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as name:
        folder = Path(name)
        with try_lock(folder / LOCK_FILE):
            yield folder


def remedy(path: Path) -> str:
    """What to do where a file cannot be written, by whether it lies in a scratch folder."""
    scratch = path.parent.name.startswith(_PREFIX)
    return "set TMPDIR to a folder with more room" if scratch else "choose another place for the features"


def _clear() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError, Timeout):  # in use
            lock_file = folder / LOCK_FILE
            states = [os.lstat(folder), os.lstat(lock_file)]
            ours = all(state.st_uid == os.getuid() and not stat.S_ISLNK(state.st_mode) for state in states)
            if ours and time.time() - states[1].st_mtime > _FRESH_S:
                with FileLock(lock_file, timeout=0, thread_local=False):
                    shutil.rmtree(folder)
