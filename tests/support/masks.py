"""Mask images, and folders and archives of them, that tests of importing share."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np

Tree = dict[str, bytes]


def person(seed: int, height: int = 120, width: int = 90) -> np.ndarray:
    """A blob of white on black, different for each seed."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.uint8)
    middle = (width // 2 + int(rng.integers(-8, 9)), height // 2)
    axes = (int(rng.integers(8, 20)), height // 2 - 8)
    cv2.ellipse(mask, middle, axes, float(rng.integers(-6, 7)), 0, 360, 255, -1)
    return mask


def encode(image: np.ndarray, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


def walk(folder: str, length: int = 3, seed: int = 0) -> Tree:
    return {f"{folder}/{i}.png": encode(person(seed + i)) for i in range(length)}


def make_folder(root: Path, tree: Tree) -> Path:
    for name, data in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def make_zip(path: Path, tree: Tree) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in tree.items():
            archive.writestr(name, data)
    return path


def zip_bytes(tree: Tree) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in tree.items():
            archive.writestr(name, data)
    return file.getvalue()


def tar_bytes(tree: Tree) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in tree.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, bits: int, colour: int, rows: bytes, *between: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(between) + body


def oracle(mask: np.ndarray, size: int, by_area: bool = False) -> np.ndarray | None:
    """Alignment as the field describes it, step by step; or that of CCPG, by area and of masks of any mass."""
    if int(mask.astype(np.int64).sum()) <= (0 if by_area else 10_000):
        return None
    rows = [y for y in range(len(mask)) if mask[y].sum() > 0]
    mask = mask[rows[0] : rows[-1] + 1]
    width = int(size * (mask.shape[1] / mask.shape[0]))
    mask = cv2.resize(mask, (width, size), interpolation=cv2.INTER_AREA if by_area else cv2.INTER_CUBIC)
    total, seen, centre = int(mask.astype(np.int64).sum()), 0, -1
    for x in range(width):
        seen += int(mask[:, x].astype(np.int64).sum())
        if 2 * seen > total:
            centre = x
            break
    wide = np.zeros((size, width + 2 * size), np.uint8)
    wide[:, size : size + width] = mask
    return wide[:, centre + size - size // 2 : centre + size + size // 2]
