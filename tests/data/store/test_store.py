"""The store: what goes in comes out, by any process."""

from __future__ import annotations

import csv
import hashlib
import json
import multiprocessing
import pickle
import subprocess
import sys
import tracemalloc
import zlib
from itertools import pairwise
from pathlib import Path

import lz4.block
import numpy as np
import pytest

from gaitdiff.data.store import SequenceStore, StoreWriter
from gaitdiff.data.store.codec import CODECS
from gaitdiff.errors import UserError
from gaitdiff.walkers import render_sequence
from noise_stores import LENGTHS, NAMES, SPLITS, add_one, edit_header, make_frames, make_store


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


def test_people_and_sequences_are_looked_for(store: Path) -> None:
    opened = SequenceStore(store)
    assert opened.rows[0].subject in opened
    assert "nobody" not in opened
    first = opened[0]
    assert first in [opened[1], first]
    assert first != opened[1]
    picked = opened[np.array([False, True, False, False, True])]
    assert [walk.row for walk in picked] == [opened.rows[1], opened.rows[4]]


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


def test_a_store_is_read_where_unix_locks_are_not(tmp_path: Path) -> None:
    """As on Windows, whose Python has no module fcntl."""
    path = make_store(tmp_path / "store")
    code = "import sys; sys.modules['fcntl'] = None; from gaitdiff.data.store import SequenceStore; "
    code += f"store = SequenceStore({str(path)!r}); store.verify(); print(len(store))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(SequenceStore(path))
