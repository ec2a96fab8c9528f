"""Augmentations against OpenCV frame by frame, and their distribution against the drawn plan."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from gaitdiff.config.schema import NO_AUGMENT, AugmentConfig
from gaitdiff.data.augment import augment, draw_plan
from gaitdiff.data.clips import crop_sides, sample_clip
from gaitdiff.errors import UserError


def blobs(batch: int = 6, frames: int = 3, size: int = 64, seed: int = 0) -> np.ndarray:
    """Smooth grey shapes, different in every frame."""
    rng = np.random.default_rng(seed)
    noise = rng.random((batch * frames, size, size)).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(frame, (0, 0), 3) for frame in noise])
    return np.clip((smooth - 0.47) * 12, 0, 1).reshape(batch, frames, size, size)


def only(**on: float) -> AugmentConfig:
    return AugmentConfig(**{**dict.fromkeys(("affine", "perspective", "flip", "dilate", "blur"), 0.0), **on})


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("on", [{"affine": 1.0}, {"perspective": 1.0}, {"affine": 1.0, "perspective": 1.0}])
def test_warp_equals_opencv(on: dict[str, float], flip: float) -> None:
    clips = blobs()
    plan = draw_plan(only(**on, flip=flip), 6, 64, 64, np.random.default_rng(3))
    ours = augment(torch.from_numpy(clips), plan).numpy()
    for b in range(6):
        for t in range(3):
            want = cv2.warpPerspective(clips[b, t], plan.homography[b], (64, 64), flags=cv2.INTER_LINEAR)
            want = want[:, ::-1] if flip else want
            assert np.abs(ours[b, t] - want).mean() < 3e-3  # OpenCV rounds positions to 1/32 pixel
            assert np.abs(ours[b, t] - want).max() < 0.12


def test_corners_go_where_opencv_sends_them() -> None:
    """The drawn homographies solve the point correspondences that define them."""
    rng = np.random.default_rng(0)
    plan = draw_plan(only(perspective=1.0), 200, 64, 64, rng)
    # The target's corners are the frame's; mapped back, their x is within 9 px of its side and y is kept.
    corners = np.array([[0, 0, 1], [64, 0, 1], [64, 64, 1], [0, 64, 1]], float).T
    back = np.linalg.inv(plan.homography) @ corners
    back = back[:, :2] / back[:, 2:]
    assert np.allclose(back[:, 1], corners[1], atol=1e-8)
    inward = np.stack([back[:, 0, 0], 63 - back[:, 0, 1], 63 - back[:, 0, 2], back[:, 0, 3]], 1)
    assert np.allclose(inward, inward.round(), atol=1e-8)
    assert set(np.unique(inward.round())) == set(range(10))


def test_flip_alone_is_exact() -> None:
    clips = torch.from_numpy(blobs())
    plan = draw_plan(only(flip=1.0), 6, 64, 64, np.random.default_rng(1))
    assert torch.equal(augment(clips, plan), clips.flip(-1))


def test_dilate_equals_opencv() -> None:
    clips = blobs(batch=60, frames=1)
    plan = draw_plan(only(dilate=1.0), 60, 64, 64, np.random.default_rng(5))
    ours = augment(torch.from_numpy(clips), plan).numpy()
    for b in range(60):
        top, bottom = plan.dilate_band[b]
        want = clips[b, 0].copy()
        want[top:bottom] = cv2.dilate(clips[b, 0, top:bottom], plan.dilate[b].astype(np.uint8))
        assert np.array_equal(ours[b, 0], want)


def test_structuring_elements_are_opencvs() -> None:
    plan = draw_plan(only(dilate=1.0), 500, 64, 64, np.random.default_rng(0))
    drawn = {element.tobytes() for element in plan.dilate}
    known = set()
    for rows, columns in ((3, 3), (3, 5), (5, 3), (5, 5)):
        for shape in (cv2.MORPH_RECT, cv2.MORPH_CROSS, cv2.MORPH_ELLIPSE):
            element = cv2.getStructuringElement(shape, (columns, rows)).astype(bool)
            y, x = (5 - rows) // 2, (5 - columns) // 2
            known.add(np.pad(element, ((y, y), (x, x))).tobytes())
    assert drawn == known


def test_blur_equals_opencv() -> None:
    clips = blobs(batch=20, frames=2)
    plan = draw_plan(only(blur=1.0), 20, 64, 64, np.random.default_rng(5))
    ours = augment(torch.from_numpy(clips), plan).numpy()
    for b in range(20):
        top, bottom = plan.blur_band[b]
        for t in range(2):
            smooth = cv2.GaussianBlur(clips[b, t, top:bottom], (3, 3), 0)
            sure = np.abs(smooth - 0.2) > 1e-5  # at the threshold itself rounding decides
            assert np.array_equal(ours[b, t, top:bottom][sure], (smooth > 0.2)[sure].astype(np.float32))
            assert np.array_equal(ours[b, t, :top], clips[b, t, :top])
            assert np.array_equal(ours[b, t, bottom:], clips[b, t, bottom:])


def test_probabilities_and_bands() -> None:
    n = 20_000
    plan = draw_plan(AugmentConfig(), n, 64, 64, np.random.default_rng(0))
    assert plan.flip.mean() == pytest.approx(0.5, abs=0.02)
    assert plan.warped.mean() == pytest.approx(1 - 0.8 * 0.8, abs=0.02)
    assert plan.dilate.any((1, 2)).mean() == pytest.approx(0.2, abs=0.02)
    blurred = plan.blur_band[plan.blur_band[:, 1] > 0]
    assert len(blurred) / n == pytest.approx(0.2, abs=0.02)
    for band in (blurred, plan.dilate_band[plan.dilate.any((1, 2))]):
        assert set(band[:, 0]) == set(range(9, 21))
        assert set(band[:, 1]) == set(range(39, 51))
    _, counts = np.unique(plan.dilate[plan.dilate.any((1, 2))].reshape(-1, 25), axis=0, return_counts=True)
    # Three rows high, cross and ellipse are one shape: of twelve elements two pairs are alike.
    assert np.allclose(np.sort(counts) / counts.sum(), [1 / 12] * 8 + [2 / 12] * 2, atol=0.015)


def test_affine_moves_corners_about_their_place() -> None:
    """Source and target of each corner move inwards by 0..9 px alike, so a corner moves by about 4 px, either way."""
    plan = draw_plan(only(affine=1.0), 20_000, 64, 64, np.random.default_rng(0))
    corners = np.array([[0, 0, 1], [64, 0, 1], [0, 64, 1]], float).T
    moved = plan.homography @ corners
    assert np.allclose(moved[:, 2], 1.0)
    shift = moved[:, :2] - corners[:2]
    spread = np.sqrt(2 * (10**2 - 1) / 12)  # of the difference of two draws from 0..9
    assert np.abs(np.median(shift, axis=0)).max() < 0.3
    assert 0.9 * spread < np.median(np.abs(shift)) / 0.6745 < 1.6 * spread  # extrapolated a little beyond the points


def test_nothing_drawn_changes_nothing() -> None:
    clips = torch.from_numpy(blobs())
    assert torch.equal(augment(clips, draw_plan(NO_AUGMENT, 6, 64, 64, np.random.default_rng(0))), clips)


def test_one_draw_a_sequence() -> None:
    """All frames of a sequence are changed alike: equal frames stay equal."""
    clips = torch.from_numpy(blobs(batch=30, frames=1)).expand(-1, 4, -1, -1)
    out = augment(clips, draw_plan(AugmentConfig(), 30, 64, 64, np.random.default_rng(2)))
    assert torch.equal(out, out[:, :1].expand_as(out))
    assert not torch.equal(out, clips)


def test_clip_samplers() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        index = sample_clip("unordered", 40, 30, rng)
        assert len(set(index)) == 30
        assert index.max() < 40
        index = sample_clip("consecutive", 40, 30, rng)
        assert (np.diff(index) == 1).all()
        index = sample_clip("ordered", 60, 30, rng)
        assert (np.diff(index) >= 1).all()
        assert index[-1] - index[0] < 40
    for sampling in ("unordered", "consecutive", "ordered"):
        assert set(sample_clip(sampling, 1, 30, rng)) == {0}
        assert len(sample_clip(sampling, 7, 30, rng)) == 30


def test_windows_start_everywhere_alike() -> None:
    """30 consecutive frames of 35 have six starts, each as likely as the others."""
    rng = np.random.default_rng(0)
    first = np.array([sample_clip("consecutive", 35, 30, rng)[0] for _ in range(6000)])
    assert np.allclose(np.bincount(first, minlength=6) / 6000, 1 / 6, atol=0.02)


def test_ordered_clips_are_thirty_of_forty_frames_alike() -> None:
    """GaitPart's clip of a sequence of exactly 40: each frame is left out as often as any other."""
    rng = np.random.default_rng(0)
    drawn = np.array([sample_clip("ordered", 40, 30, rng) for _ in range(4000)])
    assert (np.diff(drawn, axis=1) > 0).all()
    assert np.allclose(np.bincount(drawn.ravel(), minlength=40) / 4000, 30 / 40, atol=0.04)
    # 12 frames are repeated to 48, so that a window of 40 has the starts 0..8.
    short = np.array([sample_clip("ordered", 12, 30, rng) for _ in range(2000)])
    steps = np.diff(short, axis=1) % 12
    assert steps.min() >= 0
    assert steps.max() <= 11
    assert set(short[:, 0]) == set(range(12))


def test_crop_sides() -> None:
    frames = np.arange(64)[None].repeat(64, 0)
    assert crop_sides(frames).shape == (64, 44)
    assert crop_sides(frames)[0, 0] == 10
    assert crop_sides(torch.zeros(2, 3, 128, 128)).shape == (2, 3, 128, 88)
    with pytest.raises(UserError, match="cut already"):
        crop_sides(np.zeros((64, 44)))
