"""Files of ``torch.save`` from anywhere: nothing in one is executed, and none takes much more memory than it has bytes.

What a file says of its tensors is weighed against its length before torch reads it, since torch makes room for what is
said: 8 GB for a file of 353 bytes.
"""

from __future__ import annotations

import pickle
import pickletools
import re
import stat
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
import torch
from safetensors.torch import load_file

from gaitdiff.data.formats.pickles import TORCH_BINARY, TORCH_TEXT
from gaitdiff.errors import UserError

#: What the pickle in a file may take, and the list of its parts: some 16,000 tensors.
PICKLE_BYTES = 4 << 20

#: By what torch tells archives from its older format.
_ARCHIVE = b"PK\x03\x04"
#: The pickle protocols that torch reads without executing anything.
_PROTOCOLS = (2, 3)
#: Bytes of an element by the kind of storage.
_WIDTHS = {
    **{"Untyped": 1, "Byte": 1, "Char": 1, "Bool": 1, "Half": 2, "BFloat16": 2, "Short": 2, "Int": 4, "Float": 4},
    **{"Long": 8, "Double": 8, "ComplexFloat": 8, "ComplexDouble": 16},
}
#: What torch.save writes beside the pickle and the numbers of tensors.
_SMALL_PARTS = ("data.pkl", "version", "byteorder", ".format_version", ".storage_alignment", ".data/serialization_id")
_NUMPY = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
#: What torch calls for a file's sake and makes no more memory than it was given.
_HARMLESS = {
    *("torch.Size", "torch.device", "torch.serialization._get_layout", "torch._utils._rebuild_parameter"),
    *("torch._utils._rebuild_sparse_tensor", "torch._utils._rebuild_meta_tensor_no_storage"),
}
_KEYS = (str, int, float, bytes)


def load_torch_file(file: Path) -> Any:
    """What a file of ``torch.save`` or safetensors holds, by readers that execute nothing.

    Raises:
        UserError: the file is missing, damaged, no regular file, says more of its tensors than it holds, has parts
            that are compressed or that no tensor needs, or would need code to load.
    """
    _require_readable(file)
    try:
        if file.suffix.lower() == ".safetensors":
            return load_file(file)
        _weigh(file)
        with torch.serialization.safe_globals(_numpy_numbers()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch says of protocols is said below, in one sentence
            return torch.load(file, map_location="cpu", weights_only=True)
    except _RefusedError as error:
        raise UserError(f"{file} is refused: {error}") from error
    except Exception as error:  # a damaged pickle raises anything
        raise UserError(f"{file} {_explanation(file, error)}") from error


def _require_readable(file: Path) -> None:
    """Refuse what cannot be opened, and pipes and devices, which may never end."""
    try:
        mode = file.stat().st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            with file.open("rb") as stream:
                stream.read(1)
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror or error})") from error
    if not stat.S_ISREG(mode):
        raise UserError(f"{file} cannot be read (it is a pipe or a device): give a file")


class _RefusedError(Exception):
    """Why a file is not read, in a few words."""


def _weigh(file: Path) -> None:
    """Compare what a file says of its tensors with what it holds.

    Raises:
        _RefusedError: it says more.
        Exception: any, for a damaged file.
    """
    length = file.stat().st_size
    with file.open("rb") as stream:
        head = BytesIO(stream.read(PICKLE_BYTES))
    if head.getvalue().startswith(_ARCHIVE):
        with file.open("rb") as stream:
            (*_, size) = zipfile._EndRecData(stream)[:6]  # type: ignore[attr-defined]
        if size > PICKLE_BYTES:  # zipfile makes an object of each part at once
            raise _RefusedError(f"the list of its parts takes {size:,} bytes, more than {PICKLE_BYTES:,}")
        with zipfile.ZipFile(file) as archive:
            _weigh_parts(archive, length)
            damaged = archive.testzip()  # torch does not look at checksums
        if damaged is not None:
            raise _RefusedError(f"it is damaged in its part {damaged!r}, copy or download it again")
        return
    for _ in range(3):  # a number that tells the format, its version, the machine that wrote it
        _Weigher(head).load()
    weigher = _Weigher(head)
    weigher.load()
    if sum(weigher.storages.values()) > length:
        raise _RefusedError(_too_much(sum(weigher.storages.values()), length))


