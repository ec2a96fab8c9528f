"""Walks out of a pretrained denoiser: pictures, stores, look-ups, and what is refused."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from gaitdiff.cli import main
from gaitdiff.commands import generate as verb
from gaitdiff.commands.synthetic import solid
from gaitdiff.data.store import SequenceStore
from gaitdiff.diffusion.autoencoder import Autoencoder
from gaitdiff.errors import UserError
from named_stores import named_store, refused
from worlds import TINY_PRETRAIN, make_store, without_digests


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("store") / "at 10:30")


def pretrained(folder: Path, store: Path, *flags: str) -> Path:
    words = ["pretrain", *TINY_PRETRAIN, "--diffusion.start", "walkers", "--optim.iterations", "1", *flags]
    assert main([*words, "--run.evaluate_every", "0", "--data.store", str(store), "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory, store: Path) -> Path:
    """A run whose denoiser sees the frames of a clip together."""
    return pretrained(tmp_path_factory.mktemp("joint") / "pre", store)


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory, store: Path) -> Path:
    """A run whose denoiser sees each frame by itself."""
    return pretrained(tmp_path_factory.mktemp("apart") / "pre", store, "--diffusion.frames_apart", "true")


def made(run: Path, out: Path, *words: str | Path) -> Path:
    assert main(["generate", str(run), "--out", str(out), "--device", "cpu", "--steps", "2", *map(str, words)]) == 0
    return out


class Nothing(torch.nn.Module):
    """A codec that decodes empty frames, but for the clips and frames that are named."""

    def __init__(self, full: set[int]) -> None:
        super().__init__()
        self.full = full

    def decode_frames(self, latents: torch.Tensor) -> torch.Tensor:
        frames = torch.zeros(len(latents), 1, 64, 64)
        for number in self.full:
            frames[number, :, :, 24:40] = 0.5
        return frames


def test_a_sheet_shows_the_walk_and_what_is_like_it(
    joint: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    out = made(joint, tmp_path / "a.png", "--like", f"{store}:p4/nm/cam1/s0", "--count", "3", "--frames", "6")
    heard = capsys.readouterr()
    assert heard.out == f"{out}\n"
    assert "clips of 2 frames, and may not move well for 6" in heard.err
    picture = cv2.imread(str(out), cv2.IMREAD_GRAYSCALE)
    assert picture.shape == (4 * 136, 6 * 136)
    tiles = picture[::2, ::2].reshape(4, 68, 6, 68).transpose(0, 2, 1, 3)[:, :, 2:-2, 2:-2]
    assert (tiles[0] == SequenceStore(store)["p4"][1].frames).all()  # all six of them
    assert len(np.unique(tiles[1:])) > 16  # soft grey
    assert not any((tiles[1] == tiles[line]).all() for line in (2, 3))


def test_an_animation_of_silhouettes_that_are_no_movement(
    apart: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = made(apart, tmp_path / "a.gif", "--like", store, "--count", "3", "--frames", "5")
    assert "no movement" in capsys.readouterr().err
    with Image.open(out) as animation:
        assert animation.size == (6 * 136, 136)  # three people, each beside their own walk
        assert 1 < animation.n_frames <= 5
    assert (made(apart, tmp_path / "u.gif", "--unconditional").read_bytes()) != out.read_bytes()


@pytest.mark.parametrize("name", ["a.png", "a.gif", "s"])
def test_the_same_command_gives_the_same_bytes(name: str, joint: Path, store: Path, tmp_path: Path) -> None:
    def content(folder: str, *words: str) -> list[bytes]:
        (tmp_path / folder).mkdir()
        out = made(joint, tmp_path / folder / name, "--like", store, "--count", "3", *words)
        return [file.read_bytes() for file in (sorted(out.iterdir()) if out.is_dir() else [out])]

    first = content("one")
    assert content("two") == first
    assert content("three", "--seed", "1") != first
    assert content("four", "--guidance", "4") != first


def test_more_walks_begin_with_the_same_ones(
    joint: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = SequenceStore(made(joint, tmp_path / "few", "--like", f"{store}:15", "--count", "2"))
    monkeypatch.setattr(verb, "_AT_ONCE", 2)  # one walk at a time
    many = SequenceStore(made(joint, tmp_path / "many", "--like", f"{store}:15", "--count", "5"))
    assert (len(few), len(many)) == (2, 5)
    for one, other in zip(few, many, strict=False):
        assert one.row.key == other.row.key
        assert (one.frames != other.frames).mean() < 0.01


def test_a_store_is_labelled_and_passes_verification(
    apart: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = made(apart, tmp_path / "new" / "s", "--like", store, "--count", "8", "--frames", "6")
    found, real = SequenceStore(out), SequenceStore(store)
    people = [row.subject for row in found.rows]
    assert people == people[:2] * 4
    assert set(people) == {"p4", "p5"}
    walks = [(row.subject, row.condition, row.view, row.sequence.partition("-")[0]) for row in found.rows]
    assert set(walks) == {row.key for row in real.rows if row.split == "test"}  # three of each, by turns
    assert [row.sequence.partition("-")[2] for row in found.rows] == [f"g{number:05d}" for number in range(8)]
    assert {(row.split, row.role, row.crop) for row in found.rows} == {("train", "", "full")}
    assert found.header.source == (
        f"synthetic: gaitdiff generate, {apart}, step 1 of 1, like the test people of {store}, guidance 2, 2 steps, "
        "seed 0"
    )
    for sequence in found:
        assert sequence.frames.shape[1:] == (64, 64)
        assert set(np.unique(sequence.frames).tolist()) <= {0, 255}
    capsys.readouterr()
    assert main(["data", "verify", str(out)]) == 0
    assert re.search(r"empty frames +│ 0 ", capsys.readouterr().out)
    again = pretrained(tmp_path / "again", out)  # what was made can be trained on
    assert (again / "checkpoints" / "step-00000001").is_dir()


def test_walks_like_nobody_are_one_each(joint: Path, tmp_path: Path) -> None:
    found = SequenceStore(made(joint, tmp_path / "s", "--unconditional", "--count", "3", "--frames", "4"))
    assert [row.name for row in found.rows] == ["g00000/s00", "g00001/s00", "g00002/s00"]
    assert "like nobody in particular, 2 steps" in found.header.source


def test_empty_frames_drop_out_and_are_counted(
    joint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--unconditional", "--count", "3", "--frames", "4"]
    monkeypatch.setattr(verb, "load_autoencoder", lambda *_: Autoencoder(Nothing({0, 1, 3, 10})))
    capsys.readouterr()
    found = SequenceStore(made(joint, tmp_path / "s", *words))
    assert "8 empty frames left out, and 1 walk without others" in capsys.readouterr().err
    assert [(row.subject, row.frames) for row in found.rows] == [("g00000", 3), ("g00002", 1)]
    monkeypatch.setattr(verb, "load_autoencoder", lambda *_: Autoencoder(Nothing(set())))
    assert "no sequence was added" in refused(["generate", joint, *words, "--out", tmp_path / "none"], capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_run_with_one_clip_for_both_is_given_such_a_clip(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``data.same_clip`` the backbone has learned from the latent clip: consecutive, and of its length."""
    drawn: list[tuple[str, int]] = []

    def clip(self: verb.Likeness, number: int, sampling: str, frames: int) -> np.ndarray:
        drawn.append((sampling, frames))
        return np.zeros((frames, 64, 64), np.uint8)

    monkeypatch.setattr(verb.Likeness, "clip", clip)
    words = ("--like", f"{store}:0", "--steps", "2")
    for same, expected in (("true", ("consecutive", 3)), ("false", ("unordered", 5))):
        flags = ("--data.gait_frames", "5", "--data.latent_frames", "3", "--data.same_clip", same)
        made(pretrained(tmp_path / same, store, *flags), tmp_path / f"{same}.png", *words)
        seen, *shown = drawn
        assert seen == expected
        assert {sampling for sampling, _ in shown} <= {"consecutive"}  # what the sheet shows beside it
        drawn.clear()


