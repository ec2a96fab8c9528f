"""Pictures of clips: every pixel where it belongs, and what the file says of itself."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from gaitdiff.report.sheets import Shown, write_picture
from gaitdiff.utils.pictures import note_of


def clips(count: int, frames: int = 3) -> list[Shown]:
    rng = np.random.default_rng(0)
    return [Shown(rng.integers(0, 256, (frames, 64, 64), dtype=np.uint8), real=i == 0) for i in range(count)]


def square(picture: np.ndarray, line: int, column: int) -> np.ndarray:
    """A clip's frame in a picture, 68 pixels a tile, each twice in both directions."""
    tile = picture[136 * line : 136 * (line + 1), 136 * column : 136 * (column + 1)]
    assert (tile[::2] == tile[1::2]).all()
    return tile[::2, ::2]


def test_a_sheet_has_a_line_for_each_clip(tmp_path: Path) -> None:
    shown = clips(4)
    write_picture(tmp_path / "a.png", shown, "a note with Ω")
    picture = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_GRAYSCALE)
    assert picture.shape == (4 * 136, 3 * 136)
    for line, clip in enumerate(shown):
        for column, frame in enumerate(clip.frames):
            tile = square(picture, line, column)
            assert (tile[2:-2, 2:-2] == frame).all()
            around = np.concatenate((tile[1, 1:-1], tile[-2, 1:-1], tile[1:-1, 1], tile[1:-1, -2]))
            assert set(around.tolist()) == {255 if clip.real else 60}
    assert note_of(tmp_path / "a.png") == "a note with Ω"


@pytest.mark.parametrize("count", [1, 3, 13])
def test_an_animation_shows_all_clips_at_once(count: int, tmp_path: Path) -> None:
    shown = clips(count, frames=4)
    write_picture(tmp_path / "a.GIF", shown, "ein Vermerk: ü")
    with Image.open(tmp_path / "a.GIF") as animation:
        assert (animation.format, animation.n_frames, animation.info["loop"]) == ("GIF", 4, 0)
        for t in range(4):
            animation.seek(t)
            picture = np.asarray(animation.convert("L"))
            assert picture.shape == (136 * -(-count // 10), 136 * min(count, 10))
            for i, clip in enumerate(shown):
                assert (square(picture, i // 10, i % 10)[2:-2, 2:-2] == clip.frames[t]).all()
    assert note_of(tmp_path / "a.GIF") == "ein Vermerk: ü"


@pytest.mark.parametrize("suffix", [".png", ".gif"])
def test_the_same_clips_give_the_same_bytes(suffix: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_picture(tmp_path / f"{name}{suffix}", clips(3), "note")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_pictures_from_elsewhere_have_no_note(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    assert note_of(tmp_path / "a.png") == ""
    for name, data in (
        ("b.png", b"no picture"),
        ("c.gif", b"GIF89a"),
        ("d.png", (tmp_path / "a.png").read_bytes()[:20]),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises((OSError, ValueError)):
            note_of(tmp_path / name)