def _weigh_parts(archive: zipfile.ZipFile, length: int) -> None:
    entries = archive.infolist()
    parts = {entry.filename: entry.file_size for entry in entries}
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED:
            raise _RefusedError(
                f"its part {entry.filename!r} is compressed, which torch.save never does; torch.save its weights again"
            )
    overlap = len(parts) < len(entries) or sum(parts.values()) > length
    if overlap or min(entry.header_offset for entry in entries) > 0:  # others find other parts then
        raise _RefusedError("its parts overlap or do not begin where the file does; copy or download it again")
    (name,) = (part for part in parts if part.endswith("/data.pkl") and part.count("/") == 1)
    if parts[name] > PICKLE_BYTES:
        raise _RefusedError(
            f"what it says of its tensors takes {parts[name]:,} bytes, more than {PICKLE_BYTES:,}; torch.save its "
            "weights alone"
        )
    weigher = _Weigher(BytesIO(archive.read(name)))
    weigher.load()
    folder = name.removesuffix("data.pkl")
    needed = {f"{folder}data/{key}": size for key, size in weigher.storages.items()}
    for part, size in needed.items():
        if size > parts[part]:
            raise _RefusedError(_too_much(size, parts[part]))
    for part in parts.keys() - needed.keys() - {folder + small for small in _SMALL_PARTS}:
        raise _RefusedError(f"no tensor needs its part {part!r}; torch.save its weights again")


def _too_much(said: int, held: int) -> str:
    return f"it says that tensors take {said:,} bytes where it holds {held:,}; copy or download it again"


@dataclass(frozen=True)
class _Storage:
    """Numbers of tensors: bytes in all, and of each."""

    bytes: int
    width: int


@dataclass(frozen=True)
class _Made:
    """What a call gives; torch alone makes it."""

    path: str

    def __setitem__(self, key: object, value: object) -> None:
        pass


@dataclass(frozen=True)
class _Name:
    """Something that a file names and may call."""

    path: str

    def __call__(self, *arguments: Any) -> _Made:
        check = _CHECKS.get(self.path)
        if check is None and self.path not in _HARMLESS:
            raise pickle.UnpicklingError(f"GLOBAL {self.path}")
        if check is not None and not check(*arguments):
            raise _RefusedError(f"it calls {self.path} with what torch.save never writes; torch.save its weights again")
        return _Made(self.path)


def _fits(storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *rest: Any) -> bool:
    """Whether a tensor lies within its storage; torch would enlarge it without a word."""
    width = getattr(torch, rest[2].path.removeprefix("torch.")).itemsize if len(rest) > 2 else storage.width
    if not all(type(number) is int and number >= 0 for number in (offset, *size, *stride)):
        return False
    end = offset + 1 + sum((many - 1) * step for many, step in zip(size, stride, strict=True))
    return 0 in size or end * width <= storage.bytes


_CHECKS: Mapping[str, Callable[..., bool]] = {
    **{f"torch._utils._rebuild_tensor{version}": _fits for version in ("", "_v2", "_v3")},
    **{name: lambda kind, data: isinstance(kind, _Made) and isinstance(data, _Made | bytes) for name in _NUMPY},
    "numpy.dtype": lambda kind, *rest: kind in ("f8", "f4", "i8", "i4", "b1"),
    "collections.OrderedDict": lambda: True,
    "collections.Counter": lambda counts: isinstance(counts, dict),
    "_codecs.encode": lambda text, codec: isinstance(text, str) and codec == "latin1",
}


#: Instructions of a pickle by which objects are made, as where a whole model was saved.
_MAKE_OBJECTS = tuple(code[0] for code in (pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.OBJ, pickle.INST))


