"""Where the field prepares or names a data set in a way of its own, and how its files are answered."""

from __future__ import annotations

import csv
import io
import json
import pickle
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import gaitdiff
from gaitdiff.cli import main
from gaitdiff.data.align import align
from gaitdiff.data.importers import import_data
from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError
from gaitdiff.evaluation.features import extract
from gaitdiff.evaluation.held_out import held_out_rows
from gaitdiff.models import create_model
from gaitdiff.models.base import NeckModel
from gaitdiff.training.checkpoint import load_checkpoint
from masks import oracle
from opengait_files import imported, small_file, weights
from worlds import make_run

CPU = torch.device("cpu")


def person(number: int, height: int = 64, width: int = 64) -> np.ndarray:
    """Somebody who does not fill the frame: what alignment would change."""
    mask = np.zeros((height, width), np.uint8)
    top, left = height // 8, width // 4 + number % 5
    mask[top : height - top, left : left + width // 4 + number % 7] = 255
    mask[top + number % 3, left - 2 : left] = 180
    return mask


def write_png(folder: Path, frames: list[np.ndarray]) -> None:
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"{number:03}.png"), frame)


def walk(seed: int, size: int = 64) -> list[np.ndarray]:
    return [person(seed + 3 * t, size, size) for t in range(4)]


def frames_of(store: SequenceStore, *key: str) -> np.ndarray:
    return next(sequence.frames for sequence in store if sequence.row.key[: len(key)] == key)


def silent_import(source: Path, out: Path, **options: object) -> SequenceStore:
    import_data(source, out, workers=1, **options)  # type: ignore[arg-type]
    return SequenceStore(out)


# --- images as their makers' readers take them --------------------------------------------------------------------


def grew_tree(root: Path) -> dict[str, list[np.ndarray]]:
    """GREW as downloaded: frames that are not aligned, an empty one among them."""
    walks = {}
    for number, place in enumerate(
        ["train/00001/0AbCdEfG", "train/00002/4XPn5Z28", "test/gallery/00001/b0000000", "test/gallery/00001/Z0000000"]
        + [f"test/gallery/0000{i}/{k}000000{i}" for i in (2, 3) for k in "ab"]
        + ["test/probe/c2222222"]
    ):
        frames = walk(number)
        frames.insert(2, np.zeros((64, 64), np.uint8))
        write_png(root / place, frames)
        walks[place.rpartition("/")[2]] = frames
    return walks


def test_grew_images_are_taken_as_they_are_given_out(tmp_path: Path) -> None:
    """Every frame, the empty ones too, as pickles of them are; and so one store from either."""
    walks = grew_tree(tmp_path / "GREW")
    store = silent_import(tmp_path / "GREW", tmp_path / "images", kind="grew")
    assert len(store) == len(walks)
    for sequence in store:
        assert np.array_equal(sequence.frames, walks[sequence.row.view])
        place = tmp_path / "pickles" / sequence.row.subject / sequence.row.condition / sequence.row.view
        place.mkdir(parents=True)
        with (place / f"{sequence.row.view}.pkl").open("wb") as file:
            pickle.dump(np.stack(walks[sequence.row.view]), file)
    again = silent_import(tmp_path / "pickles", tmp_path / "store", kind="grew")
    assert again.header.manifest_sha256 == store.header.manifest_sha256
    assert (tmp_path / "images" / "frames.bin").read_bytes() == (tmp_path / "store" / "frames.bin").read_bytes()


@pytest.mark.parametrize("size", [64, 128])
def test_ccpg_images_are_scaled_by_area(size: int, tmp_path: Path) -> None:
    masks = [person(t, 311, 205) for t in range(4)]
    speck = np.zeros((311, 205), np.uint8)
    speck[100:104, 100:105] = 255  # 20 pixels: too few for other data sets
    for view in ("00_01", "01_01"):
        write_png(tmp_path / "CCPG" / "101" / "U0_D0_BG" / view, [*masks, speck])
    store = silent_import(tmp_path / "CCPG", tmp_path / "store", kind="ccpg", size=size)
    frames = frames_of(store, "101")
    assert np.array_equal(frames, [oracle(mask, size, by_area=True) for mask in (*masks, speck)])
    assert not np.array_equal(frames[0], align(masks[0], size))


# --- HID ----------------------------------------------------------------------------------------------------------

HID_LAYOUTS = {
    "2022": ("HID2022_test_gallery/{id}/{video}", "HID2022_test_probe/{video}", "train/{id}/{video}"),
    "2023": ("{id}/{video}", "probe/{video}", ""),
    "2022, pickles": ("{id}/{video}/default", "probe/{video}/default", ""),
    "2023, pickles": ("{id}/{video}/{video}", "probe/{video}/{video}", ""),
}


