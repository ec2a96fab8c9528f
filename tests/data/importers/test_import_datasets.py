"""The data sets on disk: every published layout, whole or packed, with what lies around it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataset_trees import (
    CASIA_B,
    CCPG,
    GAIT3D,
    GREW,
    OUMVLP,
    SUSTECH1K,
    Expected,
    as_rows,
    find,
    images,
    make,
    pack,
    pickles,
    told,
)
from gaitdiff.data.importers.importer import Importer
from gaitdiff.data.importers.partition import divide
from gaitdiff.datasets.card import Partition

LAYOUTS: dict[str, tuple[Importer, Expected]] = {
    "gait3d": (
        GAIT3D,
        {
            "2D_Silhouettes/0000/camid0_videoid2/seq0": ("0000", "camid0_videoid2", "seq0", ""),
            "2D_Silhouettes/0000/camid0_videoid2/seq1": ("0000", "camid0_videoid2", "seq1", ""),
            "2D_Silhouettes/3999/camid39_videoid10/seq10": ("3999", "camid39_videoid10", "seq10", ""),
        },
    ),
    "grew": (
        GREW,
        {
            "train/00001/4XPn5Z28": ("00001train", "00", "4XPn5Z28", "train"),
            "train/00001/0AbCdEfG": ("00001train", "00", "0AbCdEfG", "train"),
            "train/20000/zzzzzzz9": ("20000train", "00", "zzzzzzz9", "train"),
            "test/gallery/00001/b0000000": ("00001", "02", "b0000000", "test"),
            "test/gallery/00001/Z0000000": ("00001", "01", "Z0000000", "test"),  # capitals come first
            "test/gallery/06000/a1111111": ("06000", "01", "a1111111", "test"),
            "test/probe/c2222222": ("probe", "03", "c2222222", "test"),
        },
    ),
    "grew rearranged": (
        GREW,
        {
            "00001train/00/4XPn5Z28": ("00001train", "00", "4XPn5Z28", "train"),
            "00002train/00/4XPn5Z28": ("00002train", "00", "4XPn5Z28", "train"),
            "00001/01/b0000000": ("00001", "01", "b0000000", "test"),
            "00001/02/a0000000": ("00001", "02", "a0000000", "test"),
            "probe/03/c2222222": ("probe", "03", "c2222222", "test"),
        },
    ),
    "casia-b": (
        CASIA_B,
        {
            "001/nm-01/000": ("001", "nm-01", "000", ""),
            "001/nm-06/018": ("001", "nm-06", "018", ""),
            "124/bg-02/180": ("124", "bg-02", "180", ""),
            "099/cl-01/090": ("099", "cl-01", "090", ""),
        },
    ),
    "oumvlp": (
        OUMVLP,
        {
            "Silhouette_000-00/00001": ("00001", "00", "000", ""),
            "Silhouette_015-01/00001": ("00001", "01", "015", ""),
            "Silhouette_270-01/10307": ("10307", "01", "270", ""),
        },
    ),
    "oumvlp rearranged": (
        OUMVLP,
        {
            "00001/00/000": ("00001", "00", "000", ""),
            "00001/01/180": ("00001", "01", "180", ""),
            "10307/01/090": ("10307", "01", "090", ""),
        },
    ),
    "ccpg": (
        CCPG,
        {
            "000/U0_D0_BG/00_01": ("000", "U0_D0_BG", "00_01", ""),
            "100/U0_D0/09_1": ("100", "U0_D0", "09_1", ""),
            "199/U3_D3/03_02": ("199", "U3_D3", "03_02", ""),
        },
    ),
    "sustech1k": (
        SUSTECH1K,
        {
            "0000/00-nm/000": ("0000", "00-nm", "000", ""),
            "0000/01-cr/000-far": ("0000", "01-cr", "000-far", ""),
            "1049/02-ur-bg/315": ("1049", "02-ur-bg", "315", ""),
        },
    ),
}
STRAYS = (".DS_Store", "{0}/.DS_Store", "{0}/Thumbs.db", "{0}/._0.png", "{1}/desktop.ini", "__MACOSX/{0}/._10.png")
OTHERS = ("README.md", "{0}/notes.txt", "{1}/info.csv")


@pytest.mark.parametrize("around", ["", "wrap/", "wrap/silhouettes v2/"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_are_found_however_deep(layout: str, around: str, tmp_path: Path) -> None:
    dataset, expected = LAYOUTS[layout]
    make(tmp_path, images(around + folder for folder in expected))
    walks, skipped = find(dataset, tmp_path)
    assert as_rows(walks, around) == expected
    for walk in walks:
        assert walk.files == tuple(
            f"{walk.folder}/{name}" for name in ("0.png", "10.png", "9.png")
        )  # as the field sorts
    assert skipped.counts == {}
    name, reason = told(tmp_path)
    assert name == dataset.card.name
    example, _, title = reason.partition("such as ")[2].partition(": ")
    assert title == dataset.card.title
    assert any(folder.endswith(example) for folder in expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pickles_are_found_in_an_archive(layout: str, tmp_path: Path) -> None:
    dataset, expected = LAYOUTS[layout]
    path = pack(tmp_path / "download.zip", pickles("release/" + folder for folder in expected))
    walks, skipped = find(dataset, path)
    assert as_rows(walks, "release/") == expected
    assert all(walk.files == tuple(pickles([walk.folder])) for walk in walks)
    assert skipped.counts == {}
    assert told(path)[0] == dataset.card.name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_lies_around_is_counted(layout: str, tmp_path: Path) -> None:
    dataset, expected = LAYOUTS[layout]
    first = next(iter(expected))
    strays = [name.format(first, first.rpartition("/")[0]) for name in STRAYS]
    others = [name.format(first, first.rpartition("/")[0]) for name in OTHERS]
    foreign = [f"{first}/preview/0.png", "elsewhere/0.png", "a/b/c/0.png"]
    make(tmp_path, [*images(expected, ("0.PNG",)), *strays, *others, *foreign], ["empty/also", f"{first}/empty"])
    walks, skipped = find(dataset, tmp_path)
    if layout == "sustech1k":  # a folder below a view is that of a sensor
        assert skipped.counts.pop("folders that hold other data") == 1
        foreign.pop(0)
    assert as_rows(walks) == expected
    assert all(walk.files == (f"{walk.folder}/0.PNG",) for walk in walks)
    assert skipped.counts == {
        "stray files of the operating system": len(strays),
        "files that are neither images nor pickles": len(others),
        "empty folders": 2,
        f"folders that are not named as in {dataset.card.title}": len(foreign),
    }


@pytest.mark.parametrize("change", [str.upper, str.lower, str.title])
@pytest.mark.parametrize("layout", [name for name in LAYOUTS if not name.startswith("grew")])
def test_case_does_not_matter(layout: str, change: object, tmp_path: Path) -> None:
    dataset, expected = LAYOUTS[layout]
    assert callable(change)
    make(tmp_path, images((change(folder) for folder in expected), ("0.Png",)))
    walks, _ = find(dataset, tmp_path)
    assert as_rows(walks) == {change(folder): row for folder, row in expected.items()}
    assert told(tmp_path)[0] == dataset.card.name


def test_case_of_grew_is_that_of_its_sequences(tmp_path: Path) -> None:
    make(tmp_path, images(["Train/00001/4XPn5Z28", "TRAIN/00002/4xpn5z28", "00003Train/00/AAAAAAA1"]))
    assert as_rows(find(GREW, tmp_path)[0]) == {
        "Train/00001/4XPn5Z28": ("00001train", "00", "4XPn5Z28", "train"),
        "TRAIN/00002/4xpn5z28": ("00002train", "00", "4xpn5z28", "train"),
        "00003Train/00/AAAAAAA1": ("00003train", "00", "AAAAAAA1", "train"),
    }


@pytest.mark.parametrize(
    ("dataset", "root", "folder", "subject"),
    [
        (GREW, "train", "00007/4XPn5Z28", "00007train"),
        (GREW, "test", "gallery/00007/4XPn5Z28", "00007"),
        (OUMVLP, "Silhouette_030-01", "00007", "00007"),
        (CASIA_B, "007", "nm-01/000", "007"),
        (GAIT3D, "2D_Silhouettes", "0007/camid1_videoid2/seq3", "0007"),
        (GAIT3D, "3D_things", "0007/camid1_videoid2/seq3", "0007"),
    ],
)
def test_the_source_itself_is_the_outermost_folder(
    dataset: Importer, root: str, folder: str, subject: str, tmp_path: Path
) -> None:
    for path in (make(tmp_path / root, images([folder])), pack(tmp_path / f"{root}.zip", images([folder]))):
        (walk,), _ = find(dataset, path)
        assert walk.subject == subject
        assert walk.folder == folder
        assert told(path)[0] == dataset.card.name


def test_siblings_of_the_silhouettes_are_not_read(tmp_path: Path) -> None:
    inner = "0001/camid0_videoid2/seq0"
    make(tmp_path, images([f"2D_Silhouettes/{inner}", f"2D_Parsings/{inner}", f"3D_SMPLs/{inner}"]))
    make(tmp_path, [f"2D_Poses/{inner}/0.txt"])
    walks, skipped = find(GAIT3D, tmp_path)
    assert [walk.folder for walk in walks] == [f"2D_Silhouettes/{inner}"]
    assert skipped.counts["folders that hold other data"] == 2
    assert skipped.counts["files that are neither images nor pickles"] == 1
    assert told(tmp_path)[0] == "gait3d"


def test_distractors_and_third_sequences_of_grew_are_not_read(tmp_path: Path) -> None:
    gallery = [f"test/gallery/00001/{name}0000000" for name in "cab"]
    make(tmp_path, images([*gallery, "distractor/aaaaaaa1", "distractor/00001/aaaaaaa1"]))
    walks, skipped = find(GREW, tmp_path)
    assert [(walk.condition, walk.view) for walk in walks] == [("01", "a0000000"), ("02", "b0000000")]
    assert skipped.counts == {
        "sequences beyond the two of a gallery person": 1,
        "folders that hold other data": 2,
    }


def test_names_out_of_range_are_no_sequences(tmp_path: Path) -> None:
    wrong = ["000/nm-01/000", "125/nm-01/000", "abc/nm-01/000", "001/nm-07/000", "001/cl-03/000", "001/nm-01/999"]
    wrong += ["1/nm-01/000", "001/nm-1/000", "٠٠١/nm-01/000", "001/nm-01/0000"]
    make(tmp_path, images(["001/nm-01/000", *wrong]))
    walks, skipped = find(CASIA_B, tmp_path)
    assert [walk.folder for walk in walks] == ["001/nm-01/000"]
    assert skipped.counts == {"folders that are not named as in CASIA-B": len(wrong)}
    assert set(skipped.examples["folders that are not named as in CASIA-B"]) <= set(wrong)
    wrong = ["Silhouette_010-00/00001", "Silhouette_000-02/00001", "Silhouette_000-00/10308", "Silhouette_000-00/00000"]
    make(tmp_path / "mv", images(["Silhouette_000-00/00001", *wrong]))
    walks, skipped = find(OUMVLP, tmp_path / "mv")
    assert [walk.folder for walk in walks] == ["Silhouette_000-00/00001"]
    assert list(skipped.counts.values()) == [len(wrong)]


@pytest.mark.parametrize(("dataset", "inner"), [(GAIT3D, "camid1_videoid2/seq3"), (SUSTECH1K, "01-nm/045")])
def test_people_of_sets_with_a_partition_file_may_have_any_name(dataset: Importer, inner: str, tmp_path: Path) -> None:
    people = ["0001", "Zoë", "王小明", "a b"]
    make(tmp_path, images(f"{person}/{inner}" for person in people))
    walks, skipped = find(dataset, tmp_path)
    assert {walk.subject for walk in walks} == set(people)
    assert skipped.counts == {}
    division = divide(walks, Partition("file", ("Zoë", "0001"), ("王小明",)), dataset.card.role)
    assert division.unnamed == ("a b",)
    assert division.absent == ()
