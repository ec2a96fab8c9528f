"""The writer of a store: bad input is refused, and nothing half-made is ever taken for a store."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gaitdiff.data.store import SequenceStore, StoreWriter
from gaitdiff.errors import UserError
from noise_stores import add_one, make_frames, make_store


def write(path: Path, *steps: Callable[[StoreWriter], object]) -> None:
    with StoreWriter(path, source="a test") as writer:
        for step in steps:
            step(writer)


def good(writer: StoreWriter) -> None:
    add_one(writer, make_frames(0, 3), subject="taken")


def add_one_more(writer: StoreWriter) -> None:
    add_one(writer, make_frames(1, 3), subject="another")


needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")


BAD_SEQUENCES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no frames": (np.zeros((0, 64, 64), np.uint8), {}, "no frames"),
    "wrong width": (np.zeros((2, 64, 44), np.uint8), {}, r"\(2, 64, 44\)"),
    "wrong height": (np.zeros((2, 63, 64), np.uint8), {}, r"\(2, 63, 64\)"),
    "a single frame": (np.zeros((64, 64), np.uint8), {}, r"\(64, 64\)"),
    "0 and 1": (np.ones((2, 64, 64), np.uint8), {}, "multiply them by 255"),
    "a list": ([[[0]]], {}, "not list"),
    "a number as a name": (np.zeros((2, 64, 64), np.uint8), {"subject": 3}, "names are text, not 3"),
    "floats": (np.zeros((2, 64, 64), np.float32), {}, "float32"),
    "unknown split": (np.zeros((2, 64, 64), np.uint8), {"split": "dev"}, "'dev'"),
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


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EIO])
def test_a_file_system_without_locks_is_said_and_other_errors_leave_nothing_open(
    error: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr("fcntl.flock", flock)
    opened = set(os.listdir("/dev/fd"))
    if error == errno.ENOLCK:
        write(tmp_path / "store", good)
        assert len(SequenceStore(tmp_path / "store").rows) == 1
        assert "without locks" in " ".join(capsys.readouterr().err.split())
    else:
        with pytest.raises(UserError, match="cannot write the store"):
            write(tmp_path / "store", good)
        assert set(os.listdir("/dev/fd")) == opened


def test_kill_leaves_nothing_and_blocks_nobody(tmp_path: Path, other_writer: subprocess.Popen[str]) -> None:
    other_writer.send_signal(signal.SIGKILL)
    other_writer.communicate()
    assert [path.name for path in tmp_path.iterdir()] == [".store.partial"]
    opened = SequenceStore(make_store(tmp_path / "store"))
    opened.verify()
    assert len(opened) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
