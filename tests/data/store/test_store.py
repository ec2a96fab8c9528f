"""The store: what goes in comes out, by any process; and nothing damaged or half-made is ever taken for a store."""

from __future__ import annotations

import csv
import hashlib
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import lz4.block
import numpy as np
import pytest

from gaitdiff.data.store import SequenceStore, StoreWriter
from gaitdiff.data.store.codec import CODECS, DEFAULT_CODEC
from gaitdiff.errors import UserError
from gaitdiff.walkers import render_sequence

NAMES = ["p1", "p2", "p2", "Zoë 😀", 'quote " comma , end']
LENGTHS = [5, 1, 9, 30, 2]
SPLITS = [("train", ""), ("train", ""), ("test", "probe"), ("test", "gallery"), ("test", "gallery")]


def make_frames(seed: int, length: int, height: int = 64, width: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (length, height, width), dtype=np.uint8)


def make_store(path: Path, height: int = 64, width: int = 64, crop: str = "full", codec: str = DEFAULT_CODEC) -> Path:
    with StoreWriter(path, height=height, width=width, crop=crop, source="a test", codec=codec) as writer:
        for i, (name, length, (split, role)) in enumerate(zip(NAMES, LENGTHS, SPLITS, strict=True)):
            frames = make_frames(i, length, height, width)
            writer.add(frames, subject=name, condition="nm", view="", sequence=f"{i:02}", split=split, role=role)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store")


# What goes in comes out


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("height", "width", "crop"), [(64, 64, "full"), (64, 44, "cut"), (128, 128, "full")])
def test_round_trip(tmp_path: Path, height: int, width: int, crop: str, codec: str) -> None:
    store = SequenceStore(make_store(tmp_path / "store", height, width, crop, codec))
    assert (len(store), store.height, store.width) == (5, height, width)
    stored = (store.path / "frames.bin").read_bytes()
    begin = 0
    for i, sequence in enumerate(store):
        want = make_frames(i, LENGTHS[i], height, width)
        np.testing.assert_array_equal(sequence.frames, want)
        row = sequence.row
        assert (row.subject, row.condition, row.view, row.sequence) == (NAMES[i], "nm", "", f"{i:02}")
        assert (row.frames, row.split, row.role, row.crop) == (LENGTHS[i], *SPLITS[i], crop)
        assert row.crc32 == zlib.crc32(stored[begin : begin + row.bytes])
        begin += row.bytes
    assert begin == len(stored)
    store.verify()


