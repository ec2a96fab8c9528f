"""Alignment against the reference's recorded bytes, against a slow restatement of the rule, and at its edges."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gaitdiff.data.align import align, align_sequence
from reference import RECORDED

GOLDEN = RECORDED / "align"
GROUPS = sorted(folder.name for folder in (GOLDEN / "png").iterdir())
FLAW = "mass_in_first_column"
CASES = [(group, size) for group in GROUPS for size in (64, 128)]


def read(group: str) -> list[np.ndarray]:
    return [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted((GOLDEN / "png" / group).iterdir())]


def cubic(x: np.ndarray) -> np.ndarray:
    a, x = -0.75, np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def resize_matrix(source: int, target: int) -> np.ndarray:
    """(target, source): bicubic weights with half-pixel centres and replicated borders."""
    matrix = np.zeros((target, source))
    for out in range(target):
        position = (out + 0.5) * source / target - 0.5
        for tap in range(int(np.floor(position)) - 1, int(np.floor(position)) + 3):
            matrix[out, min(max(tap, 0), source - 1)] += cubic(np.array(position - tap))
    return matrix


def slow_align(mask: np.ndarray, size: int) -> np.ndarray:
    """The written rule in float64, one step at a time, without dropping anything."""
    rows = [y for y in range(len(mask)) if mask[y].max() > 0]
    person = mask[rows[0] : rows[-1] + 1].astype(np.float64)
    width = int(size * person.shape[1] / person.shape[0])
    scaled = resize_matrix(person.shape[0], size) @ person @ resize_matrix(person.shape[1], width).T
    scaled = np.clip(np.round(scaled), 0, 255)
    cumulative = np.cumsum(scaled.sum(axis=0))
    centre = next(x for x in range(width) if cumulative[x] > cumulative[-1] / 2)
    padded = np.pad(scaled, ((0, 0), (size, size)))
    return padded[:, centre + size - size // 2 : centre + size + size // 2]


def test_reference_bytes() -> None:
    """To the byte, but for what OpenCV's own rounding differs by from CPU to CPU.

    Where a weighted sum of the bicubic kernel lies half-way between two grey levels, vector instructions with and
    without fused multiply-add round it to either side: one grey level in 41 pixels of all recorded frames.
    """
    differing = 0
    with np.load(GOLDEN / "expected.npz") as expected:
        for group, size in (case for case in CASES if case != (FLAW, 64)):
            ours, theirs = align_sequence(read(group), size), expected[f"{group}/{size}"]
            assert ours.shape == theirs.shape
            difference = np.abs(ours.astype(np.int16) - theirs.astype(np.int16))
            assert difference.max(initial=0) <= 1, (group, size)
            differing += np.count_nonzero(difference)
    assert differing <= 41


@pytest.mark.parametrize(("group", "size"), [case for case in CASES if case[0] != "all_empty"])
def test_written_rule(group: str, size: int) -> None:
    for mask in read(group):
        frame = align(mask, size)
        if frame is not None:  # fixed-point weights of the library differ from float64 by a few grey levels
            assert np.abs(frame - slow_align(mask, size)).max() <= 3


def test_mass_in_first_column_is_kept() -> None:
    (frame,) = align_sequence(read(FLAW), 64)
    want = slow_align(read(FLAW)[0], 64)
    assert np.abs(frame - want).max() <= 3
    assert frame[:, :32].max() == 0  # nothing lies left of the first column
    assert frame[:, 32].min() > 0


def box(height: int, width: int, rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[rows, columns] = 255
    return mask


def test_a_box_keeps_its_proportions_and_is_centred() -> None:
    frame = align(box(300, 400, slice(100, 228), slice(210, 250)))  # 128 x 40 pixels: half of it is 64 x 20
    assert frame is not None
    columns = np.flatnonzero((frame > 127).any(axis=0))
    assert len(columns) == 20
    assert abs((columns[0] + columns[-1] + 1) / 2 - 32) <= 1
    assert (frame[:, columns] > 127).all()


@pytest.mark.parametrize(("white", "kept"), [(39, False), (40, True)])
def test_threshold(white: int, kept: bool) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[0:white, 30] = 255
    assert (align(mask) is not None) == kept


def test_threshold_is_exclusive() -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[:, 50] = 100
    assert align(mask) is None  # the sum is 10,000
    mask[0, 50] = 101
    assert align(mask) is not None


@pytest.mark.parametrize("group", ["walk_with_empty", "native_64", "upscaled", "touch_left", "grey_edges"])
def test_aligning_twice_changes_nothing(group: str) -> None:
    once = align_sequence(read(group))
    np.testing.assert_array_equal(align_sequence(once), once)


def test_degenerate_masks() -> None:
    assert align(np.full((1, 4000), 255, np.uint8)) is None  # 4,000 times as wide as high
    assert align(np.full((5000, 1), 255, np.uint8)) is None  # less than a column wide at the standard height
    assert align_sequence([]).shape == (0, 64, 64)
    assert align_sequence([np.zeros((9, 9), np.uint8)], 128).shape == (0, 128, 128)


def test_input_is_left_alone() -> None:
    mask = read("native_64")[0]
    before = mask.copy()
    frame = align(mask)
    assert frame is not None
    frame[:] = 7
    np.testing.assert_array_equal(mask, before)