def hid_tree(root: Path, layout: str) -> list[str]:
    """Four people in the gallery, and six probes; returns the probes' videos."""
    gallery, probe, train = HID_LAYOUTS[layout]
    videos = [f"{7 * i:05}A" for i in range(6)]
    places = [gallery.format(id=f"{500 + i}", video=f"g{i}{k}") for i in range(4) for k in range(2)]
    places += [probe.format(video=video) for video in videos]
    places += [train.format(id=f"{i:03}", video=f"t{i}{k}") for i in range(3) for k in range(2) if train]
    for number, place in enumerate(places):
        frames = walk(number, 128)
        if "pickles" in layout:
            (root / place).mkdir(parents=True)
            with (root / place / f"{number}.pkl").open("wb") as file:
                pickle.dump(np.stack(frames), file)
        else:
            write_png(root / place, frames)
    return videos


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize("layout", HID_LAYOUTS)
def test_hid_is_told_and_submitted(layout: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = hid_tree(tmp_path / "data", layout)
    store = silent_import(tmp_path / "data", tmp_path / "store")
    assert store.header.dataset == "hid"
    assert {row.subject for row in store.rows if row.split == "test"} == {"probe", "500", "501", "502", "503"}
    assert sorted(row.view for row in store.rows if row.subject == "probe") == videos
    assert len(store.select(split="train")) == (6 if layout == "2022" else 0)
    words = ["submit", "hid", str(run), "--data", str(store.path), "--device", "cpu", "--out"]
    if store.height == 128:
        assert main([*words, str(tmp_path / "no.zip")]) == 2
        assert "128 px" in capsys.readouterr().err
        words.insert(3, "--resize")
    assert main([*words, str(tmp_path / "hid.zip")]) == 0
    with zipfile.ZipFile(tmp_path / "hid.zip") as archive:
        lines = list(csv.reader(io.StringIO(archive.read("submission.csv").decode())))
    assert lines[0] == ["videoID", "label"]
    assert sorted(line[0] for line in lines[1:]) == videos
    assert {line[1] for line in lines[1:]} <= {"500", "501", "502", "503"}
    (tmp_path / "list.csv").write_text("videoID,label\n" + "".join(f"{video},0\n" for video in [*videos, "99999B"]))
    assert main([*words, str(tmp_path / "other.zip"), "--probes", str(tmp_path / "list.csv")]) == 2
    assert "'99999B'" in capsys.readouterr().err
    assert not (tmp_path / "other.zip").exists()


def test_probes_without_a_videos_name_are_not_submitted(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As folders of images they have no views, as pickles the view ``default``: ids that the site does not know."""
    hid_tree(tmp_path / "images", "2023")
    hid_tree(tmp_path / "pickles", "2022, pickles")
    for kind, source in (("frames", "images"), ("opengait", "pickles")):
        store = silent_import(tmp_path / source, tmp_path / kind, kind=kind, split="test", size=64)
        for words in (
            ["submit", "hid", run, "--data", store.path, "--out", tmp_path / "x.zip"],
            ["evaluate", run, "--data", store.path, "--protocol", "hid", "--submission", tmp_path / "x.csv"],
        ):
            assert main([*map(str, words), "--device", "cpu", "--resize"]) == 2
            assert "6 of 6 probes have no video's name" in capsys.readouterr().err
    assert not list(tmp_path.glob("x.*"))


@pytest.mark.parametrize(
    "places",
    [
        ["gallery/001/a", "probe/001/b"],  # probes with names
        ["gallery/alice/walk1", "probe/bob/walk2"],
        ["test/gallery/00001/abc", "test/probe/xyz"],  # GREW without its training part
        ["00001/01/abcdefgh", "probe/03/hgfedcba"],
        ["001/walk1", "002/walk1"],
    ],
)
def test_what_is_not_hid(places: list[str], tmp_path: Path) -> None:
    for number, place in enumerate(places):
        write_png(tmp_path / "data" / place, walk(number))
    assert silent_import(tmp_path / "data", tmp_path / "store", split="train").header.dataset != "hid"


# --- partitions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lists", "roles"),
    [
        ({"PROBE_SET": ["p3-a-v0"]}, ["probe", "gallery", "gallery"]),
        ({"GALLERY_SET": ["p3-a-v0"]}, ["gallery", "probe", "probe"]),
        ({"PROBE_SET": ["p3-a-v0"], "GALLERY_SET": ["p3-a-v2"]}, ["probe", "", "gallery"]),
    ],
)
def test_partitions_may_name_probes_gallery_or_both(
    lists: dict[str, list[str]], roles: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(12):
        write_png(tmp_path / "data" / f"p{number // 3}" / "a" / f"v{number % 3}", walk(number))
    lists = {key: [*names, *(name.replace("p3", "p2") for name in names)] for key, names in lists.items()}
    partition = tmp_path / "partition.json"
    partition.write_text(json.dumps({"TRAIN_SET": ["p0", "p1"], "TEST_SET": ["p2", "p3"], **lists}))
    store = silent_import(tmp_path / "data", tmp_path / "store", kind="frames", partition=partition)
    assert [row.role for row in store.rows if row.subject == "p3"] == roles
    # What is neither stays out of the gallery.
    run = make_run(tmp_path)
    words = ["evaluate", str(run), "--data", str(store.path), "--device", "cpu", "--json", str(tmp_path / "s.json")]
    assert main(words) == 0
    counts = json.loads((tmp_path / "s.json").read_text())["embeddings"]["counts"]
    assert counts["gallery"] == {"people": 2, "sequences": 2 * roles.count("gallery")}
    assert counts["probe"] == {"people": 2, "sequences": 2 * roles.count("probe")}
    # The lists go out with the store, and come back.
    capsys.readouterr()
    assert main(["data", "export", str(store.path), "--out", str(tmp_path / "out")]) == 0
    again = silent_import(
        tmp_path / "out", tmp_path / "back", kind="opengait", partition=tmp_path / "out/partition.json"
    )
    assert [row.role for row in again.rows] == [row.role for row in store.rows]


@pytest.mark.parametrize(
    ("lists", "sentence"),
    [
        ({"GALLERY_SET": ["p9-a-v0"]}, "GALLERY_SET .* TEST_SET names no 'p9'"),
        ({"GALLERY_SET": ["p3"]}, "GALLERY_SET .* not <id>-<type>-<view>"),
        ({"PROBE_SET": ["p3-a-v0"], "GALLERY_SET": ["p3-a-v0"]}, "both PROBE_SET and GALLERY_SET"),
        ({"GALERY_SET": ["p3-a-v0"]}, "did you mean 'GALLERY_SET'"),
        ({"VAL_SET": ["p3-a-v0"]}, "unknown key 'VAL_SET': remove it"),
        ({"PROBE_SET": ["p3-A-V0"]}, "none of the 1 sequences that PROBE_SET .* are called 'p3-a-v0' here"),
        ({"GALLERY_SET": ["p3-b-v0", "p3-b-v1"]}, "none of the 2 sequences that GALLERY_SET"),
    ],
)
def test_mistakes_in_lists_are_named(lists: dict[str, list[str]], sentence: str, tmp_path: Path) -> None:
    write_png(tmp_path / "data" / "p3" / "a" / "v0", walk(0))
    partition = tmp_path / "partition.json"
    partition.write_text(json.dumps({"TRAIN_SET": [], "TEST_SET": ["p3"], **lists}))
    with pytest.raises(UserError, match=sentence):
        import_data(tmp_path / "data", tmp_path / "store", kind="frames", partition=partition)
    assert not (tmp_path / "store").exists()


# --- images and pickles of any habit ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["gei.png", "GEI.png", "001-nm-01-gei.png", "mean.png", "average_01.png", "energy.png"]
)
def test_an_energy_image_among_frames_is_no_frame(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("p0/w0", "p1/w0"):
        write_png(tmp_path / "data" / folder, walk(3))
        cv2.imwrite(str(tmp_path / "data" / folder / name), np.mean(walk(3), axis=0).astype(np.uint8))
    store = silent_import(tmp_path / "data", tmp_path / "store", kind="frames")
    assert [row.frames for row in store.rows] == [4, 4]
    assert "2 images of whole sequences" in capsys.readouterr().out


def test_several_images_of_the_whole_are_no_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summaries = ("gei.png", "mean.png", "GEI2.png")
    for folder in ("p0/w0", "p1/w0"):
        write_png(tmp_path / "data" / folder, walk(3))
        for name in summaries:
            cv2.imwrite(str(tmp_path / "data" / folder / name), np.mean(walk(3), axis=0).astype(np.uint8))
    store = silent_import(tmp_path / "data", tmp_path / "store", kind="frames")
    assert [row.frames for row in store.rows] == [4, 4]
    assert "6 images of whole sequences" in capsys.readouterr().out


def test_frames_that_are_all_called_so_are_frames(tmp_path: Path) -> None:
    """One in a folder sums it up; many of a name are frames."""
    folder = tmp_path / "data" / "p0" / "w0"
    folder.mkdir(parents=True)
    for number in range(6):
        cv2.imwrite(str(folder / f"{number:03}-mean-shift.png"), person(number))
    cv2.imwrite(str(folder / "frame0.png"), person(1))
    assert silent_import(tmp_path / "data", tmp_path / "store", kind="frames").rows[0].frames == 7


def test_names_that_only_contain_such_words_are_frames(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "p0" / "w0"
    folder.mkdir(parents=True)
    for name in ("geiger-1.png", "meaning.png", "2.png", "avgs.png"):
        cv2.imwrite(str(folder / name), person(1))
    assert silent_import(tmp_path / "data", tmp_path / "store", kind="frames").rows[0].frames == 4


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 128), (10, 240), (1, 2), (0, 254)])
@pytest.mark.parametrize("kind", ["images", "pickles"])
def test_masks_of_two_values_are_black_and_white_and_said(
    kind: str, low: int, high: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = [np.where(frame > 0, np.uint8(255), np.uint8(0)) for frame in walk(1)]
    odd = [np.where(frame > 0, np.uint8(high), np.uint8(low)) for frame in plain]
    for folder in ("p0/a/w0", "p1/a/w0"):
        if kind == "images":
            write_png(tmp_path / "data" / folder, odd)
        else:
            (tmp_path / "data" / folder).mkdir(parents=True)
            with (tmp_path / "data" / folder / "w0.pkl").open("wb") as file:
                pickle.dump(np.stack(odd), file)
    store = silent_import(tmp_path / "data", tmp_path / "store", split="train")
    assert np.array_equal(store[0].frames, [align(frame) for frame in plain])
    assert "255" in capsys.readouterr().out.split("changed:")[1].splitlines()[0]


# --- checkpoints of OpenGait --------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [0, 1, 4, 5])
@pytest.mark.parametrize("modern", [True, False])
def test_files_of_other_pickle_protocols_are_told_so(protocol: int, modern: bool, tmp_path: Path) -> None:
    told = "0 or 1" if protocol < 2 and not modern else protocol
    file = small_file(tmp_path / "a.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=modern)
    with pytest.raises(UserError, match=f"pickle_protocol {told}, .* torch.save its weights again"):
        imported(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_full_smplgait_is_told_of_its_branch(tmp_path: Path) -> None:
    state = weights()
    state |= {"fc1.weight": torch.zeros(256, 85), "fc1.bias": torch.zeros(256), "bn1.weight": torch.ones(256)}
    with pytest.raises(UserError, match="3-D branch"):
        imported(small_file(tmp_path / "a.pt", {"model": state}), tmp_path / "out")


def test_a_prefix_on_some_keys_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = weights()
    mixed = {(f"module.{key}" if i % 2 else key): value for i, (key, value) in enumerate(plain.items())}
    model = imported(small_file(tmp_path / "a.pt", {"model": mixed}), tmp_path / "out")
    assert f"with which {len(plain) // 2} of {len(plain)} keys begin" in " ".join(capsys.readouterr().err.split())
    want = imported(small_file(tmp_path / "b.pt", {"model": plain}), tmp_path / "other")
    assert all(torch.equal(value, want.state_dict()[key]) for key, value in model.state_dict().items())
    key = next(iter(plain))
    with pytest.raises(UserError, match=r"both .* keep one"):
        imported(small_file(tmp_path / "c.pt", {"model": {**plain, f"module.{key}": plain[key]}}), tmp_path / "third")


# --- behind the neck ----------------------------------------------------------------------------------------------


def test_features_behind_the_neck(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Part by part: BatchNorm by the running statistics, then unit length; by hand, and through the command."""
    run = make_run(tmp_path)
    model = load_checkpoint(run)
    norm = model.head.neck.norm
    clip = torch.rand(3, 4, 64, 44)
    with torch.no_grad():
        embedding = model(clip).embedding
        columns = (embedding.flatten(1) - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
        columns = (columns * norm.weight + norm.bias).view_as(embedding)
        want = columns / columns.square().sum(1, keepdim=True).sqrt()
        torch.testing.assert_close(NeckModel(model)(clip), want)
    for number in range(6):
        write_png(tmp_path / "data" / f"p{number // 2}" / f"w{number % 2}", walk(number))
    store = silent_import(tmp_path / "data", tmp_path / "store", kind="frames", split="test")
    words = ["evaluate", str(run), "--data", str(store.path), "--device", "cpu", "--features", "neck"]
    assert main([*words, "--save-features", str(tmp_path / "neck.npy")]) == 0
    assert "neck features" in capsys.readouterr().out
    want = extract(NeckModel(model).eval(), store, held_out_rows(store), CPU)
    np.testing.assert_allclose(np.load(tmp_path / "neck.npy"), want.numpy(), atol=1e-6)


@pytest.mark.parametrize("name", ["gaitset", "gaitpart", "gaitgl"])
def test_models_without_a_neck_say_so(name: str) -> None:
    with pytest.raises(UserError, match="has no BN neck"):
        NeckModel(create_model(name, "walkers", 3))


def test_a_neck_that_was_never_trained_is_refused() -> None:
    with pytest.raises(UserError, match="never trained"):
        NeckModel(gaitdiff.create_model("gaitbase", "walkers", 3))
