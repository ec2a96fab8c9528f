"""Reading pickles of NumPy arrays without executing anything.

A pickle is a program for a small stack machine, and Python's own reader lets it call whatever it names. The machine
here knows only the operations that NumPy's arrays are written with, and instead of calling anything it notes what an
array is made of: type, shape and bytes. The bytes stay where they are in the file, so that a pickle takes hardly more
memory than it has bytes, whatever it claims.
"""

from __future__ import annotations

import codecs
import math
import re
import struct
from collections.abc import Callable, Mapping
from enum import Enum
from types import MappingProxyType

import numpy as np

_MAX_STEPS = 1 << 20  # an array in a list takes about 30


def unpickle(data: bytes) -> np.ndarray | list[np.ndarray]:
    """Read a pickle of an array, or of a list or tuple of arrays, written by any protocol, NumPy 1 or 2, Python 2 or 3.

    Args:
        data: the bytes of the file.

    Returns:
        the array, of booleans, integers or floats, with at least one element; or the list. Arrays are read-only and
        share their memory with ``data``.

    Raises:
        ValueError: it holds, names or calls anything else, or is damaged. The text is a short reason, such as "asks for
            os.system".
    """
    try:
        content = _Machine(data).run()
    except (IndexError, KeyError, TypeError, OverflowError, RecursionError, UnicodeError, struct.error) as error:
        raise ValueError("is a damaged pickle") from error
    if isinstance(content, _Array):
        return content.value()
    if not isinstance(content, (list, tuple)):
        raise ValueError("holds no array")
    arrays = []
    for item in content:
        if not isinstance(item, _Array):
            raise ValueError("holds a list, but not of arrays")
        arrays.append(item.value())
    return arrays


# What pickles hold


class _Name(Enum):
    """What a pickle of arrays asks for; none of it is ever called."""

    RECONSTRUCT = "_reconstruct"  # makes an empty array, whose state follows
    FROM_BUFFER = "_frombuffer"  # makes an array of bytes, from protocol 5 on
    ARRAY = "ndarray"
    TYPE = "dtype"
    ENCODE = "encode"  # makes bytes of text, up to protocol 2
    BYTES = "bytes"  # makes the empty bytes, up to protocol 2


_NAMES: Mapping[tuple[str, str], _Name] = MappingProxyType(
    {
        ("numpy", "ndarray"): _Name.ARRAY,
        ("numpy", "memmap"): _Name.ARRAY,
        ("numpy", "dtype"): _Name.TYPE,
        ("_codecs", "encode"): _Name.ENCODE,
        ("builtins", "bytes"): _Name.BYTES,
        ("__builtin__", "bytes"): _Name.BYTES,
        **{(f"numpy.{core}.multiarray", "_reconstruct"): _Name.RECONSTRUCT for core in ("core", "_core")},
        **{(f"numpy.{core}.numeric", "_frombuffer"): _Name.FROM_BUFFER for core in ("core", "_core")},
    }
)

_TYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")


class _Type:
    """A NumPy type that a pickle describes."""

    def __init__(self, arguments: tuple[object, ...]) -> None:
        name = _text(arguments[0])
        found = _TYPE.fullmatch(name)
        if not found:
            what = "Python objects" if name.lstrip("<>|=").startswith("O") else f"type {_readable(name)}"
            raise ValueError(f"holds an array of {what}")
        self.code = found[1]
        self.value = np.dtype(name)

    def build(self, state: object) -> None:
        """Take the byte order of NumPy's (version, order, subtype, names, fields, size, alignment, flags)."""
        if type(state) is not tuple or any(part is not None for part in state[2:5]):
            raise ValueError("holds an array of a structured type")
        order = _text(state[1])
        if order not in ("<", ">", "|", "="):
            raise ValueError("is a damaged pickle")
        self.value = np.dtype((">" if order == ">" else "<") + self.code)


class _Array:
    """An array that a pickle describes, without memory of its own."""

    def __init__(self, content: np.ndarray | None = None) -> None:
        self._content = content

    def build(self, state: object) -> None:
        """Take NumPy's (version, shape, type, whether columns come first, bytes)."""
        if type(state) is not tuple or len(state) != 5:
            raise ValueError("is a damaged pickle")
        _, shape, kind, columns_first, data = state
        self._content = _array(shape, kind, "F" if columns_first else "C", data)

    def value(self) -> np.ndarray:
        """Return the array, read-only."""
        if self._content is None:
            raise ValueError("holds an array without content")
        return self._content


