"""The five augmentations of silhouette sequences, batched on the device; a sequence draws its parameters once.

The set and its probabilities are GaitSSB's (Fan et al. 2023, "Learning Gait Representation from Massive Unlabelled
Walking Videos: A Benchmark"), which the paper names without numbers. Affine, perspective and flip are one warp.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gaitdiff.config.schema import AugmentConfig
from gaitdiff.data.transfer import send

_JITTER = 10  # points move by 0..9 px of 64
_BAND_TOP, _BAND_BOTTOM = (9, 20), (39, 50)  # first and last row of a band, of 64
_BLUR_THRESHOLD = 0.2


@dataclass
class AugmentPlan:
    """What was drawn for a batch of B sequences.

    Attributes:
        homography: (B, 3, 3), source pixel to target pixel, of affine and perspective together; identity if neither.
        warped: (B,) whether the homography is more than the identity.
        flip: (B,) whether to flip, after the homography.
        dilate: (B, 5, 5) structuring elements, all false where off.
        dilate_band, blur_band: (B, 2) first row and row after the last, of 64; blur_band is (0, 0) where off.
    """

    homography: np.ndarray
    warped: np.ndarray
    flip: np.ndarray
    dilate: np.ndarray
    dilate_band: np.ndarray
    blur_band: np.ndarray

    def of(self, rows: slice) -> AugmentPlan:
        """That of some of the sequences."""
        return AugmentPlan(*(getattr(self, field.name)[rows] for field in fields(self)))


def draw_plan(config: AugmentConfig, batch: int, height: int, width: int, rng: np.random.Generator) -> AugmentPlan:
    """Draw the parameters of ``batch`` sequences of ``height`` x ``width`` frames."""
    affine = rng.random(batch) < config.affine
    perspective = rng.random(batch) < config.perspective
    flip = rng.random(batch) < config.flip
    dilate = rng.random(batch) < config.dilate
    blur = rng.random(batch) < config.blur
    unit = height / 64
    homography = np.where(affine[:, None, None], _affine(batch, height, width, unit, rng), np.eye(3))
    homography = (
        np.where(perspective[:, None, None], _perspective(batch, height, width, unit, rng), np.eye(3)) @ homography
    )
    elements = (
        np.stack([_ELEMENTS[i] for i in rng.integers(0, len(_ELEMENTS), batch)]) if batch else np.zeros((0, 5, 5))
    )
    bands = [
        (np.stack([rng.integers(lo, hi + 1, batch) for lo, hi in (_BAND_TOP, _BAND_BOTTOM)], 1) * unit) for _ in "db"
    ]
    return AugmentPlan(
        homography=homography,
        warped=affine | perspective,
        flip=flip,
        dilate=elements.astype(bool) & dilate[:, None, None],
        dilate_band=bands[0].astype(np.int64),
        blur_band=np.where(blur[:, None], bands[1].astype(np.int64), 0),
    )


class Prepared(NamedTuple):
    """A plan as it is applied, worked out on the host: which of B sequences each step is for, and its numbers.

    Arrays, or tensors once they are where the clips are.

    Attributes:
        flipped: (n,) those that are flipped and nothing else.
        warped, sources: (m,), and (m, 3, 3) from a target's pixel to where its value comes from, as grid_sample counts.
        dilated, elements, dilate_band: (k,), (k, 5, 5) and (k, 2).
        blurred, blur_band: (l,) and (l, 2).
        shifts: places within the elements that any of them has, (row, column).
    """

    flipped: Any
    warped: Any
    sources: Any
    dilated: Any
    elements: Any
    dilate_band: Any
    blurred: Any
    blur_band: Any
    shifts: tuple[tuple[int, int], ...]


def prepare(plan: AugmentPlan, height: int, width: int) -> Prepared:
    """Work out what applying a plan to frames of ``height`` x ``width`` takes."""
    mirror = np.array([[-1.0, 0.0, width - 1], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    matrix = plan.homography[plan.warped]
    matrix = np.where(plan.flip[plan.warped][:, None, None], mirror @ matrix, matrix)
    # Pixels to grid_sample's [-1, 1], folded into the inverse: target pixel to normalised source.
    scale = np.array([[2 / (width - 1), 0, -1], [0, 2 / (height - 1), -1], [0, 0, 1]])
    dilated, blurred = plan.dilate.any((1, 2)), plan.blur_band[:, 1] > 0
    elements = plan.dilate[dilated]
    return Prepared(
        flipped=np.flatnonzero(plan.flip & ~plan.warped),
        warped=np.flatnonzero(plan.warped),
        sources=(scale @ np.linalg.inv(matrix)).astype(np.float32),
        dilated=np.flatnonzero(dilated),
        elements=elements.astype(np.float32),
        dilate_band=plan.dilate_band[dilated],
        blurred=np.flatnonzero(blurred),
        blur_band=plan.blur_band[blurred],
        shifts=tuple((int(y), int(x)) for y, x in zip(*np.nonzero(elements.any(0)), strict=True)),
    )


def augment(clips: Tensor, plan: AugmentPlan | Prepared) -> Tensor:
    """Apply a plan.

    Args:
        clips: (B, T, H, W) float in [0, 1], on any device.
        plan: as it was drawn, or prepared for these frames and on the device of the clips.

    Returns:
        (B, T, H, W), a new tensor.
    """
    ready: Prepared = send(prepare(plan, *clips.shape[2:]), clips.device) if isinstance(plan, AugmentPlan) else plan
    return _blur(_dilate(_warp(clips, ready), ready), ready)


# --- drawing ---------------------------------------------------------------------------------------------------


def _affine(batch: int, height: int, width: int, unit: float, rng: np.random.Generator) -> np.ndarray:
    """Three corners, each moved inwards, mapped onto three corners moved inwards otherwise: (B, 3, 3)."""

    def corners() -> np.ndarray:
        x, y = (rng.integers(0, _JITTER, (batch, 3)) * unit for _ in range(2))
        x[:, 1] = width - x[:, 1]  # top left, top right, bottom left
        y[:, 2] = height - y[:, 2]
        return np.stack([x, y, np.ones_like(x)], axis=1)  # (B, 3, points)

    source, target = corners(), corners()
    matrix = target @ np.linalg.inv(source)
    matrix[:, 2] = (0.0, 0.0, 1.0)
    return matrix


def _perspective(batch: int, height: int, width: int, unit: float, rng: np.random.Generator) -> np.ndarray:
    """Four corners, their x moved inwards, mapped onto the whole frame: (B, 3, 3)."""
    inward = rng.integers(0, _JITTER, (batch, 4)) * unit
    source_x = np.array([0, width - 1, width - 1, 0]) + inward * np.array([1, -1, -1, 1])
    source_y = np.broadcast_to(np.array([0.0, 0.0, height, height]), (batch, 4))
    target_x, target_y = np.array([0.0, width, width, 0.0]), np.array([0.0, 0.0, height, height])
    # Eight unknowns h: u·(h6·x + h7·y + 1) = h0·x + h1·y + h2, and alike for v.
    system = np.zeros((batch, 8, 8))
    for i in range(4):
        x, y, one = source_x[:, i], source_y[:, i], np.ones(batch)
        system[:, 2 * i, :3] = np.stack([x, y, one], 1)
        system[:, 2 * i, 6:] = -np.stack([x, y], 1) * target_x[i]
        system[:, 2 * i + 1, 3:6] = np.stack([x, y, one], 1)
        system[:, 2 * i + 1, 6:] = -np.stack([x, y], 1) * target_y[i]
    right = np.broadcast_to(np.stack([target_x, target_y], 1).reshape(8, 1), (batch, 8, 1))
    solution = np.linalg.solve(system, right)[..., 0]
    return np.concatenate([solution, np.ones((batch, 1))], 1).reshape(batch, 3, 3)


def _structuring_elements() -> list[np.ndarray]:
    """Rectangle, cross and ellipse of 3x3, 3x5, 5x3 and 5x5, centred in 5x5."""
    elements = []
    for rows, columns in ((3, 3), (3, 5), (5, 3), (5, 5)):
        y, x = np.mgrid[-2:3, -2:3]
        inside = (abs(y) <= rows // 2) & (abs(x) <= columns // 2)
        cross = inside & ((y == 0) | (x == 0))
        # A row of the ellipse reaches half the width times sqrt(1 - (y / half the height)²), rounded.
        reach = np.rint(columns // 2 * np.sqrt(np.clip(1 - (y / (rows // 2)) ** 2, 0, 1)))
        elements += [inside, cross, inside & (abs(x) <= reach)]
    return elements


_ELEMENTS = _structuring_elements()


# --- applying --------------------------------------------------------------------------------------------------


def _warp(clips: Tensor, plan: Prepared) -> Tensor:
    """Affine, perspective and flip in one bilinear warp; a flip alone moves no value."""
    out = clips.clone()
    if len(plan.flipped):
        out[plan.flipped] = clips[plan.flipped].flip(-1)
    if len(plan.warped):
        height, width = clips.shape[-2:]
        y, x = torch.meshgrid(
            torch.arange(height, device=clips.device), torch.arange(width, device=clips.device), indexing="ij"
        )
        pixels = torch.stack([x, y, torch.ones_like(x)], -1).flatten(0, 1).float()  # (H·W, 3)
        source = pixels @ plan.sources.mT  # (m, H·W, 3)
        grid = (source[..., :2] / source[..., 2:]).unflatten(1, (height, width))
        # Frames are channels.
        out[plan.warped] = F.grid_sample(clips[plan.warped], grid.to(clips.dtype), align_corners=True)
    return out


def _band_mask(limits: Tensor, height: int) -> Tensor:
    """(n, 1, H, 1), true inside each sequence's band of rows, (n, 2)."""
    row = torch.arange(height, device=limits.device)
    return ((row >= limits[:, :1]) & (row < limits[:, 1:]))[:, None, :, None]


