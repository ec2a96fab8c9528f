"""``gaitdiff submit grew``: the archive holds what the site takes, or there is none."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from gaitdiff.cli import main
from gaitdiff.commands import submit
from gaitdiff.data.store import SequenceStore, StoreWriter
from gaitdiff.errors import UserError
from gaitdiff.evaluation.features import extract
from gaitdiff.evaluation.protocols.grew import GREW
from gaitdiff.evaluation.protocols.submission import read_probe_list, zip_submission
from gaitdiff.training.checkpoint import load_checkpoint
from worlds import make_run

PEOPLE, VIDEOS = 12, ["4XPn5Z28", "5aB00000", "00000001", "zzzzzzzz"]
HEADER = "videoId," + ",".join(f"rank{k}" for k in range(1, 21))


def grew_store(path: Path, videos: list[str] = VIDEOS, people: int = PEOPLE) -> Path:
    """Two gallery sequences of every person, 00001 to 00012, and probes without names."""
    rng = np.random.default_rng(0)
    with StoreWriter(path, source="test") as writer:
        for person in range(1, people + 1):
            look = rng.random((64, 64)) < 0.4
            for kind in ("01", "02"):
                clip = 255 * (look ^ (rng.random((4, 64, 64)) < 0.05)).astype(np.uint8)
                names = {"condition": kind, "view": f"g{person}x{kind}", "sequence": f"g{person}x{kind}"}
                writer.add(clip, subject=f"{person:05d}", **names, split="test", role="gallery")
        for video in videos:
            clip = 255 * (rng.random((4, 64, 64)) < 0.4).astype(np.uint8)
            names = {"subject": "probe", "condition": "03", "view": video, "sequence": f"{video}s{rng.random()}"}
            writer.add(clip, **names, split="test", role="probe")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return grew_store(tmp_path_factory.mktemp("data") / "grew")


def nearest(run: Path, store: Path, metric: str) -> dict[str, list[str]]:
    """The 20 nearest of every probe, from distances written down a pair at a time."""
    opened = SequenceStore(store)
    features = extract(load_checkpoint(run), opened, np.arange(len(opened)), "cpu").double().numpy()

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        if metric == "cosine":
            cosines = [a[:, p] @ b[:, p] / np.linalg.norm(a[:, p]) / np.linalg.norm(b[:, p]) for p in range(a.shape[1])]
            return 1 - float(np.mean(cosines))
        return float(np.mean([np.linalg.norm(a[:, p] - b[:, p]) for p in range(a.shape[1])]))

    gallery = [i for i, row in enumerate(opened.rows) if row.condition in ("01", "02")]
    found = {}
    for i, row in enumerate(opened.rows):
        if row.condition == "03":
            order = sorted(gallery, key=lambda j: distance(features[i], features[j]))
            found[row.view] = [str(int(opened.rows[j].subject)) for j in order[:20]]
    return found


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_archive(run: Path, store: Path, tmp_path: Path, metric: str, capsys: pytest.CaptureFixture[str]) -> None:
    out, probes = tmp_path / "submission.zip", tmp_path / "sample.csv"
    probes.write_text(f"\ufeff{HEADER}\r\n" + "".join(f"{video}{',1' * 20}\r\n" for video in sorted(VIDEOS)))
    words = ["submit", "grew", str(run), "--data", str(store), "--out", str(out), "--device", "cpu"]
    assert main([*words, "--metric", metric, "--probes", str(probes)]) == 0
    shown = capsys.readouterr().out
    for word in ("grew, local check", metric, "rank-1", "rank-20", "4 probes", "sample.csv", "not the site's"):
        assert word in shown
    with zipfile.ZipFile(out) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["submission.csv"]
        text = archive.read("submission.csv").decode("ascii")
    assert text.split("\n")[0] == HEADER
    assert "\r" not in text
    lines = list(csv.reader(io.StringIO(text)))[1:]
    assert {line[0]: line[1:] for line in lines} == nearest(run, store, metric)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sample.csv", "submission.zip"]
    first = out.read_bytes()
    assert main([*words, "--metric", metric]) == 0
    assert "not compared with a list" in capsys.readouterr().out
    assert out.read_bytes() == first
    with zipfile.ZipFile(out, "a") as archive:  # somebody's own
        archive.writestr("notes.txt", "mine")
    assert main([*words, "--metric", metric]) == 2
    assert "exists already" in capsys.readouterr().err
    with zipfile.ZipFile(out) as archive:
        assert archive.read("notes.txt") == b"mine"


def good(videos: list[str] = VIDEOS) -> str:
    return HEADER + "\n" + "".join(f"{video}{',7' * 20}\n" for video in videos)


@pytest.mark.parametrize(("text", "sentence"), [
    (good().replace("videoId", "videoID"), "begins with videoId"),
    (good().replace(",rank20", ""), "begins with"),
    ("\ufeff" + good(), "begins with"),
    ("", "begins with"),
    (good()[:-1], "cut short"),
    (good() + "\n", "line 6"),
    (good().replace("\nzz", "\n\nzz"), "line 5"),
    (good().replace("4XPn5Z28,7,", "4XPn5Z28,"), "line 2"),
    (good().replace("4XPn5Z28,7,", "4XPn5Z28,7,7,"), "line 2"),
    (good().replace("4XPn5Z28,", ","), "line 2"),
    (good().replace("4XPn5Z28,7", "4XPn5Z28,x"), "'x', who is not in the gallery"),
    (good().replace("4XPn5Z28,7", "4XPn5Z28,8"), "'8', who is not in the gallery"),
    (good().replace("4XPn5Z28,7", "4XPn5Z28, 7"), "' 7', who is not in the gallery"),
    (good().replace("\n", "\r\n"), "begins with"),
    (good(VIDEOS[1:]), r"1 missing \('4XPn5Z28'\)"),
    (good([*VIDEOS, "another0"]), r"1 not in the probes \('another0'\)"),
    (good([*VIDEOS, VIDEOS[0]]), r"1 there more than once \('4XPn5Z28'\)"),
    (good(["a", "b", "c", "d", "e"]), r"4 missing \('00000001', '4XPn5Z28', '5aB00000', …\), 5 not in"),
])  # fmt: skip
def test_a_file_that_the_site_would_refuse(text: str, sentence: str) -> None:
    assert GREW.submission is not None
    GREW.submission.check(good(), VIDEOS, {"7"})
    with pytest.raises(UserError, match=sentence) as caught:
        GREW.submission.check(text, VIDEOS, {"7"})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [
    "a1\nb2\nc3\n", "a1\r\nb2\r\n\r\nc3", "videoId\na1\nb2\nc3", "VideoID,rank1\na1,5\nb2,6\nc3,7\n",
    '"a1";1\nb2\t2\nc3 3\n', "\ufeffa1\nb2\nc3\n",
])  # fmt: skip
def test_lists_of_probes(tmp_path: Path, text: str) -> None:
    (tmp_path / "list.txt").write_bytes(text.encode())
    assert read_probe_list(tmp_path / "list.txt") == ("a1", "b2", "c3")


@pytest.mark.parametrize(("data", "sentence"), [
    (b"", "names no video"), (b"videoId,rank1\n\n", "names no video"), (b"\xff\xfe\x00", "not a text file"),
    (b"PK\x03\x04 1", "no list of probe videos"), (b"{'a': 1}", "no list of probe videos"), (None, "cannot be read"),
    (b"a1\nb2\na1\n", r"names videos more than once \('a1'\)"),
    (b"videoId,rank1\na1,1\nb2,1\nb2,2\n\na1,1\nb2,3", r"names videos more than once \('a1', 'b2'\)"),
])  # fmt: skip
def test_what_is_no_list_of_probes(tmp_path: Path, data: bytes | None, sentence: str) -> None:
    if data is not None:
        (tmp_path / "list").write_bytes(data)
    with pytest.raises(UserError, match=sentence):
        read_probe_list(tmp_path / "list")


@pytest.mark.parametrize(("flags", "made", "sentence"), [
    (("--probes", "list"), {}, "1 missing ('99999999'), 1 not in list ('4XPn5Z28')"),
    (("--probes", "no-list"), {}, "no-list cannot be read"),
    ((), {"videos": ["a", "b", "a"]}, "does not have each probe video once: 1 there more than once ('a')"),
    ((), {"videos": []}, "finds no probes"),
    ((), {"people": 9}, "20 nearest gallery rows"),
    (("--out", "x.csv"), {}, "ends in .zip"),
    (("--out", "no/where.zip"), {}, "its folder does not exist"),
    (("--out", "folder.zip"), {}, "exists already"),
    (("--metric", "manhattan"), {}, "invalid choice"),
])  # fmt: skip
def test_mistakes_are_one_sentence_before_any_work(
    run: Path,
    tmp_path: Path,
    flags: tuple[str, ...],
    made: dict,
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(submit, "load_checkpoint", None)
    (tmp_path / "list").write_text("\n".join(["99999999", *VIDEOS[1:]]))
    (tmp_path / "folder.zip").mkdir()
    data = grew_store(tmp_path / "data", **made)
    before = sorted(path.name for path in tmp_path.iterdir())
    out = () if "--out" in flags else ("--out", "out.zip")
    assert main(["submit", "grew", str(run), "--data", str(data), *out, "--device", "cpu", *flags]) == 2
    message = capsys.readouterr().err.strip()
    assert sentence in message
    assert "\n" not in message
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_sites(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "grow"]) == 2
    message = capsys.readouterr().err
    assert "invalid choice: 'grow' (choose from " in message
    assert "grew" in message


def test_from_the_folders_of_the_download(run: Path, tmp_path: Path) -> None:
    """train/, test/gallery/ and test/probe/ as GREW is given out, imported and submitted."""
    rng = np.random.default_rng(1)
    folders = [f"train/00001/{name}" for name in ("4XPn5Z28", "5XPn5Z28")]
    folders += [f"test/gallery/{person:05d}/{name}{person:05d}" for person in range(1, 12) for name in ("abc", "Abc")]
    folders += [f"test/probe/{video}" for video in VIDEOS]
    for folder in folders:
        (tmp_path / "GREW" / folder).mkdir(parents=True)
        for number in range(3):
            mask = np.zeros((64, 64), np.uint8)
            mask[:, 20:44] = 255 * (rng.random((64, 24)) < 0.8)
            assert cv2.imwrite(str(tmp_path / "GREW" / folder / f"{number:05d}.png"), mask)
    store, out = tmp_path / "store", tmp_path / "submission.zip"
    assert main(["data", "import", str(tmp_path / "GREW"), "--as", "grew", "--out", str(store), "--workers", "1"]) == 0
    (tmp_path / "probes.txt").write_text("\n".join(VIDEOS))
    words = ["--data", str(store), "--out", str(out), "--device", "cpu", "--probes", str(tmp_path / "probes.txt")]
    assert main(["submit", "grew", str(run), *words]) == 0
    with zipfile.ZipFile(out) as archive:
        lines = archive.read("submission.csv").decode().splitlines()[1:]
    expected = nearest(run, store, "cosine")
    assert {line.split(",")[0]: line.split(",")[1:] for line in lines} == expected
    assert {person for ranked in expected.values() for person in ranked} <= {str(person) for person in range(1, 12)}


def test_an_archive_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "out.zip").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        zip_submission(tmp_path / "out.zip", good())
    assert [path.name for path in tmp_path.iterdir()] == ["out.zip"]


def test_a_store_without_the_second_gallery_type_is_submitted(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The site asks for the type 03 among the others; the local check alone needs both."""
    with StoreWriter(tmp_path / "store", source="test") as writer:
        for number in range(24):
            clip = np.zeros((2, 64, 64), np.uint8)
            clip[:, :, 20 : 24 + number] = 255
            person, kind = ("probe", "03") if number >= 21 else (f"{number:05}", "01")
            where = {"condition": kind, "view": f"v{number}", "sequence": "s", "split": "test"}
            writer.add(clip, subject=person, **where)
    words = ["submit", "grew", str(run), "--data", str(tmp_path / "store"), "--out", str(tmp_path / "x.zip")]
    assert main([*words, "--device", "cpu"]) == 0
    assert "no local check: " in capsys.readouterr().out
    assert (tmp_path / "x.zip").is_file()


@pytest.mark.parametrize(("site", "other"), [("hid", "grew"), ("grew", "hid")])
def test_the_store_of_another_site_is_refused(
    site: str, other: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = grew_store(tmp_path / "data")
    header = data / "store.json"
    header.write_text(json.dumps({**json.loads(header.read_text()), "dataset": other}))
    words = ["submit", site, str(run), "--data", str(data), "--out", str(tmp_path / "out.zip"), "--device", "cpu"]
    assert main(words) == 2
    assert f"is a store of {other}, not of {site}" in capsys.readouterr().err
    assert not (tmp_path / "out.zip").exists()
