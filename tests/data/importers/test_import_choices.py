"""Of what lies in a data set's folders: which files are read, and which trees are refused."""

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
    as_rows,
    find,
    images,
    make,
    pack,
    pickles,
    told,
)
from gaitdiff.data.importers.datasets import IMPORTERS
from gaitdiff.data.importers.importer import Importer
from gaitdiff.data.importers.opengait import OPENGAIT
from gaitdiff.errors import UserError

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
