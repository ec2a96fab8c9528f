"""The data sets on disk: every published layout, whole or packed, with what lies around it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from gaitdiff.data.formats.sources import open_source
from gaitdiff.data.importers.datasets import IMPORTERS, NAMES, detect
from gaitdiff.data.importers.importer import Importer
from gaitdiff.data.importers.opengait import OPENGAIT
from gaitdiff.data.importers.partition import divide
from gaitdiff.datasets.card import Partition
from gaitdiff.datasets.sequences import SourceSequence
from gaitdiff.errors import UserError
from gaitdiff.utils.counts import Counts

GAIT3D, GREW, CASIA_B, OUMVLP, CCPG, SUSTECH1K, FRAMES = (
    IMPORTERS[NAMES.index(name)] for name in ("gait3d", "grew", "casia-b", "oumvlp", "ccpg", "sustech1k", "frames")
)

#: Folders of each layout, and the sequence that each is: subject, condition, view, split.
Expected = dict[str, tuple[str, str, str, str]]
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


def make(root: Path, names: Iterable[str], folders: Iterable[str] = ()) -> Path:
    """Empty files below a folder; names alone matter here."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for folder in folders:
        (root / folder).mkdir(parents=True)
    return root


def pack(path: Path, names: Iterable[str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    return path


def find(dataset: Importer, path: Path) -> tuple[tuple[SourceSequence, ...], Counts]:
    skipped = Counts()
    with open_source(path) as source:
        return dataset.find(source, skipped).walks, skipped


def told(path: Path) -> tuple[str, str]:
    with open_source(path) as source:
        dataset, reason = detect(source, IMPORTERS)
    return dataset.card.name, reason


def images(folders: Iterable[str], names: tuple[str, ...] = ("10.png", "9.png", "0.png")) -> list[str]:
    return [f"{folder}/{name}" for folder in folders for name in names]


def pickles(folders: Iterable[str]) -> list[str]:
    return [f"{folder}/{folder.rpartition('/')[2]}.pkl" for folder in folders]


def as_rows(walks: Iterable[SourceSequence], prefix: str = "") -> Expected:
    """What the sequences are, by their folders; the name within its view is the view's own."""
    rows = {}
    for walk in walks:
        assert walk.sequence == walk.view
        assert walk.folder.startswith(prefix)
        rows[walk.folder[len(prefix) :]] = (walk.subject, walk.condition, walk.view, walk.split)
    return rows


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


SENSORS = (
    *("LiDAR-PCDs", "LiDAR-PCDs_depths", "LiDAR-PCDs_sils", "Camera-Pose", "Camera-Ratios-HW", "Camera-RGB_raw"),
    *("Camera-Sils_aligned", "Camera-Sils_raw"),
)


def test_of_sixteen_pickles_the_aligned_silhouettes_are_chosen(tmp_path: Path) -> None:
    left = [f"{i:02}-000-{sensor}.pkl" for i, sensor in enumerate(SENSORS)]
    left += [f"{i:02}-sync-000-{sensor}.pkl" for i, sensor in enumerate(SENSORS, 8)]
    folder = make(tmp_path, [f"0000/00-nm/000/{name}" for name in left]) / "0000/00-nm/000"
    for chosen in ("06-000-Camera-Sils_aligned", "07-000-Camera-Sils_raw", "14-sync-000-Camera-Sils_aligned"):
        for dataset in (SUSTECH1K, OPENGAIT):
            (walk,), skipped = find(dataset, tmp_path)
            assert walk.files == (f"0000/00-nm/000/{chosen}.pkl",)
            assert skipped.counts == {"pickles that are not the silhouettes": len(left) - 1}
        (folder / f"{chosen}.pkl").unlink()
        left.remove(f"{chosen}.pkl")


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["000-aligned-sils", "000-ratios", "000-rgbs", "000-sils"], "000-aligned-sils"),
        (["000-ratios", "000-rgbs", "000-sils"], "000-sils"),
        (["00-rgb", "01-sil"], "01-sil"),
        (["000", "000-rgbs"], "000"),
        (["anything"], "anything"),
        (["000-rgbs"], ""),
        (["000-ratios"], ""),
        (["one", "two"], ""),
    ],
)
def test_the_pickle_is_chosen_by_its_name(names: list[str], chosen: str, tmp_path: Path) -> None:
    make(tmp_path, [*(f"001/nm-01/000/{name}.pkl" for name in names), "002/nm-01/000/000.PKL"])
    for dataset in (CASIA_B, OPENGAIT):
        walks, skipped = find(dataset, tmp_path)
        files = [walk.files for walk in walks]
        assert files == [(f"001/nm-01/000/{chosen}.pkl",)] * bool(chosen) + [("002/nm-01/000/000.PKL",)]
        assert sum(skipped.counts.values()) == len(names) - bool(chosen)


