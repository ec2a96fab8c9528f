"""A look at a source before the long work: who is there, what is missing, how long it will take."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gaitdiff.data.formats.sources import Source
from gaitdiff.data.importers.load import is_pickle, load
from gaitdiff.data.importers.report import Report
from gaitdiff.data.store.codec import encode
from gaitdiff.datasets.sequences import SourceSequence
from gaitdiff.errors import UserError
from gaitdiff.utils.frames import cut_width
from gaitdiff.utils.parallel import processors
from gaitdiff.utils.text import counted, lasting, printable

_SAMPLES = 9


@dataclass(frozen=True)
class Preflight:
    """What is to be imported; ``str()`` gives it in words."""

    people: int
    sequences: int
    frames: int  # estimated where sequences are pickles
    estimated: bool
    shortest: tuple[int, str]  # frames, folder
    longest: tuple[int, str]
    crop: str  # of most walks, "" where none of those looked at is usable
    seconds: float
    bytes: int

    def describe(self, report: Report) -> str:
        """The preflight in words, with what the report knows by now."""
        about = "about " if self.estimated else ""
        lines = [
            f"{report.source}: read as {report.dataset}",
            f"  {counted(self.people, 'person', 'people')}, {counted(self.sequences, 'sequence')}, "
            f"{about}{counted(self.frames, 'frame')}; the shortest has {about}{self.shortest[0]:,} "
            f"({self.shortest[1]}), the longest {about}{self.longest[0]:,} ({self.longest[1]})",
            f"  split: {report.split}",
            *report.missing.lines("  missing: "),
            f"  the store will take about {_size(self.bytes)}, the import about {lasting(self.seconds)}",
        ]
        return "\n".join(lines)


def survey(source: Source, walks: Sequence[SourceSequence], size: int, codec: str, workers: int | None) -> Preflight:
    """Count what there is, and load a few walks to estimate time and space.

    Raises:
        UserError: a third of those looked at are cut already, or cut at another height, and the others are not.
    """
    frames = np.array([len(walk.files) for walk in walks])
    packed = np.array([is_pickle(walk) for walk in walks])
    sample = sorted({int(i) for i in np.linspace(0, len(walks) - 1, _SAMPLES)})
    begin, seen, stored = time.perf_counter(), 0, 0
    of_pickles: list[float] = []  # bytes a frame
    crops: dict[str, list[str]] = defaultdict(list)
    heights: list[int] = []
    for i in sample:
        loaded = load(source, walks[i], size)
        seen += len(loaded.frames)
        if loaded.other_size:
            heights.append(loaded.other_size)
        if len(loaded.frames):
            stored += len(encode(loaded.frames, codec).data)
            crops[loaded.crop].append(printable(walks[i].folder or "."))
        if packed[i] and len(loaded.frames):
            of_pickles.append(source.size(walks[i].files[0]) / len(loaded.frames))
    if 3 * len(heights) >= len(sample):
        raise UserError(
            f"{source.path} holds frames of {heights[0]} x {cut_width(heights[0])}, cut already, which cannot be made "
            f"{size} px high: use --size {heights[0]}"
        )
    if 3 * min(len(crops["cut"]), len(crops["full"])) >= len(sample):
        raise UserError(
            f"{source.path} mixes frames already cut to {cut_width(size)} columns ({crops['cut'][0]}) with others "
            f"({crops['full'][0]}): import them separately"
        )
    each = (time.perf_counter() - begin) / max(seen, 1)
    if packed.any():
        a_frame = float(np.median(of_pickles)) if of_pickles else float(size * size)
        sizes = [source.size(walk.files[0]) for walk, one in zip(walks, packed, strict=True) if one]
        frames[packed] = np.maximum(np.round(np.array(sizes) / a_frame), 1)
    short, long = int(frames.argmin()), int(frames.argmax())
    total = int(frames.sum())
    return Preflight(
        people=len({walk.subject for walk in walks}),
        sequences=len(walks),
        frames=total,
        estimated=bool(packed.any()),
        shortest=(int(frames[short]), printable(walks[short].folder or ".")),
        longest=(int(frames[long]), printable(walks[long].folder or ".")),
        crop=max(crops, key=lambda crop: len(crops[crop])) if any(crops.values()) else "",
        seconds=each * total / (workers or processors()),
        bytes=round(stored / max(seen, 1) * total),
    )


def _size(count: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{max(count // 1000, 1)} kB"
