"""Clips as files to look at: a sheet of frames (PNG), or an animation (GIF), that say what they were made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from gaitdiff.utils.files import atomic_file
from gaitdiff.utils.pictures import PICTURES, png_note

_GAP, _PAPER, _FRAME = 4, 60, 255  # pixels between clips, their grey, and that of the frame around a real one
_SCALE = 2  # pixels of a picture that one of a silhouette takes up, in each direction
_ACROSS = 10  # clips beside each other in an animation
_MILLISECONDS = 60  # of a frame, as in the report

#: Frames that a picture shows, at most.
MOST_SHOWN = 1000


@dataclass(frozen=True)
class Shown:
    """A clip of a picture.

    Attributes:
        frames: (T, H, W) uint8.
        real: whether somebody walked so; such a clip gets a white frame.
    """

    frames: np.ndarray
    real: bool = False


def write_picture(path: Path, clips: Sequence[Shown], note: str) -> None:
    """Write clips of the same size, by the suffix of ``path``; the same clips and note give the same bytes.

    ``.png``: a line each, their frames side by side. ``.gif``: all at once, ten beside each other, without end.

    Args:
        note: what they are; it stays in the file, and ``gaitdiff.utils.pictures.note_of`` reads it.

    Raises:
        UserError: the file cannot be written.
    """
    tiles = [_tiles(clip) for clip in clips]
    with atomic_file(path) as draft:
        if PICTURES[path.suffix.lower()] == "PNG":
            sheet = np.concatenate([np.concatenate(list(frames), axis=1) for frames in tiles])
            Image.fromarray(_larger(sheet)).save(draft, "PNG", pnginfo=png_note(note))
            return
        first, *others = [Image.fromarray(_larger(_grid(frames))) for frames in zip(*tiles, strict=True)]
        first.save(
            draft,
            "GIF",
            save_all=True,
            append_images=others,
            duration=_MILLISECONDS,
            loop=0,
            comment=note.encode("utf-8"),
        )


def _tiles(clip: Shown) -> np.ndarray:
    """(T, H + gap, W + gap) uint8, with what surrounds each frame."""
    half = _GAP // 2
    framed = np.pad(clip.frames, ((0, 0), (1, 1), (1, 1)), constant_values=_FRAME if clip.real else _PAPER)
    return np.pad(framed, ((0, 0), (half - 1, half - 1), (half - 1, half - 1)), constant_values=_PAPER)


def _grid(frames: Sequence[np.ndarray]) -> np.ndarray:
    """One frame of each clip, in lines of ten."""
    across = min(len(frames), _ACROSS)
    empty = np.full_like(frames[0], _PAPER)
    filled = [*frames, *[empty] * (-len(frames) % across)]
    lines = [np.concatenate(filled[i : i + across], axis=1) for i in range(0, len(filled), across)]
    return np.concatenate(lines)


def _larger(image: np.ndarray) -> np.ndarray:
    return image.repeat(_SCALE, axis=0).repeat(_SCALE, axis=1)
