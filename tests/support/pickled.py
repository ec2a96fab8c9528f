"""Frames to pickle, and the protocols to do it by, that tests of pickles share."""

from __future__ import annotations

import numpy as np

PROTOCOLS = range(6)


def walk(frames: int = 6, height: int = 12, width: int = 9, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width), dtype=np.uint8)
