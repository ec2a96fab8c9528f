"""Ways to code silhouettes without loss, for the benchmark of stores."""

from __future__ import annotations

import importlib
import lzma
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import cv2
import lz4.block
import numpy as np

LENGTH = 96  # frames of a sequence, a multiple of every block's

Bytes = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Candidate:
    """A way to code blocks of ``unit`` frames, 0 for whole sequences; ``columns``: transposed before."""

    encode: Callable[[np.ndarray], bytes]
    decode: Callable[[Sequence[bytes]], bytes]  # of the frames of some blocks, end to end
    unit: int = 1
    columns: bool = False
    xor: bool = False  # frames of a block are XORed with the one before them

    def blocks(self, frames: np.ndarray) -> list[bytes]:
        frames = frames.transpose(0, 2, 1) if self.columns else frames
        unit = self.unit or len(frames)
        blocks = [np.ascontiguousarray(frames[first : first + unit]) for first in range(0, len(frames), unit)]
        if self.xor:
            blocks = [np.concatenate([block[:1], block[1:] ^ block[:-1]]) for block in blocks]
        return [self.encode(block) for block in blocks]

    def clip(self, blocks: list[bytes], length: int, index: np.ndarray) -> np.ndarray:
        unit = self.unit or length
        needed, which = np.unique(index // unit, return_inverse=True)
        data = self.decode([blocks[number] for number in needed.tolist()])
        frames = np.frombuffer(data, np.uint8).reshape(len(needed), -1, 64, 64)
        if self.xor:
            frames = np.bitwise_xor.accumulate(frames, axis=1)
        if self.columns:
            turned = cv2.transpose(frames.reshape(-1, 64)).reshape(64, -1, 64).transpose(1, 0, 2)
            frames = turned.reshape(len(needed), -1, 64, 64)
        return frames[which, index % unit]

    def clips(self, blocks: list[list[bytes]], drawn: list[tuple[int, np.ndarray]]) -> None:
        for walk, index in drawn:
            self.clip(blocks[walk], LENGTH, index)


def each(decode: Bytes) -> Callable[[Sequence[bytes]], bytes]:
    return lambda blocks: b"".join([decode(block) for block in blocks])


def make_candidates(training: np.ndarray) -> dict[str, Candidate]:
    def lz(frames: np.ndarray) -> bytes:
        return lz4.block.compress(frames, mode="high_compression", compression=9, store_size=False)

    def lz_back(unit: int) -> Callable[[Sequence[bytes]], bytes]:
        return each(lambda block: lz4.block.decompress(block, uncompressed_size=unit * 4096))

    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9}]
    found = {
        "raw": Candidate(lambda frames: frames.tobytes(), b"".join),
        "PNG": Candidate(
            lambda frames: cv2.imencode(".png", frames[0], [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes(),
            each(
                lambda block: np.asarray(cv2.imdecode(np.frombuffer(block, np.uint8), cv2.IMREAD_GRAYSCALE)).tobytes()
            ),
        ),
        "run lengths": Candidate(run_lengths, from_run_lengths, columns=True),
        "bits and greys apart, LZ4": Candidate(bits_and_greys, from_bits_and_greys, columns=True),
        "lzma, sequence": Candidate(
            lambda frames: lzma.compress(frames.tobytes(), lzma.FORMAT_RAW, filters=filters),
            each(lambda block: lzma.decompress(block, lzma.FORMAT_RAW, filters=filters)),
            unit=0,
        ),
    }
    for name, unit, columns, xor in (
        ("frame", 1, False, False),
        ("frame, columns", 1, True, False),
        ("8 frames, columns", 8, True, False),
        ("8 frames, columns, XOR", 8, True, True),
        ("sequence, columns", 0, True, False),
    ):
        found[f"zlib, {name}"] = Candidate(
            lambda frames: zlib.compress(frames.data, 9), each(zlib.decompress), unit, columns, xor
        )
        found[f"LZ4, {name}"] = Candidate(lz, lz_back(unit or LENGTH), unit, columns, xor)
        found |= zstandard(name, unit, columns, xor, training) | blosc(name, unit, columns, xor)
    return found


def zstandard(name: str, unit: int, columns: bool, xor: bool, training: np.ndarray) -> dict[str, Candidate]:
    zstd = library("zstandard")
    if zstd is None:
        return {}
    size = (unit or LENGTH) * 4096
    shape = zstd.ZstdCompressionParameters.from_level(
        19, source_size=size, write_content_size=False, format=zstd.FORMAT_ZSTD1_MAGICLESS
    )

    def candidate(**options: Any) -> Candidate:
        encoder = zstd.ZstdCompressor(compression_params=shape, **options)
        decoder = zstd.ZstdDecompressor(format=zstd.FORMAT_ZSTD1_MAGICLESS, **options)
        return Candidate(
            lambda frames: encoder.compress(frames.tobytes()),
            each(lambda block: decoder.decompress(block, max_output_size=size)),
            unit,
            columns,
            xor,
        )

    found = {f"zstd 19, {name}": candidate()}
    if unit == 1 and columns:
        samples = [np.ascontiguousarray(frame.T).tobytes() for frame in training]
        found[f"zstd 19, {name}, dictionary"] = candidate(dict_data=zstd.train_dictionary(16384, samples, level=19))
    return found


def blosc(name: str, unit: int, columns: bool, xor: bool) -> dict[str, Candidate]:
    blosc2 = library("blosc2")
    if blosc2 is None:
        return {}
    options = {"typesize": 1, "filters": [blosc2.Filter.BITSHUFFLE], "codec": blosc2.Codec.ZSTD, "nthreads": 1}
    return {
        f"blosc2 (bit shuffle, zstd), {name}": Candidate(
            lambda frames: blosc2.compress2(frames.tobytes(), clevel=9, **options),
            each(lambda block: blosc2.decompress2(block, nthreads=1)),
            unit,
            columns,
            xor,
        )
    }


def run_lengths(frames: np.ndarray) -> bytes:
    """Runs of at most 255 equal pixels: their lengths and values, a byte each."""
    pixels = frames.ravel()
    starts = np.flatnonzero(np.r_[True, pixels[1:] != pixels[:-1]])
    lengths = np.diff(np.r_[starts, len(pixels)])
    pieces = -(-lengths // 255)
    last = np.cumsum(pieces) - 1
    split = np.full(pieces.sum(), 255)
    split[last] = lengths - 255 * (pieces - 1)
    return np.stack([split, np.repeat(pixels[starts], pieces)], 1).astype(np.uint8).tobytes()


def from_run_lengths(blocks: Sequence[bytes]) -> bytes:
    lengths, values = np.frombuffer(b"".join(blocks), np.uint8).reshape(-1, 2).T
    return np.repeat(values, lengths).tobytes()


def bits_and_greys(frames: np.ndarray) -> bytes:
    """One bit a pixel for white, one for grey, these coded by LZ4; and the values of the grey pixels."""
    grey = (frames > 0) & (frames < 255)
    planes = np.packbits(np.stack([frames == 255, grey]))
    coded = lz4.block.compress(planes, mode="high_compression", compression=9, store_size=False)
    return len(coded).to_bytes(2, "little") + coded + frames[grey].tobytes()


def from_bits_and_greys(blocks: Sequence[bytes]) -> bytes:
    ends = [2 + int.from_bytes(block[:2], "little") for block in blocks]
    planes = b"".join(
        [lz4.block.decompress(block[2:end], uncompressed_size=1024) for block, end in zip(blocks, ends, strict=True)]
    )
    bits = np.unpackbits(np.frombuffer(planes, np.uint8)).reshape(-1, 2, 4096)
    frames = np.negative(bits[:, 0])
    greys = b"".join([block[end:] for block, end in zip(blocks, ends, strict=True)])
    frames[bits[:, 1].view(bool)] = np.frombuffer(greys, np.uint8)
    return frames.tobytes()


def library(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