def test_a_silhouette_is_what_is_at_least_half_white() -> None:
    soft = np.zeros((3, 64, 64), np.float32)
    soft[0, :40, 0], soft[1, :39, 0], soft[2, :, :8] = 0.5, 0.9, 0.49
    kept = solid(soft)
    assert kept.shape == (1, 64, 64)  # 39 white pixels are as good as none
    assert (kept[0] == 255 * (soft[0] > 0)).all()


def test_walks_are_looked_up_among_others_of_the_same_people(
    apart: Path, run: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", str(apart), "--like", str(store), "--count", "2", "--steps", "1", "--device", "cpu", "--check"]
    for more, how in (((), "raw features"), (("--judge", str(run), "--out", str(tmp_path / "s")), "embeddings")):
        capsys.readouterr()
        assert main([*words, *more]) == 0
        out = capsys.readouterr().out
        assert f"among 2 people, another real walk of each (cosine distance of {how}" in out
        assert re.search(r"made: [012] of 2, rank-1 [\d.]+ % \([\d.]+ to [\d.]+\), chance 50 %, p = ", out)
        assert re.search(r"real, as many frames: [012] of 2,", out)
    assert {row.subject for row in SequenceStore(tmp_path / "s").rows} == {"p4", "p5"}


def test_pictures_of_ours_are_replaced_and_others_are_not(
    joint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, other = tmp_path / "a.png", tmp_path / "b.png"
    before = cv2.imread(str(made(joint, out, "--unconditional")))
    assert (cv2.imread(str(made(joint, out, "--unconditional", "--seed", "1"))) != before).any()
    Image.new("L", (4, 4)).save(other)
    foreign = other.read_bytes()
    assert "exists already" in refused(["generate", joint, "--unconditional", "--out", other], capsys)
    assert other.read_bytes() == foreign


@pytest.mark.parametrize("error", [UserError("no more"), OSError(28, "No space left", "here")], ids=["ours", "system"])
def test_what_fails_on_the_way_leaves_nothing(
    error: Exception,
    joint: Path,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ours = made(joint, tmp_path / "ours.png", "--unconditional").read_bytes()
    monkeypatch.setattr(verb, "_AT_ONCE", 2)  # one walk at a time
    calls: list[int] = []

    def sample(*_: object, count: int, **__: object) -> torch.Tensor:
        calls.append(count)
        if len(calls) % 3 == 0:
            raise error
        return torch.zeros(count, 4, 2, 8, 8)

    monkeypatch.setattr(verb, "sample", sample)
    for name in ("ours.png", "new.gif", "s", "deep/er/s"):
        words = ["generate", joint, "--like", store, "--count", "5", "--out", tmp_path / name]
        assert re.search("no more|No space left|disk is full", refused(words, capsys))
    assert calls == [1] * 12
    assert [path.name for path in tmp_path.iterdir()] == ["ours.png"]
    assert (tmp_path / "ours.png").read_bytes() == ours


def test_mistakes(joint: Path, run: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.png"
    bare, tall = tmp_path / "bare", named_store(tmp_path / "tall", [("p", "", "", "test", "")], height=128)
    shutil.copytree(joint, bare)
    (without_digests(bare / "checkpoints" / "step-00000001") / "denoiser.safetensors").unlink()
    train = named_store(tmp_path / "train", [("p", "", "", "train", "")])
    probes = named_store(tmp_path / "probes", [("probe", "", "", "test", "")])
    nobody, to = ["generate", joint, "--unconditional"], ["--out", out]
    like = ["generate", joint, *to, "--like"]
    listed = {path.name for path in tmp_path.iterdir()}
    for words, sentence in (
        (["generate", joint, *to], "either --like"),
        ([*like, store, "--unconditional"], "either --like"),
        ([*nobody], "give --out"),
        ([*nobody, *to, "--guidance", "3"], "leave one out"),
        ([*nobody, *to, "--check"], "give --like a store"),
        ([*nobody, *to, "--judge", run], "add --check"),
        ([*like, f"{store}:0", "--check"], "without a row"),
        ([*like, store, "--check"], "--count is 1"),
        ([*like, store, "--check", "--count", "3"], "take from 2 to 2"),
        ([*like, tmp_path / "none"], "there is no store"),
        ([*like, f"{store}:99"], "no row 99"),
        ([*like, f"{store}:p4"], "name a sequence"),
        ([*like, train], "no test sequences"),
        ([*like, probes], "no test people whose names are known"),
        ([*like, tall], "128 px"),
        ([*like, store, "--guidance", "-1"], "guidance is -1"),
        ([*like, store, "--guidance", "1e38"], "lower it"),
        ([*nobody, *to, "--steps", "0"], "steps is 0"),
        ([*nobody, *to, "--steps", "1000"], "from 1 to 999"),
        ([*nobody, *to, "--count", "0"], "--count is 0"),
        ([*nobody, *to, "--frames", "0"], "--frames is 0"),
        ([*nobody, *to, "--frames", "1001"], "from 1 to 1,000"),
        ([*nobody, *to, "--frames", "600", "--count", "2"], "would show 1,200 frames"),
        ([*nobody, *to, "--seed", "-1"], "must not be negative"),
        ([*nobody, "--out", tmp_path / "a.mp4"], ".gif or .png file"),
        ([*nobody, "--out", tmp_path / "none" / "a.gif"], "its folder does not exist"),
        ([*nobody, "--out", train], "exists already"),
        ([*nobody, *to, "--device", "tpu"], "no device 'tpu'"),
        (["generate", run, "--unconditional", *to], "a run of gaitdiff finetune, without a denoiser"),
        (["generate", "walkers", "--unconditional", *to], "a backbone that ships, without a denoiser"),
        (["generate", bare, "--unconditional", *to], "holds no denoiser"),
        (["generate", joint / "checkpoints" / "step-00000001", "--unconditional", *to], f"give {joint}"),
        (["generate", tmp_path / "nobody", "--unconditional", *to], "does not exist"),
        (["generate", store, "--unconditional", *to], "holds no checkpoint"),
    ):
        assert sentence in refused(words, capsys), words
    assert {path.name for path in tmp_path.iterdir()} == listed


def test_weights_that_ship_are_told_from_a_data_folder_of_their_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_store(tmp_path / "walkers")
    monkeypatch.chdir(tmp_path)
    said = refused(["generate", "walkers", "--unconditional", "--out", "walk.gif"], capsys)
    assert "a backbone that ships, without a denoiser" in said
