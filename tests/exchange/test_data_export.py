"""``gaitdiff data export``: OpenGait's layout, which a plain ``pickle.load`` and a few lines of code read."""

from __future__ import annotations

import json
import os
import pickle
import pickletools
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from gaitdiff.cli import main
from gaitdiff.data.importers import import_data
from gaitdiff.data.split import split_store
from gaitdiff.data.store import SequenceStore, StoreWriter
from gaitdiff.errors import UserError
from gaitdiff.exchange.opengait_data import export_store, pickled, places_of
from worlds import gaitdiff, make_store, one_sentence

#: subject, condition, view, sequence, split, role
GAIT3D = [
    ("0001", "camid0_videoid2", "seq0", "seq0", "train", ""),
    ("0001", "camid3_videoid1", "seq0", "seq0", "train", ""),
    ("0002", "camid33_videoid2", "seq0", "seq0", "test", "probe"),
    ("0002", "camid9_videoid2", "seq1", "seq1", "test", "gallery"),
    ("0003", "camid9_videoid2", "seq0", "seq0", "test", "gallery"),
    ("0003", "camid1_videoid2", "seq0", "seq0", "test", "probe"),
]


def frames_of(number: int, width: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (2 + number % 3, 64, width), dtype=np.uint8)


def write(path: Path, rows: list[tuple[str, str, str, str, str, str]], width: int = 64) -> Path:
    columns = ("subject", "condition", "view", "sequence", "split", "role")
    with StoreWriter(path, width=width, crop="full" if width == 64 else "cut", source="test") as writer:
        for number, row in enumerate(rows):
            writer.add(frames_of(number, width), **dict(zip(columns, row, strict=True)))
    return path


def read(folder: Path) -> dict[tuple[str, str, str], np.ndarray]:
    """What a data set in this layout holds: nothing else may lie in it."""
    found = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "partition.json"):
        person, kind, view, name = file.relative_to(folder).parts
        assert name == f"{view}.pkl"
        with open(file, "rb") as opened:
            found[person, kind, view] = pickle.load(opened)
    return found


