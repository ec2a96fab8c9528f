"""Pickles: every way in which arrays are written gives the same pixels."""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gaitdiff.data.align import align_sequence
from gaitdiff.data.formats.pickles import read_silhouettes
from gaitdiff.data.formats.unpickling import unpickle
from pickled import PROTOCOLS, walk


def load(data: bytes) -> np.ndarray | list[np.ndarray]:
    return read_silhouettes(data)[0]


def rewrite(data: bytes, pairs: dict[bytes, bytes]) -> bytes:
    """Change module names in a pickle, with the lengths that stand before them."""
    for old, new in pairs.items():
        for prefix in (b"\x8c", b""):  # SHORT_BINUNICODE; lines of GLOBAL
            before = prefix + bytes([len(old)]) + old if prefix else b"c" + old + b"\n"
            after = prefix + bytes([len(new)]) + new if prefix else b"c" + new + b"\n"
            data = data.replace(before, after)
    return re.sub(rb"^(\x80.)\x95.{8}", rb"\1", data, flags=re.DOTALL)  # the frame's length no longer fits


NUMPY_1 = {b"numpy._core.multiarray": b"numpy.core.multiarray", b"numpy._core.numeric": b"numpy.core.numeric"}
NUMPY_2 = {new: old for old, new in NUMPY_1.items()}


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "plain": lambda a: a,
    "columns first": np.asfortranarray,
    "a part": lambda a: a[::2, 1:],
    "backwards": lambda a: a[::-1, :, ::-1],
    "transposed": lambda a: a.transpose(0, 2, 1),
    "turned": lambda a: a.transpose(1, 2, 0),
    "read-only": lambda a: np.frombuffer(a.tobytes(), np.uint8).reshape(a.shape),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["u1", "<i2", ">u2", "i4", ">i8", "u8", "<f4", ">f8", "f2"])
def test_arrays(protocol: int, layout: str, kind: str) -> None:
    data = pickle.dumps(LAYOUTS[layout](walk(10)).astype(kind, order="K"), protocol)
    expected = pickle.loads(data)
    found = load(data)
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)
    for modules in (NUMPY_1, NUMPY_2):
        np.testing.assert_array_equal(load(rewrite(data, modules)), expected)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_lists_of_frames(protocol: int) -> None:
    frames = walk()
    for content in (list(frames), tuple(frames), [np.asfortranarray(frame) for frame in frames]):
        np.testing.assert_array_equal(load(pickle.dumps(content, protocol)), frames)
    ragged = [frames[0], frames[1, :, :8], frames[2, :10]]
    found = load(pickle.dumps(ragged, protocol))
    assert isinstance(found, list)
    for one, other in zip(found, ragged, strict=True):
        np.testing.assert_array_equal(one, other)
    kinds = [frames[0], frames[1].astype(np.float32), frames[2].astype(">i4")]
    np.testing.assert_array_equal(load(pickle.dumps(kinds, protocol)), frames[:3])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_memory_mapped_arrays(protocol: int, tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "frames", np.uint8, "w+", shape=(6, 12, 9))
    mapped[:] = walk()
    np.testing.assert_array_equal(load(pickle.dumps(mapped, protocol)), walk())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_shapes_and_ranges_mean_the_same_frames(protocol: int) -> None:
    frames = walk()
    for shaped in (frames[:, None], frames[..., None]):
        np.testing.assert_array_equal(load(pickle.dumps(shaped, protocol)), frames)
    np.testing.assert_array_equal(load(pickle.dumps(frames[0], protocol)), frames[:1])
    for kind in (np.float32, np.float64):
        data = pickle.dumps((frames / 255).astype(kind), protocol)
        np.testing.assert_array_equal(load(data), frames)
    mask = frames > 127
    for kind in (bool, np.uint8, np.int64, np.float32):
        data = pickle.dumps(mask.astype(kind), protocol)
        np.testing.assert_array_equal(load(data), np.where(mask, 255, 0))
    black = np.zeros_like(frames)
    np.testing.assert_array_equal(load(pickle.dumps(black, protocol)), black)


def test_one_scale_for_a_whole_list() -> None:
    """A frame that happens to be nearly black is not stretched beside others that are not."""
    frames = [walk()[0], np.ones((12, 9), np.uint8)]
    np.testing.assert_array_equal(load(pickle.dumps(frames)), frames)


def test_what_python_2_wrote() -> None:
    """Byte strings of protocols 0 to 2, as no Python 3 writes them, against Python 3's reading of them."""
    content = bytes(range(96))
    head = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(L1L\nI12\nI8\nt"
    kind = b"cnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\n"
    protocol_0 = head + kind + b"S" + repr(content)[1:].encode() + b"\ntb."
    protocol_2 = b"\x80\x02" + head + kind + b"U" + bytes([len(content)]) + content + b"tb."
    long = b"\x80\x02" + head + kind + b"T" + struct.pack("<i", len(content)) + content + b"tb."
    for data in (protocol_0, protocol_2, long):
        expected = pickle.loads(data, encoding="latin1")
        np.testing.assert_array_equal(load(data), expected)
        assert expected.shape == (1, 12, 8)


def test_frames_can_be_aligned() -> None:
    """The read-only frames that come out are what alignment takes."""
    frames = np.zeros((3, 64, 64), np.uint8)
    frames[:, 5:60, 20:40] = 255
    found = load(pickle.dumps(frames))
    np.testing.assert_array_equal(align_sequence(found), align_sequence(frames))


def test_unpickle_gives_arrays_of_any_shape() -> None:
    for array in (np.arange(5, dtype=">f4"), np.zeros((2, 3, 4, 5), bool), np.array(7, np.int16)):
        found = unpickle(pickle.dumps(array))
        assert isinstance(found, np.ndarray)
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)