class _Weigher(pickle._Unpickler):
    """Reads a pickle as torch does, with the same instructions and no others, but makes nothing of what it names.

    Attributes:
        storages: bytes that the tensors' numbers are said to take, by their key.
    """

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream, encoding="utf-8")
        self.storages: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> Any:
        return _Name(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        what, kind, key, _, count, *views = pid
        width = _WIDTHS[kind.path.rpartition(".")[2].removesuffix("Storage")]
        if what != "storage" or type(key) is not str or type(count) is not int or count < 0 or any(views):
            raise _RefusedError("it does not say how large its tensors are; torch.save its weights again")
        self.storages[key] = max(self.storages.get(key, 0), count * width)
        return _Storage(count * width, width)

    def load_build(self) -> None:
        self.stack.pop()
        if getattr(self.stack[-1], "path", "") not in ("collections.OrderedDict", "numpy.dtype"):
            raise _RefusedError("it changes its tensors after they were made; torch.save its weights again")

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def load_setitems(self) -> None:
        self._set(self.pop_mark())

    def _set(self, items: list[Any]) -> None:
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, _KEYS):  # what is nested deeply ends the process when it is hashed
                raise _RefusedError("an entry in it has no simple name; torch.save its weights again")
            self.stack[-1][key] = value

    _READ: ClassVar = (
        *("GLOBAL", "REDUCE", "APPEND", "APPENDS", "MARK", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "NONE", "NEWFALSE"),
        *("NEWTRUE", "EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT", "BININT", "BININT1", "BININT2", "BINFLOAT", "LONG1"),
        *("BINUNICODE", "SHORT_BINSTRING", "BINPERSID", "BINGET", "LONG_BINGET", "BINPUT", "LONG_BINPUT", "PROTO"),
        "STOP",
    )
    dispatch: ClassVar[dict[int, Any]] = {
        getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]] for name in _READ
    }
    dispatch |= {pickle.BUILD[0]: load_build, pickle.SETITEM[0]: load_setitem, pickle.SETITEMS[0]: load_setitems}


def _explanation(file: Path, error: Exception) -> str:
    """Why a file cannot be read, and what to do."""
    if (protocol := _pickle_protocol(file)) not in (None, *_PROTOCOLS):
        return (
            f"was saved with pickle_protocol {protocol}, which torch does not read without executing what "
            "the file says: load it where you trust it, and torch.save its weights again without that argument"
        )
    if _is_plain_pickle(file):
        return (
            "was written by pickle, not by torch.save, and would have to be executed to be read: load it "
            "where you trust it, and torch.save({'model': …}) its weights"
        )
    if found := re.search(r"GLOBAL (\S+)", str(error)):
        return (
            f"is refused: it names {found[1]!r}, which loading would have to execute; keep only the weights "
            "of a file that you trust, torch.save({'model': …})"
        )
    if isinstance(error, KeyError) and error.args[0] in _MAKE_OBJECTS:
        return (
            "holds a whole object, which would have to be executed to be read, not weights alone: load it where you "
            "trust it, and torch.save its state_dict()"
        )
    return "is no checkpoint, or a damaged one: copy or download it again"


def _is_plain_pickle(file: Path) -> bool:
    """Whether a file begins as a pickle of a mapping; a file of torch.save begins with a number, or is an archive."""
    with file.open("rb") as stream:
        head = stream.read(PICKLE_BYTES)
    if head.startswith(b"PK"):
        return False
    try:
        return any(
            operation.name in ("DICT", "EMPTY_DICT", "GLOBAL", "STACK_GLOBAL")
            for operation, _, _ in pickletools.genops(head)
        )
    except Exception:  # what is no pickle raises anything
        return False


def _pickle_protocol(file: Path) -> int | str | None:
    """The pickle protocol of a file of torch.save, "0 or 1" where these look alike; None where it is none."""
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
                with archive.open(name) as stream:
                    begin = stream.read(2)
            if begin and begin[0] != 0x80:
                return 0 if begin.startswith((b"(", b"c")) else 1
        else:
            with file.open("rb") as stream:
                begin = stream.read(len(TORCH_TEXT))
            if begin == TORCH_TEXT:
                return "0 or 1"
            if TORCH_BINARY not in begin:
                return None
    except Exception:  # so does a damaged archive
        return None
    return begin[1] if len(begin) >= 2 and begin[0] == 0x80 else None


def _numpy_numbers() -> list[Any]:
    """What torch must let through for files whose optimiser state holds NumPy's numbers, under its old and new name."""
    make = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(kind)) for kind in ("f8", "f4", "i8", "i4", "?")]
    return [np.dtype, *kinds, *((make, name) for name in _NUMPY)]