@pytest.mark.parametrize("width", [64, 44])
def test_layout_pixels_and_partition(tmp_path: Path, width: int, capsys: pytest.CaptureFixture[str]) -> None:
    store, out = write(tmp_path / "store", GAIT3D, width), tmp_path / "Gait3D"
    assert main(["data", "export", str(store), "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    found = read(out)
    assert list(found) == sorted((person, kind, view) for person, kind, view, *_ in GAIT3D)
    for number, (person, kind, view, *_) in enumerate(GAIT3D):
        array = found[person, kind, view]
        assert type(array) is np.ndarray
        assert (array.dtype, array.flags.c_contiguous) == (np.uint8, True)
        np.testing.assert_array_equal(array, frames_of(number, width))
    assert json.loads((out / "partition.json").read_text()) == {
        "TRAIN_SET": ["0001"],
        "TEST_SET": ["0002", "0003"],
        "PROBE_SET": ["0002-camid33_videoid2-seq0", "0003-camid1_videoid2-seq0"],
    }
    assert sorted(os.listdir(tmp_path)) == ["Gait3D", "store"]


def test_one_split(tmp_path: Path) -> None:
    store = write(tmp_path / "store", [*GAIT3D, ("0001", "a", "b", "b", "test", "gallery")])
    train = export_store(store, tmp_path / "train", split="train")
    assert list(read(train)) == [("0001", "camid0_videoid2", "seq0"), ("0001", "camid3_videoid1", "seq0")]
    assert json.loads((train / "partition.json").read_text()) == {"TRAIN_SET": ["0001"], "TEST_SET": []}
    test = export_store(store, tmp_path / "test", split="test")
    assert len(read(test)) == 5
    assert json.loads((test / "partition.json").read_text())["TEST_SET"] == ["0001", "0002", "0003"]
    with pytest.raises(UserError, match="'0001' has sequences in both splits"):
        export_store(store, tmp_path / "both")
    assert sorted(os.listdir(tmp_path)) == ["store", "test", "train"]


def test_people_set_aside_for_validation(tmp_path: Path) -> None:
    """OpenGait's partition has no place for them: they train with the others, and are tested where they are alone."""
    store = split_store(make_store(tmp_path / "store", people=6), tmp_path / "split", 2)
    aside = sorted({row.subject for row in SequenceStore(store).rows if row.split == "val"})
    assert len(aside) == 2
    whole = json.loads((export_store(store, tmp_path / "whole") / "partition.json").read_text())
    assert whole["TRAIN_SET"] == ["p0", "p1", "p2", "p3"]
    assert {name.partition("-")[0] for name in whole["PROBE_SET"]} == set(whole["TEST_SET"])
    options = {"partition": tmp_path / "whole" / "partition.json", "kind": "opengait"}
    import_data(tmp_path / "whole", tmp_path / "back", **options)  # type: ignore[arg-type]
    assert len(SequenceStore(tmp_path / "back")) == 18
    alone = json.loads((export_store(store, tmp_path / "alone", split="val") / "partition.json").read_text())
    assert (alone["TRAIN_SET"], alone["TEST_SET"]) == ([], aside)


def test_names_of_folders(tmp_path: Path) -> None:
    """Empty ones become words, several walks of a view are told apart, and what no file system takes is encoded."""
    rows = [
        ("anna", "", "", "walk 1"), ("anna", "", "", "walk 2"),
        ("Бен", "nm", "090", "a"), ("Бен", "nm", "090", "b"), ("Бен", "nm", "108", "c"),
        ("a/b", "..", ".", "x"), ("100%", "CON", "nul.txt", "x"), ("c:\\d", "bg.", "cl ", "x"),
        ("%2F", "con1", "x", "x"), (" d", "nm", "x", "x"), ("-e", "a--b", "c-", "x"),
    ]  # fmt: skip
    out = tmp_path / "out"
    store = write(tmp_path / "store", [(*row, "train", "") for row in rows])
    found = read(export_store(store, out))
    expected = [
        ("anna", "default", "walk 1"), ("anna", "default", "walk 2"),
        ("Бен", "nm", "090-a"), ("Бен", "nm", "090-b"), ("Бен", "nm", "108"),
        ("a%2Fb", "%2E%2E", "%2E"), ("100%25", "%43ON", "%6Eul.txt"), ("c%3A%5Cd", "bg%2E", "cl%20"),
        ("%252F", "con1", "x"), ("%20d", "nm", "x"), ("%2De", "a-%2Db", "c%2D"),
    ]  # fmt: skip
    assert set(found) == set(expected)
    for number, place in enumerate(expected):
        np.testing.assert_array_equal(found[place], frames_of(number, 64))
    for row, place in list(zip(rows, expected, strict=True))[5:]:
        assert tuple(map(unquote, place)) == row[:3]
    assert json.loads((out / "partition.json").read_text())["TRAIN_SET"] == sorted({place[0] for place in expected})


@pytest.mark.parametrize("width", [64, 44])
def test_there_and_back(tmp_path: Path, width: int) -> None:
    """Imported again: the same frames, splits and roles; also of walks whose names had to change."""
    rows = [
        *GAIT3D,
        ("0010", "-w", "walk--2", "x", "test", "probe"),
        *(("0009", "camid9_videoid2", "seq0", name, "train", "") for name in "ab"),
    ]
    bar = np.zeros((64, width), np.uint8)
    bar[:, width // 2 - 8 : width // 2 + 8] = 255  # as alignment leaves it
    store = tmp_path / "store"
    columns = ("subject", "condition", "view", "sequence", "split", "role")
    with StoreWriter(store, width=width, crop="full" if width == 64 else "cut", source="test") as writer:
        for number, row in enumerate(rows):
            clip = np.repeat(bar[None], 3 + number, axis=0)
            clip[1, number : 2 * number, width // 2 - 2 : width // 2 + 2] = 0
            writer.add(clip, **dict(zip(columns, row, strict=True)))
    out = export_store(store, tmp_path / "out")
    words = ["--as", "opengait", "--partition", str(out / "partition.json"), "--workers", "1"]
    assert main(["data", "import", str(out), *words, "--out", str(tmp_path / "again")]) == 0
    first, again = SequenceStore(store), SequenceStore(tmp_path / "again")
    assert (again.height, again.width, again.header.crop) == (64, width, first.header.crop)
    found = {(row.subject, row.condition, row.view): number for number, row in enumerate(again.rows)}
    assert len(found) == len(again) == len(first)
    for sequence, place in zip(first, places_of(first.rows), strict=True):
        other = again[found[place]]
        np.testing.assert_array_equal(sequence.frames, other.frames)
        assert (sequence.row.split, sequence.row.role) == (other.row.split, other.row.role)


@pytest.mark.parametrize(("names", "sentence"), [
    ([("a", "nm", "0", "x"), ("a", "nm", "0", "y"), ("a", "nm", "0-y", "z")], "both would be a/nm/0-y"),
    ([("a", "nm", "0", "x"), ("a", "nm", "", "0")], ""),
    ([("a", "default", "0", "x"), ("a", "", "0", "y")], ""),
    ([("a", "", "", "0"), ("a", "default", "", "0")], "both would be a/default/0"),
    ([("a", "nm", "\u00e4" * 126, "x")], "too long"),
    ([("a", "nm", "\u00e4" * 125, "x")], ""),
])  # fmt: skip
def test_folders_are_never_shared(tmp_path: Path, names: list[tuple[str, str, str, str]], sentence: str) -> None:
    rows = SequenceStore(write(tmp_path / "store", [(*name, "train", "") for name in names])).rows
    if sentence:
        with pytest.raises(UserError, match=sentence) as caught:
            places_of(rows)
        assert rows[-1].name in str(caught.value)
    else:
        assert len(set(places_of(rows))) == len(rows)


def test_pickles_name_nothing_that_an_old_numpy_lacks() -> None:
    """Protocol 4, whole, and of the modules of NumPy 1 alone; the same array as pickled by NumPy itself."""
    array = frames_of(0, 44)[:, ::-1]
    stream = pickled(array)
    steps = list(pickletools.genops(stream))
    assert (steps[0][0].name, steps[0][1]) == ("PROTO", 4)
    names = {argument for opcode, argument, _ in steps if opcode.name == "GLOBAL"}
    assert names == {"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"}
    assert steps[-1][2] == len(stream) - 1
    np.testing.assert_array_equal(pickle.loads(stream), array)
    large = np.zeros((40, 64, 64), np.uint8)
    np.testing.assert_array_equal(pickle.loads(pickled(large)), large)


def test_a_process_that_knows_only_numpy_reads_it(tmp_path: Path) -> None:
    out = export_store(write(tmp_path / "store", GAIT3D[:1]), tmp_path / "out")
    file = out / "0001/camid0_videoid2/seq0/seq0.pkl"
    program = (
        "import pickle, sys, warnings; warnings.simplefilter('error'); "
        "print(pickle.load(open(sys.argv[1], 'rb')).shape, [m for m in sys.modules if m.startswith('gaitdiff')])"
    )
    command = [sys.executable, "-c", program, str(file)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert shown.strip() == "(2, 64, 64) []"


def test_secret_probes_stay_secret_there_and_back(tmp_path: Path) -> None:
    """GREW's third kind of test sequence is neither probe nor gallery, before and after."""
    rows = [
        ("00001train", "00", "4XPn5Z28", "4XPn5Z28", "train", ""),
        ("00001", "01", "79XJefi8", "79XJefi8", "test", "gallery"),
        ("00001", "02", "t16VLaQf", "t16VLaQf", "test", "probe"),
        ("probe", "03", "etaGVnWf", "etaGVnWf", "test", ""),
    ]
    out = export_store(write(tmp_path / "store", rows), tmp_path / "GREW")
    partition = json.loads((out / "partition.json").read_text())
    assert partition["PROBE_SET"] == ["00001-02-t16VLaQf"]
    assert partition["GALLERY_SET"] == ["00001-01-79XJefi8"]
    import_data(out, tmp_path / "again", kind="grew")
    again = SequenceStore(tmp_path / "again")
    assert sorted((*row.key, row.split, row.role) for row in again.rows) == sorted(rows)


def test_nothing_is_overwritten_and_nothing_half_made_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, out = write(tmp_path / "store", GAIT3D), tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("x")
    assert "exists already" in one_sentence(gaitdiff("data", "export", store, "--out", out))
    assert os.listdir(out) == ["mine"]
    assert "there is no store" in one_sentence(gaitdiff("data", "export", tmp_path / "no", "--out", tmp_path / "new"))
    with pytest.raises(UserError, match=r"mine.* cannot be written"):
        export_store(store, out / "mine" / "new")
    with pytest.raises(UserError, match="no sequences of the split 'train'"):
        export_store(write(tmp_path / "tested", GAIT3D[2:]), tmp_path / "new", split="train")
    real = SequenceStore.__getitem__

    def damaged(self: SequenceStore, i: int) -> object:
        if i == 4:
            raise UserError("the fifth is damaged")
        return real(self, i)

    monkeypatch.setattr(SequenceStore, "__getitem__", damaged)
    with pytest.raises(UserError, match="the fifth is damaged"):
        export_store(store, tmp_path / "new")
    assert sorted(os.listdir(tmp_path)) == ["out", "store", "tested"]


def test_two_sequences_of_other_roles_have_no_name_in_common(tmp_path: Path) -> None:
    """A partition file knows them by one name with hyphens, so that they would change their roles on the way back."""
    rows = [("a", "b-c", "d", "0", "test", "probe"), ("a-b", "c", "d", "0", "test", "gallery")]
    with pytest.raises(UserError, match="'a-b-c-d'"):
        export_store(write(tmp_path / "store", rows), tmp_path / "out")
    assert os.listdir(tmp_path) == ["store"]


@pytest.mark.parametrize("out", ["store/x", "store/x/y", "link/x", "store/../store/x"])
def test_a_store_takes_no_export_inside(
    tmp_path: Path, out: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "store", GAIT3D)
    (tmp_path / "link").symlink_to("store")
    before = sorted(tmp_path.rglob("*"))
    assert main(["data", "export", "store", "--out", out]) == 2
    assert "lies inside the store" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
    assert main(["data", "export", "link", "--out", "store-x"]) == 0  # beside it, under a name that begins alike
