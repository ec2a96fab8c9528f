"""One file that is hostile or too large costs that file, and no more memory than the documentation says."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from gaitdiff.data.formats.sources import Source, open_source
from gaitdiff.data.importers import import_data
from gaitdiff.data.importers import load as loading
from gaitdiff.data.importers.load import load
from gaitdiff.datasets.sequences import SourceSequence


def person(height: int = 64, width: int = 64) -> np.ndarray:
    """A mask of a walker, uint8 (height, width)."""
    mask = np.zeros((height, width), np.uint8)
    mask[:, width // 2 - width // 8 : width // 2 + width // 8] = 255
    return mask


def make_pickles(root: Path, strange: bytes, people: int = 4) -> Path:
    """A tree of one walk a person, the second one's file being something else."""
    for number in range(people):
        folder = root / f"{number:03}" / "nm-01" / "090"
        folder.mkdir(parents=True)
        data = strange if number == 1 else pickle.dumps(np.stack([person()] * 3))
        (folder / "090.pkl").write_bytes(data)
    return root


def many_times(frame: np.ndarray, count: int) -> bytes:
    """A pickle of a list that names one array again and again."""
    head = b"\x80\x02](" + pickle.dumps(frame, 2)[2:-1]
    return head + b"q\xff" + b"h\xff" * (count - 1) + b"e."


def deep_axes() -> bytes:
    """A pickle of an array whose axes are tuples within tuples, too deep to be compared."""

    def nested(value: int) -> bytes:
        return b"K" + bytes([value]) + b"\x85" * 200_000

    array = b"cnumpy._core.numeric\n_frombuffer\n(\x96" + (4096).to_bytes(8, "little") + b"\xff" * 4096
    kind = b"cnumpy\ndtype\n\x8c\x02u1\x89\x88\x87RK\x40K\x40\x86\x8c\x01K"
    return b"\x80\x05" + array + kind + nested(1) + nested(2) + b"\x86tR."


HOSTILE = {
    "axes too deep to compare": deep_axes(),
    "tuples within tuples": b"\x80\x04K\x01" + b"\x85" * 200_000 + b".",
    "one frame, very many times": many_times(person(), 66_000),
    "one small frame, very many times": many_times(person(16, 16), 1_000_000),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_costs_one_sequence(tmp_path: Path, name: str) -> None:
    source = make_pickles(tmp_path / "source", HOSTILE[name])
    report = import_data(source, tmp_path / "store", kind="opengait", workers=1)
    assert report.sequences == 3
    assert any("001/nm-01/090" in line for line in report.skipped.lines()), report.skipped.lines()


@pytest.mark.parametrize("error", [RecursionError(), MemoryError(), cv2.error("no"), KeyError("no")])
@pytest.mark.parametrize("where", ["read_silhouettes", "align", "two_values"])
def test_any_error_costs_one_sequence(
    tmp_path: Path, error: Exception, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = getattr(loading, where)
    calls = []

    def fail_once(*args: object, **options: object) -> object:
        calls.append(args)
        if len(calls) == 2:
            raise error
        return original(*args, **options)

    source = make_pickles(tmp_path / "source", pickle.dumps(person(100, 100)[None]))
    with open_source(source) as opened:
        walks = [SourceSequence("p", "", "", name, folder=name, files=(name,)) for name in opened.files]
        monkeypatch.setattr(loading, where, fail_once)
        found = [load(opened, walk, 128) for walk in walks]  # at this size all are aligned
    assert [len(one.frames) > 0 for one in found].count(False) == 1
    lines = [line for one in found for line in one.skipped.lines()]
    assert len(lines) == 1
    assert type(error).__name__ in lines[0]


def test_any_error_costs_one_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(name: str, limit: int = 0) -> bytes:
        if name == "1.png":
            raise MemoryError
        return bytes(cv2.imencode(".png", person())[1].tobytes())

    source = Source(tmp_path, ["0.png", "1.png", "2.png"], [])
    monkeypatch.setattr(source, "read", read)
    found = load(source, SourceSequence("p", "", "", "s", folder="", files=tuple(source.files)), 64)
    assert len(found.frames) == 2
    assert found.skipped.lines() == ["1 unreadable images: 1.png (MemoryError)"]


@pytest.mark.parametrize(("size", "most"), [(64, 65_536), (128, 16_384)])
def test_long_sequences_are_not_read(tmp_path: Path, size: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(tmp_path, [], [])
    monkeypatch.setattr(source, "read", lambda *_: pytest.fail("a frame was read"))
    walk = SourceSequence("p", "", "", "s", folder="long", files=("0.png",) * (most + 1))
    lines = load(source, walk, size).skipped.lines()
    assert lines == [
        f"1 sequences that cannot be read: long (has {most + 1:,} frames, at most {most:,} are taken: "
        "cut it into several)"
    ]


def test_memory_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "0.pkl").write_bytes(many_times(person(16, 16), 60_000))
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from gaitdiff.data.formats.sources import open_source\n"
        "from gaitdiff.data.importers.load import load\n"
        "from gaitdiff.datasets.sequences import SourceSequence\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (400 << 20),) * 2)\n"
        "walk = SourceSequence('p', '', '', 's', folder='f', files=('0.pkl',))\n"
        "print(load(open_source(sys.argv[1]), walk, 128).skipped.lines())\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False)
    assert "has 60,000 frames, at most 16,384" in done.stdout, done.stderr[-2000:]
