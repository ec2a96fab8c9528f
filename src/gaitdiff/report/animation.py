"""Silhouettes and latents as pictures inside a page: sprite sheets that CSS moves, strips of frames, heat maps."""

from __future__ import annotations

import base64
import html

import cv2
import numpy as np
from matplotlib import colormaps

#: Colours of pixels that a change adds and takes away (RGB).
ADDED, REMOVED = (240, 140, 30), (40, 110, 200)

_GAP = 4  # pixels between the frames of a strip
_LATENT_SCALE = 8  # pixels of silhouette under one latent
_HEAT = "PuOr_r"
_LEVELS = 16  # grey levels kept of a silhouette: enough for its soft edges, and a third of the bytes


def walk(frames: np.ndarray, alt: str) -> str:
    """An animated clip.

    Args:
        frames: (T, H, W) or (T, H, W, 3) uint8.
        alt: what it shows, for who cannot see it.

    Returns:
        HTML: a sprite sheet of T frames behind a window of one; the page's style sheet moves it (class ``walk``).
    """
    count, height, width = frames.shape[:3]
    sheet = np.concatenate(list(frames), axis=1)
    return (
        f'<span class="walk" style="--n:{count};--ratio:{width}/{height}">'
        f'<img src="{_data_uri(_fewer_levels(sheet))}" alt="{html.escape(alt, quote=True)}"></span>'
    )


def strip(frames: np.ndarray, alt: str) -> str:
    """Frames side by side, (T, H, W) uint8 or (T, H, W, 3), as one picture."""
    colour = frames if frames.ndim == 4 else np.repeat(_fewer_levels(frames)[..., None], 3, axis=3)
    count, height, width, _ = colour.shape
    sheet = np.zeros((height, count * (width + _GAP) - _GAP, 4), np.uint8)  # transparent between the frames
    for i, frame in enumerate(colour):
        left = i * (width + _GAP)
        sheet[:, left : left + width, :3], sheet[:, left : left + width, 3] = frame, 255
    alt = html.escape(alt, quote=True)
    return f'<img class="strip" style="--n:{count}" src="{_data_uri(sheet)}" alt="{alt}">'


def heat_frames(latent: np.ndarray, limit: float) -> np.ndarray:
    """One latent channel as heat maps of the silhouettes' size.

    Args:
        latent: (T, h, w).
        limit: what the strongest colours stand for, below and above zero.

    Returns:
        (T, 8h, 8w, 3) uint8.
    """
    scaled = np.clip(latent / limit, -1.0, 1.0) * 0.5 + 0.5
    colours = (colormaps[_HEAT](scaled)[..., :3] * 255).round().astype(np.uint8)
    return colours.repeat(_LATENT_SCALE, axis=1).repeat(_LATENT_SCALE, axis=2)


def heat_scale() -> str:
    """The heat maps' colours from low to high, as a CSS gradient."""
    stops = (colormaps[_HEAT](np.linspace(0.0, 1.0, 9))[:, :3] * 255).round().astype(int)
    return f"linear-gradient(90deg,{','.join(f'rgb({r},{g},{b})' for r, g, b in stops)})"


def changed_frames(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """``after`` in grey, with what it has more than ``before`` in ``ADDED`` and what it lost in ``REMOVED``.

    Args:
        before, after: (T, H, W) in 0..1.

    Returns:
        (T, H, W, 3) uint8.
    """
    kept = np.minimum(before, after)[..., None] * np.array((235, 235, 235))
    more = np.clip(after - before, 0, 1)[..., None] * np.array(ADDED)
    less = np.clip(before - after, 0, 1)[..., None] * np.array(REMOVED)
    return np.clip(kept + more + less, 0, 255).round().astype(np.uint8)


def to_bytes(frames: np.ndarray) -> np.ndarray:
    """Values in 0..1 as uint8."""
    return (np.clip(frames, 0.0, 1.0) * 255).round().astype(np.uint8)


def _fewer_levels(image: np.ndarray) -> np.ndarray:
    step = 255 / (_LEVELS - 1)
    return (np.round(image / step) * step).astype(np.uint8)


def _data_uri(image: np.ndarray) -> str:
    """A PNG, (H, W), (H, W, 3) RGB or (H, W, 4) RGBA, as a data URI."""
    if image.ndim == 3:
        image = image[..., [2, 1, 0, 3][: image.shape[2]]]  # OpenCV's order
    encoded = cv2.imencode(".png", np.ascontiguousarray(image), [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
    return f"data:image/png;base64,{base64.b64encode(encoded.tobytes()).decode('ascii')}"
