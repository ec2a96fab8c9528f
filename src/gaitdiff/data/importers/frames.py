"""Import of folders of images: any tree of masks, in a folder or a zip archive, becomes a store."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gaitdiff.data.align import align
from gaitdiff.data.images import decode_mask
from gaitdiff.data.importers.layout import AUTO, Walk, find_walks
from gaitdiff.data.importers.tally import Tally
from gaitdiff.data.sources import Source, open_source, printable
from gaitdiff.data.splits import split_people
from gaitdiff.data.writer import StoreWriter
from gaitdiff.errors import UserError
from gaitdiff.progress import progress_bar


@dataclass
class Report:
    """What an import did; ``str()`` gives it in words."""

    source: Path
    out: Path
    layout: str  # what the folders were taken to mean, in words
    people: int = 0
    sequences: int = 0
    frames: int = 0
    height: int = 0
    width: int = 0
    crop: str = ""
    unchanged: int = 0  # frames that were aligned (or cut) already, and so are stored as they were found
    roles: dict[str, int] = field(default_factory=dict)  # sequences by "split role"
    changed: Tally = field(default_factory=Tally)  # frames of an unusual format
    skipped: Tally = field(default_factory=Tally)  # what is not in the store
    suspicious: Tally = field(default_factory=Tally)  # sequences that a person should look at

    def __str__(self) -> str:
        roles = ", ".join(f"{count} {name}" for name, count in sorted(self.roles.items()))
        lines = [
            f"Imported {self.source} to {self.out}",
            f"  {self.people} people, {self.sequences} sequences ({roles}), {self.frames} frames "
            f"of {self.height} x {self.width}, crop {self.crop!r}",
            f"  folders read as {self.layout}",
            f"  {self.unchanged} of the frames were aligned already, the others are now",
        ]
        if not any(name.startswith("test") for name in self.roles):
            lines.append("  everybody is in training; --test-fraction holds some people out for testing")
        for title, tally in (
            ("changed", self.changed),
            ("skipped", self.skipped),
            ("look at", self.suspicious),
        ):
            lines += [f"  {title}: {line}" for line in tally.lines()]
        return "\n".join(lines)


@dataclass
class _Loaded:
    """One sequence, read and aligned."""

    frames: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0), np.uint8))  # uint8 (T, H, W)
    crop: str = "full"
    unchanged: int = 0  # frames that are stored as they were found
    changed: Tally = field(default_factory=Tally)
    skipped: Tally = field(default_factory=Tally)
    suspicious: Tally = field(default_factory=Tally)


def import_frames(
    source: str | Path,
    out: str | Path,
    *,
    size: int = 64,
    layout: str = AUTO,
    split: str = AUTO,
    test_fraction: float | None = None,
    seed: int = 0,
    workers: int | None = None,
) -> Report:
    """Make a store of a folder, or a zip archive, of folders of mask images.

    Each innermost folder with images is one sequence, its images in natural order of their names (9 before 10).
    One folder above the images names the subject; two name subject/sequence; three subject/condition/view; four
    subject/condition/view/sequence. The outermost folders that everything in an archive shares mean nothing.
    ``layout`` says otherwise where this is wrong.

    Every image is aligned (:func:`gaitdiff.data.align.align`), which leaves aligned frames as they are. Sequences
    that are already cut to 44 of 64 columns are stored so, untouched. What is damaged, empty or no image is passed
    over and counted.

    Args:
        source: folder or .zip file.
        out: the store to create.
        size: height of the frames, 64 or 128 pixels; and width, unless they come already cut.
        layout: "auto", or the meaning of the folders above the images, for example ``*/subject/sequence``.
        split, test_fraction, seed: see :func:`gaitdiff.data.splits.split_people`.
        workers: threads; as many as there are processors by default.

    Returns:
        what was done; it is printed, too.

    Raises:
        UserError: nothing usable in the source, cut and uncut sequences in one source, an impossible argument, or
            what :class:`StoreWriter` raises.
    """
    if size not in (64, 128):
        raise UserError(f"the frame size is {size}, but can be 64 or 128 pixels, as gait models take them")
    if workers is not None and workers < 1:
        raise UserError(f"the number of workers is {workers}, but must be at least 1")
    split_people([], split=split, test_fraction=test_fraction, seed=seed)  # refuse impossible arguments early
    StoreWriter(out, source="")  # and a target that exists
    with open_source(source) as opened:
        skipped = Tally()
        tree = find_walks(opened, layout, skipped)
        report = Report(opened.path, Path(out).absolute(), tree.layout, skipped=skipped)
        with ExitStack() as stack:
            loaded = stack.enter_context(closing(_load_all(opened, tree.walks, size, workers)))
            writer = _write_all(loaded, report, size, stack)
            subjects = [row.subject for row in writer.rows]
            writer.assign(split_people(subjects, split=split, test_fraction=test_fraction, seed=seed))
    _summarise(report, writer)
    print(report)
    return report


def _write_all(sequences: Iterator[tuple[Walk, _Loaded]], report: Report, size: int, stack: ExitStack) -> StoreWriter:
    """Write what is usable; the first sequence decides about the crop, and ``stack`` ends the writing."""
    writer: StoreWriter | None = None
    for walk, loaded in sequences:
        report.changed.merge(loaded.changed)
        report.skipped.merge(loaded.skipped)
        report.suspicious.merge(loaded.suspicious)
        report.unchanged += loaded.unchanged
        if len(loaded.frames) == 0:
            report.skipped.add("sequences without a usable frame", printable(walk.folder or "."))
            continue
        if writer is None:
            height, width = loaded.frames.shape[1:]
            origin = f"frames of {printable(report.source.name)}"
            writer = stack.enter_context(
                StoreWriter(report.out, height=height, width=width, crop=loaded.crop, source=origin)
            )
        if loaded.crop != writer.crop:
            raise UserError(
                f"{report.source} mixes frames already cut to {_cut_width(size)} columns with others "
                f"({printable(walk.folder)} is {loaded.crop!r}, what came before it is {writer.crop!r}): "
                "import them separately"
            )
        writer.add(
            loaded.frames,
            subject=walk.subject,
            condition=walk.condition,
            view=walk.view,
            sequence=walk.sequence,
            split="train",
        )
    if writer is None:
        raise UserError(f"no usable mask in {report.source}: skipped {'; '.join(report.skipped.lines())}")
    return writer


def _summarise(report: Report, writer: StoreWriter) -> None:
    rows = writer.rows
    report.people = len({row.subject for row in rows})
    report.sequences = len(rows)
    report.frames = sum(row.frames for row in rows)
    report.height, report.width, report.crop = writer.height, writer.width, writer.crop
    report.roles = dict(Counter(f"{row.split} {row.role}".strip() for row in rows))


def _load_all(
    source: Source, walks: tuple[Walk, ...], size: int, workers: int | None
) -> Generator[tuple[Walk, _Loaded], None, None]:
    """Load the sequences in threads (OpenCV decodes outside Python's lock); a bounded number waits in memory."""
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    waiting: deque[tuple[Walk, Future[_Loaded]]] = deque()
    with (
        progress_bar(f"Importing {source.path.name}", sum(len(walk.files) for walk in walks)) as bar,
        ThreadPoolExecutor(workers) as pool,
    ):
        todo = iter(walks)
        while True:
            while len(waiting) < 2 * workers and (walk := next(todo, None)) is not None:
                waiting.append((walk, pool.submit(_load, source, walk, size)))
            if not waiting:
                return
            walk, future = waiting.popleft()
            yield walk, future.result()
            bar.advance(len(walk.files))


def _load(source: Source, walk: Walk, size: int) -> _Loaded:
    """Read, decode and align the images of one sequence."""
    result = _Loaded()
    aligned, cut = [], []  # the same frames, with and without alignment
    inverted = 0
    for name, mask in _decode_all(source, walk, result):
        frame = align(mask, size)
        if frame is None:
            result.skipped.add("frames with almost no foreground", printable(name))
            continue
        aligned.append(frame)
        inverted += bool(mask[:: len(mask) - 1 or 1, :: mask.shape[1] - 1 or 1].min() > 127)  # the corners
        if mask.shape == (size, _cut_width(size)):
            cut.append(mask)
        elif np.array_equal(mask, frame):
            result.unchanged += 1
    if not aligned:
        return result
    result.frames = np.stack(aligned)
    if _grey_share(result.frames) > 0.6:
        problem = "sequences that look like photographs, not masks"
        result.suspicious.add(problem, printable(walk.folder or "."))
    elif inverted > len(aligned) / 2:
        problem = "sequences that look inverted (the person should be white on black)"
        result.suspicious.add(problem, printable(walk.folder or "."))
    if len(cut) == len(aligned):
        result.frames, result.crop, result.unchanged = np.stack(cut), "cut", len(cut)
    return result


def _decode_all(source: Source, walk: Walk, result: _Loaded) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name and the mask of every image that can be read, and note in ``result`` what happened."""
    for name in walk.files:
        try:
            mask, done = decode_mask(source.read(name))
        except ValueError as error:
            result.skipped.add("unreadable images", f"{printable(name)} ({error})")
            continue
        for what in done:
            result.changed.add(f"frames: {what}", printable(name))
        yield name, mask


def _grey_share(frames: np.ndarray) -> float:
    """Return which share of the foreground of (T, H, W) is neither nearly black nor nearly white."""
    grey = int(np.count_nonzero((frames >= 16) & (frames < 240)))
    return grey / max(int(np.count_nonzero(frames)), 1)


def _cut_width(size: int) -> int:
    """Return the columns of a cut frame: of 64 columns the inner 44, and in proportion."""
    return size * 44 // 64
