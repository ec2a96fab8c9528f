"""Whole imports of every data set: the manifest and the pixels of the store, against what the test drew itself."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from gaitdiff.cli import main
from gaitdiff.data.store import SequenceStore
from masks import Tree, encode, make_folder, oracle, person, tar_bytes, zip_bytes

#: folder → subject, condition, view, sequence, split, role
Expected = dict[str, tuple[str, str, str, str, str, str]]


def masks_of(seed: int, count: int) -> list[np.ndarray]:
    """Masks of different sizes, the person anywhere, grey at the edges."""
    rng = np.random.default_rng(seed)
    masks = []
    for i in range(count):
        height, width = int(rng.integers(70, 200)), int(rng.integers(60, 120))
        mask = cv2.resize(person(seed * 10 + i), (width, height), interpolation=cv2.INTER_LINEAR)
        masks.append(np.roll(mask, int(rng.integers(-width // 3, width // 3)), axis=1))
    return masks


STRAYS: Tree = {
    ".DS_Store": b"x",
    "__MACOSX/._0.png": b"x",
    "readme.txt": b"x",
}


class Case:
    """A tree of images, what must become of it, and how it is imported."""

    def __init__(self, expected: Expected, name: str = "{}.png", **more: bytes) -> None:
        self.expected = expected
        self.tree: Tree = dict(STRAYS)
        self.frames: dict[str, list[np.ndarray]] = {}
        for number, folder in enumerate(expected):
            masks = masks_of(number, 1 if number == 1 else 3)  # the second has one frame
            for i, mask in enumerate(masks):
                self.tree[f"{folder}/{name.format(f'{i + 1:04d}')}"] = encode(mask)
            self.frames[folder] = masks
            self.tree[f"{folder}/Thumbs.db"] = b"x"
        self.tree[f"{next(iter(expected))}/{name.format('0009')}"] = b"\x89PNG no image"
        self.tree |= {path.replace("|", "/"): data for path, data in more.items()}


GAIT3D = Case(
    {
        "2D_Silhouettes/0002/camid33_videoid2/seq0": ("0002", "camid33_videoid2", "seq0", "seq0", "test", "probe"),
        "2D_Silhouettes/0002/camid9_videoid1/seq0": ("0002", "camid9_videoid1", "seq0", "seq0", "test", "gallery"),
        "2D_Silhouettes/0007/camid9_videoid1/seq1": ("0007", "camid9_videoid1", "seq1", "seq1", "test", "gallery"),
        "2D_Silhouettes/1234/camid0_videoid2/seq0": ("1234", "camid0_videoid2", "seq0", "seq0", "train", ""),
        "2D_Silhouettes/Zoë Ω/camid0_videoid2/seq0": ("Zoë Ω", "camid0_videoid2", "seq0", "seq0", "train", ""),
    },
    **{"3D_SMPLs|0002|camid33_videoid2|seq0|0.npz": b"x"},
)
PARTITION = {
    "TRAIN_SET": ["1234", "Zoë Ω", *(f"absent{i}" for i in range(20_000))],
    "TEST_SET": ["0007", "0002"],
    "PROBE_SET": ["0002-camid33_videoid2-seq0", "0007-camid1_videoid1-seq0"],
}
GREW = Case(
    {
        "GREW/train/00001/4XPn5Z28": ("00001train", "00", "4XPn5Z28", "4XPn5Z28", "train", ""),
        "GREW/train/20000/5TXe8svE": ("20000train", "00", "5TXe8svE", "5TXe8svE", "train", ""),
        "GREW/test/gallery/00001/79XJefi8": ("00001", "01", "79XJefi8", "79XJefi8", "test", "gallery"),
        "GREW/test/gallery/00001/t16VLaQf": ("00001", "02", "t16VLaQf", "t16VLaQf", "test", "probe"),
        "GREW/test/probe/etaGVnWf": ("probe", "03", "etaGVnWf", "etaGVnWf", "test", ""),
    },
)
CASIA_B = Case(
    {
        "001/nm-01/000": ("001", "nm-01", "000", "000", "train", ""),
        "074/bg-02/090": ("074", "bg-02", "090", "090", "train", ""),
        "075/nm-04/180": ("075", "nm-04", "180", "180", "test", "gallery"),
        "075/nm-05/180": ("075", "nm-05", "180", "180", "test", "probe"),
        "124/cl-01/018": ("124", "cl-01", "018", "018", "test", "probe"),
    },
    name="001-nm-01-000-{}.png",
)
OUMVLP = Case(
    {
        "Silhouette_000-00/00001": ("00001", "00", "000", "000", "train", ""),
        "Silhouette_000-01/00001": ("00001", "01", "000", "000", "train", ""),
        "Silhouette_270-00/00002": ("00002", "00", "270", "270", "test", "probe"),
        "Silhouette_270-01/10307": ("10307", "01", "270", "270", "test", "gallery"),
    },
)
CCPG = Case(
    {
        "000/U0_D0_BG/00_01": ("000", "U0_D0_BG", "00_01", "00_01", "train", ""),
        "100/U1_D1/02_10": ("100", "U1_D1", "02_10", "02_10", "test", ""),
        "199/U3_D3/01_00": ("199", "U3_D3", "01_00", "01_00", "test", ""),
    },
)
IMAGES: dict[str, tuple[Case, str]] = {
    "gait3d": (GAIT3D, "partition"),
    "grew": (GREW, ""),
    "casia-b": (CASIA_B, ""),
    "oumvlp": (OUMVLP, ""),
    "ccpg": (CCPG, ""),
}


def imported(tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[SequenceStore, str]:
    """Run the command in a folder that holds the source and a partition file."""
    (tmp_path / "partition.json").write_text(json.dumps(PARTITION))
    assert main(["data", "import", *flags, "--out", str(tmp_path / "store")]) == 0
    store = SequenceStore(tmp_path / "store")
    store.verify()
    return store, capsys.readouterr().out


def check_rows(store: SequenceStore, expected: Expected) -> dict[str, int]:
    """Compare the manifest; return the row number of each folder."""
    found = {(*row.key, row.split, row.role): i for i, row in enumerate(store.rows)}
    assert set(found) == set(expected.values())
    return {folder: found[row] for folder, row in expected.items()}


PACK: dict[str, Callable[[Tree], bytes]] = {"zip": zip_bytes, "tar": tar_bytes}


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("kind", ["folder", *PACK])
@pytest.mark.parametrize("name", IMAGES)
def test_images(tmp_path: Path, name: str, kind: str, size: int, capsys: pytest.CaptureFixture[str]) -> None:
    case, partition = IMAGES[name]
    if kind == "folder":
        source = make_folder(tmp_path / "source", case.tree)
        (source / "empty folder" / "nothing").mkdir(parents=True)
    else:
        source = tmp_path / f"source.{kind}"
        source.write_bytes(PACK[kind](case.tree))
    flags = [str(source), "--size", str(size)]
    if partition:
        flags += ["--partition", str(tmp_path / "partition.json")]
    store, said = imported(tmp_path, flags, capsys)
    assert (store.height, store.width, store.header.crop) == (size, size, "full")
    for folder, i in check_rows(store, case.expected).items():
        frames = (oracle(mask, size, by_area=name == "ccpg") for mask in case.frames[folder])
        aligned = [frame for frame in frames if frame is not None]
        np.testing.assert_array_equal(store[i].frames, np.stack(aligned), err_msg=folder)
    assert "1 unreadable images" in said
    if partition:
        assert "20,000 people of the partition without a sequence: absent0, absent1, absent2, …" in said
        assert "1 probes of the partition without a sequence: 0007-camid1_videoid1-seq0" in said


@pytest.mark.parametrize(("height", "width"), [(64, 64), (128, 128), (64, 44), (128, 88)])
@pytest.mark.parametrize("name", IMAGES)
def test_pickles(tmp_path: Path, name: str, height: int, width: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The reference's own preprocessing, as pickles: every frame stays what it was, and is never cut again."""
    case, partition = IMAGES[name]
    side = (height - width) // 2
    tree: Tree = dict(STRAYS)
    frames: dict[str, np.ndarray] = {}
    for folder, (subject, condition, view, *_) in case.expected.items():
        aligned = [frame for mask in case.frames[folder] if (frame := oracle(mask, height)) is not None]
        frames[folder] = np.stack(aligned)[:, :, side : side + width]
        tree[f"{subject}/{condition}/{view}/{view}.pkl"] = pickle.dumps(np.ascontiguousarray(frames[folder]))
    source = make_folder(tmp_path / "source", tree)
    flags = [str(source), "--as", name]
    if partition:
        flags += ["--partition", str(tmp_path / "partition.json")]
    store, _ = imported(tmp_path, flags, capsys)
    assert (store.height, store.width, store.header.crop) == (height, width, "full" if width == height else "cut")
    for folder, i in check_rows(store, case.expected).items():
        np.testing.assert_array_equal(store[i].frames, frames[folder], err_msg=folder)


