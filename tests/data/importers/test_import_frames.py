"""Import of folders of images: every habit of storing masks, and every common layout."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from gaitdiff.data.align import align, align_sequence
from gaitdiff.data.formats.images import decode_mask
from gaitdiff.data.importers import Report, import_data
from gaitdiff.data.quality.inspect import contact_sheet, inspect
from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError
from masks import Tree, chunk, encode, make_folder, make_zip, person, png, walk


def run(tmp_path: Path, tree: Tree, **options: object) -> tuple[SequenceStore, Report]:
    source = make_folder(tmp_path / "source", tree)
    report = import_data(source, tmp_path / "store", workers=2, kind="frames", **options)  # type: ignore[arg-type]
    return SequenceStore(tmp_path / "store"), report


def keys(store: SequenceStore) -> list[tuple[str, str, str, str]]:
    return [row.key for row in store.rows]


# What folders mean

LAYOUTS: dict[str, tuple[str, str, tuple[str, str, str, str]]] = {
    "one level": ("anna", "auto", ("anna", "", "", "anna")),
    "two levels": ("anna/walk1", "auto", ("anna", "", "", "walk1")),
    "three levels": ("001/nm-01/090", "auto", ("001", "nm-01", "090", "090")),
    "four levels": ("001/nm/090/2", "auto", ("001", "nm", "090", "2")),
    "five levels": ("001/nm/090/2/left", "auto", ("001", "nm", "090", "2/left")),
    "unicode": ("Zoë Ω/散歩", "auto", ("Zoë Ω", "", "", "散歩")),
    "said": ("2024/anna/cam1/walk", "*/subject/view/sequence", ("anna", "", "cam1", "walk")),
    "said, shallower": ("x/y/anna/walk", "subject/sequence", ("anna", "", "", "walk")),
    "said, no walk": ("anna/red coat", "subject/condition", ("anna", "red coat", "", "red coat")),
    "said, backwards": ("cam1/anna", "view/subject", ("anna", "", "cam1", "anna")),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_layout(tmp_path: Path, case: str) -> None:
    folder, layout, key = LAYOUTS[case]
    store, report = run(tmp_path, walk(folder), layout=layout)
    assert keys(store) == [key]
    assert repr(key[0]) in str(report)  # the report says who it took for the person


def test_images_right_in_the_folder(tmp_path: Path) -> None:
    store, _ = run(tmp_path, {"1.png": encode(person(1)), "2.png": encode(person(2))})
    assert keys(store) == [("source", "", "", "source")]


@pytest.mark.parametrize(
    ("wrapper", "folders", "subjects"),
    [
        ("", ["a/1", "b/1"], ["a", "b"]),
        ("street/", ["t1", "t2"], ["t1", "t2"]),
        ("export/masks/", ["a/1", "a/2", "b/1"], ["a", "a", "b"]),
    ],
)
def test_zip_without_its_wrapping_folders(
    tmp_path: Path, wrapper: str, folders: list[str], subjects: list[str]
) -> None:
    tree = {name: data for i, f in enumerate(folders) for name, data in walk(wrapper + f, seed=10 * i).items()}
    report = import_data(make_zip(tmp_path / "x.zip", tree), tmp_path / "store")
    store = SequenceStore(tmp_path / "store")
    assert [row.subject for row in store.rows] == subjects
    assert ("is taken to wrap the archive" in str(report)) == bool(wrapper)
    for i, sequence in enumerate(store):
        np.testing.assert_array_equal(sequence.frames, align_sequence(person(10 * i + k) for k in range(3)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "x.zip"]


def test_order_is_natural_and_pixels_are_aligned(tmp_path: Path) -> None:
    names = ["f1.png", "f2.png", "f10.png", "f100.PNG", "g0.png"]
    tree = {f"a/w/{name}": encode(person(i)) for i, name in reversed(list(enumerate(names)))}
    tree |= walk("a/w10", 2, 50) | walk("a/w9", 2, 60)
    store, _ = run(tmp_path, tree)
    assert [row.sequence for row in store.rows] == ["w", "w9", "w10"]
    np.testing.assert_array_equal(store[0].frames, align_sequence(person(i) for i in range(5)))
    np.testing.assert_array_equal(store[1].frames, align_sequence([person(60), person(61)]))


def test_size_128(tmp_path: Path) -> None:
    store, _ = run(tmp_path, walk("a/w"), size=128)
    assert (store.height, store.width, store.rows[0].crop) == (128, 128, "full")
    np.testing.assert_array_equal(store[0].frames, align_sequence((person(i) for i in range(3)), 128))


def test_any_number_of_workers_gives_the_same_bytes(tmp_path: Path) -> None:
    tree = {name: data for i in range(9) for name, data in walk(f"p{i}/w", 4, 10 * i).items()}
    source = make_folder(tmp_path / "source", tree)
    for workers in (1, 4):
        import_data(source, tmp_path / f"store{workers}", workers=workers)
    for file in ("manifest.csv", "frames.bin", "store.json"):
        assert (tmp_path / "store1" / file).read_bytes() == (tmp_path / "store4" / file).read_bytes()


def test_frames_that_are_aligned_already_stay(tmp_path: Path) -> None:
    frames = [align(person(i)) for i in range(4)]
    tree = {f"a/w/{i}.png": encode(frame) for i, frame in enumerate(frames) if frame is not None}
    store, report = run(tmp_path, tree)
    np.testing.assert_array_equal(store[0].frames, frames)
    assert report.unchanged == 4


def test_photographs_beside_masks_are_no_frames(tmp_path: Path) -> None:
    photographs = {f"a/w/{i}.jpg": cv2.imencode(".jpg", person(9))[1].tobytes() for i in range(3)}
    store, report = run(tmp_path, walk("a/w") | photographs)
    np.testing.assert_array_equal(store[0].frames, align_sequence(person(i) for i in range(3)))
    assert "photographs beside masks" in str(report)


def test_the_last_report_counts_what_came_in(tmp_path: Path) -> None:
    """Of sequences that are passed over, such as those without a person, neither people nor frames count."""
    empty = {f"p2/{walk}/0.png": encode(np.zeros((64, 64), np.uint8)) for walk in ("v", "w")}
    tree = {f"{who}/{name}/{i}.png": encode(person(i)) for who in ("p0", "p1") for name in ("v", "w") for i in range(2)}
    store, report = run(tmp_path, tree | empty, split="train")
    assert len(store) == 4
    assert report.split == "everybody in train: 2 train, 0 are tested"


def test_shifted_frames_are_aligned_again(tmp_path: Path) -> None:
    frame = align(person(0))
    assert frame is not None
    store, report = run(tmp_path, {"a/w/0.png": encode(np.roll(frame, 9, axis=1))})
    np.testing.assert_array_equal(store[0].frames[0], frame)
    assert report.unchanged == 0


@pytest.mark.parametrize(("size", "width"), [(64, 44), (128, 88)])
def test_cut_frames_stay_cut(tmp_path: Path, size: int, width: int) -> None:
    side = (size - width) // 2
    frames = [align(person(i), size) for i in range(3)]
    cut = [np.ascontiguousarray(frame[:, side : side + width]) for frame in frames if frame is not None]
    cut.append(np.zeros((size, width), np.uint8))  # an empty frame drops out
    store, report = run(tmp_path, {f"a/w/{i}.png": encode(frame) for i, frame in enumerate(cut)}, size=size)
    assert (store.height, store.width, store.rows[0].crop) == (size, width, "cut")
    np.testing.assert_array_equal(store[0].frames, cut[:3])
    assert report.unchanged == 3


# How masks are stored


def palette_png(index: np.ndarray, colours: list[tuple[int, int, int]]) -> bytes:
    rows = b"".join(b"\0" + bytes(row) for row in index)
    return png(index.shape[1], index.shape[0], 8, 3, rows, chunk(b"PLTE", bytes(np.ravel(colours).tolist())))


def one_bit_png(mask: np.ndarray) -> bytes:
    rows = b"".join(b"\0" + np.packbits(row > 0).tobytes() for row in mask)
    return png(mask.shape[1], mask.shape[0], 1, 0, rows)


def bgra(mask: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return cv2.merge([mask, mask, mask, alpha])


FORMATS: dict[str, Callable[[np.ndarray], bytes]] = {
    "grey": encode,
    "0 and 1": lambda mask: encode(mask // 255),
    "0 and 7": lambda mask: encode(mask // 255 * 7),
    "one bit": one_bit_png,
    "16 bits": lambda mask: encode(mask.astype(np.uint16) * 257),
    "16 bits, 0 and 1": lambda mask: encode((mask // 255).astype(np.uint16)),
    "16 bits, 0 and 255": lambda mask: encode(mask.astype(np.uint16)),
    "colour": lambda mask: encode(cv2.merge([mask, mask, mask])),
    "pure blue": lambda mask: encode(cv2.merge([mask, mask * 0, mask * 0])),
    "palette, dark red": lambda mask: palette_png(mask // 255, [(0, 0, 0), (128, 0, 0)]),
    "opaque": lambda mask: encode(bgra(mask, np.full_like(mask, 255))),
    "black on transparent": lambda mask: encode(bgra(mask * 0, mask)),
    "white on transparent": lambda mask: encode(bgra(mask * 0 + 255, mask)),
    "JPEG": lambda mask: encode(mask, ".jpg"),
    "BMP": lambda mask: encode(mask, ".bmp"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_formats_all_mean_the_same_mask(name: str) -> None:
    for seed in range(5):
        mask = person(seed)
        decoded, done = decode_mask(FORMATS[name](mask))
        np.testing.assert_array_equal(decoded, mask)
        assert bool(done) == (name not in ("grey", "one bit", "BMP"))


@pytest.mark.parametrize("bits", [8, 16])
def test_grey_edges_survive(bits: int) -> None:
    mask = cv2.GaussianBlur(person(0), (7, 7), 0)
    image = mask if bits == 8 else mask.astype(np.uint16) * 257
    np.testing.assert_array_equal(decode_mask(encode(image))[0], mask)


def test_report_says_what_was_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = {f"a/w/{i}.png": encode(person(i) // 255) for i in range(4)}
    store, report = run(tmp_path, tree)
    np.testing.assert_array_equal(store[0].frames, align_sequence(person(i) for i in range(4)))
    assert "4 frames: masks of two values made 0 and 255: a/w/0.png, a/w/1.png, a/w/2.png, …" in str(report)
    assert str(report) in capsys.readouterr().out


def test_strays_are_skipped_and_counted(tmp_path: Path) -> None:
    good = walk("anna/w1") | walk("anna/w2", seed=20)
    whole = encode(person(0))
    bad = {
        "anna/.DS_Store": b"x",
        "anna/w1/Thumbs.db": b"x",
        "__MACOSX/anna/w1/._0.png": b"x",
        "anna/w1/.hidden.png": whole,
        "anna/notes.txt": b"x",
        "anna/cover.png": whole,
        "anna/w1/99.png": b"no image",
        "anna/w1/98.png": whole[: len(whole) // 2],
        "anna/w1/97.png": b"",
        "anna/w1/96.png": encode(np.zeros((50, 50), np.uint8)),
        "anna/w3/0.png": encode(np.zeros((50, 50), np.uint8)),
        "anna/w4/0.png": b"no image",
    }
    (tmp_path / "source" / "anna" / "empty").mkdir(parents=True)
    store, report = run(tmp_path, good | bad)
    assert [row.sequence for row in store.rows] == ["w1", "w2"]
    np.testing.assert_array_equal(store[0].frames, align_sequence(person(i) for i in range(3)))
    assert report.skipped.counts == {
        "stray files of the operating system": 4,
        "files that are neither images nor pickles": 1,
        "empty folders": 1,
        "images beside folders of images": 1,
        "unreadable images": 4,
        "frames with almost no foreground": 2,
        "sequences without a usable frame": 2,
    }
    assert "skipped: 2 sequences without a usable frame: anna/w3, anna/w4" in str(report)
    assert (report.people, report.sequences, report.frames) == (1, 2, 6)


def test_linked_folders_are_read_and_loops_end(tmp_path: Path) -> None:
    elsewhere = make_folder(tmp_path / "elsewhere", walk("w"))
    source = make_folder(tmp_path / "source", walk("anna/w", seed=30))
    (source / "berta").symlink_to(elsewhere)
    (source / "anna" / "loop").symlink_to(source)
    import_data(source, tmp_path / "store")
    assert [row.subject for row in SequenceStore(tmp_path / "store").rows] == ["anna", "berta"]


@pytest.mark.skipif(os.name == "nt", reason="file names are Unicode there")
def test_names_that_are_not_unicode(tmp_path: Path) -> None:
    folder = os.path.join(os.fsencode(tmp_path), b"source", b"caf\xe9")
    os.makedirs(folder)
    with open(os.path.join(folder, b"0.png"), "wb") as file:
        file.write(encode(person(0)))
    import_data(tmp_path / "source", tmp_path / "store")
    assert SequenceStore(tmp_path / "store").rows[0].subject == "caf\N{REPLACEMENT CHARACTER}"


def test_suspicious_sequences_are_named(tmp_path: Path) -> None:
    photo = np.random.default_rng(0).integers(60, 200, (80, 60, 3), dtype=np.uint8)
    tree = walk("good/w")
    tree |= {f"inverted/w/{i}.png": encode(255 - person(i)) for i in range(3)}
    tree |= {f"photo/w/{i}.png": encode(photo) for i in range(3)}
    tree |= {f"jpeg/w/{i}.jpg": cv2.imencode(".jpg", photo)[1].tobytes() for i in range(3)}
    _, report = run(tmp_path, tree)
    lines = report.suspicious.lines()
    assert len(lines) == 2
    assert lines[0].startswith("1 sequences that look inverted")
    assert lines[0].endswith(": inverted/w")
    assert lines[1] == "2 sequences that look like photographs, not masks: jpeg/w, photo/w"


# Splits


def test_split_by_person(tmp_path: Path) -> None:
    tree: Tree = {}
    for p in range(12):
        for w in range(1 if p % 4 == 0 else 3):
            tree |= walk(f"p{p}/w{w}", 1, 100 * p + w)
    store, report = run(tmp_path, tree, seed=3)
    side: dict[str, set[str]] = {}
    probes: dict[str, int] = {}
    walks: dict[str, int] = {}
    for row in store.rows:
        side.setdefault(row.subject, set()).add(row.split)
        walks[row.subject] = walks.get(row.subject, 0) + 1
        probes[row.subject] = probes.get(row.subject, 0) + (row.role == "probe")
        assert (row.role == "") == (row.split == "train")
    assert all(len(splits) == 1 for splits in side.values())
    test = [name for name, splits in side.items() if splits == {"test"}]
    assert len(test) == 3
    for name in side:
        assert probes[name] == (1 if name in test else 0)
        assert walks[name] > 1 or name not in test
    assert sum(report.roles.values()) == len(store)


def test_tracks_cut_in_halves(tmp_path: Path) -> None:
    """Each frame stays, in order; the first half of a track is the probe, the longer second one gallery."""
    tree = {**walk("ann/w", 7, 0), **walk("bob/w", 4, 50)}
    whole, _ = run(tmp_path / "whole", tree)
    halves, report = run(tmp_path / "halves", tree, split="halves")
    assert [(row.name, row.frames, row.split, row.role) for row in halves.rows] == [
        ("ann/w-1", 3, "test", "probe"),
        ("ann/w-2", 4, "test", "gallery"),
        ("bob/w-1", 2, "test", "probe"),
        ("bob/w-2", 2, "test", "gallery"),
    ]
    for track in range(2):
        parts = np.concatenate([halves[2 * track].frames, halves[2 * track + 1].frames])
        assert np.array_equal(parts, whole[track].frames)
    assert "halves" in report.split
    with pytest.raises(UserError, match=r"bob/w.*one file alone"):
        run(tmp_path / "single", {**walk("ann/w", 7, 0), **walk("bob/w", 1, 50)}, split="halves")
    assert not (tmp_path / "single" / "store").exists()


# Inspection


def test_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree: Tree = {}
    for p in range(9):
        for w in range(3):
            tree |= walk(f"p{p}/w{w}", 1 + p, 100 * p + 10 * w)
    store, _ = run(tmp_path, tree)
    summary = inspect(store.path)
    assert (summary.people, summary.header.sequences, summary.header.frames) == (9, 27, 3 * 45)
    assert summary.lengths == (1, 5.0, 9)
    assert {(part.split, part.role): part.sequences for part in summary.parts} == {
        ("train", ""): 21,
        ("test", "probe"): 2,
        ("test", "gallery"): 4,
    }
    share = np.mean([frame >= 128 for sequence in store for frame in sequence.frames])
    assert summary.foreground == pytest.approx(share)
    assert summary.sheet == tmp_path / "store-contact.png"
    np.testing.assert_array_equal(cv2.imread(str(summary.sheet), cv2.IMREAD_UNCHANGED), contact_sheet(store))
    table = capsys.readouterr().out
    assert "1 to 9, median 5" in table
    assert "probe" in table
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "store", "store-contact.png"]


def test_contact_sheet_shows_the_frames(tmp_path: Path) -> None:
    store, _ = run(tmp_path, walk("a/w", 3) | walk("b/w", 1, 50))
    sheet = contact_sheet(store)
    found = 0
    for sequence in store:
        for frame in sequence.frames:
            _, _, (x, y), _ = cv2.minMaxLoc(cv2.matchTemplate(sheet, frame, cv2.TM_SQDIFF))
            found += np.array_equal(sheet[y : y + 64, x : x + 64], frame)
    assert found == 4


def test_sheet_where_it_is_wanted(tmp_path: Path) -> None:
    store, _ = run(tmp_path, walk("a/w"))
    assert inspect(store.path, sheet=tmp_path / "here.png").sheet == tmp_path / "here.png"
    assert (tmp_path / "here.png").is_file()
    inspect(store.path, sheet=tmp_path / "here.png")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"here\.png cannot be written: its folder does not exist"):
        inspect(store.path, sheet=tmp_path / "file" / "here.png")
    with pytest.raises(UserError, match="exists already: choose another --sheet"):
        inspect(store.path, sheet=tmp_path / "file")
    assert (tmp_path / "file").read_text() == "x"
    beside = tmp_path / f"{store.path.name}-contact.png"
    cv2.imwrite(str(beside), np.zeros((4, 4), np.uint8))  # somebody's picture
    for sheet in (None, beside):
        before = beside.read_bytes()
        with pytest.raises(UserError, match="exists already: choose another --sheet"):
            inspect(store.path, sheet=sheet)
        assert beside.read_bytes() == before


def test_inspect_finds_damage(tmp_path: Path) -> None:
    store, _ = run(tmp_path, walk("a/w"))
    data = bytearray((store.path / "frames.bin").read_bytes())
    data[len(data) // 2] ^= 1
    (store.path / "frames.bin").write_bytes(data)
    with pytest.raises(UserError, match="damaged: sequence 'a/w'"):
        inspect(store.path)
    assert not (tmp_path / "store-contact.png").exists()
