"""Alignment: from a mask anywhere in its image to a silhouette of standard height, centred on its mass."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

#: A mask whose grey values sum up to no more than this (40 white pixels) counts as empty.
MIN_MASS = 10_000

#: Foreground wider than this many times its height is no person; resizing it would fill the memory.
_MAX_ASPECT = 500


def align(mask: np.ndarray, size: int = 64, *, by_area: bool = False) -> np.ndarray | None:
    """Cut a mask to the person's rows, scale it to the standard height, centre it on the median of its mass.

    This is the normalisation that published gait results rest on, with one fault mended: a mask half of whose
    mass lies in the very first column is kept.

    Args:
        mask: uint8 (h, w), 0 is background.
        size: height and width of the result in pixels, even.
        by_area: scale by area, and keep masks of any mass, as CCPG is prepared.

    Returns:
        uint8 (size, size), or None when the mask is empty, or as good as empty.
    """
    if cv2.sumElems(mask)[0] <= (0 if by_area else MIN_MASS):
        return None
    rows = np.flatnonzero(mask.any(axis=1))
    person = mask[rows[0] : rows[-1] + 1]
    height, width = person.shape
    if width > _MAX_ASPECT * height or (scaled_width := size * width // height) == 0:
        return None
    # OpenCV's bicubic kernel has a = -0.75 and half-pixel centres, replicates the border, does no antialiasing
    how = cv2.INTER_AREA if by_area else cv2.INTER_CUBIC
    scaled = cv2.resize(person, (scaled_width, size), interpolation=how)  # (size, scaled_width)
    mass = scaled.sum(axis=0, dtype=np.int64).cumsum()  # (scaled_width,)
    if mass[-1] == 0:
        return None
    centre = int(np.searchsorted(mass, mass[-1] / 2, side="right"))
    left = centre - size // 2
    begin, end = max(left, 0), min(left + size, scaled_width)
    aligned = np.zeros((size, size), np.uint8)
    aligned[:, begin - left : end - left] = scaled[:, begin:end]
    return aligned


def least_mass(height: int) -> float:
    """What aligned frames of a height must weigh more than, so as not to count as empty: ``MIN_MASS`` at 64 px."""
    return MIN_MASS * (height / 64) ** 2


def align_sequence(masks: Iterable[np.ndarray], size: int = 64) -> np.ndarray:
    """Align every mask of a sequence; empty ones drop out.

    Args:
        masks: uint8 (h, w) each; the sizes may differ.
        size: height and width of the result in pixels, even.

    Returns:
        uint8 (T', size, size), T' being the number of masks that were not empty.
    """
    aligned = [frame for mask in masks if (frame := align(mask, size)) is not None]
    return np.stack(aligned) if aligned else np.zeros((0, size, size), np.uint8)
