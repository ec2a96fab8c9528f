"""A damaged store, or what is none, is refused with a sentence that says what is wrong."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import lz4.block
import numpy as np
import pytest

from gaitdiff.data.store import SequenceStore
from gaitdiff.data.store.codec import CODECS
from gaitdiff.errors import UserError
from noise_stores import edit_header, make_frames, make_store


def edit_manifest(old: str, new: str, *, sign: bool = True) -> Callable[[Path], None]:
    """Replace text in the manifest, and give the header the new checksum if ``sign``."""

    def damage(store: Path) -> None:
        text = (store / "manifest.csv").read_text("utf-8")
        assert old in text
        data = text.replace(old, new, 1).encode("utf-8")
        (store / "manifest.csv").write_bytes(data)
        if sign:
            edit_header(manifest_sha256=hashlib.sha256(data).hexdigest())(store)

    return damage


def replace_file(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda store: (store / name).write_bytes(data) and None


def remove(name: str) -> Callable[[Path], None]:
    return lambda store: (store / name).unlink()


def resize(by: int) -> Callable[[Path], None]:
    def damage(store: Path) -> None:
        os.truncate(store / "frames.bin", (store / "frames.bin").stat().st_size + by)

    return damage


def no_rows(store: Path) -> None:
    header = (store / "manifest.csv").read_text("utf-8").splitlines()[0] + "\n"
    (store / "manifest.csv").write_text(header, "utf-8")
    (store / "frames.bin").write_bytes(b"")
    digest = hashlib.sha256(header.encode()).hexdigest()
    edit_header(manifest_sha256=digest, sequences=0, frames=0)(store)


def edit_manifest_end(number: str) -> Callable[[Path], None]:
    """Give the last sequence another number of bytes."""

    def damage(store: Path) -> None:
        last = (store / "manifest.csv").read_text("utf-8").splitlines()[-1]
        edit_manifest(last, f"{last.rpartition(',')[0]},{number}")(store)

    return damage


def many_frames(store: Path) -> None:
    """Give the last sequence, of 2 frames, very many."""
    edit_manifest("04,2,", f"04,{9999999999999 - 45},")(store)
    edit_header(frames=9999999999999)(store)


def pipe(store: Path) -> None:
    (store / "manifest.csv").unlink()
    os.mkfifo(store / "manifest.csv")


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no store.json": (remove("store.json"), "not a store"),
    "store.json is not JSON": (replace_file("store.json", b"{"), "store.json .*not JSON"),
    "store.json is binary": (replace_file("store.json", b"\xff\x00\xfe"), "store.json .*not JSON"),
    "store.json is too deep": (replace_file("store.json", b"[" * 100_000), "store.json .*not JSON"),
    "store.json is a list": (replace_file("store.json", b"[]"), "store.json .*format"),
    "another program's JSON": (edit_header(format="other"), "store.json .*format"),
    "a future version": (edit_header(version=2), "store.json .*version 2"),
    "no version": (edit_header(version=None), "store.json .*version"),
    "an unknown codec": (edit_header(codec="zip"), "codec is 'zip' and this gaitdiff knows 'raw', 'lz4-columns'"),
    "no height": (edit_header(height=None), "store.json .*'height'"),
    "height in words": (edit_header(height="64"), "store.json .*'height'"),
    "height 0": (edit_header(height=0), "store.json .*size"),
    "height of a billion": (edit_header(height=10**9), r"cannot hold 47 frames of 1000000000 x 64 in 193565 bytes"),
    "both of a billion": (edit_header(height=10**9, width=10**9), "cannot hold 47 frames"),
    "height of 5,000 digits": (
        replace_file("store.json", b'{"height": ' + b"9" * 5000 + b"}"),
        "store.json .*not JSON",
    ),
    "height beyond all numbers": (edit_header(height=10**30), "store.json .*'height' is impossible"),
    "fewer than no frames": (edit_header(frames=-1), "store.json .*'frames' is impossible"),
    "another crop": (edit_header(crop="cut"), "manifest.csv .*crop"),
    "another number of sequences": (edit_header(sequences=4), "manifest.csv .*5 sequences"),
    "another number of frames": (edit_header(frames=48), "manifest.csv .*number of frames"),
    "no manifest": (remove("manifest.csv"), "cannot read .*manifest.csv"),
    "manifest edited": (edit_manifest("p1", "p9", sign=False), "manifest.csv .*checksum"),
    "manifest without a column": (edit_manifest("view", "angle"), "manifest.csv .*'view' is missing"),
    "manifest empty": (replace_file("manifest.csv", b""), "manifest.csv .*missing"),
    "manifest is binary": (replace_file("manifest.csv", b"\xff\xfe"), "manifest.csv .*utf-8"),
    "a value too many": (edit_manifest("p1,", "p1,,"), "line 2 .*12 values"),
    "a word for a number": (edit_manifest("00,5,", "00,five,"), "line 2.*'five'"),
    "a negative number": (edit_manifest("00,5,", "00,-5,"), "line 2.*'-5'"),
    "a number of bytes beyond all": (edit_manifest_end(str(10**20)), "line 6.*bytes has 21 digits"),
    "more bytes than there are": (edit_manifest_end(str(10**14)), "frames.bin is truncated: 1000000001"),
    "a number of 5,000 digits": (edit_manifest("00,5,", f"00,{'5' * 5000},"), "line 2.*frames has 5000 digits"),
    "frames without end": (many_frames, "cannot hold 9999999999999 frames of 64 x 64 in 193565 bytes"),
    "a sequence without frames": (edit_manifest("00,5,", "00,0,"), "line 2 .*no frames"),
    "no subject": (edit_manifest("p1,", ","), "line 2 .*names"),
    "an unknown split": (edit_manifest("train", "dev"), "line 2 .*'dev'"),
    "an unknown role": (edit_manifest("probe", "query"), "line 4 .*'query'"),
    "overlapping sequences": (edit_manifest("full,5,", "full,4,"), "line 3 .*begin at frame 5"),
    "a name twice": (edit_manifest("p2,nm,,02", "p2,nm,,01"), "line 4 .*same name"),
    "an open quote": (edit_manifest("p1", '"p1'), "manifest.csv .*CSV"),
    "no sequences": (no_rows, "manifest.csv .*0 sequences"),
    "a pipe in its place": (pipe, "manifest.csv is no regular file"),
    "no frames.bin": (remove("frames.bin"), "cannot read .*frames.bin"),
    "frames.bin truncated": (resize(-1), "frames.bin is truncated: 193565 bytes expected, 193564 found"),
    "frames.bin empty": (replace_file("frames.bin", b""), "frames.bin is truncated: 193565 bytes expected, 0 found"),
    "frames.bin too long": (resize(1), "frames.bin is too long: 193565 bytes expected, 193566 found"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_store_is_refused(store: Path, name: str) -> None:
    damage, sentence = DAMAGES[name]
    damage(store)
    with pytest.raises(UserError, match=sentence) as caught:
        SequenceStore(store)
    assert str(store) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_path(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no store at .*nowhere"):
        SequenceStore(tmp_path / "nowhere")


def test_file_instead_of_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        SequenceStore(tmp_path / "file")


def test_folder_of_images_gets_a_hint(tmp_path: Path) -> None:
    (tmp_path / "p1" / "walk").mkdir(parents=True)
    (tmp_path / "p1" / "walk" / "0.PNG").write_bytes(b"")
    with pytest.raises(UserError, match=r"gaitdiff data import .* --as frames --out STORE"):
        SequenceStore(tmp_path)


@pytest.mark.parametrize("first_touch", ["item", "clip", "verify"])
def test_a_flipped_bit_is_noticed(store: Path, first_touch: str) -> None:
    with open(store / "frames.bin", "r+b") as file:
        file.seek((5 + 1 + 4) * 4096 + 17)  # in the fifth frame of the third sequence
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))
    opened = SequenceStore(store)
    np.testing.assert_array_equal(opened.clip(3, np.array([0])), make_frames(3, 30)[:1])  # others are unharmed
    touch = {
        "item": lambda: opened[2],
        "clip": lambda: opened.clip(2, np.array([0])),
        "verify": opened.verify,
    }[first_touch]
    with pytest.raises(UserError, match=r"frames\.bin is damaged: sequence 'p2/nm/02'"):
        touch()
    with pytest.raises(UserError, match="damaged"):
        opened[2]  # and again: it was not marked as good


def sign_frames(store: Path, data: bytes) -> None:
    """Put bytes in place of the first sequence, of 5 frames, with the checksums that fit them."""
    old = SequenceStore(store).rows[0]
    frames = (store / "frames.bin").read_bytes()
    (store / "frames.bin").write_bytes(data + frames[old.bytes :])
    edit_manifest(f"0,{old.crc32},{old.bytes}\n", f"0,{zlib.crc32(data)},{len(data)}\n")(store)


BLOCKS = np.array([24, 25, 26, 27, 28, 29], "<u4").tobytes()  # positions of five blocks of a byte


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 11, BLOCKS, BLOCKS + b"\0" * 5, BLOCKS + b"\xff" * 5, BLOCKS + b"\x10" * 6, b"\xff" * 29, bytes(29)],
)
def test_well_summed_nonsense_is_refused(store: Path, data: bytes) -> None:
    sign_frames(store, data)
    opened = SequenceStore(store)
    for touch in (lambda: opened[0], lambda: opened.clip(0, np.array([0]))):
        with pytest.raises(UserError, match=r"frames\.bin is damaged: sequence 'p1/nm/00' cannot be decoded"):
            touch()
    np.testing.assert_array_equal(opened.clip(3, np.array([0])), make_frames(3, 30)[:1])  # others are unharmed


def test_a_frame_that_no_block_could_hold_takes_no_memory(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lz4.block, "decompress", lambda *_, **__: pytest.fail("room was made for a frame"))
    opened = SequenceStore(store)
    opened._codec = CODECS["lz4-columns"](10**6, 10**6)
    with pytest.raises(UserError, match=r"cannot be decoded \(a block of it is too short"):
        opened[0]


@pytest.mark.parametrize("codec", CODECS)
def test_another_frame_size_is_refused(tmp_path: Path, codec: str) -> None:
    store = make_store(tmp_path / "store", codec=codec)
    edit_header(width=44)(store)
    with pytest.raises(UserError, match=r"frames\.bin is damaged: sequence 'p1/nm/00' cannot be decoded"):
        SequenceStore(store)[0]
