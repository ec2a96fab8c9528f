"""The index of a tar archive: where the bytes of each file in it lie."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

_BLOCK = 512
_END = bytes(_BLOCK)
_MAX_HEADER = 1 << 20  # bytes of a long name or of extended attributes

_REGULAR, _FOLDER = b"0\0" + b"7", b"5"
_ATTRIBUTES, _ATTRIBUTES_OF_ALL, _LONG_NAME = b"xX", b"g", b"L"
_NO_NAME = b"KVN"  # the long target of a link, a label, an old form of long names
_WITHOUT_BYTES = b"123456"
_SPARSE = b"S"
_STRANGE: Mapping[int, str] = MappingProxyType(
    {
        **dict.fromkeys(b"12", "is a link inside an archive: unpack it"),
        **dict.fromkeys(b"346", "is a device or a pipe"),
        ord(b"S"): "is stored as a sparse file: unpack the archive",
    }
)


class Member(NamedTuple):
    """A file or folder of an archive."""

    name: str
    is_folder: bool
    first: int  # its first byte in the archive
    size: int  # in bytes
    changed: str  # when it was changed last, in digits
    problem: str = ""  # why its bytes cannot be had, or ""


def members(file: int) -> Iterator[Member]:
    """Yield what an uncompressed tar archive holds, in its order; ustar, pax, GNU and older forms.

    Args:
        file: descriptor of the archive.

    Raises:
        ValueError: it is damaged or ends too early. The text says where.
    """
    end = os.fstat(file).st_size
    if end == 0:
        raise ValueError("it is empty")
    at = 0
    shared: dict[bytes, bytes] = {}  # attributes of all members that follow
    own: dict[bytes, bytes] = {}  # of the next one
    while (block := os.pread(file, _BLOCK, at)) and block != _END:
        kind, size = block[156:157], _size(block, at)
        attributes = {**shared, **own}
        if kind not in _ATTRIBUTES + _ATTRIBUTES_OF_ALL + _LONG_NAME + _NO_NAME:
            own = {}
            size = _number(attributes.get(b"size", b"%d" % size), at)
        first = _after_sparse_map(file, at) if kind == _SPARSE else at + _BLOCK
        size = 0 if kind in _WITHOUT_BYTES else size
        if first + size > end:
            raise ValueError(f"it ends before what its header at byte {at} announces")
        if kind in _ATTRIBUTES:
            own.update(_attributes(_header(file, first, size, at), at))
        elif kind in _ATTRIBUTES_OF_ALL:
            shared.update(_attributes(_header(file, first, size, at), at))
        elif kind in _LONG_NAME:
            own[b"path"] = _header(file, first, size, at).split(b"\0")[0]
        elif kind not in _NO_NAME:
            name = (attributes.get(b"path") or _short_name(block)).decode("utf-8", "surrogateescape")
            is_folder = kind in _FOLDER or (kind in _REGULAR and name.endswith("/"))
            changed = attributes.get(b"mtime", block[136:148]).decode("latin-1").strip(" \0")
            yield Member(name, is_folder, first, size, changed, _problem(kind, attributes))
        at = first + -(-size // _BLOCK) * _BLOCK


def _problem(kind: bytes, attributes: dict[bytes, bytes]) -> str:
    if any(key.startswith(b"GNU.sparse.") for key in attributes):
        kind = _SPARSE
    return "" if kind in _REGULAR + _FOLDER else _STRANGE.get(ord(kind), f"is of the unknown kind {ord(kind)}")


def _size(block: bytes, at: int) -> int:
    """Check a header and return the size in it."""
    if len(block) < _BLOCK:
        raise ValueError(f"its header at byte {at} is cut short")
    declared = _number(block[148:156].strip(b" \0"), at, 8)
    total = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    signed = 256 * sum(byte > 127 for byte in block[:148] + block[156:]) if declared != total else 0  # by old writers
    if declared != total - signed:
        raise ValueError(f"its header at byte {at} is damaged")
    field = block[124:136]
    if field[0] == 0x80:  # binary, for more than 8 GiB
        return int.from_bytes(field[1:], "big")
    return _number(field.strip(b" \0"), at, 8)


def _number(text: bytes, at: int, base: int = 10) -> int:
    if not re.fullmatch(rb"[0-7]{0,12}" if base == 8 else rb"[0-9]{1,20}", text):
        raise ValueError(f"its header at byte {at} is damaged")
    return int(text or b"0", base)


def _header(file: int, first: int, size: int, at: int) -> bytes:
    """Return the bytes of a member that describes others."""
    if size > _MAX_HEADER:
        raise ValueError(f"its header at byte {at} is damaged")
    return os.pread(file, size, first)


def _attributes(data: bytes, at: int) -> dict[bytes, bytes]:
    """Read pax records, ``LENGTH KEY=VALUE`` and a line feed each, that say where, how large and how old a file is."""
    result = {}
    position, data = 0, data.rstrip(b"\0")
    while position < len(data):
        space = data.find(b" ", position)
        end = position + _number(data[position:space], at)
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals or data[end - 1 : end] != b"\n":
            raise ValueError(f"its header at byte {at} is damaged")
        if key in (b"path", b"size", b"mtime") or key.startswith(b"GNU.sparse."):
            result[key] = value
        position = end
    return result


def _short_name(block: bytes) -> bytes:
    name = block[:100].split(b"\0")[0]
    prefix = block[345:500].split(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _after_sparse_map(file: int, at: int) -> int:
    """Return where the bytes of one of GNU's sparse files begin, behind any number of blocks that say what is where."""
    follows = os.pread(file, 1, at + 482)
    at += _BLOCK
    while follows not in (b"", b"\0"):
        follows = os.pread(file, 1, at + 504)
        at += _BLOCK
    return at
