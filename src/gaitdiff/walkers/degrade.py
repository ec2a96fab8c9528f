"""What segmentation in the wild does to masks: ragged outlines, holes, lost parts, occluders, cut feet."""

from __future__ import annotations

import cv2
import numpy as np

from gaitdiff.walkers.render import MARGIN, Masks
from gaitdiff.walkers.walk import Flaws, Occluder

#: Connected pieces smaller than this share of the frame's largest are dropped, as trackers and data sets do.
_SPECK = 0.04

_RAGGED_FROM = 0.05
_MEMORY = 0.7  # correlation of the outline's roughness from frame to frame
_ROUGHNESS = 0.22 * 255


def degrade(masks: Masks, flaws: Flaws, rng: np.random.Generator) -> Masks:
    """Return masks uint8 (T, h, w) of 0 and 255 with the flaws applied; ``rng`` draws their places and shapes."""
    masks = _roughen(masks, flaws.ragged, rng) if flaws.ragged > _RAGGED_FROM else masks.copy()
    _punch_holes(masks, flaws.holes, rng)
    _lose_part(masks, flaws.lost, rng)
    if flaws.occluder is not None:
        _occlude(masks, flaws.occluder)
    inner = masks[:, MARGIN:-MARGIN]
    inner[:, int(inner.shape[1] * (1 - flaws.feet_cut)) :] = 0
    inner[:, : int(inner.shape[1] * flaws.head_cut)] = 0
    _drop_specks(masks)
    return masks


def _roughen(masks: Masks, amount: float, rng: np.random.Generator) -> Masks:
    """Blur, add smooth noise that changes slowly over time, and threshold."""
    frames, height, width = masks.shape
    cell = max(height // 24, 3)
    noise = rng.standard_normal((frames, max(height // cell, 2), max(width // cell, 2)))
    for t in range(1, frames):
        noise[t] = _MEMORY * noise[t - 1] + np.sqrt(1 - _MEMORY**2) * noise[t]
    level = np.clip(127 + _ROUGHNESS * amount * noise, 0, 255).astype(np.uint8)
    reach = max(3, (height // 40) | 1)
    soft = masks.reshape(frames * height, width).copy()
    for _ in range(2):
        cv2.blur(soft, (reach, reach), dst=soft)
    fine = cv2.resize(level.reshape(-1, level.shape[2]), (width, frames * height), interpolation=cv2.INTER_CUBIC)
    rough = np.where(cv2.add(soft, fine) == 255, np.uint8(255), np.uint8(0)).reshape(masks.shape)
    rough[:, 0] = rough[:, -1] = 0  # specks must not join neighbouring frames
    return rough


def _punch_holes(masks: Masks, chance: float, rng: np.random.Generator) -> None:
    frames, height, width = masks.shape
    hit = np.flatnonzero(rng.random(frames) < chance)
    places = rng.uniform((0.25, 0.1, 0.02, 0.02, 0), (0.75, 0.9, 0.07, 0.05, 180), (len(hit), 5))
    for t, (x, y, long, short, angle) in zip(hit, places, strict=True):
        centre, radii = (int(x * width), int(y * height)), (int(long * height), int(short * height))
        cv2.ellipse(masks[t], centre, radii, angle, 0, 360, 0, -1)


def _lose_part(masks: Masks, chance: float, rng: np.random.Generator) -> None:
    """Now and then a box around some part stays empty for three to nine frames."""
    frames, height, width = masks.shape
    happens, first, length = rng.random(), int(rng.integers(frames)), int(rng.integers(3, 10))
    x, y = int(rng.uniform(0, 0.8) * width), int(rng.uniform(0.2, 0.85) * height)
    if happens < chance:
        masks[first : first + length, y : y + int(0.18 * height), x : x + int(0.35 * width)] = 0


def _occlude(masks: Masks, occluder: Occluder) -> None:
    frames, height, full = masks.shape
    inner = masks[:, :, MARGIN : full - MARGIN]
    width = inner.shape[2]
    if occluder.edge:
        hidden = int(occluder.width * width)
        inner[:, :, slice(0, hidden) if occluder.edge == "left" else slice(width - hidden, None)] = 0
        return
    half = occluder.width * height / 2
    for t, mask in enumerate(inner):
        centre = (occluder.start + occluder.travel * t / frames) * width
        mask[:, max(0, int(centre - half)) : max(0, int(centre + half))] = 0


def _drop_specks(masks: Masks) -> None:
    frames, height, width = masks.shape
    _, labels, stats, _ = cv2.connectedComponentsWithStats(masks.reshape(frames * height, width), connectivity=8)
    area, frame = stats[:, cv2.CC_STAT_AREA].copy(), stats[:, cv2.CC_STAT_TOP] // height
    area[0] = 0  # the background
    largest = np.zeros(frames, dtype=area.dtype)
    np.maximum.at(largest, frame, area)
    kept = area >= _SPECK * largest[frame]
    kept[0] = False
    if kept[1:].all():
        return
    masks[...] = (kept.astype(np.uint8) * 255)[labels].reshape(masks.shape)
