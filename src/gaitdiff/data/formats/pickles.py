"""Silhouettes out of pickles, whoever wrote them, without executing anything."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from gaitdiff.data.formats.images import MAX_PIXELS
from gaitdiff.data.formats.unpickling import unpickle

#: Extension of the files that count as pickles.
SUFFIX = ".pkl"

#: What a pickle, and the frames in it, may weigh before they are refused: 16,384 frames of 128 x 128 pixels.
MAX_BYTES = 1 << 28

#: How many frames a list may have, which may name one array again and again.
_MAX_FRAMES = 1 << 16

_MIN_SIDE = 8  # pixels; below that it is poses, boxes or points that come as (T, 17, 3), (T, 4) or (N, 3)
_COLOURS = (3, 4)
_SCALED = "values from 0 to 1 made 0 to 255"

#: Files that are called pickles at times, by how they begin.
_OTHER_FILES: Mapping[bytes, str] = MappingProxyType(
    {
        b"PK\x03\x04": "a zip archive (as torch.save writes it)",
        b"\x93NUMPY": "a .npy file",
        b"\x1f\x8b": "compressed by gzip",
        b"\x89PNG": "an image",
        b"\x89HDF": "an HDF5 file",
        b"version https://git-lfs": "a git-lfs pointer without its content",
    }
)

#: The number that files of torch.save from before 2020 begin with, as pickle protocols from 2 on and before 2 write it.
TORCH_BINARY, TORCH_TEXT = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", b"L119547037146038801333356L"


def read_silhouettes(data: bytes) -> tuple[np.ndarray | list[np.ndarray], str]:
    """Read a sequence from a pickle of a NumPy array, or of a list or tuple of two-dimensional ones, one each frame.

    Values may be boolean, integers or floats, in 0..1 (which becomes 0..255) or 0..255; floats are rounded. Arrays may
    have any byte order and memory order, and any pickle protocol of Python 2 and 3 and NumPy 1 and 2.

    Args:
        data: the bytes of the file; the array may be (T, H, W), (H, W), (T, 1, H, W) or (T, H, W, 1).

    Returns:
        uint8 (T, H, W), T >= 1; or, for a list of frames of different sizes, a list of uint8 (h, w). What needed no
        conversion is read-only and shares its memory with ``data``. And what was done to its values, in words, or "".

    Raises:
        ValueError: anything else. The text is a short reason, such as "asks for os.system".
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"has more than {MAX_BYTES} bytes")
    for start, what in _OTHER_FILES.items():
        if data.startswith(start):
            raise ValueError(f"is {what}, no pickle")
    if any(number in data[:64] for number in (TORCH_BINARY, TORCH_TEXT)):
        raise ValueError("is a PyTorch file, no pickle of silhouettes: save its array with pickle.dump")
    content = unpickle(data)
    if isinstance(content, np.ndarray):
        frames = _squeeze(content)
        scale = _scale([frames])
        return _to_grey(frames, scale), _SCALED if scale > 1 and frames.any() else ""
    _check_frames(content)
    scale = _scale(content)
    grey = [_to_grey(frame, scale) for frame in content]
    done = _SCALED if scale > 1 and any(frame.any() for frame in grey) else ""
    return (grey if len({frame.shape for frame in grey}) > 1 else np.stack(grey)), done


def _squeeze(array: np.ndarray) -> np.ndarray:
    """Turn an array of any shape that a sequence may have into (T, H, W)."""
    if array.ndim == 4 and 1 in (array.shape[1], array.shape[3]):
        array = array[:, 0] if array.shape[1] == 1 else array[..., 0]
    elif array.ndim == 4 and (array.shape[1] in _COLOURS or array.shape[3] in _COLOURS):
        raise ValueError(f"holds colour images {_shape(array)}, no silhouettes")
    elif array.ndim == 2:
        array = array[None]
    if array.ndim != 3:
        raise ValueError(f"holds an array {_shape(array)}, no silhouettes (frames, height, width)")
    _check_size(array)
    return array


def _check_frames(frames: Sequence[np.ndarray]) -> None:
    """Check that a list holds (h, w) arrays, and that they are no larger together than a pickle may be."""
    if not frames:
        raise ValueError("has no frames")
    if len(frames) > _MAX_FRAMES:
        raise ValueError(f"holds more than {_MAX_FRAMES} frames")
    for frame in frames:
        if frame.ndim != 2:
            raise ValueError(f"holds a list of arrays {_shape(frame)}, no silhouettes (height, width)")
        _check_size(frame)
    if sum(frame.nbytes for frame in frames) > MAX_BYTES:  # a pickle can name one array many times
        raise ValueError(f"holds more than {MAX_BYTES} bytes of frames")


def _check_size(array: np.ndarray) -> None:
    height, width = array.shape[-2:]
    if min(height, width) < _MIN_SIDE or height * width > MAX_PIXELS:
        raise ValueError(f"holds an array {_shape(array)}: {height} x {width} is no size of a silhouette")


def _scale(arrays: Sequence[np.ndarray]) -> int:
    """Return what to multiply a sequence with so that white is 255."""
    highs = [float(array.max()) for array in arrays]
    if any(math.isnan(value) for value in highs):
        raise ValueError("holds NaN")
    low = min(0.0 if array.dtype.kind in "bu" else float(array.min()) for array in arrays)
    high = max(highs)
    if low < 0 or high > 255:
        raise ValueError(f"has the value {low if low < 0 else high:g}, where silhouettes have 0 to 255")
    return 255 if high <= 1 else 1


def _to_grey(array: np.ndarray, scale: int) -> np.ndarray:
    """Turn checked values of any type into uint8, frame by frame so that nothing large stands in between."""
    if array.dtype == np.uint8 and scale == 1:
        return np.ascontiguousarray(array)
    if array.dtype in (np.uint8, np.bool_):
        return np.ascontiguousarray(array.view(np.uint8) > 0).view(np.uint8) * np.uint8(255)
    result = np.empty(array.shape, np.uint8)
    for target, frame in zip(result, array, strict=True):
        target[...] = np.rint(frame * np.float64(scale))
    return result


def _shape(array: np.ndarray) -> str:
    return "(" + ", ".join(map(str, array.shape)) + ")"
