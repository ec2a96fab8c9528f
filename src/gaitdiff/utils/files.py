"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gaitdiff.errors import UserError


@contextmanager
def atomic_file(path: Path, remedy: str = "choose another --out") -> Iterator[Path]:
    """Give the path of a draft beside ``path``, which takes its place, on disk, when the block ends well.

    Raises:
        UserError: it cannot be written, also by the block's own OSError; the sentence ends with ``remedy``.
    """
    draft = path.with_name(f".{path.name}.partial")
    try:
        yield draft
        sync(draft)
        os.replace(draft, path)
        sync(path.parent)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error}): {remedy}") from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, remedy: str = "choose another --out") -> Iterator[Path]:
    """Give a new folder beside ``path``, which takes its place, with all its files on disk, when the block ends well.

    What stood at ``path`` is replaced; what a killed process left of the draft is cleared first.

    Raises:
        UserError: it cannot be written, also by the block's own OSError; the sentence ends with ``remedy``.
    """
    draft = path.with_name(f".{path.name}.partial")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        yield draft
        for file in (*draft.iterdir(), draft):
            sync(file)
        if path.is_dir():
            shutil.rmtree(path)
        os.rename(draft, path)
        sync(path.parent)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error}): {remedy}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_whole(path: Path, data: bytes, remedy: str = "choose another --out") -> None:
    """Write a file of these bytes.

    Raises:
        UserError: it cannot be written; the sentence ends with ``remedy``.
    """
    with atomic_file(path, remedy) as draft:
        draft.write_bytes(data)


def refuse_existing(path: Path, flag: str = "--out") -> None:
    """Refuse a path where something stands already.

    Raises:
        UserError: the sentence names the flag that chooses another.
    """
    if os.path.lexists(path):
        raise UserError(f"{path} exists already: choose another {flag} or remove it")


def require_new(path: Path, flag: str = "--out") -> None:
    """Refuse a path where something stands already, or whose folder does not exist.

    Raises:
        UserError: the sentence names the flag that chooses another.
    """
    refuse_existing(path, flag)
    if not path.absolute().parent.is_dir():
        raise UserError(f"{path} cannot be written: its folder does not exist")


def require_file(path: Path, flag: str) -> None:
    """Refuse a path that is a folder, or whose folder does not exist.

    Raises:
        UserError: the sentence names the flag.
    """
    if path.is_dir():
        raise UserError(f"{path} cannot be written: it is a folder, {flag} takes a file")
    if not path.absolute().parent.is_dir():
        raise UserError(f"{path} cannot be written: its folder does not exist")


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
