"""Reading masks from image files of any habit: 0/1, palette, colour, transparency, 16 bits, JPEG."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import cv2
import numpy as np

#: Extensions of the files that count as images.
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")

#: What an image may declare or weigh before it is refused unread; a frame of 8K video still fits.
MAX_PIXELS = 1 << 25
MAX_BYTES = 1 << 26

_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the markers that carry the size


def decode_mask(data: bytes) -> tuple[np.ndarray, tuple[str, ...]]:
    """Decode an image file and turn it into an 8-bit grey mask.

    Transparency that varies is the mask itself; otherwise colours count by their brightest channel. 16-bit
    values are scaled to 8. A mask of two values becomes 0 and 255. JPEG, which blurs and rings, is
    thresholded at half, so that its noise does not pass for foreground.

    Args:
        data: the bytes of a PNG, JPEG or BMP file.

    Returns:
        uint8 (h, w), and what had to be done to get it, in words.

    Raises:
        ValueError: not an image, truncated, damaged or too large.
    """
    width, height = _declared_size(data)
    if not 0 < width * height <= MAX_PIXELS:
        raise ValueError(f"declares {width} x {height} pixels")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ValueError("cannot be decoded") from error
    if image is None or image.shape[:2] != (height, width):
        raise ValueError("cannot be decoded")
    done = []
    if image.ndim == 3:
        image, what = _flatten(image)
        done.append(what)
    if image.dtype != np.uint8:
        image, what = _to_8_bits(image)
        done.append(what)
    if data[:2] == b"\xff\xd8":
        image = np.where(image >= 128, np.uint8(255), np.uint8(0))
        done.append("thresholded at half (JPEG)")
    values = two_values([image])
    if values is not None:
        image = black_and_white(image, values[1])
        done.append("masks of two values made 0 and 255")
    return image, tuple(done)


def two_values(frames: Sequence[np.ndarray]) -> tuple[int, int] | None:
    """Return the two values of masks that have no others; None where they are 0 and 255, are one, or are more.

    Args:
        frames: uint8 of any shape, looked at together.
    """
    low, high = min(int(frame.min()) for frame in frames), max(int(frame.max()) for frame in frames)
    if low == high or (low, high) == (0, 255):
        return None
    return (low, high) if all(bool(((frame == low) | (frame == high)).all()) for frame in frames) else None


def black_and_white(frame: np.ndarray, white: int) -> np.ndarray:
    """Return a mask that is 255 where it was ``white``, and 0 elsewhere."""
    return np.where(frame == white, np.uint8(255), np.uint8(0))


def _flatten(image: np.ndarray) -> tuple[np.ndarray, str]:
    """Turn (h, w, 3 or 4) into (h, w)."""
    if image.shape[2] == 4 and image[..., 3].min() < image[..., 3].max():
        return np.ascontiguousarray(image[..., 3]), "transparency taken as the mask"
    return np.maximum(np.maximum(image[..., 0], image[..., 1]), image[..., 2]), "colour made grey"


def _to_8_bits(image: np.ndarray) -> tuple[np.ndarray, str]:
    """Turn integers of more than 8 bits into 8; values that fit 8 bits already stay what they are."""
    if image.dtype != np.uint16:
        raise ValueError(f"has pixels of type {image.dtype}")
    if image.max() > 255:
        image = (image + np.uint32(128)) // 257
    return image.astype(np.uint8), "16 bits made 8"


def _declared_size(data: bytes) -> tuple[int, int]:
    """Return (width, height) as the file's header has them, having checked that the file has an end."""
    try:
        if data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR" and b"IEND" in data:
            return struct.unpack(">II", data[16:24])
        if data[:2] == b"\xff\xd8" and b"\xff\xd9" in data[2:]:
            return _jpeg_size(data)
        if data[:2] == b"BM":
            width, height = struct.unpack("<ii", data[18:26])
            return abs(width), abs(height)
    except struct.error:
        pass
    raise ValueError("is not a whole PNG, JPEG or BMP file")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    at = 2
    while at < len(data):
        marker, length = struct.unpack(">xBH", data[at : at + 4])
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 2 + length
    raise ValueError("is not a whole JPEG file")
