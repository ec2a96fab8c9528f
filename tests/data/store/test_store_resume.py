"""A writer that was killed is gone on from: the finished store has the bytes of one written in one go."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gaitdiff.data.store import SequenceStore, StoreWriter
from gaitdiff.data.store import writer as module
from gaitdiff.errors import UserError

COUNT = 40


def make_frames(i: int) -> np.ndarray:
    """Frames of sequence ``i``; every seventh has none."""
    rng = np.random.default_rng(i)
    return rng.integers(0, 256, (0 if i % 7 == 3 else int(rng.integers(1, 12)), 64, 64), dtype=np.uint8)


def note_of(i: int) -> dict[str, Any]:
    return {"number": i, "file": f"Zoë 😀 {i}\n", "skipped": [["empty", i]]}


def go_on(writer: StoreWriter, end: int = COUNT) -> int:
    """Write what is missing; return how many sequences were there already."""
    there = len(writer.notes)
    assert list(writer.notes) == [note_of(i) for i in range(there)]
    usable = [i for i in range(there) if len(make_frames(i))]
    assert [(row.sequence, row.frames) for row in writer.rows] == [(f"{i}", len(make_frames(i))) for i in usable]
    for i in range(there, end):
        if len(frames := make_frames(i)):
            writer.add(frames, subject="p", condition="", view="", sequence=f"{i}", split="train", note=note_of(i))
        else:
            writer.skip(note_of(i))
        print(i, flush=True)
    return there


def write(path: Path, resume: str | None = "same", **options: Any) -> int:
    with StoreWriter(path, source="a test", resume=resume, **options) as writer:
        return go_on(writer)


def stop(path: Path, end: int, error: BaseException, resume: str | None = "same") -> None:
    with StoreWriter(path, source="a test", resume=resume) as writer:
        go_on(writer, end)
        raise error


def interrupt(path: Path, end: int, resume: str | None = "same") -> None:
    with pytest.raises(KeyboardInterrupt):
        stop(path, end, KeyboardInterrupt(), resume)


def content(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The store written in one go, by a writer that cannot be resumed."""
    path = tmp_path_factory.mktemp("whole") / "store"
    assert write(path, None) == 0
    SequenceStore(path).verify()
    return content(path)


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import gaitdiff.data.store.writer as module
module._SAVE_BYTES = int(sys.argv[3])
import test_store_resume
test_store_resume.write(Path(sys.argv[2]))
"""


@pytest.mark.parametrize("save_bytes", [1, 50_000])
def test_kills_at_any_moment(tmp_path: Path, whole: dict[str, bytes], save_bytes: int) -> None:
    store, rng = tmp_path / "store", random.Random(save_bytes)
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(store), str(save_bytes)]
    written = 0
    for _ in range(4):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(rng.randint(1, 12)):
            last = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        written = max(written, int(rest.split()[-1]) if rest else last)
        assert [path.name for path in tmp_path.iterdir()] == [".store.partial"]
    there = write(store)
    assert there <= written + 2  # the last may be on disk before it is printed
    assert save_bytes > 1 or there >= written
    assert content(store) == whole
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def edit(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda partial: (partial / name).write_bytes(change((partial / name).read_bytes())) and None


def flip(place: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :]


def lines(first: int, last: int | None) -> Callable[[bytes], bytes]:
    return lambda data: b"".join(data.splitlines(keepends=True)[first:last])


# What befalls the partial folder of a store of which 20 sequences were written, and how many of them count after it
ACCIDENTS: dict[str, tuple[Callable[[Path], None], range]] = {
    "none": (lambda partial: None, range(20, 21)),
    "torn last line": (edit("journal.jsonl", lambda data: data[:-7]), range(19, 20)),
    "only the line's end is missing": (edit("journal.jsonl", lambda data: data[:-1]), range(19, 20)),
    "zeros where the last line should be": (edit("journal.jsonl", lambda data: data[:-90] + bytes(90)), range(19, 20)),
    "the last line twice": (edit("journal.jsonl", lambda data: data + lines(-1, None)(data)), range(20, 21)),
    "garbage after the last line": (edit("journal.jsonl", lambda data: data + b"\xff\r{\n\n"), range(20, 21)),
    "a line is missing": (edit("journal.jsonl", lambda data: lines(0, 8)(data) + lines(9, None)(data)), range(7, 8)),
    "a bit of the journal flipped": (edit("journal.jsonl", lambda data: flip(len(data) // 2)(data)), range(5, 15)),
    "a bit of its first line flipped": (edit("journal.jsonl", flip(20)), range(1)),
    "an empty journal": (edit("journal.jsonl", lambda data: b""), range(1)),
    "no journal": (lambda partial: (partial / "journal.jsonl").unlink(), range(1)),
    "no frames": (lambda partial: (partial / "frames.bin").unlink(), range(1)),
    "truncated frames": (edit("frames.bin", lambda data: data[:-1]), range(19, 20)),
    "half of the frames": (edit("frames.bin", lambda data: data[: len(data) // 2]), range(5, 15)),
    "empty frames": (edit("frames.bin", lambda data: b""), range(1)),
    "a bit of the frames flipped": (edit("frames.bin", lambda data: flip(len(data) // 2)(data)), range(5, 15)),
    "a bit of the first frame flipped": (edit("frames.bin", flip(9)), range(1)),
    "frames that no line vouches for": (edit("frames.bin", lambda data: data + bytes(5000)), range(20, 21)),
    "killed before the renaming": (lambda partial: (partial / "store.json").write_text("{") and None, range(20, 21)),
}


@pytest.mark.parametrize("name", ACCIDENTS)
def test_what_is_torn_or_damaged_is_written_again(tmp_path: Path, whole: dict[str, bytes], name: str) -> None:
    accident, left = ACCIDENTS[name]
    interrupt(tmp_path / "store", 20)
    accident(tmp_path / ".store.partial")
    interrupt(tmp_path / "store", 0)  # coming and going changes nothing
    assert write(tmp_path / "store") in left
    assert content(tmp_path / "store") == whole


def test_interrupted_many_times(tmp_path: Path, whole: dict[str, bytes]) -> None:
    for end in (0, 1, 4, 4, 11, 30, COUNT):
        interrupt(tmp_path / "store", end)
        assert [path.name for path in tmp_path.iterdir()] == [".store.partial"] * (end > 0)
    assert write(tmp_path / "store") == COUNT
    assert content(tmp_path / "store") == whole


@pytest.mark.parametrize(
    "options", [{"resume": "other"}, {"resume": None}, {"width": 44, "crop": "cut"}, {"crop": "cut"}]
)
def test_another_store_is_begun_anew(tmp_path: Path, options: dict[str, Any]) -> None:
    interrupt(tmp_path / "store", 20)
    with StoreWriter(tmp_path / "store", source="a test", **{"resume": "same", **options}) as writer:
        assert (writer.notes, writer.rows) == ((), ())
        frames = np.full((2, 64, writer.width), 255, np.uint8)
        writer.add(frames, subject="p", condition="", view="", sequence="0", split="train")
    assert len(SequenceStore(tmp_path / "store")) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("error", [UserError("no"), KeyError("no"), MemoryError(), SystemExit(1)])
def test_any_error_keeps_what_is_whole(
    tmp_path: Path, whole: dict[str, bytes], error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(type(error)) as caught:
        stop(tmp_path / "store", 5, error)
    said = f"{caught.value} {capsys.readouterr().err}"
    assert ("kept (5 sequences): the same command continues" in said) == (not isinstance(error, SystemExit))
    assert write(tmp_path / "store") == 5
    assert content(tmp_path / "store") == whole


def test_a_full_disk_keeps_what_was_saved(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(writer: StoreWriter) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill() -> None:
        with StoreWriter(tmp_path / "store", source="a test", resume="same") as writer:
            go_on(writer, 7)
            patch.setattr(StoreWriter, "_save", full)
            go_on(writer, 9)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_SAVE_BYTES", 1)
        with pytest.raises(
            UserError, match=r"disk is full.* free some space .*; .* kept \(7 sequences\): the same command continues"
        ):
            fill()
    assert write(tmp_path / "store") == 7
    assert content(tmp_path / "store") == whole


def test_a_failure_on_entering_keeps_what_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(tmp_path / "store", 20)
    with monkeypatch.context() as patch:
        patch.setattr(os, "truncate", lambda *_: {}["missing"])
        with pytest.raises(KeyError):
            write(tmp_path / "store")
    assert write(tmp_path / "store") == 20


@pytest.mark.parametrize("error", [UserError("no"), KeyboardInterrupt()])
def test_an_empty_journal_is_dropped(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        stop(tmp_path / "deep" / "store", 0, error)
    assert "kept" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_without_a_fingerprint_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    interrupt(tmp_path / "store", 5, resume=None)
    assert list(tmp_path.iterdir()) == []


def test_interrupted_while_taking_over(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(tmp_path / "store", 20)
    with monkeypatch.context() as patch:
        patch.setattr(os, "truncate", lambda *_: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "store")
    assert write(tmp_path / "store") == 20
    assert content(tmp_path / "store") == whole


def test_two_writers_exclude_each_other(tmp_path: Path, whole: dict[str, bytes]) -> None:
    with StoreWriter(tmp_path / "store", source="a test", resume="same") as writer:
        go_on(writer, 10)
        with pytest.raises(UserError, match="another process is writing"):
            write(tmp_path / "store")
        go_on_from_here = go_on(writer)
    assert go_on_from_here == 10
    assert content(tmp_path / "store") == whole


def test_assign_after_going_on(tmp_path: Path) -> None:
    interrupt(tmp_path / "store", 3)
    with StoreWriter(tmp_path / "store", source="a test", resume="same") as writer:
        go_on(writer, 5)
        writer.assign([("test", "probe")] * 2 + [("train", "")] * 2)
    splits = [row.split for row in SequenceStore(tmp_path / "store").rows]
    assert splits == ["test", "test", "train", "train"]


def test_only_inside_the_block(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="with block"):
        StoreWriter(tmp_path / "store", source="a test", resume="same").skip({})


def test_skips_alone_are_dropped_at_the_end(tmp_path: Path) -> None:
    def run() -> None:
        with StoreWriter(tmp_path / "store", source="a test", resume="same") as writer:
            writer.skip(note_of(3))

    with pytest.raises(UserError, match="no sequence was added"):
        run()
    assert list(tmp_path.iterdir()) == []
