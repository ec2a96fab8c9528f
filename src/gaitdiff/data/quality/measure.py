"""What one sequence's frames look like: where the person stands in them, and what is odd about them.

The limits were set on synthetic walkers and on people segmented from a street, so that next to none of either is
suspicious; lengths are shares of the frame's height.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from gaitdiff.data.align import least_mass

EMPTY = "sequences with empty frames"
GREY = "sequences of grey noise or photographs, not masks"
INVERTED = "inverted sequences (the person should be white on black)"
STILL = "sequences in which nobody moves"
UPSIDE_DOWN = "upside-down sequences"
OFF_CENTRE = "sequences whose person is not in the middle"
SIDES = "sequences cut at both sides (cut twice?)"
WIDE = "sequences of a person too wide (stretched? several people?)"
APART = "sequences with something apart from the person (dust? another person?)"

#: Of the foreground; of masks less is neither nearly black nor nearly white.
GREY_SHARE = 0.6
_STILL = 0.03  # changing share of the foreground; walkers have 0.07 and more
_STILL_FRAMES, _UPRIGHT_FRAMES = 5, 8  # fewer than these do not show whether somebody moves, or which way up
_UPSIDE_DOWN = -0.25  # of `uprightness`
_OFF_CENTRE = 4 / 64
_SIDE_ROWS, _SIDE_FRAMES, _SIDE_SHARE = 3 / 64, 4, 0.1
_WIDE = 40 / 64
_DUSTY, _GAP_ROWS = 0.25, 2 / 64  # of the frames
_PARTED, _GAP_COLUMNS, _OTHERS = 0.5, 4 / 64, 0.25  # of the frames; the last is the lesser side's share of the mass


@dataclass(frozen=True)
class Measures:
    """One sequence of T frames, T' of them not empty.

    Attributes:
        top, bottom: frames whose foreground reaches the first row, the last row.
        offset: (T',) int64, columns from the frame's middle to the column that halves the mass, right is positive.
        height: (T',) int64, rows from the first to the last with foreground.
        foreground: (T,) int64, pixels that are at least half white.
        width: columns that the person takes up in the median frame; 0 if all are empty.
        odd: what is suspicious, each with a detail.
        digest: uint64 of all bytes; the same only for the same frames.
    """

    top: int
    bottom: int
    offset: np.ndarray
    height: np.ndarray
    foreground: np.ndarray
    width: float
    odd: tuple[tuple[str, str], ...]
    digest: int


def measure(frames: np.ndarray) -> Measures:
    """Measure a sequence, uint8 (T, H, W), T >= 1."""
    count, height, width = frames.shape
    white = frames >= 128  # (T, H, W)
    foreground = np.count_nonzero(white.reshape(count, -1), axis=1)
    columns = frames.sum(axis=1, dtype=np.int32)  # (T, W)
    full = columns.sum(axis=1) > least_mass(height)
    rows = frames[full].any(axis=2)  # (T', H)
    mass = columns[full].cumsum(axis=1)
    offset = (mass <= mass[:, -1:] / 2).sum(axis=1) - width // 2  # the centre as align() counts it
    taken = _extent(white[full].any(axis=1))
    person = float(np.median(taken)) if len(taken) else 0.0
    return Measures(
        top=int(rows[:, 0].sum()),
        bottom=int(rows[:, -1].sum()),
        offset=offset,
        height=_extent(rows),
        foreground=foreground,
        width=person,
        odd=tuple(_odd(frames, white, full, offset, person)),
        digest=int.from_bytes(hashlib.blake2b(np.ascontiguousarray(frames).data, digest_size=8).digest(), "little"),
    )


def grey_share(frames: np.ndarray) -> float:
    """Which share of the foreground of uint8 (T, H, W) is neither nearly black nor nearly white."""
    grey = int(np.count_nonzero((frames >= 16) & (frames < 240)))
    return grey / max(int(np.count_nonzero(frames)), 1)


def is_inverted(frames: np.ndarray) -> np.ndarray:
    """Whether uint8 (..., H, W) are white in all four corners, bool (...)."""
    return np.asarray((frames[..., [0, 0, -1, -1], [0, -1, 0, -1]] >= 128).all(axis=-1))


def uprightness(white: np.ndarray) -> float:
    """Tell a walker from one upside down: about 1.7 upright, the negative of that upside down.

    Four differences between below and above, each between -1 and 1, are summed. Legs change more over time than head
    and shoulders: in the lower quarter, and in the lower half. A row across the legs meets two pieces more often than
    one across the trunk. And feet are wider, measured by the legs above them, than a head by the shoulders below it.

    Args:
        white: bool (T, H, W), true where the person is.
    """
    share = white.mean(axis=0, dtype=np.float32)  # (H, W)
    change = (share * (1 - share)).sum(axis=1)  # (H,), variance over time
    pieces = white[:, :, 0] + (white[:, :, 1:] & ~white[:, :, :-1]).sum(axis=2, dtype=np.int32)  # (T, H)
    split, wide = (pieces > 1).mean(axis=0), share.sum(axis=1)  # (H,)
    eighth, quarter, half = (max(len(wide) // part, 1) for part in (8, 4, 2))
    head = wide[:eighth].mean() / max(wide[eighth : 3 * eighth].mean(), 1e-6)
    feet = wide[-eighth:].mean() / max(wide[-3 * eighth : -eighth].mean(), 1e-6)

    def difference(above: np.ndarray, below: np.ndarray) -> float:
        return float((below.sum() - above.sum()) / (below.sum() + above.sum() + 1e-6))

    return (
        difference(change[:quarter], change[-quarter:])
        + difference(change[:half], change[-half:])
        + float(split[-half:].mean() - split[:half].mean())
        + float(np.clip(feet - head, -1, 1))
    )


def changing(white: np.ndarray) -> float:
    """Mean difference of frames, bool (T, H, W), from their mean frame, as a share of the foreground."""
    share = white.mean(axis=0, dtype=np.float32)
    return float(2 * (share * (1 - share)).sum() / max(float(share.sum()), 1e-6))


def _odd(
    frames: np.ndarray, white: np.ndarray, full: np.ndarray, offset: np.ndarray, width: float
) -> list[tuple[str, str]]:
    """What is suspicious: what makes no sense of the rest goes alone."""
    size = frames.shape[1]
    if (grey := grey_share(frames)) > GREY_SHARE:
        return [(GREY, f"{grey:.0%} of the foreground is grey")]
    corners = is_inverted(frames)
    if corners.mean() > 0.5:
        return [(INVERTED, f"the corners of {corners.sum()} of {len(frames)} frames are white")]
    found = []
    if not full.all():
        found.append((EMPTY, f"{(~full).sum()} of {len(frames)} frames"))
    if not full.any():
        return found
    white = white[full]
    change = changing(white)
    if len(white) >= _STILL_FRAMES and change < _STILL:
        found.append((STILL, f"{change:.1%} of the foreground changes"))
    else:
        if len(white) >= _UPRIGHT_FRAMES and (score := uprightness(white)) < _UPSIDE_DOWN:
            found.append((UPSIDE_DOWN, f"uprightness {score:.1f}"))
        if cut := _cut_sides(white):
            found.append((SIDES, cut))
        dust, others = _gaps_in_rows(white), _gaps_in_columns(white)
        if dust.mean() > _DUSTY or others.mean() > _PARTED:
            found.append((APART, f"{int((dust | others).sum())} of {len(frames)} frames"))
    off = float(np.median(np.abs(offset)))
    if off > _OFF_CENTRE * size:
        found.append((OFF_CENTRE, f"by {off:g} columns"))
    if width > _WIDE * size:
        found.append((WIDE, f"{width:g} of {frames.shape[2]} columns"))
    return found


def _gaps_in_rows(white: np.ndarray) -> np.ndarray:
    """In which frames of bool (T, H, W) rows between head and feet have no foreground, bool (T,)."""
    rows = np.asarray(white.any(axis=2))  # (T, H)
    return np.asarray(_extent(rows) - rows.sum(axis=1) > _GAP_ROWS * white.shape[1])


def _gaps_in_columns(white: np.ndarray) -> np.ndarray:
    """In which frames of bool (T, H, W) columns without foreground part the person from something large, bool (T,)."""
    taken = np.asarray(white.any(axis=1))  # (T, W)
    gaps = np.asarray(_extent(taken) - taken.sum(axis=1) > _GAP_COLUMNS * white.shape[1])
    for number in np.flatnonzero(gaps):
        places = np.flatnonzero(taken[number])
        left = white[number, :, : places[np.diff(places).argmax()] + 1].sum() / white[number].sum()
        gaps[number] = _OTHERS <= left <= 1 - _OTHERS
    return gaps


def _cut_sides(white: np.ndarray) -> str:
    """Say where a person is cut: at two columns as far from the middle, never passed, and reached at once."""
    count, height, width = white.shape
    columns = np.flatnonzero(white.any(axis=(0, 1)))
    left, right = (int(columns[0]), int(columns[-1])) if len(columns) else (0, 0)
    if left + right != width - 1:
        return ""
    reached = white[:, :, [left, right]].sum(axis=1) >= _SIDE_ROWS * height  # (T, 2)
    both = int(reached.all(axis=1).sum())
    if both < max(_SIDE_FRAMES, _SIDE_SHARE * count):
        return ""
    return f"columns {left} and {right} are reached in {both} of {count} frames and never passed"


def _extent(taken: np.ndarray) -> np.ndarray:
    """From the first to the last true of each line of (n, k), int64 (n,); 0 for lines without any."""
    last = taken.shape[1] - taken[:, ::-1].argmax(axis=1)
    return np.where(taken.any(axis=1), last - taken.argmax(axis=1), 0)