def test_files_can_be_read_without_this_package(store: Path) -> None:
    header = json.loads((store / "store.json").read_text("utf-8"))
    assert (header["sequences"], header["frames"], header["codec"]) == (5, sum(LENGTHS), "lz4-columns")
    with open(store / "manifest.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    data, begin = (store / "frames.bin").read_bytes(), 0
    for i, row in enumerate(rows):
        count, sequence = int(row["frames"]), data[begin : begin + int(row["bytes"])]
        places = np.frombuffer(sequence, "<u4", count + 1)
        frames = [
            np.frombuffer(lz4.block.decompress(sequence[first:end], uncompressed_size=4096), np.uint8).reshape(64, 64).T
            for first, end in pairwise(places)
        ]
        np.testing.assert_array_equal(np.stack(frames), make_frames(i, LENGTHS[i]))
        begin += len(sequence)
    assert begin == len(data)


def test_raw_files_can_be_read_without_this_package(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", codec="raw")
    header = json.loads((store / "store.json").read_text("utf-8"))
    assert (header["sequences"], header["frames"], header["codec"]) == (5, sum(LENGTHS), "raw")
    manifest = (store / "manifest.csv").read_bytes()
    assert header["manifest_sha256"] == hashlib.sha256(manifest).hexdigest()
    with open(store / "manifest.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["subject"] for row in rows] == NAMES
    frames = np.fromfile(store / "frames.bin", np.uint8).reshape(-1, 64, 64)
    for i, row in enumerate(rows):
        first = int(row["first"])
        np.testing.assert_array_equal(frames[first : first + int(row["frames"])], make_frames(i, LENGTHS[i]))
    assert sorted(path.name for path in store.parent.iterdir()) == ["store"]
    assert sorted(path.name for path in store.iterdir()) == ["frames.bin", "manifest.csv", "store.json"]


def test_a_store_from_before_the_codecs_is_read(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", codec="raw")
    with open(store / "manifest.csv", encoding="utf-8", newline="") as file:
        lines = [line[:-1] for line in csv.reader(file)]
    with open(store / "manifest.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)
    assert lines[0][-1] == "crc32"
    edit_header(manifest_sha256=hashlib.sha256((store / "manifest.csv").read_bytes()).hexdigest())(store)
    opened = SequenceStore(store)
    for i, sequence in enumerate(opened):
        np.testing.assert_array_equal(sequence.frames, make_frames(i, LENGTHS[i]))
    edit_header(width=44)(store)
    with pytest.raises(UserError, match=r"frames\.bin is too long"):
        SequenceStore(store)


def draw_frames(kind: str, count: int, height: int, width: int) -> np.ndarray:
    noise = make_frames(7, count, height, width)
    return {
        "black": np.zeros_like(noise),
        "white": np.full_like(noise, 255),
        "noise": noise,
        "one pixel": np.where(np.arange(noise.size).reshape(noise.shape) == noise.size // 2, noise | 1, 0),
        "edges": np.where(noise > 250, noise, 255 * (np.arange(width) < width // 2)).astype(np.uint8),
    }[kind].astype(np.uint8)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("kind", ["black", "white", "noise", "one pixel", "edges"])
@pytest.mark.parametrize(
    ("count", "height", "width"), [(1, 1, 1), (3, 5, 3), (40, 64, 44), (2, 128, 128), (1, 700, 300)]
)
def test_codecs_lose_nothing(codec: str, kind: str, count: int, height: int, width: int) -> None:
    frames = draw_frames(kind, count, height, width)
    chosen = CODECS[codec](height, width)
    data = np.frombuffer(chosen.encode(frames), np.uint8)
    np.testing.assert_array_equal(chosen.decode_all(data, count), frames)
    for index in (np.array([count - 1, 0, 0]), np.array([-1]), np.arange(count)[::-1], np.zeros(0, np.int64)):
        decoded = chosen.decode(data, count, index)
        np.testing.assert_array_equal(decoded, frames[index])
        assert (decoded.dtype, decoded.flags.writeable, decoded.flags.c_contiguous) == (np.uint8, True, True)
    for beyond in (count, -count - 1):
        with pytest.raises(IndexError):
            chosen.decode(data, count, np.array([beyond]))


def test_walkers_take_an_eighth(tmp_path: Path) -> None:
    walks = np.concatenate(
        [render_sequence(seed, 0, 1, preset, 20) for seed in range(3) for preset in ("lite", "wild")]
    )
    assert np.count_nonzero((walks > 0) & (walks < 255)) > 100 * len(walks)  # their edges are grey
    with StoreWriter(tmp_path / "store", source="a test") as writer:
        add_one(writer, walks)
    assert 8 * sum(file.stat().st_size for file in (tmp_path / "store").iterdir()) <= walks.nbytes


@pytest.mark.parametrize("codec", CODECS)
def test_a_clip_takes_no_more_memory_than_its_frames(tmp_path: Path, codec: str) -> None:
    frames = np.resize(draw_frames("edges", 50, 64, 64), (3000, 64, 64))  # 12 MB
    with StoreWriter(tmp_path / "store", source="a test", codec=codec) as writer:
        add_one(writer, frames)
    opened = SequenceStore(tmp_path / "store")
    index = np.arange(0, 3000, 100)
    tracemalloc.start()
    try:
        for _ in range(20):
            clip = opened.clip(0, index)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(clip, frames[index])
    assert peak < 8 * clip.nbytes


def test_an_unknown_codec_to_write_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="codec is 'zip' but must be one of 'raw', 'lz4-columns'"):
        make_store(tmp_path / "store", codec="zip")
    assert list(tmp_path.iterdir()) == []


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    one, two = make_store(tmp_path / "one"), make_store(tmp_path / "two")
    for file in one.iterdir():
        assert file.read_bytes() == (two / file.name).read_bytes()


@pytest.mark.parametrize("codec", CODECS)
def test_clip(tmp_path: Path, codec: str) -> None:
    opened = SequenceStore(make_store(tmp_path / "store", codec=codec))
    index = np.array([29, 0, 0, 7])
    clip = opened.clip(3, index)
    np.testing.assert_array_equal(clip, make_frames(3, 30)[[29, 0, 0, 7]])
    clip[:] = 0  # a copy
    np.testing.assert_array_equal(opened[3].frames, make_frames(3, 30))
    with pytest.raises(IndexError):
        opened.clip(3, np.array([30]))  # the next sequence's first frame is none of this one's


@pytest.mark.parametrize("codec", CODECS)
def test_frames_are_read_only(tmp_path: Path, codec: str) -> None:
    opened = SequenceStore(make_store(tmp_path / "store", codec=codec))
    with pytest.raises(ValueError, match="read-only"):
        opened[0].frames[0, 0, 0] = 1


def test_indexing_beyond_the_ends(store: Path) -> None:
    opened = SequenceStore(store)
    np.testing.assert_array_equal(opened[-1].frames, make_frames(4, 2))
    for i in (5, -6):
        with pytest.raises(IndexError):
            opened[i]


def test_select(store: Path) -> None:
    opened = SequenceStore(store)
    assert opened.select().tolist() == [0, 1, 2, 3, 4]
    assert opened.select("train").tolist() == [0, 1]
    assert opened.select("test", "gallery").tolist() == [3, 4]
    assert opened.select(role="probe").tolist() == [2]
    assert opened.select("train", "probe").dtype == np.int64
    with pytest.raises(UserError, match="'train'"):
        opened.select("trian")


def read_sum(opened: SequenceStore, i: int) -> int:
    return int(opened[i].frames.sum(dtype=np.int64))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_read_it(store: Path, method: str) -> None:
    opened = SequenceStore(store)
    opened.clip(0, np.array([0]))  # the mapping is in use before the fork
    with multiprocessing.get_context(method).Pool(2) as pool:
        sums = pool.starmap(read_sum, [(opened, i) for i in range(5)])
    assert sums == [int(make_frames(i, LENGTHS[i]).sum(dtype=np.int64)) for i in range(5)]


def test_pickle_is_small_and_notices_another_store(store: Path) -> None:
    data = pickle.dumps(SequenceStore(store))
    assert len(data) < 1000
    assert pickle.loads(data).rows == SequenceStore(store).rows
    for file in store.iterdir():
        file.unlink()
    store.rmdir()
    with StoreWriter(store, source="another") as writer:
        writer.add(make_frames(0, 3), subject="x", condition="", view="", sequence="0", split="train")
    with pytest.raises(UserError, match="replaced"):
        pickle.loads(data)


def test_assign(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "store", source="a test") as writer:
        for name in "abc":
            writer.add(make_frames(0, 2), subject=name, condition="", view="", sequence="0", split="train")
        writer.assign([("test", "probe"), ("test", "gallery"), ("train", "")])
    opened = SequenceStore(tmp_path / "store")
    assert [(row.split, row.role) for row in opened.rows] == [("test", "probe"), ("test", "gallery"), ("train", "")]


# Damaged stores


def edit_header(**values: object) -> Callable[[Path], None]:
    def damage(store: Path) -> None:
        header = json.loads((store / "store.json").read_text("utf-8"))
        header.update(values)
        header = {key: value for key, value in header.items() if value is not None}
        (store / "store.json").write_text(json.dumps(header), "utf-8")

    return damage


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
    "a sequence without frames": (edit_manifest("00,5,", "00,0,"), "line 2 .*no frames"),
    "no subject": (edit_manifest("p1,", ","), "line 2 .*names"),
    "an unknown split": (edit_manifest("train", "val"), "line 2 .*'val'"),
    "an unknown role": (edit_manifest("probe", "query"), "line 4 .*'query'"),
    "overlapping sequences": (edit_manifest("full,5,", "full,4,"), "line 3 .*begin at frame 5"),
    "a name twice": (edit_manifest("p2,nm,,02", "p2,nm,,01"), "line 4 .*same name"),
    "an open quote": (edit_manifest("p1", '"p1'), "manifest.csv .*CSV"),
    "no sequences": (no_rows, "manifest.csv .*0 sequences"),
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


@pytest.mark.parametrize("codec", CODECS)
def test_another_frame_size_is_refused(tmp_path: Path, codec: str) -> None:
    store = make_store(tmp_path / "store", codec=codec)
    edit_header(width=44)(store)
    with pytest.raises(UserError, match=r"frames\.bin is damaged: sequence 'p1/nm/00' cannot be decoded"):
        SequenceStore(store)[0]


# The writer


def add_one(writer: StoreWriter, frames: np.ndarray, **names: str) -> None:
    words = {"subject": "a", "condition": "", "view": "", "sequence": "0", "split": "train", "role": "", **names}
    writer.add(frames, **words)


def write(path: Path, *steps: Callable[[StoreWriter], object]) -> None:
    with StoreWriter(path, source="a test") as writer:
        for step in steps:
            step(writer)


def good(writer: StoreWriter) -> None:
    add_one(writer, make_frames(0, 3), subject="taken")


def add_one_more(writer: StoreWriter) -> None:
    add_one(writer, make_frames(1, 3), subject="another")


needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")


BAD_SEQUENCES: dict[str, tuple[np.ndarray, dict[str, str], str]] = {
    "no frames": (np.zeros((0, 64, 64), np.uint8), {}, "no frames"),
    "wrong width": (np.zeros((2, 64, 44), np.uint8), {}, r"\(2, 64, 44\)"),
    "wrong height": (np.zeros((2, 63, 64), np.uint8), {}, r"\(2, 63, 64\)"),
    "a single frame": (np.zeros((64, 64), np.uint8), {}, r"\(64, 64\)"),
    "floats": (np.zeros((2, 64, 64), np.float32), {}, "float32"),
    "unknown split": (np.zeros((2, 64, 64), np.uint8), {"split": "val"}, "'val'"),
    "unknown role": (np.zeros((2, 64, 64), np.uint8), {"role": "query"}, "'query'"),
    "no subject": (np.zeros((2, 64, 64), np.uint8), {"subject": ""}, "must have names"),
    "a line break in a name": (np.zeros((2, 64, 64), np.uint8), {"view": "a\nb"}, "control characters"),
    "a name that is not Unicode": (np.zeros((2, 64, 64), np.uint8), {"view": "\udc80"}, "control characters"),
    "a name twice": (np.zeros((2, 64, 64), np.uint8), {"subject": "taken"}, "there already"),
}


@pytest.mark.parametrize("name", BAD_SEQUENCES)
def test_bad_sequence_is_refused_and_nothing_stays(tmp_path: Path, name: str) -> None:
    frames, names, sentence = BAD_SEQUENCES[name]
    with pytest.raises(UserError, match=sentence):
        write(tmp_path / "store", good, lambda writer: add_one(writer, frames, **names))
    assert list(tmp_path.iterdir()) == []


def test_non_contiguous_frames_are_stored_right(tmp_path: Path) -> None:
    frames = make_frames(0, 6, 64, 128)[::2, :, ::-2]
    with StoreWriter(tmp_path / "store", source="a test") as writer:
        add_one(writer, frames)
    np.testing.assert_array_equal(SequenceStore(tmp_path / "store")[0].frames, frames)


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_existing_target_is_refused(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "store"
    if kind == "folder":
        target.mkdir()
    elif kind == "file":
        target.write_text("x")
    else:
        target.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="exists already: choose another --out or remove it"):
        StoreWriter(target, source="a test")


def test_target_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "store"
    with pytest.raises(UserError, match="exists already"):
        write(target, good, lambda writer: target.mkdir())
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert list(target.iterdir()) == []


def test_unwritable_parent(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"cannot write the store .*file/store"):
        write(tmp_path / "file" / "store", good)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_no_sequence_no_store(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no sequence"):
        write(tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


def test_error_in_the_block_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    with pytest.raises(KeyError):
        write(tmp_path / "deep" / "store", good, lambda writer: {}["missing"])
    assert list((tmp_path / "deep").iterdir()) == []


def test_folders_made_for_a_store_that_is_not_written_go_with_it(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(KeyError):
        write(tmp_path / "there" / "x" / "y" / "store", good, lambda writer: {}["missing"])
    with pytest.raises(UserError, match="too long"):
        write(tmp_path / "there" / "x" / "y" / ("n" * 250), good)  # the folder would do, its hidden sibling does not
    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]
    with pytest.raises(KeyError):  # what others put into them meanwhile stays
        write(
            tmp_path / "x" / "y" / "store",
            lambda writer: (tmp_path / "x" / "note").touch(),
            lambda writer: {}["missing"],
        )
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "there", tmp_path / "x", tmp_path / "x" / "note"]
    make_store(tmp_path / "there" / "x" / "y" / "store")
    assert SequenceStore(tmp_path / "there" / "x" / "y" / "store").header.sequences == 5


@pytest.mark.parametrize(
    "names",
    [("thesis.tex",), ("writer.lock", "thesis.tex"), ("frames.bin",), ("writer.lock", "pictures/cat.png")],
    ids=" ".join,
)
def test_a_folder_of_others_at_the_hidden_place_is_left_alone(tmp_path: Path, names: tuple[str, ...]) -> None:
    partial = tmp_path / ".store.partial"
    for name in names:
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        (partial / name).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="no store in the making"):
        make_store(tmp_path / "store")
    assert sorted(tmp_path.rglob("*")) == before
    assert {(partial / name).read_text() for name in names} == {"mine"}


@pytest.mark.parametrize("name", ["", "frames.bin", "writer.lock"])
def test_links_at_the_hidden_place_are_not_followed(tmp_path: Path, name: str) -> None:
    partial, outside = tmp_path / ".store.partial", tmp_path / "outside"
    outside.mkdir()
    (outside / "writer.lock").touch()
    (outside / "frames.bin").write_text("mine")
    if name:
        partial.mkdir()
        (partial / "writer.lock").touch()
        (partial / name).unlink(missing_ok=True)
    (partial / name).symlink_to(outside / name)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=r"is a link|no store in the making"):
        make_store(tmp_path / "store")
    assert sorted(tmp_path.rglob("*")) == before
    assert (outside / "frames.bin").read_text() == "mine"


@needs_dev_full
def test_full_disk(tmp_path: Path) -> None:
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(UserError, match="the disk is full"):
        write(tmp_path / "store", good, lambda writer: setattr(writer, "_file", full), add_one_more)
    assert list(tmp_path.iterdir()) == []


@needs_dev_full
def test_full_disk_at_the_very_end(tmp_path: Path) -> None:
    manifest = tmp_path / ".store.partial" / "manifest.csv"
    with pytest.raises(UserError, match="the disk is full"):
        write(tmp_path / "store", good, lambda writer: manifest.symlink_to("/dev/full"))
    assert list(tmp_path.iterdir()) == []


def test_failed_add_cannot_be_passed_over(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="incomplete"):
        write(tmp_path / "store", good, lambda writer: writer._file and writer._file.write(b"half a frame"))
    assert list(tmp_path.iterdir()) == []


WRITE_AND_WAIT = """
import sys, numpy as np
from gaitdiff.data.store import StoreWriter
with StoreWriter(sys.argv[1], source="another process") as writer:
    frames = np.full((500, 64, 64), 200, np.uint8)
    writer.add(frames, subject="x", condition="", view="", sequence="0", split="train")
    print("writing", flush=True)
    sys.stdin.read()
print("done", flush=True)
"""


@pytest.fixture
def other_writer(tmp_path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITE_AND_WAIT, str(tmp_path / "store")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def test_two_writers(tmp_path: Path, other_writer: subprocess.Popen[str]) -> None:
    with pytest.raises(UserError, match="another process is writing"):
        write(tmp_path / "store", good)
    assert not (tmp_path / "store").exists()
    out, _ = other_writer.communicate("")
    assert out == "done\n"  # the refused writer did the first one no harm
    opened = SequenceStore(tmp_path / "store")
    opened.verify()
    assert opened.header.source == "another process"
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_kill_leaves_nothing_and_blocks_nobody(tmp_path: Path, other_writer: subprocess.Popen[str]) -> None:
    other_writer.send_signal(signal.SIGKILL)
    other_writer.communicate()
    assert [path.name for path in tmp_path.iterdir()] == [".store.partial"]
    opened = SequenceStore(make_store(tmp_path / "store"))
    opened.verify()
    assert len(opened) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