def test_folders_of_sensors(tmp_path: Path) -> None:
    both, raw, none = (f"0000/00-nm/{view}" for view in ("000", "045", "090"))
    folders = [f"{both}/Sils_raw", f"{both}/Sils_aligned", f"{both}/RGB_raw", f"{raw}/Sils_raw", f"{none}/PCDs_depths"]
    make(tmp_path, images(folders))
    walks, skipped = find(SUSTECH1K, tmp_path)
    assert as_rows(walks) == {
        f"{both}/Sils_aligned": ("0000", "00-nm", "000", ""),
        f"{raw}/Sils_raw": ("0000", "00-nm", "045", ""),
    }
    assert skipped.counts == {"folders that hold other data": 2, "folders of lesser silhouettes": 1}
    assert told(tmp_path)[0] == "sustech1k"


def test_photographs_and_pickles_beside_masks_are_left(tmp_path: Path) -> None:
    folder = "000/U0_D0/00_01"
    make(tmp_path, images([folder], ("1.png", "1.jpg", "2.jpg", "2.png", "3.jpg", "00_01.pkl")))
    (walk,), skipped = find(CCPG, tmp_path)
    assert walk.files == (f"{folder}/1.png", f"{folder}/2.png")
    assert skipped.counts == {"photographs beside masks": 3, "pickles beside images": 1}
    make(tmp_path / "other", images([folder], ("1.jpg", "2.JPEG")))
    (walk,), skipped = find(CCPG, tmp_path / "other")
    assert len(walk.files) == 2
    assert skipped.counts == {}


def test_opengait_takes_any_names(tmp_path: Path) -> None:
    folders = ["王小明/nm 01/左", "é/a/b", "wrap/more/00001train/00/4XPn5Z28", "0001/camid0_videoid2/seq0"]
    make(tmp_path, [*pickles(folders), "too/shallow.pkl", "x.pkl", "0001/camid0_videoid2/seq0/0.png"])
    walks, skipped = find(OPENGAIT, tmp_path)
    assert as_rows(walks) == {folder: (*folder.split("/")[-3:], "") for folder in folders}
    assert skipped.counts == {
        "folders that are not <id>/<type>/<view>/*.pkl": 2,
        "images, which this layout does not have": 1,
    }
    assert told(tmp_path)[0] == "frames"  # there is an image, and no data set to tell
    (tmp_path / "0001/camid0_videoid2/seq0/0.png").unlink()
    name, reason = told(tmp_path)
    assert name == "opengait"
    assert "no known data set" in reason


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_a_tree_without_labels(depth: int, tmp_path: Path) -> None:
    numbers = [[f"{(i * 7 + j) % 1000:03}" for j in range(depth)] for i in range(4)]
    full = [f"silhouette_cut_pkl/{'/'.join([*number, '001'])}/{'_'.join([*number, '001'])}.pkl" for number in numbers]
    flat = [f"silhouette_cut_pkl/{'/'.join(number)}/{'_'.join([*number, '002'])}.pkl" for number in numbers]
    flat = flat if depth > 1 else []  # 00/00_01.pkl may be a view of a camera
    make(tmp_path, [*full, *flat])
    walks, skipped = find(OPENGAIT, tmp_path)
    stems = {name: Path(name).stem for name in (*full, *flat)}
    assert {walk.files[0]: walk.subject for walk in walks} == stems
    assert {(walk.condition, walk.view, walk.split, walk.sequence == walk.subject) for walk in walks} == {
        ("", "", "", True)
    }
    assert skipped.counts == {}
    assert told(tmp_path)[0] == "opengait"


def test_views_with_underscores_are_labelled(tmp_path: Path) -> None:
    make(tmp_path, [*pickles(["100/U0_D0/00_01", "100/U1_D1/00_01"]), "100/U3_D3/00/00_01.pkl"])
    assert [walk.subject for walk in find(OPENGAIT, tmp_path)[0]] == ["100", "100", "100"]


@pytest.mark.parametrize(
    ("dataset", "folders"),
    [
        (GREW, ["train/00001/4XPn5Z28", "00001train/00/4XPn5Z28"]),
        (GREW, ["test/gallery/00001/4XPn5Z28", "copy/test/gallery/00001/4XPn5Z28"]),
        (OUMVLP, ["Silhouette_000-00/00001", "00001/00/000"]),
        (CASIA_B, ["001/nm-01/000", "001/NM-01/000"]),
        (GAIT3D, ["0001/camid0_videoid2/seq0", "2D_Silhouettes/0001/camid0_videoid2/seq0"]),
        (SUSTECH1K, ["a/0001/00-nm/000/Sils_aligned", "b/0001/00-nm/000/Sils_aligned"]),
        (OPENGAIT, ["a/1/2/3", "b/1/2/3"]),
        (OPENGAIT, ["a/000/000/000_000.pkl", "b/000/000/000_000.pkl"]),
        (OPENGAIT, ["a/000/000/000_000.pkl", "a/000/000/000_000.PKL"]),
    ],
)
def test_one_sequence_in_two_folders_is_refused(dataset: Importer, folders: list[str], tmp_path: Path) -> None:
    files = [folder if folder.lower().endswith(".pkl") else f"{folder}/x_sil.pkl" for folder in folders]
    archive = pack(tmp_path / "x.zip", files)
    with pytest.raises(UserError) as error:
        find(dataset, archive)
    places = {str(Path(folder).parent) if ".pkl" in folder else folder for folder in folders}
    assert all(place in str(error.value) for place in (places if len(places) == 2 else folders))


