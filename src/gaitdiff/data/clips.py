"""Which frames of a sequence make a clip, and the cut from 64 to 44 columns."""

from __future__ import annotations

from typing import TypeVar, get_args

import numpy as np
from torch import Tensor

from gaitdiff.errors import UserError
from gaitdiff.models.base import Sampling
from gaitdiff.utils.frames import cut_width

Frames = TypeVar("Frames", np.ndarray, Tensor)

#: An ordered clip is drawn from a window this much longer than itself (GaitPart: 30 of 40 frames).
ORDERED_SKIP = 10


def sample_clip(
    sampling: str, available: int, frames: int, rng: np.random.Generator, skip: int = ORDERED_SKIP
) -> np.ndarray:
    """Draw the frame numbers of one training clip.

    Args:
        sampling: ``"unordered"``: any frames, each once if there are enough (GaitSet, SMPLGait w/o 3D, GaitBase);
            ``"ordered"``: ``frames`` in order from a random window ``skip`` frames longer (GaitPart);
            ``"consecutive"``: a random window (GaitGL, and the latent clip of every model).
        available: frames in the sequence, at least 1.
        frames: frames in the clip.
        skip: how much longer than the clip its window is, for ``"ordered"``.

    Returns:
        (frames,) int64 in 0..available-1. A sequence shorter than its window is repeated.

    Raises:
        UserError: another ``sampling``.
    """
    if sampling not in get_args(Sampling):
        raise UserError(f"clips are drawn unordered, ordered or consecutive, not {sampling!r}")
    if sampling == "unordered":
        index = rng.choice(available, frames, replace=available < frames)
        return np.sort(index)
    window = frames + (skip if sampling == "ordered" else 0)
    total = -(-window // available) * available if available < window else available
    start = int(rng.integers(0, total - window + 1))
    chosen = np.arange(start, start + window)
    if window > frames:
        chosen = np.sort(rng.choice(chosen, frames, replace=False))
    return chosen % available


def crop_sides(frames: Frames) -> Frames:
    """Cut 10 of 64 columns off each side: (..., 64, 64) → (..., 64, 44), (..., 128, 128) → (..., 128, 88).

    Raises:
        UserError: the frames are not square, so they may have been cut before; cutting twice ruins them.
    """
    height, width = frames.shape[-2:]
    if height != width:
        raise UserError(
            f"frames of {height}x{width} cannot be cut to {height}x{cut_width(height)}: "
            f"only whole {height}x{height} frames can, these may have been cut already"
        )
    margin = (width - cut_width(height)) // 2
    return frames[..., margin : width - margin]


def pad_sides(frames: np.ndarray) -> np.ndarray:
    """Give cut frames their outer columns back, empty: (..., 64, 44) → (..., 64, 64); whole frames stay as they are."""
    margin = (frames.shape[-2] - frames.shape[-1]) // 2
    return np.pad(frames, [(0, 0)] * (frames.ndim - 1) + [(margin, margin)]) if margin else frames