def _array(shape: object, kind: object, order: object, data: object, axes: object = None) -> np.ndarray:
    """View bytes as an array; what does not fit is refused, and nothing is copied."""
    if type(data) is list:
        raise ValueError("holds an array of Python objects")
    if not isinstance(kind, _Type) or not isinstance(data, (bytes, memoryview)) or type(shape) is not tuple:
        raise ValueError("is a damaged pickle")
    if len(shape) > 8 or not all(type(side) is int and 0 <= side < 1 << 40 for side in shape):
        raise ValueError("declares an impossible shape")
    if math.prod(shape) * kind.value.itemsize != len(data):
        raise ValueError(f"declares an array ({', '.join(map(str, shape))}) but has {len(data)} bytes of it")
    if len(data) == 0:
        raise ValueError("has no frames")
    flat = np.frombuffer(data, kind.value)
    if order == "K" and type(axes) is tuple and len(axes) == len(shape) and sorted(axes) == list(range(len(shape))):
        return flat.reshape(shape).transpose(axes)
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _text(value: object) -> str:
    """Return a name, which Python 2 wrote as bytes."""
    if not isinstance(value, (str, bytes, memoryview)) or len(value) > 1000:
        raise ValueError("is a damaged pickle")
    return value if isinstance(value, str) else bytes(value).decode("latin-1")


def _readable(name: str) -> str:
    """Shorten a name from a pickle, and make control characters visible."""
    return ascii(name[:80])[1:-1]


# The stack machine


