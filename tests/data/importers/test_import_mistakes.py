"""What an import refuses: one sentence that names what is wrong and what to do, exit code 2, nothing half-made."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gaitdiff.cli import main
from gaitdiff.data.align import align_sequence
from masks import Tree, encode, make_folder, person, png, tar_bytes, walk, zip_bytes

OK = walk("a/w")


def bomb() -> bytes:
    return png(60_000, 60_000, 8, 0, b"\0" * 100_000)


def spoil(data: bytes) -> bytes:
    """Damage the entries of a zip archive and leave its directory whole."""
    middle = data.index(b"PNG") + 40
    return data[:middle] + bytes(byte ^ 0x5A for byte in data[middle : middle + 40]) + data[middle + 40 :]


def encrypted_zip() -> bytes:
    data = bytearray(zip_bytes({"a/0.png": encode(person(0))}))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


FULL_AND_CUT = walk("a/w") | {"b/w/0.png": encode(np.full((64, 44), 255, np.uint8))}

pickled: Callable[[object], bytes] = pickle.dumps
CLIP = align_sequence(person(i) for i in range(4))
PICKLE_CUT = {"1/2/3/3.pkl": pickled(CLIP[:, :, 10:54])}
GAIT3D = walk("2D_Silhouettes/0001/camid0_videoid2/seq0")
TWICE = GAIT3D | {f"copy/{name}": data for name, data in GAIT3D.items()}


class Order:
    """A pickle of it runs a command where it is loaded."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch executed",)


#: Partition files that ``{name}`` stands for in the flags below.
PARTITIONS = {
    "others": json.dumps({"TRAIN_SET": ["8"], "TEST_SET": ["9"]}),
    "torn": '{"TRAIN_SET": ["0001"',
    "untested": json.dumps({"TRAIN_SET": ["0001"]}),
    "numbers": json.dumps({"TRAIN_SET": [1], "TEST_SET": [2]}),
}

