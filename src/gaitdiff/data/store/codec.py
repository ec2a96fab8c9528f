"""How the frames of a sequence become bytes in ``frames.bin``, and some of them frames again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import cv2
import lz4.block
import numpy as np

#: More pixels than this no byte of any codec stands for.
MOST_PIXELS_A_BYTE = 255


class Codec(Protocol):
    """Codes sequences of frames of one size without loss, each by itself; the same frames give the same bytes."""

    def encode(self, frames: np.ndarray) -> memoryview:
        """Return the bytes of a sequence, uint8 (T, H, W)."""

    def decode(self, data: np.ndarray, count: int, index: np.ndarray) -> np.ndarray:
        """Return some frames of a sequence, a copy.

        Args:
            data: uint8 (n,), what ``encode`` gave.
            count: frames of the whole sequence.
            index: int (k,), the numbers of the frames that are wanted, in any order.

        Returns:
            uint8 (k, H, W).

        Raises:
            IndexError: there is no frame of that number.
            ValueError: the data are none that ``encode`` gives.
        """

    def decode_all(self, data: np.ndarray, count: int) -> np.ndarray:
        """Return all frames of a sequence, uint8 (T, H, W); a view of the data where that is possible."""


class Raw:
    """Frames end to end, row by row."""

    def __init__(self, height: int, width: int) -> None:
        self._height, self._width = height, width

    def encode(self, frames: np.ndarray) -> memoryview:
        """Return the bytes of frames, uint8 (T, H, W)."""
        return np.ascontiguousarray(frames).data.cast("B")

    def decode(self, data: np.ndarray, count: int, index: np.ndarray) -> np.ndarray:
        """Return some of ``count`` frames, uint8 (n, H, W), in the order of ``index``."""
        return self.decode_all(data, count)[index]

    def decode_all(self, data: np.ndarray, count: int) -> np.ndarray:
        """Return all ``count`` frames, uint8 (T, H, W)."""
        return data.reshape(count, self._height, self._width)


class Lz4Columns:
    """Each frame an LZ4 block of its own, column by column: walkers are tall, so their edges break fewer runs.

    In front stand the positions of the blocks and of the last one's end, uint32 (T + 1), little-endian, counted from
    the first byte of the sequence. Any frame is thus decoded without the others.
    """

    _LEVEL = 9  # the higher ones compress no better

    def __init__(self, height: int, width: int) -> None:
        self._height, self._width = height, width

    def encode(self, frames: np.ndarray) -> memoryview:
        """Return the bytes of frames, uint8 (T, H, W)."""
        columns = np.ascontiguousarray(frames.transpose(0, 2, 1))
        blocks = [
            lz4.block.compress(frame, mode="high_compression", compression=self._LEVEL, store_size=False)
            for frame in columns
        ]
        positions = np.cumsum([4 * (len(blocks) + 1), *map(len, blocks)]).astype("<u4")
        return memoryview(b"".join([positions.tobytes(), *blocks]))

    def decode(self, data: np.ndarray, count: int, index: np.ndarray) -> np.ndarray:
        """Return some of ``count`` frames, uint8 (n, H, W), in the order of ``index``."""
        positions = np.frombuffer(data, "<u4", count + 1)
        chosen = np.arange(count)[index]
        if len(chosen) == 0:
            return np.empty((0, self._height, self._width), np.uint8)
        if positions[-1] != len(data):
            raise ValueError("its blocks do not fill it")
        begins, ends = positions[chosen].tolist(), positions[chosen + 1].tolist()
        blocks, size = data.data, self._height * self._width
        if size > MOST_PIXELS_A_BYTE * min(map(int.__sub__, ends, begins)):
            raise ValueError("a block of it is too short for a frame")
        try:
            columns = bytearray().join(
                [
                    lz4.block.decompress(blocks[begin:end], uncompressed_size=size)
                    for begin, end in zip(begins, ends, strict=True)
                ]
            )
        except lz4.block.LZ4BlockError as error:
            raise ValueError(str(error)) from error
        stacked = np.frombuffer(columns, np.uint8).reshape(len(chosen) * self._width, self._height)
        rows = cv2.transpose(stacked).reshape(self._height, len(chosen), self._width)  # NumPy's takes twice the time
        return np.ascontiguousarray(rows.transpose(1, 0, 2))

    def decode_all(self, data: np.ndarray, count: int) -> np.ndarray:
        """Return all ``count`` frames, uint8 (T, H, W)."""
        return self.decode(data, count, np.arange(count))


CODECS: Mapping[str, Callable[[int, int], Codec]] = MappingProxyType({"raw": Raw, "lz4-columns": Lz4Columns})
DEFAULT_CODEC = "lz4-columns"


@dataclass(frozen=True)
class Encoded:
    """The frames of a sequence as they go into a store; has the shape of the array it stands for."""

    codec: str
    shape: tuple[int, int, int]  # T, H, W
    data: bytes


def encode(frames: np.ndarray, codec: str = DEFAULT_CODEC) -> Encoded:
    """Encode uint8 (T, H, W), T >= 1, for instance in another process than the writer's."""
    count, height, width = frames.shape
    return Encoded(codec, (count, height, width), bytes(CODECS[codec](height, width).encode(frames)))
