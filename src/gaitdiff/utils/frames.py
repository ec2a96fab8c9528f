"""Sizes of the frames that gait models take."""

from __future__ import annotations

#: Pixels, of frames that are as wide as high or cut at both sides.
HEIGHTS = (64, 128)


def cut_width(height: int) -> int:
    """Columns of a cut frame: of 64 the inner 44, and in proportion."""
    return height * 44 // 64
