"""``gaitdiff data verify``: damage is found, alignment measured, and what looks wrong is told from what does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from gaitdiff.cli import main
from gaitdiff.data.align import MIN_MASS
from gaitdiff.data.quality import measure as kinds
from gaitdiff.data.quality.measure import measure, uprightness
from gaitdiff.data.quality.verify import TWICE, verify_store
from gaitdiff.data.store import SequenceStore, StoreWriter
from gaitdiff.errors import UserError
from gaitdiff.walkers import generate
from reference import RECORDED
from worlds import gaitdiff, one_sentence

STREET = RECORDED / "street.npz"


@pytest.fixture(scope="module")
def walkers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """People of all views, with everything that makes masks ragged."""
    out = tmp_path_factory.mktemp("walkers") / "wild"
    return generate(out, people=16, sequences=4, preset="wild", seed=11, frames=24, workers=1)


@pytest.fixture(scope="module")
def walks(walkers: Path) -> list[np.ndarray]:
    return [np.array(sequence.frames) for sequence in SequenceStore(walkers)]


@pytest.fixture(scope="module")
def street() -> list[np.ndarray]:
    """Six people from a street, eight frames each."""
    frames = np.load(STREET)["frames"]
    return [frames[first : first + 8] for first in range(0, len(frames), 8)]


def write(path: Path, clips: list[np.ndarray]) -> Path:
    height, width = clips[0].shape[1:]
    with StoreWriter(path, height=height, width=width, crop="full" if height == width else "cut", source="x") as writer:
        for number, clip in enumerate(clips):
            names = {"subject": f"p{number}", "condition": "nm", "view": "0", "sequence": "s"}
            writer.add(np.ascontiguousarray(clip), **names, split="train")
    return path


def stretched(clip: np.ndarray) -> np.ndarray:
    return np.stack([cv2.resize(np.ascontiguousarray(frame[:, 10:-10]), (64, 64)) for frame in clip])


def photograph(clip: np.ndarray) -> np.ndarray:
    return np.random.default_rng(clip[0].sum()).integers(0, 256, clip.shape, dtype=np.uint8)


def dusty(clip: np.ndarray) -> np.ndarray:
    """The person in the lower three quarters, dust in a corner above."""
    small = clip[:, ::4] * 0
    small[:, 0, 20:22] = 255
    return np.concatenate([small, np.delete(clip, np.s_[3::4], axis=1)], axis=1)


def flipped(clip: np.ndarray) -> np.ndarray:
    return clip[:, ::-1]


#: What may happen to a sequence → what it is called, and the least share of sequences in which it is found.
WRONGS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str, float]] = {
    "upside down": (flipped, kinds.UPSIDE_DOWN, 0.95),
    "upside down and cut": (lambda clip: clip[:, ::-1, 10:-10], kinds.UPSIDE_DOWN, 0.95),
    "inverted": (lambda clip: 255 - clip, kinds.INVERTED, 1.0),
    "one frame again and again": (lambda clip: np.repeat(clip[:1], len(clip), axis=0), kinds.STILL, 1.0),
    "to the right": (lambda clip: np.roll(clip, 6, axis=2), kinds.OFF_CENTRE, 1.0),
    "cut twice": (lambda clip: clip[:, :, 20:-20], kinds.SIDES, 0.3),
    "cut twice, then padded": (lambda clip: clip * (abs(np.arange(64) - 31.5) < 12).astype(np.uint8), kinds.SIDES, 0.3),
    "dust": (dusty, kinds.APART, 1.0),
    "two people": (lambda clip: np.concatenate([clip[:, ::2, ::3], clip[:, ::2, ::-3]], axis=2), kinds.APART, 0.9),
    "grey noise": (photograph, kinds.GREY, 1.0),
    "an empty frame": (lambda clip: np.concatenate([clip, 0 * clip[:1]]), kinds.EMPTY, 1.0),
    "all empty": (lambda clip: 0 * clip, kinds.EMPTY, 1.0),
}


@pytest.mark.parametrize("change", [lambda clip: clip, lambda clip: clip[:, :, 10:-10], lambda clip: clip[:, :, ::-1]])
def test_people_who_walk_are_not_suspicious(
    walks: list[np.ndarray], street: list[np.ndarray], change: Callable[[np.ndarray], np.ndarray]
) -> None:
    assert [odd for clip in [*walks, *street] for odd in measure(change(clip)).odd] == []


def test_a_few_frames_mislead_next_to_never(walks: list[np.ndarray]) -> None:
    """Behind a post that passes, eight frames of a coat may look upside down."""
    assert sum(bool(measure(clip[:8]).odd) for clip in walks) <= 1


@pytest.mark.parametrize("name", WRONGS)
def test_what_is_wrong_has_a_name(walks: list[np.ndarray], name: str) -> None:
    change, what, share = WRONGS[name]
    found = [[kind for kind, _ in measure(change(clip)).odd] for clip in walks]
    assert np.mean([what in kinds_found for kinds_found in found]) >= share
    beside = {kinds.SIDES, kinds.WIDE, *([kinds.OFF_CENTRE] if what == kinds.APART else [])}
    assert {kind for kinds_found in found for kind in kinds_found} <= {what, *beside}


def test_people_from_a_street_upside_down(street: list[np.ndarray]) -> None:
    assert [kind for clip in street for kind, _ in measure(flipped(clip)).odd] == [kinds.UPSIDE_DOWN] * 6


def test_uprightness_changes_its_sign_with_the_frame(walks: list[np.ndarray]) -> None:
    for clip in walks:
        assert uprightness(clip[:, ::-1] >= 128) == pytest.approx(-uprightness(clip >= 128), abs=1e-5)


def test_numbers_are_those_of_a_loop_over_frames(tmp_path: Path, walks: list[np.ndarray]) -> None:
    rng = np.random.default_rng(1)
    clips = [np.roll(clip, tuple(rng.integers(-9, 10, 2)), axis=(1, 2)) for clip in walks[:8]]
    clips[2][3] = 0
    found = verify_store(write(tmp_path / "store", clips), workers=2)
    tops, bottoms, offsets, heights, shares = [], [], [], [], []
    for frame in np.concatenate(clips):
        shares.append(np.mean(frame >= 128))
        if frame.sum() <= MIN_MASS:
            continue
        rows, mass = np.flatnonzero(frame.any(axis=1)), np.cumsum(frame.sum(axis=0, dtype=float))
        tops.append(rows[0] == 0)
        bottoms.append(rows[-1] == 63)
        heights.append((rows[-1] + 1 - rows[0]) / 64)
        offsets.append(next(column for column in range(64) if mass[column] > mass[-1] / 2) - 32)
    assert (found.sequences, found.frames, found.empty) == (8, len(shares), len(shares) - len(tops))
    assert (found.top, found.bottom) == (pytest.approx(np.mean(tops)), pytest.approx(np.mean(bottoms)))
    for spread, values in ((found.offset, offsets), (found.height, heights), (found.foreground, shares)):
        assert spread.mean == pytest.approx(np.mean(values))
        assert spread.percentiles == pytest.approx(np.percentile(values, (1, 5, 50, 95, 99), method="lower"))


def test_report_of_the_command(tmp_path: Path, walks: list[np.ndarray], capsys: pytest.CaptureFixture[str]) -> None:
    """Suspicious sequences are no error; the same frames under two names are among them."""
    clips = [*walks[:5], flipped(walks[5]), walks[1], walks[1], walks[0][:-1]]
    store, file = write(tmp_path / "store", clips), tmp_path / "report.json"
    assert main(["data", "verify", str(store), "--json", str(file), "--workers", "2"]) == 0
    shown = capsys.readouterr().out
    assert "damaged" in shown
    assert "2 sequences that are there twice" in shown
    report = json.loads(file.read_text())
    assert report["damaged"] == []
    assert [(one["row"], one["what"]) for one in report["suspicious"]] == [
        (5, kinds.UPSIDE_DOWN), (6, TWICE), (7, TWICE),
    ]  # fmt: skip
    assert [one["detail"] for one in report["suspicious"][1:]] == ["the same frames as p1/nm/0/s"] * 2
    assert report["offset"] == {"mean": 0, "p1": 0, "p5": 0, "p50": 0, "p95": 0, "p99": 0}
    assert report["top"] == report["bottom"] == 1
    assert report == verify_store(store, json_file=file, workers=1).document()
    assert report["note"] == ""


def test_names_are_shown_as_they_are(
    tmp_path: Path, walks: list[np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    with StoreWriter(tmp_path / "[bold]", source="x") as writer:
        for name in ("[red]1", "[/red]"):
            writer.add(255 - walks[0], subject=name, condition="", view="", sequence="s", split="train")
    verify_store(tmp_path / "[bold]")
    shown = capsys.readouterr().out
    for word in ("[bold]", "[red]1/s", "[/red]/s"):
        assert word in shown


@pytest.mark.parametrize(("change", "note"), [
    (stretched, "stretched?"),
    (lambda clip: np.stack([cv2.resize(frame, (44, 64), interpolation=cv2.INTER_AREA) for frame in clip]), "squeezed"),
])  # fmt: skip
def test_frames_of_another_aspect_are_noted_for_the_store(
    tmp_path: Path, walks: list[np.ndarray], change: Callable[[np.ndarray], np.ndarray], note: str
) -> None:
    assert verify_store(write(tmp_path / "as is", walks)).note == ""
    assert note in verify_store(write(tmp_path / "store", [change(clip) for clip in walks])).note


def test_frames_of_128_pixels_are_measured_alike(walks: list[np.ndarray]) -> None:
    for clip in walks[:8]:
        large = clip.repeat(2, axis=1).repeat(2, axis=2)
        assert measure(large).odd == ()
        assert measure(large).width == 2 * measure(clip).width
        assert [kind for kind, _ in measure(large[:, ::-1]).odd] == [kind for kind, _ in measure(clip[:, ::-1]).odd]


def test_damage_is_one_sentence_and_the_rest_is_still_read(tmp_path: Path, walks: list[np.ndarray]) -> None:
    store, file = write(tmp_path / "store", walks[:6]), tmp_path / "report.json"
    data = max(store.iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 0x55
    data.write_bytes(content)
    sentence = one_sentence(gaitdiff("data", "verify", store, "--json", file))
    assert "damaged" in sentence
    report = json.loads(file.read_text())
    assert len(report["damaged"]) == 1
    assert report["damaged"][0]["what"] in sentence
    assert report["frames"] == sum(len(clip) for clip in walks[:6]) - len(walks[report["damaged"][0]["row"]])
    assert report["suspicious"] == []


def test_mistakes(tmp_path: Path, walks: list[np.ndarray]) -> None:
    store = write(tmp_path / "store", walks[:1])
    with pytest.raises(UserError, match="no store at"):
        verify_store(tmp_path / "nowhere")
    with pytest.raises(UserError, match="workers is 100000, but must be at most"):
        verify_store(store, workers=100_000)
    with pytest.raises(UserError, match="workers is 0"):
        verify_store(store, workers=0)
    with pytest.raises(UserError, match="its folder does not exist"):
        verify_store(store, json_file=tmp_path / "no" / "where.json")
    with pytest.raises(UserError, match="exists already: choose another --json"):
        verify_store(store, json_file=tmp_path)
