"""The hidden folder in which a store grows: locked, and cleared of nothing but what a writer put there."""

from __future__ import annotations

import os
from pathlib import Path

from gaitdiff.data.store.header import FRAMES_FILE, HEADER_FILE, MANIFEST_FILE
from gaitdiff.data.store.journal import JOURNAL_FILE
from gaitdiff.errors import UserError
from gaitdiff.utils.locks import NO_LOCKS
from gaitdiff.utils.progress import say

LOCK_FILE = "writer.lock"

#: What a writer puts into its folder, and all that it ever removes there; the lock goes last.
_CONTENT = (FRAMES_FILE, JOURNAL_FILE, MANIFEST_FILE, HEADER_FILE)


def lock_folder(folder: Path) -> int:
    """Create ``folder`` and lock it; return the descriptor that holds the lock until it is closed.

    The lock is taken on a file inside the folder. Between opening and locking that file another process may
    have removed or renamed the folder, so the lock counts only if the path still leads to the locked file.

    Raises:
        UserError: another process holds the lock, or the folder was not created by a writer.
    """
    import fcntl  # which Windows lacks: there stores are read, not written

    while True:
        _refuse_foreign(folder)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise UserError(
                f"another process is writing the store at {folder}: wait for it, or choose another --out"
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(descriptor)
                raise
            say(f"{folder} lies on a file system without locks: see to it yourself that one process writes it")
        if is_ours(folder, descriptor):
            return descriptor
        os.close(descriptor)


def is_ours(folder: Path, descriptor: int) -> bool:
    """Whether the lock file in ``folder`` is the one that ``descriptor`` has open."""
    try:
        return os.path.samestat(os.stat(folder / LOCK_FILE), os.fstat(descriptor))
    except OSError:
        return False


def _refuse_foreign(folder: Path) -> None:
    """Refuse what may stand at ``folder`` but was not left there by a writer: its files are somebody's."""
    if folder.is_symlink():
        raise UserError(f"{folder}, where the store is to grow, is a link: remove it or choose another --out")
    try:
        with os.scandir(folder) as entries:
            files = {entry.name: entry.is_file(follow_symlinks=False) for entry in entries}
    except FileNotFoundError:
        return
    foreign = sorted(name for name, is_file in files.items() if not is_file or name not in (*_CONTENT, LOCK_FILE))
    if foreign or (files and LOCK_FILE not in files):
        raise UserError(
            f"{folder}, where the store is to grow, holds files that no store in the making has "
            f"(such as {(foreign or sorted(files))[0]}): move them or choose another --out"
        )


def clear(folder: Path) -> None:
    """Remove what another writer left in ``folder``, but for the lock."""
    for name in _CONTENT:
        (folder / name).unlink(missing_ok=True)
