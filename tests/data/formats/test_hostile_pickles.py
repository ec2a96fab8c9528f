"""Pickles that are hostile, damaged or of other things: nothing is executed, and nothing but frames gets through."""

from __future__ import annotations

import builtins
import codecs
import copyreg
import os
import pickle
import re
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch

from gaitdiff.data.formats.pickles import read_silhouettes
from pickled import PROTOCOLS, walk


class Calls:
    """Pickles as a call of a function, which reading it with Python's own reader would execute."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.reduced


class Person:
    """Pickles as an instance of a class of this module."""

    def __init__(self) -> None:
        self.age = 40


def with_state(
    shape: bytes, kind: bytes = b"u1", order: bytes = b"|", fields: bytes = b"NNN", data: bytes = b"U\x60" + bytes(96)
) -> bytes:
    """A pickle of an array of 96 bytes that says of itself what it likes."""
    head = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(" + shape + b"t"
    kind = b"cnumpy\ndtype\n(S'" + kind + b"'\nI0\nI1\ntR(I3\nS'" + order + b"'\n" + fields + b"I-1\nI-1\nI0\ntb"
    return head + kind + b"I00\n" + data + b"tb."


def hostile(marker: str) -> dict[str, tuple[bytes, str]]:
    """Pickles that would create the marker file, with the reason for which each is refused."""
    command = f"touch {marker}"
    by_hand = f"cos\nsystem\n(S'{command}'\ntR.".encode()
    array = pickle.dumps(walk(), 2)
    return {
        "os.system": (pickle.dumps(Calls(os.system, command)), f"asks for {os.system.__module__}.system"),
        "os.system, protocol 0": (by_hand, "asks for os.system"),
        "os.system in a list": (pickle.dumps([walk()[0], Calls(os.system, command)]), "asks for"),
        "os.system before the array": (by_hand[:-1] + b"0" + array, "asks for os.system"),
        "os.system after the array": (array + by_hand, r"bytes after its end"),
        "INST": (f"(S'{command}'\nios\nsystem\n.".encode(), "asks for os.system"),
        "OBJ": (f"(cos\nsystem\nS'{command}'\no.".encode(), "asks for os.system"),
        "NEWOBJ": (b"\x80\x02cbuiltins\nopen\nX\x01\x00\x00\x00x\x85\x81.", "asks for builtins.open"),
        "STACK_GLOBAL": (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "asks for os.system"),
        "subprocess": (pickle.dumps(Calls(subprocess.check_call, ["touch", marker])), "asks for subprocess.check_call"),
        "eval": (pickle.dumps(Calls(eval, f"open({marker!r}, 'w')")), "asks for builtins.eval"),
        "exec": (pickle.dumps(Calls(exec, f"open({marker!r}, 'w')"), 0), "asks for __builtin__.exec"),
        "open": (pickle.dumps(Calls(builtins.open, marker, "w")), "asks for .*open"),
        "getattr": (pickle.dumps(Calls(getattr, "x", "y")), "asks for builtins.getattr"),
        "a module within NumPy": (b"cnumpy.testing._private.utils\nrunstring\n.", "asks for numpy.testing._private"),
        "numpy.load": (b"cnumpy\nload\n(S'x'\ntR.", "asks for numpy.load"),
        "numpy.f2py": (b"cnumpy.f2py.diagnose\nos.system\n.", "asks for numpy.f2py.diagnose.os.system"),
        "a dotted name": (b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__new__\x93.", "asks for numpy.ndarray.__new__"),
        "copyreg": (pickle.dumps(Calls(copyreg._reconstructor, Person, object, None)), "asks for .*_reconstructor"),
        "a codec that unpacks": (pickle.dumps(Calls(codecs.encode, "x" * 99, "zlib"), 2), "conversion of text"),
        "a codec that is a module": (b"c_codecs\nencode\n(Vx\nVos\ntR.", "conversion of text"),
        "codecs.decode": (pickle.dumps(Calls(codecs.decode, b"x", "zlib")), "asks for _codecs.decode"),
        "a persistent reference": (b"Pos.system\n.", "references to data elsewhere"),
        "a persistent reference, binary": (b"\x80\x02K\x01Q.", "references to data elsewhere"),
        "the extension registry": (b"\x80\x02\x82\x01.", "extension registry"),
        "the extension registry, long": (b"\x80\x02\x84\xff\xff\xff\x7f.", "extension registry"),
        "state of a class": (b"cnumpy\nndarray\n}b.", "dictionary"),
        "state of a class, a tuple": (b"cnumpy\nndarray\n)b.", "sets the state of what is no array"),
        "a reconstructed class": (
            b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(I0\ntS'b'\ntR.",
            "calls _rec",
        ),
        "a name in control characters": (b"cos\x1b[2J\nsystem\n.", re.escape(r"asks for os\x1b[2J.system")),
        "an array whose data is a call": (with_state(b"I12\nI8\n", data=by_hand[:-1]), "asks for os.system"),
        "an array of objects": (with_state(b"I1\n", kind=b"O8", data=b"(" + by_hand[:-1] + b"l"), "array of Python ob"),
    }


@pytest.mark.parametrize("name", hostile("x"))
def test_nothing_is_executed(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    data, reason = hostile(str(marker))[name]
    with pytest.raises(ValueError, match=reason) as caught:
        read_silhouettes(data)
    assert str(caught.value).isprintable()
    assert not marker.exists()


def test_the_oracle_would_have_executed_it(tmp_path: Path) -> None:
    """The corpus is dangerous indeed: Python's own reader makes the file."""
    marker = tmp_path / "executed"
    data, _ = hostile(str(marker))["os.system, protocol 0"]
    pickle.loads(data)
    assert marker.exists()


