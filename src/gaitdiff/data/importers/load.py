"""From the files of one walk to its frames: images or a pickle, read, aligned, and looked at for what is odd."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from gaitdiff.data.align import align, least_mass
from gaitdiff.data.formats.images import PHOTOGRAPH, black_and_white, decode_mask, two_values
from gaitdiff.data.formats.pickles import MAX_BYTES, SUFFIX, read_silhouettes
from gaitdiff.data.formats.sources import Source
from gaitdiff.data.quality.measure import GREY_SHARE, grey_share, is_inverted
from gaitdiff.data.store.codec import Encoded, encode
from gaitdiff.datasets.sequences import AREA, GIVEN, SourceSequence
from gaitdiff.utils.counts import Counts
from gaitdiff.utils.frames import HEIGHTS, cut_width
from gaitdiff.utils.parallel import in_order, processors
from gaitdiff.utils.text import printable

#: A sequence counts as aligned if this share of its frames reach from the first row to the last, centred.
_ALIGNED = 0.5

#: What a sequence's frames may weigh together: 16,384 of 128 x 128 pixels, 65,536 of 64 x 64.
MAX_SEQUENCE_BYTES = 1 << 28

#: So many frames are read sooner than other processes start; a pickle counts as so many.
_LITTLE, _PICKLED = 4000, 10


def _nothing() -> np.ndarray:
    return np.zeros((0, 0, 0), np.uint8)


@dataclass
class Loaded:
    """One walk, read and aligned; no frames where nothing in it was usable."""

    frames: np.ndarray = field(default_factory=_nothing)  # uint8 (T, H, W)
    encoded: Encoded | None = None  # the frames as the store takes them, in their place
    crop: str = "full"
    other_size: int = 0  # where there are no frames because they are cut at this height and not at the wanted one
    unchanged: int = 0  # frames that are stored as they were found
    changed: Counts = field(default_factory=Counts)
    skipped: Counts = field(default_factory=Counts)
    suspicious: Counts = field(default_factory=Counts)


def load(source: Source, walk: SourceSequence, size: int) -> Loaded:
    """Read and align one walk.

    Images are aligned one by one, which leaves nearly all aligned ones as they are, or taken as they are given out
    (``walk.prepare``); a sequence of images that were cut to 44 of 64 columns (88 of 128) stays cut. A pickle's frames
    stay as they are, cut or whole, if they are of the wanted size and aligned or so given out. Frames that are cut at
    another height than the wanted one cannot be had.

    Whatever is wrong with a file costs that file, and whatever is wrong with what a walk's files hold costs that walk;
    so does having more frames than ``MAX_SEQUENCE_BYTES``.

    Args:
        size: height of the frames, 64 or 128.
    """
    result = Loaded()
    try:
        inverted = _read(source, walk, size, result)
    except Exception as error:  # such as too little memory
        result = Loaded(changed=result.changed, skipped=result.skipped)
        what = "sequences that cannot be read"
        result.skipped.add(what, f"{printable(walk.folder or walk.files[0])} ({_reason(error)})")
        return result
    photographs = result.changed.counts.get(f"frames: {PHOTOGRAPH}", 0)
    if len(result.frames) and (grey_share(result.frames) > GREY_SHARE or photographs > len(result.frames) / 2):
        result.suspicious.add("sequences that look like photographs, not masks", printable(walk.folder or "."))
    elif inverted > len(result.frames) / 2:
        problem = "sequences that look inverted (the person should be white on black)"
        result.suspicious.add(problem, printable(walk.folder or "."))
    if result.other_size:
        what = f"sequences cut at {result.other_size} px height, which only --size {result.other_size} imports"
        result.skipped.add(what, printable(walk.folder or "."))
    return result


def _read(source: Source, walk: SourceSequence, size: int, result: Loaded) -> int:
    """Read and align one walk into ``result``; return how many of its frames look inverted.

    Raises:
        ValueError: it has too many frames.
    """
    frames = _unpickle(source, walk, result) if is_pickle(walk) else None
    count, most = len(walk.files if frames is None else frames), MAX_SEQUENCE_BYTES // size**2
    if count > most:
        raise ValueError(f"has {count:,} frames, at most {most:,} are taken: cut it into several")
    if frames is None:
        return _align_all(_decode_all(source, walk, result), size, walk.prepare, result)
    given = walk.prepare == GIVEN
    if isinstance(frames, np.ndarray) and ((given and frames.shape[1:] == (size, size)) or _settled(frames, size)):
        if max(frame.sum(dtype=np.int64) for frame in frames) <= least_mass(size):
            result.skipped.add("frames with almost no foreground", printable(walk.files[0]))
            return 0
        result.frames, result.unchanged = frames, len(frames)
        result.crop = "full" if frames.shape[2] == size else "cut"
        return int(is_inverted(frames).sum())
    named = ((f"{walk.files[0]}, frame {i}", mask) for i, mask in enumerate(frames))
    return _align_all(named, size, walk.prepare, result)


def _reason(error: Exception) -> str:
    """Say what is wrong: short reasons come as ValueErrors, whose texts are made for this."""
    return str(error) if isinstance(error, ValueError) else type(error).__name__


def load_all(
    source: Source, walks: Sequence[SourceSequence], size: int, codec: str, workers: int | None
) -> Generator[tuple[SourceSequence, Loaded], None, None]:
    """Load and encode walks in their order; few of them wait in memory.

    Args:
        codec: of the store.
        workers: processes; None: one for each processor, or this one alone where there is little to do.
    """
    little = sum(len(walk.files) * (_PICKLED if is_pickle(walk) else 1) for walk in walks) < _LITTLE
    count = workers or (1 if little else processors())
    with closing(in_order(partial(_load_from, source, size, codec), walks, min(count, max(len(walks), 1)))) as loading:
        yield from zip(walks, loading, strict=True)


def _load_from(source: Source, size: int, codec: str, walk: SourceSequence) -> Loaded:
    loaded = load(source, walk, size)
    if len(loaded.frames):
        loaded.encoded, loaded.frames = encode(loaded.frames, codec), _nothing()
    return loaded


def is_pickle(walk: SourceSequence) -> bool:
    """Whether a walk lies in a pickle and not in images."""
    return walk.files[0].lower().endswith(SUFFIX)


def _unpickle(source: Source, walk: SourceSequence, result: Loaded) -> np.ndarray | list[np.ndarray]:
    """The pickle's frames, uint8 (T, H, W), or a list of (h, w); an empty one where it holds none."""
    name = walk.files[0]
    try:
        frames, done = read_silhouettes(source.read(name, MAX_BYTES))
    except Exception as error:  # no file may end an import
        result.skipped.add("unreadable pickles", f"{printable(name)} ({_reason(error)})")
        return []
    if done:
        result.changed.add(f"pickles: {done}", printable(name))
    values = two_values([frames] if isinstance(frames, np.ndarray) else frames)
    if values is None:
        return frames
    result.changed.add("pickles: masks of two values made 0 and 255", printable(name))
    if isinstance(frames, np.ndarray):
        return black_and_white(frames, values[1])
    return [black_and_white(frame, values[1]) for frame in frames]


