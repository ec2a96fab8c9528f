"""Where an importer's files come from: a folder, or a zip or tar archive that is read in place and never unpacked."""

from __future__ import annotations

import os
import posixpath
import re
import shlex
import stat
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType

from gaitdiff.data.formats.images import MAX_BYTES
from gaitdiff.data.formats.images import SUFFIXES as IMAGES
from gaitdiff.data.formats.pickles import SUFFIX as PICKLE
from gaitdiff.data.formats.tar import Member, members
from gaitdiff.errors import UserError
from gaitdiff.utils.files import open_without_waiting, read_regular
from gaitdiff.utils.text import natural, printable

_LEADS_OUT = re.compile(r"^/|^[A-Za-z]:/|(^|/)\.\.(/|$)")
_SAME_DIGIT = str.maketrans("123456789", "000000000")

#: Links may show a folder at several places; folders that link to each other would do so for ever.
_MOST_WAYS = 1000

#: How files begin that hold others behind a compression, which can only be read from the beginning.
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf\x27\x1c", b"Rar!")

#: What is no archive, but what silhouettes are cut out of.
VIDEOS = (
    *(".3gp", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts"),
    *(".webm", ".wmv"),
)
OF_A_VIDEO = "of a video a folder of masks of who walks in it"

#: What unpacks an archive in the folder where it lies, by its extension.
_UNPACK: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst"), "tar xf"),
        ".zip": "unzip -q",
        **dict.fromkeys((".7z", ".rar"), "7z x"),
    }
)