def test_sustech1k(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sixteen pickles a sequence, of which one is the silhouettes that papers use."""
    aligned = {i: np.stack([np.asarray(oracle(mask, 64)) for mask in masks_of(i, 5)]) for i in range(3)}
    places = {0: ("0000", "00-nm", "000"), 1: ("0001", "00-nm", "045"), 2: ("0001", "01-cr", "180-far")}
    tree: Tree = {}
    for i, (subject, condition, view) in places.items():
        folder = f"SUSTech1K-Released-pkl/{subject}/{condition}/{view}"
        others = {
            f"00-{view}-LiDAR-PCDs": np.ones((5, 30, 3)),
            f"02-{view}-LiDAR-PCDs_sils": aligned[i][:, ::-1],
            f"04-{view}-Camera-Ratios-HW": np.ones(5),
            f"05-{view}-Camera-RGB_raw": np.ones((5, 3, 64, 64), np.uint8),
            f"07-{view}-Camera-Sils_raw": aligned[i][:, :, ::-1],
            f"14-sync-{view}-Camera-Sils_aligned": aligned[i][:2],
        }
        tree |= {f"{folder}/{name}.pkl": pickle.dumps(content) for name, content in others.items()}
        tree[f"{folder}/06-{view}-Camera-Sils_aligned.pkl"] = pickle.dumps(aligned[i])
    source = make_folder(tmp_path / "source", tree)
    partition = tmp_path / "sustech1k.json"
    partition.write_text(json.dumps({"TRAIN_SET": ["0000"], "TEST_SET": ["0001"]}))
    store, _ = imported(tmp_path, [str(source), "--partition", str(partition)], capsys)
    expected = {
        "0": ("0000", "00-nm", "000", "000", "train", ""),
        "1": ("0001", "00-nm", "045", "045", "test", "gallery"),
        "2": ("0001", "01-cr", "180-far", "180-far", "test", "probe"),
    }
    for number, i in check_rows(store, expected).items():
        np.testing.assert_array_equal(store[i].frames, aligned[int(number)])


def test_unlabelled_pickles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A million walks of nobody in particular: every pickle is a person of its own, all are for training."""
    tree, frames = {}, {}
    for i in range(6):
        cut = np.stack([np.asarray(oracle(mask, 64)) for mask in masks_of(i, 4)])[:, :, 10:54]
        tree[f"silhouette_cut_pkl/00{i // 3}/00{i % 3}/007/00{i // 3}_00{i % 3}_007.pkl"] = pickle.dumps(cut)
        frames[i] = cut
    source = make_folder(tmp_path / "source", tree)
    store, _ = imported(tmp_path, [str(source), "--split", "train"], capsys)
    assert (store.width, store.header.crop) == (44, "cut")
    assert len({row.subject for row in store.rows}) == 6
    assert {row.split for row in store.rows} == {"train"}
    for i in range(6):
        np.testing.assert_array_equal(store[i].frames, frames[i])


def test_raw_masks_in_pickles_are_aligned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Masks of 128 x 128 with the person anywhere, values 0 and 1, as some releases have them beside aligned ones."""
    raw = np.zeros((4, 128, 128), np.uint8)
    for i in range(4):
        raw[i, 20:110, 5 + 4 * i : 30 + 6 * i] = 1
    source = make_folder(tmp_path / "source", {"001/nm-01/000/000-sils.pkl": pickle.dumps(raw)})
    store, _ = imported(tmp_path, [str(source), "--as", "opengait", "--size", "64"], capsys)
    np.testing.assert_array_equal(store[0].frames, np.stack([np.asarray(oracle(mask * 255, 64)) for mask in raw]))


def test_frames_cut_before_are_never_cut_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Gait3D's release of 64 x 44 images."""
    tree: Tree = {}
    cut = np.stack([np.asarray(oracle(mask, 64)) for mask in masks_of(0, 4)])[:, :, 10:54]
    for i, frame in enumerate(cut):
        tree[f"0002/camid33_videoid2/seq0/{i:04d}.png"] = encode(np.ascontiguousarray(frame))
    source = make_folder(tmp_path / "source", tree)
    store, _ = imported(tmp_path, [str(source), "--partition", str(tmp_path / "partition.json")], capsys)
    assert store.header.crop == "cut"
    np.testing.assert_array_equal(store[0].frames, cut)


def cut_frames(seed: int, size: int, count: int = 4) -> np.ndarray:
    """Aligned frames without their outer columns, uint8 (count, size, 44 or 88)."""
    side = size * 10 // 64
    frames = np.stack([np.asarray(oracle(mask, size)) for mask in masks_of(seed, count)])
    return np.ascontiguousarray(frames[:, :, side : size - side])


def images_of(folder: str, frames: np.ndarray) -> Tree:
    return {f"{folder}/{i:03d}.png": encode(frame) for i, frame in enumerate(frames)}


def test_cut_images_of_128_stay_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = cut_frames(0, 128)
    source = make_folder(tmp_path / "source", images_of("a/b", frames))
    store, _ = imported(tmp_path, [str(source)], capsys)
    assert (store.height, store.width, store.header.crop) == (128, 88, "cut")
    np.testing.assert_array_equal(store[0].frames, frames)


@pytest.mark.parametrize(("have", "want"), [(64, 128), (128, 64)])
@pytest.mark.parametrize("kind", ["images", "pickle"])
def test_cut_frames_never_change_size(
    tmp_path: Path, kind: str, have: int, want: int, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = cut_frames(0, have)
    tree = images_of("a/b/c", frames) if kind == "images" else {"a/b/c/c.pkl": pickle.dumps(frames)}
    source = make_folder(tmp_path / "source", tree)
    assert main(["data", "import", str(source), "--size", str(want), "--out", str(tmp_path / "store")]) == 2
    assert f"use --size {have}" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_strays_cost_what_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Wherever they lie: one whole image in a cut sequence, one sequence of another height, one without anybody."""
    for place in (0, 7, 12):
        tree: Tree = {}
        for i in range(30):
            tree |= images_of(f"p{i:02d}/w", cut_frames(i, 64))
        tree[f"p{place:02d}/w/stray.png"] = encode(person(5))
        tree |= {name.replace("p20", "x"): data for name, data in images_of("p20/w", cut_frames(20, 128)).items()}
        folder = tmp_path / str(place)
        folder.mkdir()
        store, said = imported(folder, [str(make_folder(folder / "source", tree)), "--as", "frames"], capsys)
        assert store.header.crop == "cut"
        assert len({row.subject for row in store.rows}) == 30
        for i, row in enumerate(store.rows):
            np.testing.assert_array_equal(store[i].frames, cut_frames(int(row.subject[1:]), 64))
        assert f"1 frames that are not cut like the others of their sequence: p{place:02d}/w/stray.png" in said
        assert "1 sequences cut at 128 px height, which only --size 128 imports: x/w" in said


def test_pickles_without_anybody_are_no_sequences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = np.stack([np.asarray(oracle(mask, 64)) for mask in masks_of(0, 4)])
    tree = {"1/2/3/3.pkl": pickle.dumps(frames), "1/2/4/4.pkl": pickle.dumps(frames * 0)}
    store, said = imported(tmp_path, [str(make_folder(tmp_path / "source", tree)), "--as", "opengait"], capsys)
    assert [row.view for row in store.rows] == ["3"]
    assert "1 sequences without a usable frame: 1/2/4" in said


def test_what_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """People of a data set's own division who are not on disk, and probes that nobody named."""
    source = make_folder(tmp_path / "casia", CASIA_B.tree)
    _, said = imported(tmp_path, [str(source)], capsys)
    assert "120 people of the partition without a sequence: 002, 003, 004, …" in said
    other = tmp_path / "other"
    other.mkdir()
    partition = other / "without.json"
    partition.write_text(json.dumps({key: value for key, value in PARTITION.items() if key != "PROBE_SET"}))
    source = make_folder(other / "source", GAIT3D.tree)
    _, said = imported(other, [str(source), "--partition", str(partition)], capsys)
    assert "nothing can be looked for" in said