def _dilate(clips: Tensor, plan: Prepared) -> Tensor:
    """Grey dilation of the band alone: rows outside neither change nor reach in."""
    if not len(plan.dilated):
        return clips
    height, width = clips.shape[-2:]
    inside = _band_mask(plan.dilate_band, height)
    before = clips[plan.dilated]
    grown = before * inside
    padded = F.pad(grown, (2, 2, 2, 2))
    weights = plan.elements.to(clips.dtype)
    for dy, dx in plan.shifts:
        shifted = padded[..., dy : dy + height, dx : dx + width]
        grown = torch.maximum(grown, shifted * weights[:, dy, dx, None, None, None])
    clips[plan.dilated] = torch.where(inside, grown, before)
    return clips


def _blur(clips: Tensor, plan: Prepared) -> Tensor:
    """3x3 Gaussian (1, 2, 1)/4 of the band alone, mirrored at its edges, then a threshold."""
    if not len(plan.blurred):
        return clips
    height, limits = clips.shape[-2], plan.blur_band
    top, last = limits[:, :1], limits[:, 1:] - 1
    row = torch.arange(height, device=clips.device)[None]
    above = torch.where(row == top, row + 1, (row - 1).clamp(min=0))
    below = torch.where(row == last, row - 1, (row + 1).clamp(max=height - 1))
    before = clips[plan.blurred]

    def take(index: Tensor) -> Tensor:
        return before.gather(2, index[:, None, :, None].expand_as(before))

    vertical = 0.5 * before + 0.25 * (take(above) + take(below))
    side = F.pad(vertical, (1, 1, 0, 0), mode="reflect")
    smooth = 0.5 * vertical + 0.25 * (side[..., :-2] + side[..., 2:])
    after = (smooth > _BLUR_THRESHOLD).to(clips.dtype)
    clips[plan.blurred] = torch.where(_band_mask(limits, height), after, before)
    return clips