#: what lies at the source (a tree for a folder, bytes for a file), its name, flags, what the sentence says
REFUSED: dict[str, tuple[Tree | bytes | None, str, list[str], str]] = {
    "missing": (None, "source", [], "nothing to import at"),
    "missing zip": (None, "source.zip", [], "nothing to import at"),
    "a text file": (b"text", "source.txt", [], "neither a folder nor a .zip"),
    "a video": (b"video", "source.mp4", [], "of a video a folder of masks"),
    "an empty folder": ({}, "source", [], "neither images"),
    "no images": ({"a/w/0.txt": b"x"}, "source", [], "neither images"),
    "only strays": ({"a/.0.png": encode(person(0))}, "source", [], "no images"),
    "only unreadable images": ({"a/0.png": b"x"}, "source", [], "no usable mask .*unreadable images: a/0.png"),
    "only empty masks": ({"a/0.png": encode(np.zeros((9, 9), np.uint8))}, "source", [], "almost no foreground"),
    "an image bomb": ({"a/0.png": bomb()}, "source", [], "declares 60000 x 60000 pixels"),
    "an image bomb in a zip": (zip_bytes({"a/0.png": bomb()}), "s.zip", [], "declares 60000 x 60000 pixels"),
    "a mixture of crops": (FULL_AND_CUT, "source", [], "mixes frames already cut to 44 columns"),
    "an empty zip file": (b"", "s.zip", [], "cannot be read as a zip"),
    "a zip that is none": (b"PK\x03\x04 no zip", "s.zip", [], "cannot be read as a zip"),
    "a truncated zip": (zip_bytes(OK)[:-30], "s.zip", [], "cannot be read as a zip"),
    "a zip with damaged entries": (spoil(zip_bytes({"a/0.png": encode(person(0))})), "s.zip", [], "unreadable"),
    "a zip of nothing": (zip_bytes({}), "s.zip", [], "neither images"),
    "a zip of no images": (zip_bytes({"a/readme.md": b"x"}), "s.zip", [], "neither images"),
    "an encrypted zip": (encrypted_zip(), "s.zip", [], "encrypted"),
    "a zip that climbs": (zip_bytes({"../a/0.png": encode(person(0))}), "s.zip", [], "leads out of it"),
    "a zip that climbs inside": (zip_bytes({"a/../../0.png": b"x"}), "s.zip", [], "leads out of it"),
    "a zip that climbs the other way": (zip_bytes({"..\\a\\0.png": b"x"}), "s.zip", [], "leads out of it"),
    "a zip with absolute names": (zip_bytes({"/etc/0.png": b"x"}), "s.zip", [], "leads out of it"),
    "a zip with a drive": (zip_bytes({"C:\\x\\0.png": b"x"}), "s.zip", [], "leads out of it"),
    "namesakes": (walk("x/a/w") | walk("y/a/w"), "source", ["--layout", "subject/sequence"], "would both become"),
    "too shallow": (OK, "source", ["--layout", "subject/view/sequence"], "3 levels, but a/w lies 2 deep"),
    "an unknown level": (OK, "source", ["--layout", "subjekt/sequence"], "did you mean 'subject'"),
    "no subject": (OK, "source", ["--layout", "view/sequence"], "must name the subject"),
    "a level twice": (OK, "source", ["--layout", "subject/subject"], "nothing twice"),
    "an unknown split": (OK, "source", ["--split", "tests"], "did you mean 'test'"),
    "a fraction of 1": (OK, "source", ["--test-fraction", "1.0"], "less than 1"),
    "a negative fraction": (OK, "source", ["--test-fraction", "-0.1"], "at least 0"),
    "a negative seed": (OK, "source", ["--seed", "-1"], "negative"),
    "an odd size": (OK, "source", ["--size", "63"], "can be 64 or 128"),
    "no workers": (OK, "source", ["--workers", "0"], "at least 1"),
    # pickles
    "no pickle": ({"1/2/3/3.pkl": b"x"}, "source", [], "unreadable pickles: 1/2/3/3.pkl"),
    "an empty pickle": ({"1/2/3/3.pkl": b""}, "source", [], "unreadable pickles: 1/2/3/3.pkl"),
    "a torn pickle": ({"1/2/3/3.pkl": pickled(CLIP)[:-200]}, "source", [], "unreadable pickles: 1/2/3/3.pkl"),
    "a pickle with orders": ({"1/2/3/3.pkl": pickled(Order())}, "source", [], "asks for .*system"),
    "colour pictures": (
        {"1/2/3/3.pkl": pickled(np.zeros((3, 64, 64, 3), np.uint8))},
        "source",
        [],
        "unreadable pickles",
    ),
    "ratios": ({"1/2/3/3.pkl": pickled(np.ones(5))}, "source", [], "unreadable pickles: 1/2/3/3.pkl"),
    "not a number": ({"1/2/3/3.pkl": pickled(CLIP * np.float32("nan"))}, "source", [], "unreadable pickles"),
    "cut frames of the other size": (PICKLE_CUT, "source", ["--size", "128"], "use --size 64"),
    "only photographs in pickles": ({"1/2/3/000-rgbs.pkl": pickled(CLIP)}, "source", [], "no pickles of silhouettes"),
    # data sets
    "an unknown importer": (OK, "source", ["--as", "gait3"], "did you mean 'gait3d'"),
    "another data set": (OK, "source", ["--as", "casia-b"], "CASIA-B"),
    "another data set, packed": (zip_bytes(OK), "s.zip", ["--as", "oumvlp"], "OU-MVLP"),
    "Gait3D undivided": (GAIT3D, "source", [], "--partition"),
    "Gait3D undivided, said": (GAIT3D, "source", ["--as", "gait3d"], "--partition"),
    "a layout for a known set": (GAIT3D, "source", ["--as", "gait3d", "--layout", "subject/view"], "knows its own"),
    "the same walk twice": (TWICE, "source", ["--as", "gait3d", "--split", "train"], "2D_Silhouettes"),
    "archives in a folder": ({"GaitDatasetB-silh/001.tar.gz": b"x"}, "source", [], "unpack"),
    # partitions
    "no partition there": (GAIT3D, "source", ["--partition", "{none}"], "none.json"),
    "a partition for nobody": (GAIT3D, "source", ["--partition", "{others}"], "names nobody of"),
    "a partition that is no JSON": (GAIT3D, "source", ["--partition", "{torn}"], "is not JSON"),
    "a partition without tests": (GAIT3D, "source", ["--partition", "{untested}"], "has no list TEST_SET"),
    "a partition of numbers": (GAIT3D, "source", ["--partition", "{numbers}"], "without quotes"),
    "a share of halves": (OK, "source", ["--split", "halves", "--test-fraction", "0.5"], "goes with --split auto"),
    "two divisions": (GAIT3D, "source", ["--partition", "{others}", "--split", "auto"], "give one of them"),
    # archives
    "a compressed tar": (gzip.compress(tar_bytes(OK)), "s.tar.gz", [], "unpack it"),
    "a torn tar": (tar_bytes(OK)[:700], "s.tar", [], "cannot be read as a tar"),
    "a tar that climbs": (tar_bytes({"../a/0.png": b"x"}), "s.tar", [], "leads out of it"),
    "an empty tar file": (b"", "s.tar", [], "cannot be read as a tar"),
    "a tar of no images": (tar_bytes({"a/readme.md": b"x"}), "s.tar", [], "neither images"),
    # arguments
    "words for a number": (OK, "source", ["--size", "big"], "--size"),
    "an unknown flag": (OK, "source", ["--spilt", "train"], "--spilt"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content, file_name, flags, sentence = REFUSED[name]
    source = tmp_path / "in" / file_name
    source.parent.mkdir()
    if isinstance(content, bytes):
        source.write_bytes(content)
    elif content is not None:
        source.mkdir()
        make_folder(source, content)
    for partition, text in PARTITIONS.items():
        (tmp_path / f"{partition}.json").write_text(text)
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    flags = [re.sub(r"\{(\w+)\}", lambda found: str(tmp_path / f"{found[1]}.json"), flag) for flag in flags]
    assert main(["data", "import", str(source), "--out", str(tmp_path / "out" / "store"), *flags]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("gaitdiff")]
    assert len(said) == 1
    assert re.search(sentence, said[0]), said[0]
    assert list((tmp_path / "out").iterdir()) == []
    assert [path.name for path in source.parent.iterdir()] == ([] if content is None else [file_name])


@pytest.mark.parametrize("where", ["store", "file/store", ""])
def test_a_place_that_cannot_be_a_store(tmp_path: Path, where: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_folder(tmp_path / "source", OK)
    (tmp_path / "store").mkdir()
    (tmp_path / "file").write_bytes(b"mine")
    before = sorted(tmp_path.rglob("*"))
    assert main(["data", "import", str(source), "--out", str(tmp_path / where)]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("gaitdiff: ")
    assert sorted(tmp_path.rglob("*")) == before
