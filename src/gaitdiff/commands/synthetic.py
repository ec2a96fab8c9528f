"""Where made walks go: a picture or an animation in soft grey, or a store of silhouettes of two values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np

from gaitdiff.commands.likeness import Likeness
from gaitdiff.data.align import least_mass
from gaitdiff.data.store import StoreWriter
from gaitdiff.errors import UserError
from gaitdiff.report.animation import to_bytes
from gaitdiff.report.sheets import MOST_SHOWN, Shown, write_picture
from gaitdiff.utils.files import refuse_existing, require_output
from gaitdiff.utils.pictures import PICTURES, note_of
from gaitdiff.utils.progress import say
from gaitdiff.utils.text import counted

#: How a file begins to say what it holds.
MADE_BY = "synthetic: gaitdiff generate"

_OTHER_FILES = (".jpg", ".jpeg", ".webp", ".bmp", ".mp4", ".avi", ".mov", ".npz", ".npy", ".zip")

#: Takes a made walk: its number, and its frames (T, H, H) float32 in 0..1.
Put: TypeAlias = Callable[[int, np.ndarray], None]


def check_output(out: Path | None, likeness: Likeness | None, count: int, frames: int) -> None:
    """Refuse, before any work, what could not be written.

    Raises:
        UserError: something else stands there, its name is that of another kind of file, or a picture is too large.
    """
    if out is None:
        return
    if out.suffix.lower() in _OTHER_FILES:
        raise UserError(f"--out is {out}, but walks are written as a .gif or .png file, or as a store, a folder")
    if not _is_picture(out):
        return refuse_existing(out)
    require_output(out, "--out", lambda file: note_of(file).startswith(MADE_BY))
    clips = count if likeness is None else count + sum(_begins(likeness, number) for number in range(count))
    if clips * frames > MOST_SHOWN:
        raise UserError(
            f"{out} would show {clips * frames:,} frames, more than {MOST_SHOWN:,}: lower --count or --frames, or "
            "let --out be the folder of a store"
        )


def open_output(
    out: Path | None, likeness: Likeness | None, frames: int, height: int, source: str
) -> AbstractContextManager[Put]:
    """What takes made walks, in order, and writes them when its ``with`` block ends well.

    Args:
        out: None: nothing is written.
        frames: of a walk.
        height: of a frame, in pixels.
        source: what the file says of the walks in it.
    """
    if out is None:
        return nullcontext(_forget)
    return _picture(out, likeness, frames, source) if _is_picture(out) else _store(out, likeness, height, source)


def solid(clip: np.ndarray) -> np.ndarray:
    """Silhouettes of two values, 0 and 255, of soft ones (T, H, W) in 0..1: uint8 (T', H, W).

    As good as empty frames drop out, as they do when data are imported (``gaitdiff.data.align``).
    """
    frames = np.where(clip >= 0.5, np.uint8(255), np.uint8(0))
    mass = frames.sum(axis=(1, 2), dtype=np.int64)
    return frames[mass > least_mass(clip.shape[1])]


def _forget(number: int, clip: np.ndarray) -> None:
    """Nobody keeps it."""


def _is_picture(out: Path) -> bool:
    return out.suffix.lower() in PICTURES


def _begins(likeness: Likeness, number: int) -> bool:
    """Whether a walk is like another one than the one before it."""
    return number == 0 or likeness.rows[number] != likeness.rows[number - 1]


@contextmanager
def _picture(out: Path, likeness: Likeness | None, frames: int, source: str) -> Iterator[Put]:
    """A file of the new walks in soft grey, each person's own before them."""
    shown: list[Shown] = []

    def put(number: int, clip: np.ndarray) -> None:
        if likeness is not None and _begins(likeness, number):
            shown.append(Shown(likeness.clip(number, "consecutive", frames), real=True))
        shown.append(Shown(to_bytes(clip)))

    yield put
    write_picture(out, shown, source)


@dataclass
class _Lost:
    frames: int = 0
    walks: list[int] = field(default_factory=list)


@contextmanager
def _store(out: Path, likeness: Likeness | None, height: int, source: str) -> Iterator[Put]:
    """A store of the new walks, under the names of those that they are like."""
    lost = _Lost()
    with StoreWriter(out, height=height, width=height, source=source) as writer:

        def put(number: int, clip: np.ndarray) -> None:
            frames = solid(clip)
            lost.frames += len(clip) - len(frames)
            if len(frames) == 0:
                lost.walks.append(number)
                return
            subject, condition, view, sequence = f"g{number:05d}", "", "", "s00"
            if likeness is not None:
                subject, condition, view, name = likeness.row(number).key
                sequence = f"{name}-g{number:05d}"
            writer.add(frames, subject=subject, condition=condition, view=view, sequence=sequence, split="train")

        yield put
    if lost.frames:
        whole = f", and {counted(len(lost.walks), 'walk')} without others" if lost.walks else ""
        say(f"{counted(lost.frames, 'empty frame')} left out{whole}")