def zipped() -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
    return file.getvalue()


def saved(new: bool) -> bytes:
    file = BytesIO()
    torch.save(torch.zeros(3), file, _use_new_zipfile_serialization=new)
    return file.getvalue()


def npy() -> bytes:
    file = BytesIO()
    np.save(file, walk())
    return file.getvalue()


STRUCTURED = np.zeros(3, [("x", "u1"), ("y", "f4")])

BROKEN: dict[str, tuple[object, str]] = {
    "nothing": (b"", "is empty"),
    "text": (b"hello", "damaged"),
    "a page": (b"<!DOCTYPE html>", "is no pickle"),
    "an image": (b"\x89PNG\r\n\x1a\n", "is an image, no pickle"),
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
    "gzip": (b"\x1f\x8b\x08\x00", "is compressed by gzip"),
    "npy": (npy(), "is a .npy file"),
    "a zip": (zipped(), "is a zip archive"),
    "torch.save": (saved(True), "is a zip archive"),
    "torch.save of old": (saved(False), "is a PyTorch file"),
    "a tensor": (pickle.dumps(torch.zeros(3)), "asks for torch"),
    "joblib": (
        b"\x80\x04\x8c\x13joblib.numpy_pickle\x8c\x11NumpyArrayWrapper\x93.",
        "asks for joblib.numpy_pickle.Num",
    ),
    "pandas": (b"\x80\x02cpandas.core.frame\nDataFrame\n.", "asks for pandas.core.frame.DataFrame"),
    "a class": (Person(), "asks for .*Person"),
    "None": (None, "holds no array"),
    "minus infinity": (np.full((3, 12, 9), -np.inf, np.float32), "has the value -inf"),
    "just too much": (np.full((3, 12, 9), 255.5), "has the value 255.5"),
    "too few arguments": (b"cnumpy.core.numeric\n_frombuffer\n(I1\ntR.", "calls _frombuffer as no array needs it"),
    "a number": (7, "holds no array"),
    "a float": (0.5, "holds single numbers"),
    "a text": ("walk", "holds no array"),
    "bytes": (b"\x80\x03C\x03abc.", "holds no array"),
    "a dictionary": ({"sils": walk()}, "holds a dictionary"),
    "an ordered dictionary": (OrderedDict(a=1), "asks for collections.OrderedDict"),
    "a set": ({1, 2}, "holds a set"),
    "an empty list": ([], "has no frames"),
    "a list of lists": ([[walk()[0]]], "holds a list, but not of arrays"),
    "a list of numbers": ([1, 2, 3], "holds a list, but not of arrays"),
    "a list of sequences": ([walk(), walk()], r"holds a list of arrays \(6, 12, 9\)"),
    "a list of colour images": ([np.zeros((12, 9, 3), np.uint8)] * 2, r"holds a list of arrays \(12, 9, 3\)"),
    "one class": (np.float32(0.5), "asks for numpy.*scalar"),
    "ratios": (np.linspace(0, 1, 30), r"holds an array \(30\), no silhouettes"),
    "poses": (np.zeros((30, 17, 3)), "17 x 3 is no size of a silhouette"),
    "points": (np.zeros((300, 3)), "300 x 3 is no size of a silhouette"),
    "colour images, channels first": (np.zeros((4, 3, 12, 9), np.uint8), r"colour images \(4, 3, 12, 9\)"),
    "colour images, channels last": (np.zeros((4, 12, 9, 3), np.uint8), r"colour images \(4, 12, 9, 3\)"),
    "four axes": (np.zeros((4, 12, 9, 7), np.uint8), r"holds an array \(4, 12, 9, 7\)"),
    "five axes": (np.zeros((1, 1, 4, 12, 9), np.uint8), r"holds an array \(1, 1, 4, 12, 9\)"),
    "a point": (np.array(3), r"holds an array \(\)"),
    "no frames": (np.zeros((0, 64, 64), np.uint8), "has no frames"),
    "no columns": (np.zeros((3, 64, 0), np.uint8), "has no frames"),
    "NaN": (np.full((3, 12, 9), np.nan), "holds NaN"),
    "one NaN": (np.where(np.arange(108).reshape(1, 12, 9) == 50, np.nan, 1), "holds NaN"),
    "infinity": (np.full((3, 12, 9), np.inf), "has the value inf"),
    "negative values": (np.full((3, 12, 9), -1), "has the value -1, where"),
    "16 bits": (np.full((3, 12, 9), 65535, np.uint16), "has the value 65535, where"),
    "objects": (np.array([[None, "x"]], object), "array of Python objects"),
    "frames as objects": (np.array([walk()[0], walk()[0, :5]], object), "array of Python objects"),
    "a structured type": (STRUCTURED, "holds an array of type V"),
    "complex numbers": (np.zeros((3, 12, 9), np.complex64), "holds an array of type c8"),
    "dates": (np.zeros(3, "M8[s]"), "holds an array of type M8"),
    "texts": (np.array(["a", "b"]), "holds an array of type U1"),
    "hidden fields": (with_state(b"I12\nI8\n", fields=b"N(S'x'\ntN"), "structured type"),
    "an odd byte order": (with_state(b"I12\nI8\n", order=b"!"), "damaged"),
    "too large a shape": (
        with_state(b"I1000000000\nI64\nI64\n"),
        r"declares an array \(1000000000, 64, 64\) but has 96",
    ),
    "a negative shape": (with_state(b"I-12\nI-8\n"), "impossible shape"),
    "an astronomical shape": (with_state(b"I99999999999999\nI8\n"), "impossible shape"),
    "a truth as a side": (with_state(b"I01\nI12\nI8\n"), "impossible shape"),
    "many axes": (with_state(b"I1\n" * 40), "impossible shape"),
    "a huge item": (with_state(b"I12\nI8\n", kind=b"V999999999"), "holds an array of type V999999999"),
    "a wide type": (with_state(b"I12\nI8\n", kind=b"f8"), r"declares an array \(12, 8\) but has 96 bytes"),
    "no content": (b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I9\ntS'b'\ntR.", "without content"),
    "an unknown protocol": (b"\x80\x09N.", "unknown pickle protocol 9"),
    "a frame that lies": (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.", "truncated"),
    "an unknown memory": (b"\x80\x02h\x07.", "damaged"),
    "too few on the stack": (b"\x80\x02\x86.", "damaged"),
    "no mark": (b"\x80\x02Nt.", "damaged"),
    "two things": (b"\x80\x02NN.", "damaged"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_refused(name: str) -> None:
    content, reason = BROKEN[name]
    data = content if isinstance(content, bytes) else pickle.dumps(content, 4)
    with pytest.raises(ValueError, match=reason) as caught:
        read_silhouettes(data)
    assert type(caught.value) is ValueError
    assert "\n" not in str(caught.value)


def greedy() -> dict[str, bytes]:
    """Pickles that take much more memory or time than they have bytes, if they are believed."""
    allocate = b"cnumpy\nndarray\n((I4000000000\ntS'u1'\ntR."
    array = pickle.dumps(np.zeros((2000, 1000), np.uint8), 4)[:-1]
    text = b"X" + struct.pack("<I", 1 << 22) + b"a" * (1 << 22)
    encode = b"\x80\x02(c_codecs\nencode\nq\x00X\x06\x00\x00\x00latin1q\x01" + text + b"q\x02"
    axes = b"\x80\x02((" + b"K\x01" * 100_000 + b"tq\x00" + b"cnumpy.core.numeric\n_frombuffer\nq\x01"
    nested = b"\x80\x02)" + b"\x85" * 900_000 + b"."
    return {
        "ndarray(shape)": allocate,
        "ndarray by NEWOBJ": b"\x80\x02cnumpy\nndarray\nJ\x00\x00\x00\x7f\x85\x81.",
        "_reconstruct(shape)": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I4000000000\ntS'B'\ntR.",
        "bytes(n)": b"cbuiltins\nbytes\n(I4000000000\ntR.",
        "bytearray(n)": b"cbuiltins\nbytearray\n(I4000000000\ntR.",
        "BINBYTES8": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"x.",
        "BINBYTES8, smaller": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 32) + b"x.",
        "BYTEARRAY8": b"\x80\x05\x96" + struct.pack("<Q", 1 << 60) + b"x.",
        "BINUNICODE8": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40) + b"x.",
        "BINBYTES": b"\x80\x03B\xff\xff\xff\xffx.",
        "BINSTRING": b"\x80\x02T\xff\xff\xff\x7fx.",
        "BINSTRING, negative": b"\x80\x02T\xff\xff\xff\xffx.",
        "LONG4": b"\x80\x02\x8b\xff\xff\xff\x7f" + b"\xff" * 1000 + b".",
        "LONG": b"L" + b"9" * 3_000_000 + b"L\n.",
        "LONG_BINPUT": b"\x80\x02Nr\xff\xff\xff\x7f.",
        "PUT": b"Np99999999999999999999999\n.",
        "FRAME": b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"N.",
        "a type with a huge item": b"cnumpy\ndtype\n(S'V2000000000'\nI0\nI1\ntR.",
        "a subtype of a type": b"cnumpy\ndtype\n(S'(9999,9999)u1'\nI0\nI1\ntR.",
        "one array, many times": b"\x80\x04](" + array[2:] + b"q\xc8" + b"h\xc8" * 4000 + b"e.",
        "one text, encoded many times": encode + b"h\x00h\x02h\x01\x86R" * 100_000 + b"l.",
        "one tuple, unpacked many times": axes + b"h\x01h\x00R" * 200_000 + b"l.",
        "deep nesting": nested,
        "deep marks": b"\x80\x02" + b"(" * 900_000 + b".",
        "deep lists": b"\x80\x02" + b"]" * 500_000 + b"a" * 499_999 + b".",
        "a list in itself": b"\x80\x02]q\x00h\x00a.",
        "endless steps": b"\x80\x02" + b"N" * 2_000_000 + b".",
    }


def test_memory_is_bounded(tmp_path: Path) -> None:
    """A second process with little memory refuses each of them; time is bounded by its limit of processor seconds."""
    for number, data in enumerate(greedy().values()):
        (tmp_path / f"{number:02}").write_bytes(data)
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from gaitdiff.data.formats.pickles import read_silhouettes\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (300 << 20),) * 2)\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (60, 60))\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try:\n"
        "        read_silhouettes(path.read_bytes())\n"
        "    except ValueError as error:\n"
        "        print(path.name, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert [line[:2] for line in lines] == [f"{number:02}" for number in range(len(greedy()))]
    said = dict(zip(greedy(), lines, strict=True))
    assert "more than 268435456 bytes of frames" in said["one array, many times"]
    assert "unpacks to more than it holds" in said["one text, encoded many times"]
    assert "takes more than 1048576 steps" in said["endless steps"]
    assert "integer of 2147483647 bytes" in said["LONG4"]
    assert "calls ndarray" in said["ndarray(shape)"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_truncation_anywhere_is_noticed(protocol: int) -> None:
    data = pickle.dumps([walk(1)[0], walk(1, 9, 8)[0]], protocol)
    for end in range(len(data)):
        with pytest.raises(ValueError, match=r"truncated|empty") as caught:
            read_silhouettes(data[:end])
        assert type(caught.value) is ValueError


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("content", ["array", "list"])
def test_damage_never_raises_anything_else(protocol: int, content: str) -> None:
    """Random bytes change, vanish or are doubled; what still loads is a sequence."""
    array = walk(2, 9, 8)
    data = pickle.dumps(array if content == "array" else [array[0], array[1].astype("<f4")], protocol)
    rng = np.random.default_rng(protocol)
    refused = []
    for _ in range(700):
        spoiled = bytearray(data)
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(len(spoiled)))
            match int(rng.integers(3)):
                case 0:
                    spoiled[at] = int(rng.integers(256))
                case 1:
                    del spoiled[at : at + int(rng.integers(1, 9))]
                case 2:
                    spoiled[at:at] = spoiled[at : at + int(rng.integers(1, 9))]
        try:
            found = read_silhouettes(bytes(spoiled))[0]
        except ValueError as error:
            refused.append(error)
        else:
            assert all(frame.dtype == np.uint8 and frame.ndim == 2 for frame in found)
    assert len(refused) > 100
    assert {type(error) for error in refused} == {ValueError}
    assert all(str(error).isprintable() for error in refused)
