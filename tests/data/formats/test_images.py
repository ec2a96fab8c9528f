"""Images are looked through before a decoder makes room for what they declare."""

from __future__ import annotations

import struct
import zlib
from itertools import chain

import cv2
import numpy as np
import pytest

from gaitdiff.data.formats.images import MAX_PIXELS, decode_mask

MASK = np.zeros((64, 48), np.uint8)
MASK[4:60, 16:32] = 255
PNG, JPEG = (cv2.imencode(suffix, MASK)[1].tobytes() for suffix in (".png", ".jpg"))


def chunk(kind: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    declared = len(data) if length is None else length
    return struct.pack(">I", declared) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


SIGNATURE, END = PNG[:8], chunk(b"IEND")
HEADER = chunk(b"IHDR", struct.pack(">IIBBBBB", 48, 64, 8, 0, 0, 0, 0))
ANIMATION = chunk(b"acTL", struct.pack(">II", 3, 0))
FRAME = b"\xff\xc0\x00\x0b\x08\x00\x40\x00\x30\x01\x01\x11\x00"  # a JPEG's size: 64 x 48

HOSTILE = {
    **{
        f"{kind.decode()} of {length:#x} bytes": SIGNATURE + HEADER + chunk(kind, bytes(16), length) + END
        for kind in (b"IDAT", b"tEXt", b"PLTE", b"fdAT", b"eXIf")
        for length in (0x7FFFFFFF, 0x9B000000, 0xFFFFFFF0, 200)
    },
    "an animation": SIGNATURE + HEADER + ANIMATION + PNG[33:],
    "a header that is not first": SIGNATURE + chunk(b"tEXt", b"a\0b") + HEADER + PNG[33:],
    "two headers": SIGNATURE + HEADER + HEADER + PNG[33:],
    "a header that is too long": SIGNATURE + chunk(b"IHDR", bytes(100)) + PNG[33:],
    "a png without an end": PNG[:-12],
    "an end within another chunk": SIGNATURE + HEADER + chunk(b"tEXt", b"IEND") + PNG[33:-12],
    "too many pixels": SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", MAX_PIXELS, 2, 8, 0, 0, 0, 0)) + PNG[33:],
    "a byte that is another": PNG[:50] + bytes([PNG[50] ^ 1]) + PNG[51:],
    "very many chunks": SIGNATURE + HEADER + chunk(b"aaAa") * (1 << 17) + PNG[33:],
    "a marker without 0xff": b"\xff\xd8\x00\xe0\x00\x04\0\0" + FRAME + b"\xff\xd9",
    "segments of length 0": b"\xff\xd8" + b"\xff\xe0\x00\x00" * 1000 + FRAME + b"\xff\xd9",
    "very many segments": b"\xff\xd8" + b"\xff\xe0\x00\x02" * 100_000 + FRAME + b"\xff\xd9",
    "very many fill bytes": b"\xff\xd8" + b"\xff" * 1_000_000 + b"\xd9",
    "very many scans": JPEG[:-2] + b"\xff\xda\x00\x02" * 200_000 + b"\xff\xd9",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_images_never_reach_the_decoder(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("a decoder was given it"))
    with pytest.raises(ValueError, match=r"not a whole|animation|damaged|declares|too often"):
        decode_mask(HOSTILE[name])


def test_every_flipped_bit_of_a_png_is_refused_or_harmless() -> None:
    for place, bit in chain.from_iterable(((place, bit) for bit in range(8)) for place in range(len(PNG))):
        damaged = bytearray(PNG)
        damaged[place] ^= 1 << bit
        try:
            mask, _ = decode_mask(bytes(damaged))
        except ValueError:
            continue
        assert mask.shape == MASK.shape


def test_ordinary_images_are_read() -> None:
    filled = JPEG[:2] + b"\xff\xff\xff\xe1\x00\x04ab" + JPEG[2:]  # fill bytes may stand before a marker
    progressive = cv2.imencode(".jpg", MASK, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    bitmap = cv2.imencode(".bmp", MASK)[1].tobytes()
    for data in (PNG, PNG + b"after the end", JPEG, filled, progressive, bitmap):
        np.testing.assert_array_equal(decode_mask(data)[0], MASK)


def test_transparent_all_over_is_a_frame_of_nobody() -> None:
    picture = np.dstack([np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8), 0 * MASK])
    assert not decode_mask(cv2.imencode(".png", picture)[1].tobytes())[0].any()
    picture[..., 3], picture[..., :3] = 255, MASK[..., None]
    np.testing.assert_array_equal(decode_mask(cv2.imencode(".png", picture)[1].tobytes())[0], MASK)


def test_maps_of_numbered_people_are_no_masks() -> None:
    numbered = (MASK > 0).astype(np.uint8)
    np.testing.assert_array_equal(decode_mask(cv2.imencode(".png", numbered)[1].tobytes())[0], MASK)
    numbered[20:40, 20:24] = 2
    for image in (numbered, numbered.astype(np.uint16)):
        with pytest.raises(ValueError, match="values up to 2, as a map of numbered people"):
            decode_mask(cv2.imencode(".png", image)[1].tobytes())