@pytest.mark.parametrize("dataset", IMPORTERS[:-1], ids=lambda dataset: dataset.card.name)
def test_a_source_that_is_something_else_is_refused(dataset: Importer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="pickles of silhouettes") as empty:
        find(dataset, make(tmp_path / "empty", [], ["nothing"]))
    assert str(tmp_path / "empty") in str(empty.value)
    with pytest.raises(UserError, match="--as") as other:
        find(dataset, make(tmp_path / "other", ["dogs/rex/0.png"]))
    assert str(tmp_path / "other") in str(other.value)
    if dataset is not OPENGAIT:
        assert "here lies dogs/rex" in str(other.value)


def test_detection_refuses_two_data_sets_and_none(tmp_path: Path) -> None:
    make(tmp_path / "two", images(["001/nm-01/000", "0001/camid0_videoid2/seq0"]))
    with pytest.raises(UserError, match="CASIA-B") as error:
        told(tmp_path / "two")
    assert all(word in str(error.value) for word in ("Gait3D", "--as casia-b", "--as gait3d"))
    with pytest.raises(UserError, match="neither images"):
        told(make(tmp_path / "none", ["a/b.txt"]))


@pytest.mark.parametrize(
    "folder",
    ["anna/walk1", "001/walk1", "train/00001/walk", "train/00001/sequence", "00001/01/abcdefgh", "probe/abcdefgh"],
)
def test_ones_own_masks_are_of_no_data_set(folder: str, tmp_path: Path) -> None:
    name, reason = told(make(tmp_path, images([folder])))
    assert name == "frames"
    assert "no known data set" in reason


def places(dataset: Importer, rows: list[tuple[str, str]]) -> tuple[tuple[str, str] | None, ...]:
    """Split and role of (subject, condition) under the data set's rule."""
    assert dataset.card.rule is not None
    walks = [SourceSequence(subject, condition, "v", "v", folder="", files=()) for subject, condition in rows]
    return divide(walks, dataset.card.rule([subject for subject, _ in rows]), dataset.card.role).places


def test_rules_and_roles() -> None:
    train, probe, gallery, none = ("train", ""), ("test", "probe"), ("test", "gallery"), ("test", "")
    rows = [("074", "nm-01"), ("075", "nm-01"), ("075", "nm-04"), ("124", "nm-05"), ("124", "bg-01"), ("124", "cl-02")]
    assert places(CASIA_B, rows) == (train, gallery, gallery, probe, probe, probe)
    rows = [("00001", "00"), ("00002", "00"), ("00002", "01"), ("10305", "01"), ("10306", "01"), ("10307", "00")]
    assert places(OUMVLP, rows) == (train, probe, gallery, train, gallery, probe)
    assert places(CCPG, [("000", "U0_D0"), ("099", "U0_D0"), ("100", "U0_D0")]) == (train, train, none)
    rows = [("00001train", "00"), ("00001", "01"), ("00001", "02"), ("probe", "03")]
    assert places(GREW, rows) == (train, gallery, probe, none)


@pytest.mark.parametrize(
    ("dataset", "people", "trains"),
    [
        (CASIA_B, [f"{number:03}" for number in range(1, 125)], 74),
        (OUMVLP, [f"{number:05}" for number in range(1, 10_308)], 5_153),
        (CCPG, [f"{number:03}" for number in range(200)], 100),
        (GREW, [*(f"{i:05}train" for i in range(1, 20_001)), *(f"{i:05}" for i in range(1, 6_001)), "probe"], 20_000),
    ],
    ids=lambda value: value.card.name if isinstance(value, Importer) else None,
)
def test_rules_divide_the_whole_data_set_as_published(dataset: Importer, people: list[str], trains: int) -> None:
    assert dataset.card.rule is not None
    partition = dataset.card.rule(people[::-1])
    assert len(partition.train) == trains
    assert sorted(partition.train + partition.test) == sorted(people)
    assert partition.probes is None


def test_sets_without_rule_take_a_file() -> None:
    assert [dataset.card.name for dataset in IMPORTERS[:-1] if dataset.card.rule is None] == [
        "gait3d",
        "sustech1k",
        "opengait",
    ]
    partition = Partition("file", ("0001",), ("0000",))
    walks = [SourceSequence("0000", kind, "000", "000", folder="", files=()) for kind in ("00-nm", "01-nm", "02-ur-bg")]
    assert divide(walks, partition, SUSTECH1K.card.role).places == (
        ("test", "gallery"),
        ("test", "probe"),
        ("test", "probe"),
    )