class Source:
    """The files and folders below a root; a context manager.

    Attributes:
        path: the folder or archive.
        files: paths relative to the root, with "/" between folders; folder by folder, each in natural order.
        folders: the same of all folders that are given by themselves, that is, also of empty ones.
        packed: whether it is an archive.
        unpack: what a shell unpacks it with into FOLDER, before a further command.
    """

    packed = False
    unpack = ""

    def __init__(self, path: Path, files: Iterable[str], folders: Iterable[str]) -> None:
        self.path = path
        self.files = _in_order(files)
        self.folders = sorted(folders, key=natural)

    def read(self, name: str, limit: int = MAX_BYTES) -> bytes:
        """Return a file's bytes; safe to call from many threads.

        Raises:
            ValueError: it cannot be read, or has more than ``limit`` bytes.
        """
        raise NotImplementedError

    def size(self, name: str) -> int:
        """Return how many bytes a file has, unpacked; 0 where it cannot be read."""
        raise NotImplementedError

    def stamp(self, name: str) -> str:
        """Return what is another text once a file has other content, as far as can be told without reading it.

        Its size with the time of its last change, or in a zip archive its checksum; "" where there is no such file.
        """
        raise NotImplementedError

    def __reduce__(self) -> tuple[Callable[..., Source], tuple[Path]]:
        """Pickle as the path, for other processes to read from; an archive is opened there anew."""
        return type(self), (self.path,)

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what is open."""


def open_source(path: str | Path) -> Source:
    """Open a folder, or a zip archive or an uncompressed tar archive.

    Raises:
        UserError: ``path`` is empty, there is nothing at it, it is none of these, or the archive is damaged, encrypted,
            or holds names that lead out of it.
    """
    if not os.fspath(path):
        raise UserError("the source is an empty name: give a folder or a .zip or .tar archive")
    path = Path(path).absolute()
    if path.is_dir():
        return _Folder(path)
    if not path.exists():
        raise UserError(f"there is nothing to import at {path}")
    try:
        with open(path, "rb", opener=open_without_waiting) as file:
            regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            start = file.read(512) if regular else b""
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror})") from error
    if start.startswith(_COMPRESSED):
        command = f"`{_UNPACK.get(path.suffix.lower(), 'tar xf')} {shlex.quote(str(path))}`"
        raise UserError(
            f"{path} is compressed, so it can only be read as a whole: unpack it ({command}), import the folder"
        )
    suffix = path.suffix.lower() if regular else ""
    if start.startswith(b"PK\x03\x04") or suffix == ".zip":
        return _Zip(path)
    if start[257:262] == b"ustar" or suffix == ".tar":
        return _Tar(path)
    masks = f", and {OF_A_VIDEO}" if path.suffix.lower() in VIDEOS else ""
    raise UserError(f"{path} is neither a folder nor a .zip or .tar archive: give one of these{masks}")


def packed_inside(source: Source) -> str:
    """Return one sentence on how to unpack a source that holds only archives, or "" when it holds images or pickles."""
    kinds: Counter[str] = Counter()
    example = ""
    for name in source.files:
        file = name.lower().rpartition("/")[2]
        if file.startswith("."):
            continue
        if file.endswith((*IMAGES, PICKLE)):
            return ""
        for suffix in _UNPACK:
            if file.endswith(suffix):
                kinds[suffix] += 1
                example = example or name
    if not kinds:
        return ""
    suffix = kinds.most_common(1)[0][0]
    path = shlex.quote(str(source.path))
    folder, outer = ("FOLDER" if source.packed else path), source.unpack.format(path)
    inner = f"find {folder} -name '[!.]*{suffix}' -execdir {_UNPACK[suffix]} {{}} ';'"
    return (
        f"{source.path} holds {kinds.total()} archives (such as {printable(example)}), but neither images nor pickles: "
        f"unpack with `{outer}{inner}`, then import {folder}"
    )


def _in_order(names: Iterable[str]) -> list[str]:
    """Sort paths naturally, folder by folder; names that differ only in digits at the same places take no keys."""
    folders: dict[str, list[str]] = {}
    for name in names:
        folder, slash, file = name.rpartition("/")
        folders.setdefault(folder + slash, []).append(file)
    result: list[str] = []
    for folder in sorted(folders, key=natural):
        files = folders[folder]
        alike = len({file.translate(_SAME_DIGIT) for file in files}) == 1
        files.sort(key=None if alike else natural)
        result += [folder + file for file in files]
    return result


class _Folder(Source):
    def __init__(self, path: Path) -> None:
        files: list[str] = []
        folders: list[str] = []
        ways: Counter[tuple[int, int]] = Counter()
        waiting = [("", tuple(_identity(parent) for parent in path.resolve().parents))]
        while waiting:
            folder, above = waiting.pop()
            below: list[str] = []
            try:
                here = _identity(path / folder)
                if here in above:  # a link that leads back
                    continue
                ways[here] += 1
                if ways[here] > _MOST_WAYS:
                    raise UserError(f"more than {_MOST_WAYS} ways through links lead to {path / folder}: remove some")
                with os.scandir(path / folder) as entries:
                    for entry in entries:
                        (below if _is_folder(entry) else files).append(folder + entry.name)
            except OSError as error:
                raise UserError(f"cannot read the folder {error.filename} ({error.strerror})") from error
            folders += below
            waiting += [(name + "/", (*above, here)) for name in sorted(below, reverse=True)]
        super().__init__(path, files, folders)

    def read(self, name: str, limit: int = MAX_BYTES) -> bytes:
        try:
            return read_regular(self.path / name, limit)
        except OSError as error:
            raise ValueError(f"cannot be read ({error.strerror})") from error

    def size(self, name: str) -> int:
        try:
            return os.stat(self.path / name).st_size
        except OSError:
            return 0

    def stamp(self, name: str) -> str:
        try:
            state = os.stat(f"{self.path}/{name}")
        except OSError:
            return ""
        return f"{state.st_size} {state.st_mtime_ns}"

    def __reduce__(self) -> tuple[Callable[..., Source], tuple[Path]]:
        return _unlisted_folder, (self.path,)


def _unlisted_folder(path: Path) -> Source:
    """A folder to read from, for a process that knows the names already."""
    folder = _Folder.__new__(_Folder)
    Source.__init__(folder, path, (), ())
    return folder


def _identity(folder: Path) -> tuple[int, int]:
    """What two paths of one folder have in common."""
    state = os.stat(folder)
    return state.st_dev, state.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, for example
        return False


class _Zip(Source):
    packed = True
    unpack = "unzip -q {} -d FOLDER && "

    def __init__(self, path: Path) -> None:
        try:
            self._archive = zipfile.ZipFile(path)
        except Exception as error:  # a damaged directory raises anything
            raise UserError(f"{path} cannot be read as a zip archive ({error}); download it anew") from error
        self._entries: dict[str, zipfile.ZipInfo] = {}
        folders = set()
        try:
            for entry in self._archive.infolist():
                name = _inside(path, entry.filename.replace("\\", "/"))
                if entry.flag_bits & 1:
                    raise UserError(f"{path} is encrypted: unpack it and import the folder")
                if entry.filename.endswith(("/", "\\")):
                    folders.add(name)
                elif name:
                    self._entries[name] = entry
        except UserError:
            self._archive.close()
            raise
        super().__init__(path, self._entries, folders - {""})

    def read(self, name: str, limit: int = MAX_BYTES) -> bytes:
        entry = self._entries[name]
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise ValueError("is a link inside an archive: unpack it")
        _check_size(entry.file_size, limit)
        try:
            with self._archive.open(entry) as file:
                data = file.read(limit + 1)
        except Exception as error:  # each compression method has its own errors
            raise ValueError(f"cannot be read ({error})") from error
        _check_size(len(data), limit)
        return data

    def size(self, name: str) -> int:
        return self._entries[name].file_size

    def stamp(self, name: str) -> str:
        entry = self._entries[name]
        return f"{entry.file_size} {entry.CRC}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._archive.close()


class _Tar(Source):
    packed = True
    unpack = "mkdir FOLDER && tar xf {} -C FOLDER && "

    def __init__(self, path: Path) -> None:
        self._members: dict[str, Member] = {}
        folders = set()
        self._file = os.open(path, os.O_RDONLY)
        try:
            for member in members(self._file):
                name = _inside(path, member.name)
                if member.is_folder:
                    folders.add(name)
                elif name:
                    self._members[name] = member  # of files with the same name, the last one counts
        except (ValueError, OSError) as error:
            os.close(self._file)
            raise UserError(f"{path} cannot be read as a tar archive ({error}); download it anew") from error
        except UserError:
            os.close(self._file)
            raise
        super().__init__(path, self._members, folders - {""})

    def read(self, name: str, limit: int = MAX_BYTES) -> bytes:
        member = self._members[name]
        if member.problem:
            raise ValueError(member.problem)
        _check_size(member.size, limit)
        try:
            data = os.pread(self._file, member.size, member.first)
        except OSError as error:
            raise ValueError(f"cannot be read ({error.strerror})") from error
        if len(data) < member.size:
            raise ValueError("cannot be read (the archive was cut short)")
        return data

    def size(self, name: str) -> int:
        return self._members[name].size

    def stamp(self, name: str) -> str:
        member = self._members[name]
        return f"{member.size} {member.changed}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)


def _inside(path: Path, name: str) -> str:
    """Return a name of an archive in its plainest form, having checked that it stays inside."""
    if _LEADS_OUT.search(name):
        raise UserError(f"{path} holds the name {printable(name)!r}, which leads out of it: not imported")
    plain = posixpath.normpath(name)
    return "" if plain == "." else plain


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise ValueError(f"has more than {limit} bytes")
