"""Reading masks from image files of any habit: 0/1, palette, colour, transparency, 16 bits, JPEG."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Sequence

import cv2
import numpy as np

#: What is said of JPEGs that have no black and white.
PHOTOGRAPH = "photographs thresholded at half"

#: Masks whose values end below this, and are more than two, are maps of numbered people.
_LABELS = 16

#: Extensions of the files that count as images.
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")

#: What an image may declare or weigh before it is refused unread; a frame of 8K video still fits.
MAX_PIXELS = 1 << 25
MAX_BYTES = 1 << 26

#: How many parts of an image are looked at; those of a progressive JPEG each go over the whole picture, all together
#: over no more pixels than so many of the largest pictures have.
_MOST_CHUNKS, _MOST_SEGMENTS, _MOST_PICTURES = 1 << 16, 1 << 12, 16

_JPEG_MARKER = re.compile(rb"\xff+([^\xff])", re.DOTALL)
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the markers that carry the size
_JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # those without a length


def decode_mask(data: bytes) -> tuple[np.ndarray, tuple[str, ...]]:
    """Decode an image file and turn it into an 8-bit grey mask.

    Transparency is the mask itself, unless all is opaque; then colours count by their brightest channel. 16-bit values
    are scaled to 8. A mask of two values becomes 0 and 255. JPEG, which blurs and rings, is thresholded at half, so
    that its noise does not pass for foreground.

    Args:
        data: the bytes of a PNG, JPEG or BMP file.

    Returns:
        uint8 (h, w), and what had to be done to get it, in words.

    Raises:
        ValueError: not an image, truncated, damaged, too large, an animation, or a map of numbered people.
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
        grey = np.count_nonzero((image >= 48) & (image < 208)) > image.size / 5
        image = np.where(image >= 128, np.uint8(255), np.uint8(0))
        done.append(PHOTOGRAPH if grey else "thresholded at half (JPEG)")
    values = two_values([image])
    if values is not None:
        image = black_and_white(image, values[1])
        done.append("masks of two values made 0 and 255")
    return image, tuple(done)


def two_values(frames: Sequence[np.ndarray]) -> tuple[int, int] | None:
    """Return the two values of masks that have no others; None where they are 0 and 255, are one, or are more.

    Args:
        frames: uint8 of any shape, looked at together.

    Raises:
        ValueError: they have a few low values, and are neither black and white nor grey but a map of numbered people.
    """
    low, high = min(int(frame.min()) for frame in frames), max(int(frame.max()) for frame in frames)
    if (low, high) == (0, 255):
        return None
    if low < high and all(bool(((frame == low) | (frame == high)).all()) for frame in frames):
        return low, high
    if 0 < high < _LABELS:
        raise ValueError(f"has values up to {high}, as a map of numbered people: save one mask a person, 0 and 255")
    return None


def black_and_white(frame: np.ndarray, white: int) -> np.ndarray:
    """Return a mask that is 255 where it was ``white``, and 0 elsewhere."""
    return np.where(frame == white, np.uint8(255), np.uint8(0))


def _flatten(image: np.ndarray) -> tuple[np.ndarray, str]:
    """Turn (h, w, 3 or 4) into (h, w)."""
    if image.shape[2] == 4 and (image[..., 3].min() < image[..., 3].max() or image[..., 3].max() == 0):
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
    """Return (width, height) as the file's header has them, having checked that its parts lie inside the file."""
    try:
        if data[:8] == b"\x89PNG\r\n\x1a\n":
            return _png_size(data)
        if data[:2] == b"\xff\xd8" and data.find(b"\xff\xd9", 2) >= 0:
            return _jpeg_size(data)
        if data[:2] == b"BM":
            width, height = struct.unpack("<ii", data[18:26])
            return abs(width), abs(height)
    except struct.error:
        pass
    raise ValueError("is not a whole PNG, JPEG or BMP file")


def _png_size(data: bytes) -> tuple[int, int]:
    """Walk the chunks, and check those that matter; a decoder makes room for what each of them declares."""
    size, at = (0, 0), 8
    for number in range(_MOST_CHUNKS):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        if length > len(data) - at - 12 or (kind == b"IHDR") != (number == 0):
            break
        (told,) = struct.unpack(">I", data[at + 8 + length : at + 12 + length])
        if kind[:1].isupper() and zlib.crc32(data[at + 4 : at + 8 + length]) != told:  # libpng would write to stderr
            raise ValueError("is damaged: a checksum in it is wrong")
        if kind == b"IHDR":
            width, height, *_ = struct.unpack(">II5B", data[at + 8 : at + 8 + length])
            size = (width, height)
        if kind == b"acTL":
            raise ValueError("is an animation, not one image")
        if kind == b"IEND":
            return size
        at += 12 + length
    raise ValueError("is not a whole PNG file")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Walk the segments up to the one with the size."""
    at = 2
    for _ in range(_MOST_SEGMENTS):
        found = _JPEG_MARKER.match(data, at)
        if found is None:
            break
        marker, at = found[1][0], found.end()
        if marker in _JPEG_ALONE:
            continue
        (length,) = struct.unpack(">H", data[at : at + 2])
        if length < 2:
            break
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack(">HH", data[at + 3 : at + 7])
            if width * height * data.count(b"\xff\xda") > _MOST_PICTURES * MAX_PIXELS:
                raise ValueError("goes over its picture too often")
            return width, height
        at += length
    raise ValueError("is not a whole JPEG file")