def _settled(frames: np.ndarray, size: int) -> bool:
    """Whether (T, H, W) are frames as models take them: cut, or whole and aligned."""
    if frames.shape[1:] == (size, cut_width(size)):
        return True
    if frames.shape[1:] != (size, size):
        return False
    mass = frames.sum(axis=1, dtype=np.int64).cumsum(axis=1)  # (T, W)
    seen = mass[:, -1] > 0
    if not seen.any():
        return True
    reaches = frames[:, :2].any(axis=(1, 2)) & frames[:, -2:].any(axis=(1, 2))
    centre = (mass <= mass[:, -1:] / 2).sum(axis=1)
    aligned = reaches & (np.abs(centre - size // 2) <= 2)
    return bool(aligned[seen].mean() >= _ALIGNED)


def _align_all(masks: Iterator[tuple[str, np.ndarray]], size: int, prepare: str, result: Loaded) -> int:
    """Align masks one by one into ``result``, or take them as they are where most are cut already, or so given out.

    Returns:
        how many of those that are not empty look inverted.
    """
    aligned, names = list[np.ndarray](), list[str]()
    cut = dict[int, np.ndarray]()  # frame number → the same frame, not aligned
    inverted, others = 0, Counter[int]()
    for name, mask in masks:
        given = prepare == GIVEN and mask.shape == (size, size)
        frame = mask if given else align(mask, size, by_area=prepare == AREA)
        if frame is None:
            result.skipped.add("frames with almost no foreground", printable(name))
            continue
        inverted += bool(is_inverted(mask))
        height, width = mask.shape
        if (height, width) == (size, cut_width(size)):
            cut[len(aligned)] = mask
        elif height in HEIGHTS and width == cut_width(height):
            others[height] += 1
        result.unchanged += np.array_equal(mask, frame)
        aligned.append(frame)
        names.append(name)
    if not aligned or not any(frame.any() for frame in aligned):
        for name in names:
            result.skipped.add("frames with almost no foreground", printable(name))
        result.unchanged = 0
        return 0
    if others and others.most_common(1)[0][1] * 2 > len(aligned):
        result.other_size, result.unchanged = others.most_common(1)[0][0], 0
        return 0
    if len(cut) * 2 <= len(aligned):
        result.frames = np.stack(aligned)
        return inverted
    for i, name in enumerate(names):
        if i not in cut:
            result.skipped.add("frames that are not cut like the others of their sequence", printable(name))
    result.frames, result.crop, result.unchanged = np.stack(list(cut.values())), "cut", len(cut)
    return inverted


def _decode_all(source: Source, walk: SourceSequence, result: Loaded) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name and the mask of every image that can be read, and note in ``result`` what happened."""
    for name in walk.files:
        try:
            mask, done = decode_mask(source.read(name))
        except Exception as error:  # no file may end an import
            result.skipped.add("unreadable images", f"{printable(name)} ({_reason(error)})")
            continue
        for what in done:
            result.changed.add(f"frames: {what}", printable(name))
        yield name, mask