class _Machine:
    """Runs a pickle. Damage shows as an exception of any of the kinds that :func:`unpickle` knows."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.view = memoryview(data)
        self.at = 0
        self.stack: list[object] = []
        self.outer: list[list[object]] = []  # the stacks below each mark
        self.memo: dict[int, object] = {}
        self.encoded = 0  # bytes made of text so far

    def run(self) -> object:
        """Return what the pickle holds: an :class:`_Array`, a list or tuple, or anything else that is no use."""
        data, operations = self.data, _OPERATIONS
        for _ in range(_MAX_STEPS):
            if self.at >= len(data):
                raise ValueError("is a truncated pickle" if data else "is empty")
            code = data[self.at]
            self.at += 1
            if code == 0x2E:  # STOP
                return self.stop()
            operation = operations.get(code)
            if operation is None:
                self.refuse(code)
            else:
                operation(self)
        raise ValueError(f"takes more than {_MAX_STEPS} steps to read")

    def stop(self) -> object:
        if self.at != len(self.data):
            raise ValueError(f"has {len(self.data) - self.at} bytes after its end")
        if len(self.stack) != 1 or self.outer:
            raise ValueError("is a damaged pickle")
        return self.stack[0]

    def refuse(self, code: int) -> None:
        if what := _FOREIGN.get(code):
            raise ValueError(f"holds {what}, no silhouettes")
        raise ValueError("is no pickle" if self.at == 1 else "is a damaged pickle")

    def take(self, count: int) -> memoryview:
        """Return the next bytes of the file, which are not copied."""
        if not 0 <= count <= len(self.data) - self.at:
            raise ValueError("is a truncated pickle")
        self.at += count
        return self.view[self.at - count : self.at]

    def number(self, layout: struct.Struct) -> int:
        value: int = layout.unpack(self.take(layout.size))[0]
        return value

    def line(self) -> bytes:
        """Return the rest of the line, as protocol 0 delimits things."""
        end = self.data.find(b"\n", self.at)
        if end < 0:
            raise ValueError("is a truncated pickle")
        line, self.at = self.data[self.at : end], end + 1
        return line

    def decimal(self) -> int:
        line = self.line().removesuffix(b"L")
        if not re.fullmatch(rb"-?[0-9]{1,20}", line):
            raise ValueError("is a damaged pickle")
        return int(line)

    def push(self, value: object) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def pop_to_mark(self) -> list[object]:
        items = self.stack
        self.stack = self.outer.pop()
        return items

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def push_tuple(self, count: int) -> None:
        if len(self.stack) < count:
            raise ValueError("is a damaged pickle")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def push_integer(self, size: int) -> None:
        if size > 8:
            raise ValueError(f"holds an integer of {size} bytes, no silhouettes")
        self.push(int.from_bytes(self.take(size), "little", signed=True))

    def push_decimal(self) -> None:
        truth = {b"00\n": False, b"01\n": True}.get(self.data[self.at : self.at + 3])
        value = self.decimal()
        self.push(value if truth is None else truth)

    def push_quoted(self) -> None:
        """A byte string of Python 2, written as its source code."""
        line = self.line().strip()
        if len(line) < 2 or line[:1] not in (b"'", b'"') or line[-1:] != line[:1]:
            raise ValueError("is a damaged pickle")
        try:
            self.push(codecs.escape_decode(line[1:-1])[0])
        except ValueError as error:
            raise ValueError("is a damaged pickle") from error

    def extend(self, items: list[object]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise ValueError("is a damaged pickle")
        target.extend(items)

    def push_name(self, module: str, name: str) -> None:
        known = _NAMES.get((module, name))
        if known is None:
            raise ValueError(f"asks for {_readable(module)}.{_readable(name)}")
        self.push(known)

    def push_instance(self) -> None:
        self.push_name(_text(self.line()), _text(self.line()))
        raise ValueError("makes an object as no array needs it")

    def push_stack_name(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.push_name(_text(module), _text(name))

    def call(self) -> None:
        """Stand in for the call of a name with arguments."""
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(arguments) is not tuple or len(arguments) > 8:
            raise ValueError("is a damaged pickle")
        if function is _Name.RECONSTRUCT and arguments[:1] == (_Name.ARRAY,):
            self.push(_Array())
        elif function is _Name.TYPE:
            self.push(_Type(arguments))
        elif function is _Name.FROM_BUFFER and len(arguments) in (4, 5):
            data, kind, shape, order, *axes = arguments
            self.push(_Array(_array(shape, kind, _text(order), data, *axes)))
        elif function is _Name.ENCODE and len(arguments) == 2:
            self.push(self.encode(*arguments))
        elif function is _Name.BYTES and arguments == ():
            self.push(b"")
        else:
            called = function.value if isinstance(function, _Name) else "what is no function"
            raise ValueError(f"calls {called} as no array needs it")

    def encode(self, text: object, codec: object) -> bytes:
        """Stand in for ``_codecs.encode``; each text of the file may be encoded once, which keeps memory bounded."""
        if codec not in ("latin1", "latin-1") or not isinstance(text, str):
            raise ValueError("asks for a conversion of text that no array needs")
        self.encoded += len(text)
        if self.encoded > len(self.data):
            raise ValueError("unpacks to more than it holds")
        return text.encode("latin-1")

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, (_Array, _Type)):
            raise ValueError("sets the state of what is no array")
        target.build(state)


_U1, _U2, _U4, _I4, _U8 = map(struct.Struct, ("<B", "<H", "<I", "<i", "<Q"))


def _check_protocol(machine: _Machine) -> None:
    protocol = machine.number(_U1)
    if protocol > 5:
        raise ValueError(f"has the unknown pickle protocol {protocol}")


def _check_frame(machine: _Machine) -> None:
    if machine.number(_U8) > len(machine.data) - machine.at:
        raise ValueError("is a truncated pickle")


#: The operations by their codes; pickletools has their meaning.
_OPERATIONS: Mapping[int, Callable[[_Machine], object]] = MappingProxyType(
    {
        ord(code): operation
        for code, operation in {
            "\x80": _check_protocol,
            "\x95": _check_frame,
            "(": _Machine.mark,
            "N": lambda m: m.push(None),
            "\x88": lambda m: m.push(True),
            "\x89": lambda m: m.push(False),
            "I": _Machine.push_decimal,
            "L": lambda m: m.push(m.decimal()),
            "J": lambda m: m.push(m.number(_I4)),
            "K": lambda m: m.push(m.number(_U1)),
            "M": lambda m: m.push(m.number(_U2)),
            "\x8a": lambda m: m.push_integer(m.number(_U1)),
            "\x8b": lambda m: m.push_integer(m.number(_I4)),
            "S": _Machine.push_quoted,
            "T": lambda m: m.push(m.take(m.number(_I4))),
            "U": lambda m: m.push(m.take(m.number(_U1))),
            "B": lambda m: m.push(m.take(m.number(_U4))),
            "C": lambda m: m.push(m.take(m.number(_U1))),
            "\x8e": lambda m: m.push(m.take(m.number(_U8))),
            "\x96": lambda m: m.push(m.take(m.number(_U8))),
            "V": lambda m: m.push(str(m.line(), "raw-unicode-escape")),
            "X": lambda m: m.push(str(m.take(m.number(_U4)), "utf-8")),
            "\x8c": lambda m: m.push(str(m.take(m.number(_U1)), "utf-8")),
            "\x8d": lambda m: m.push(str(m.take(m.number(_U8)), "utf-8")),
            ")": lambda m: m.push(()),
            "t": lambda m: m.push(tuple(m.pop_to_mark())),
            "\x85": lambda m: m.push_tuple(1),
            "\x86": lambda m: m.push_tuple(2),
            "\x87": lambda m: m.push_tuple(3),
            "]": lambda m: m.push([]),
            "l": lambda m: m.push(m.pop_to_mark()),
            "a": lambda m: m.extend([m.stack.pop()]),
            "e": lambda m: m.extend(m.pop_to_mark()),
            "p": lambda m: m.put(m.decimal()),
            "q": lambda m: m.put(m.number(_U1)),
            "r": lambda m: m.put(m.number(_U4)),
            "\x94": lambda m: m.put(len(m.memo)),
            "g": lambda m: m.push(m.memo[m.decimal()]),
            "h": lambda m: m.push(m.memo[m.number(_U1)]),
            "j": lambda m: m.push(m.memo[m.number(_U4)]),
            "i": _Machine.push_instance,
            "c": lambda m: m.push_name(_text(m.line()), _text(m.line())),
            "\x93": _Machine.push_stack_name,
            "R": _Machine.call,
            "b": _Machine.build,
        }.items()
    }
)

#: What the other operations would make, for the report.
_FOREIGN: Mapping[int, str] = MappingProxyType(
    {
        **dict.fromkeys(b"}dsu", "a dictionary"),
        **dict.fromkeys(b"FG", "single numbers"),
        **dict.fromkeys(b"\x8f\x90\x91", "a set"),
        **dict.fromkeys(b"PQ", "references to data elsewhere (as PyTorch's files have)"),
        **dict.fromkeys(b"\x97\x98", "references to data outside of the file"),
        **dict.fromkeys(b"\x82\x83\x84", "an entry of Python's extension registry"),
        **dict.fromkeys(b"o\x81\x92", "an object of a class"),
    }
)
