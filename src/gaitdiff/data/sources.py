"""Where an importer's files come from: a folder, or a zip archive that is read in place and never unpacked."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path
from types import TracebackType

from gaitdiff.data.images import MAX_BYTES
from gaitdiff.errors import UserError

_DIGITS = re.compile(r"([0-9]+)")
_LEADS_OUT = re.compile(r"^/|^[A-Za-z]:/|(^|/)\.\.(/|$)")
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class Source:
    """The files and folders below a root; a context manager.

    Attributes:
        path: the folder or archive.
        files: paths relative to the root, with "/" between folders, in natural order.
        folders: the same of all folders that are given by themselves, that is, also of empty ones.
        packed: whether it is an archive.
    """

    packed = False

    def __init__(self, path: Path, files: list[str], folders: list[str]) -> None:
        self.path = path
        self.files = sorted(files, key=natural)
        self.folders = sorted(folders, key=natural)

    def read(self, name: str) -> bytes:
        """Return a file's bytes; safe to call from many threads.

        Raises:
            ValueError: it cannot be read, or is larger than any silhouette.
        """
        raise NotImplementedError

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what is open."""


def open_source(path: str | Path) -> Source:
    """Open a folder or a zip archive.

    Raises:
        UserError: there is nothing at ``path``, it is neither of the two, or the archive is damaged, encrypted,
            or holds names that lead out of it.
    """
    path = Path(path).absolute()
    if path.is_dir():
        return _Folder(path)
    if not path.exists():
        raise UserError(f"there is nothing to import at {path}")
    if path.suffix.lower() != ".zip":
        raise UserError(f"{path} is neither a folder nor a .zip archive: give one of the two")
    return _Zip(path)


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key under which ``frame9`` comes before ``frame10``, the same on every machine."""
    key = []
    for i, word in enumerate(_DIGITS.split(name)):
        digits = word.lstrip("0") if i % 2 else ""
        key.append((0, len(digits), digits) if i % 2 else (1, 0, word))
    return key, name


def printable(name: str) -> str:
    """Replace what no manifest can hold, such as the bytes of a file name that is not UTF-8."""
    return _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", name)


class _Folder(Source):
    def __init__(self, path: Path) -> None:
        files: list[str] = []
        folders: list[str] = []
        seen: set[tuple[int, int]] = set()

        def refuse(error: OSError) -> None:
            raise UserError(f"cannot read the folder {error.filename} ({error.strerror})") from error

        for folder, below, names in os.walk(path, onerror=refuse, followlinks=True):
            state = os.stat(folder)
            if (state.st_dev, state.st_ino) in seen:  # links that lead back
                below.clear()
                continue
            seen.add((state.st_dev, state.st_ino))
            below.sort()
            inside = os.path.relpath(folder, path).replace(os.sep, "/")
            prefix = "" if inside == "." else inside + "/"
            files += [prefix + name for name in names]
            folders += [prefix + name for name in below]
        super().__init__(path, files, folders)

    def read(self, name: str) -> bytes:
        try:
            with open(self.path / name, "rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise ValueError(f"cannot be read ({error.strerror})") from error
        return _capped(data)


class _Zip(Source):
    packed = True

    def __init__(self, path: Path) -> None:
        try:
            self._archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise UserError(f"{path} cannot be read as a zip archive ({error}); download it anew") from error
        self._entries: dict[str, zipfile.ZipInfo] = {}
        folders = []
        try:
            for entry in self._archive.infolist():
                name = self._safe(path, entry)
                if name.endswith("/"):
                    folders.append(name.rstrip("/"))
                else:
                    self._entries[name] = entry
        except UserError:
            self._archive.close()
            raise
        super().__init__(path, list(self._entries), folders)

    @staticmethod
    def _safe(path: Path, entry: zipfile.ZipInfo) -> str:
        name = entry.filename.replace("\\", "/")
        if _LEADS_OUT.search(name):
            raise UserError(f"{path} holds the name {printable(name)!r}, which leads out of it: not imported")
        if entry.flag_bits & 1:
            raise UserError(f"{path} is encrypted: unpack it and import the folder")
        return name

    def read(self, name: str) -> bytes:
        try:
            with self._archive.open(self._entries[name]) as file:
                data = file.read(MAX_BYTES + 1)
        except Exception as error:  # each compression method has its own errors
            raise ValueError(f"cannot be read ({error})") from error
        return _capped(data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._archive.close()


def _capped(data: bytes) -> bytes:
    if len(data) > MAX_BYTES:
        raise ValueError(f"has more than {MAX_BYTES} bytes")
    return data
