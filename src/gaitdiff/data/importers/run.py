"""Import: from whatever a user has on disk to a store, in one pass that can be killed and gone on with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gaitdiff.data.formats.sources import Source, open_source, packed_inside
from gaitdiff.data.importers.datasets import IMPORTERS, NAMES, detect
from gaitdiff.data.importers.identity import Identity, finished, is_done
from gaitdiff.data.importers.importer import Importer
from gaitdiff.data.importers.layout import AUTO, FRAMES, find_walks
from gaitdiff.data.importers.load import Loaded, load, load_all
from gaitdiff.data.importers.partition import Division, divide, index, partition_needed, read_partition
from gaitdiff.data.importers.preflight import survey
from gaitdiff.data.importers.report import Report
from gaitdiff.data.importers.splits import HALVES, cut_in_halves, split_people, why_nobody
from gaitdiff.data.store.codec import CODECS, DEFAULT_CODEC
from gaitdiff.data.store.header import HEADER_FILE
from gaitdiff.data.store.manifest import SPLITS
from gaitdiff.data.store.writer import StoreWriter
from gaitdiff.datasets.card import Partition
from gaitdiff.datasets.sequences import SourceSequence, Tree
from gaitdiff.errors import UserError, nearest
from gaitdiff.utils.counts import Counts
from gaitdiff.utils.frames import HEIGHTS, cut_width
from gaitdiff.utils.parallel import check_workers
from gaitdiff.utils.progress import progress_bar, say
from gaitdiff.utils.text import printable

#: What published data sets call the folders that hold people, or sequences without names.
_FOLDERS = {"probe", "gallery", "train", "test"}

#: Raised when frames are made of images in another way: an older import is not gone on with, nor taken for this one.
_PREPARATION = 2


@dataclass(frozen=True)
class _Options:
    """How to import; see :func:`import_data`."""

    kind: str
    partition: Path | None
    size: int | None
    layout: str
    split: str | None
    test_fraction: float | None
    seed: int
    workers: int | None
    codec: str

    def __post_init__(self) -> None:
        if self.kind not in (AUTO, *NAMES):
            known = ", ".join((AUTO, *NAMES))
            raise UserError(f"there is no importer {self.kind!r}{nearest(self.kind, NAMES)}; known: {known}")
        if self.size is not None and self.size not in HEIGHTS:
            raise UserError(f"the frame size is {self.size}, but can be 64 or 128 pixels, as gait models take them")
        check_workers(self.workers)
        if self.codec not in CODECS:
            raise UserError(f"there is no codec {self.codec!r}{nearest(self.codec, CODECS)}: {' or '.join(CODECS)}")
        if self.layout != AUTO and self.kind not in (AUTO, "frames"):
            raise UserError(f"--layout says what the folders of --as frames mean, but --as {self.kind} knows its own")
        if self.partition is not None and self.by_chance:
            raise UserError("--partition says who is tested, so --split and --test-fraction cannot: give one of them")
        self.divide([])
        if self.test_fraction is not None and self.split not in (None, AUTO):
            raise UserError(f"--test-fraction goes with --split auto, not with --split {self.split}: give one of them")

    @property
    def by_chance(self) -> bool:
        """Whether the caller wants people divided regardless of the data set."""
        return self.split is not None or self.test_fraction is not None

    def divide(self, subjects: Sequence[str]) -> list[tuple[str, str]]:
        """(split, role) of sequences of these people, by chance."""
        return split_people(subjects, split=self.split or AUTO, test_fraction=self.test_fraction, seed=self.seed)

    def in_words(self, subjects: Sequence[str]) -> str:
        """How sequences of these people are divided by chance."""
        sides = self.divide(subjects)
        people = {
            side: len({who for who, (split, _) in zip(subjects, sides, strict=True) if split == side})
            for side in SPLITS
        }
        why = "" if people["test"] or self.split in SPLITS else why_nobody(len(set(subjects)), self.test_fraction)
        how = f"everybody in {self.split}" if self.split in SPLITS else f"by person and chance, seed {self.seed}"
        return f"{how}: {people['train']:,} train, {people['test']:,} are tested{why}"


@dataclass(frozen=True)
class _Plan:
    """What is to be done: which walks, in which order, and where each belongs."""

    importer: Importer
    walks: tuple[SourceSequence, ...]
    places: tuple[tuple[str, str], ...] | None  # (split, role) of each; None: people are divided by chance at the end
    size: int


def import_data(
    source: str | Path,
    out: str | Path,
    *,
    kind: str = AUTO,
    partition: str | Path | None = None,
    size: int | None = None,
    layout: str = AUTO,
    split: str | None = None,
    test_fraction: float | None = None,
    seed: int = 0,
    workers: int | None = None,
    codec: str = DEFAULT_CODEC,
    dry_run: bool = False,
) -> Report:
    """Make a store of a data set in a folder or an archive.

    The store is written walk by walk; after a kill, the same call goes on where it stopped, and where the same call has
    ended already, nothing is done, unless files have changed since, which is refused. What is damaged, empty or no
    silhouette is passed over and counted.

    Args:
        source: folder, .zip or .tar file.
        out: the store to create.
        kind: name of the importer, or "auto" to have it told by the names of the folders.
        partition: JSON file of who trains and who is tested (:func:`gaitdiff.data.importers.partition.read_partition`).
        size: height of the frames, 64 or 128 px; None: what aligned frames have, 64 for others.
        layout: what the folders of frames mean (:func:`gaitdiff.data.importers.layout.find_walks`).
        split, test_fraction, seed: divide people by chance (:func:`gaitdiff.data.importers.splits.split_people`), or
            with the split "halves" each sequence (:func:`gaitdiff.data.importers.splits.cut_in_halves`);
            without any of them, and without ``partition``, a data set's own rule does, and frames are divided as by
            "auto".
        workers: processes; as many as there are processors by default, one where there is little to do.
        codec: how the store keeps frames: "lz4-columns" takes a ninth of the bytes, "raw" reads faster.
        dry_run: only look, and say what would be imported.

    Returns:
        what was done; it is printed, too.

    Raises:
        UserError: nothing usable in the source, cut and uncut sequences in one source, an impossible argument, an
            unreadable partition, or what :class:`StoreWriter` raises.
    """
    out, file = Path(out).absolute(), None if partition is None else Path(partition)
    options = _Options(kind, file, size, layout, split, test_fraction, seed, workers, codec)
    if not (dry_run or (out / HEADER_FILE).is_file()):
        StoreWriter(out, source="")  # refuses a target that exists
    people = None if file is None else read_partition(file)
    with open_source(source) as opened:
        if complaint := packed_inside(opened):
            raise UserError(complaint)
        skipped = Counts()
        importer, why = _importer(opened, options)
        tree = find_walks(opened, layout, skipped) if importer is FRAMES else importer.find(opened, skipped)
        report = Report(opened.path, out, why, tree.layout, skipped=skipped)
        plan = _plan(opened, importer, tree, people, options, report)
        identity = _identity(opened, plan, options)
        if is_done(out, identity):
            return finished(report)
        if not dry_run:
            StoreWriter(out, source=identity.origin)  # refuses another import's store
        seen = survey(opened, plan.walks, plan.size, codec, workers)
        say(seen.describe(report))
        if dry_run:
            for line in report.skipped.lines("  skipped: "):
                say(line)
            return report
        _write(opened, plan, seen.crop, options, identity, report)
    print(report)
    return report


def _importer(source: Source, options: _Options) -> tuple[Importer, str]:
    """Which importer, and why, in words."""
    if options.kind != AUTO:
        importer = IMPORTERS[NAMES.index(options.kind)]
        return importer, f"{importer.card.title}, as said"
    if options.layout != AUTO:
        return FRAMES, FRAMES.card.title
    importer, why = detect(source, IMPORTERS)
    return importer, f"{why} (--as {importer.card.name})"


def _plan(
    source: Source, importer: Importer, tree: Tree, partition: Partition | None, options: _Options, report: Report
) -> _Plan:
    """Order and divide the walks, and say in the report how."""
    walks = tree.walks
    if options.split == HALVES:
        walks = tuple(cut_in_halves(walks))
        report.split = f"in halves: the first of {len(walks) // 2:,} sequences are looked for among the second"
        return _Plan(importer, walks, tuple((walk.split, walk.role) for walk in walks), _size(source, walks, options))
    if partition is None and importer.card.rule is not None and not options.by_chance:
        partition = importer.card.rule([walk.subject for walk in walks])
    if partition is None:
        if not options.by_chance and importer.card.published:
            raise partition_needed(importer.card.title)
        report.split = options.in_words([walk.subject for walk in walks])
        return _Plan(importer, walks, None, _size(source, walks, options))
    order = index(walks, partition)
    if not order:
        raise UserError(
            f"{partition.source} names nobody of {source.path}: it names {_some((*partition.train, *partition.test))}, "
            f"but there is {_some(sorted({walk.subject for walk in tree.walks}))}: give the partition of this data set"
        )
    division = divide(walks, partition, importer.card.role)
    _tell(division, partition, walks, report)
    if importer.card.probes and not any(place and place[1] == "probe" for place in division.places):
        report.missing.add("probe list: without its sequences nothing can be looked for", partition.source)
    places = tuple(place for i in order if (place := division.places[i]) is not None)
    walks = tuple(walks[i] for i in order)
    return _Plan(importer, walks, places, _size(source, walks, options))


def _tell(division: Division, partition: Partition, walks: Sequence[SourceSequence], report: Report) -> None:
    """Put into the report how partition and disk differ."""
    named = f"{len(partition.train):,} people train, {len(partition.test):,} are tested"
    probes = "" if partition.probes is None else f", {len(partition.probes):,} probes"
    gallery = "" if partition.gallery is None else f", {len(partition.gallery):,} gallery sequences"
    report.split = f"{partition.source}: {named}{probes}{gallery}"
    for what, names in (
        ("people of the partition without a sequence", division.absent),
        ("probes of the partition without a sequence", division.absent_probes),
        ("gallery sequences of the partition without a sequence", division.absent_gallery),
    ):
        for name in names:
            report.missing.add(what, printable(name))
    for walk, place in zip(walks, division.places, strict=True):
        if place is None:
            report.missing.add("sequences of people whom the partition does not name", printable(walk.folder))


def _some(names: Sequence[str]) -> str:
    return ", ".join(repr(name[:40]) for name in names[:3]) + (", …" if len(names) > 3 else "")


def _size(source: Source, walks: Sequence[SourceSequence], options: _Options) -> int:
    """The height of the store's frames: what is asked for, or what the first walks have if they are aligned, or 64."""
    if options.size is not None:
        return options.size
    for walk in walks[:5]:
        for size in HEIGHTS:
            loaded = load(source, walk, size)
            if 2 * loaded.unchanged > len(loaded.frames):
                return size
    return HEIGHTS[0]


def _identity(source: Source, plan: _Plan, options: _Options) -> Identity:
    frames, files = hashlib.sha256(), hashlib.sha256()
    for walk in plan.walks:
        frames.update(json.dumps([*walk.key, *walk.files]).encode())
        files.update("\n".join(map(source.stamp, walk.files)).encode())
    name = plan.importer.card.name
    fingerprint = f"{_PREPARATION} {source.path} {name} {plan.size} {options.codec} {frames.hexdigest()}"
    division = [options.split, options.test_fraction, options.seed] if plan.places is None else plan.places
    whole = hashlib.sha256(json.dumps([fingerprint, division]).encode()).hexdigest()
    words = f"{name} of {printable(source.path.name)}, import {whole[:16]}"
    return Identity(words, files.hexdigest()[:16], f"{fingerprint} {files.hexdigest()}")


def _write(source: Source, plan: _Plan, crop: str, options: _Options, identity: Identity, report: Report) -> None:
    """Load and write all walks of this crop; of the first usable one's if it is ""."""
    crop = crop or _first_crop(source, plan, report)
    width = plan.size if crop == "full" else cut_width(plan.size)
    with StoreWriter(
        report.out,
        height=plan.size,
        width=width,
        crop=crop,
        source=identity.origin,
        dataset=plan.importer.card.name,
        resume=identity.resume,
        codec=options.codec,
    ) as writer:
        for note in writer.notes:
            _recall(note, report)
        done = len(writer.notes)
        if done:
            say(f"going on after {done:,} of {len(plan.walks):,} sequences")
        with (
            progress_bar(f"Importing {source.path.name}", len(plan.walks)) as bar,
            closing(load_all(source, plan.walks[done:], plan.size, options.codec, options.workers)) as loading,
        ):
            bar.advance(done)
            for walk, loaded in loading:
                _add(writer, walk, loaded, report)
                bar.advance()
        if plan.places is None:
            people = [row.subject for row in writer.rows]
            writer.assign(options.divide(people))
            report.split = options.in_words(people)
        else:
            place = {walk.key: place for walk, place in zip(plan.walks, plan.places, strict=True)}
            writer.assign([place[row.key] for row in writer.rows])
        report.count(writer.rows, plan.size, width, crop)
        if not plan.importer.card.published:
            for person in sorted({row.subject for row in writer.rows} & _FOLDERS):
                report.suspicious.add("people called like a folder of GREW or HID: --as grew or --as hid", person)


def _first_crop(source: Source, plan: _Plan, report: Report) -> str:
    """The crop of the first usable walk; a UserError that says what was skipped if there is none."""
    unusable = []
    for walk in plan.walks:
        loaded = load(source, walk, plan.size)
        if len(loaded.frames):
            return loaded.crop
        unusable.append((loaded, walk))
    for loaded, walk in unusable:
        _note(loaded, walk, report)
    raise UserError(
        f"no usable mask in {source.path}: give masks of people, white on black; "
        f"skipped {'; '.join(report.skipped.lines())}"
    )


def _add(writer: StoreWriter, walk: SourceSequence, loaded: Loaded, report: Report) -> None:
    frames = loaded.encoded
    if frames is not None and loaded.crop != writer.crop:  # what the preflight's samples missed
        what = "cut already" if loaded.crop == "cut" else "whole"
        loaded.skipped.add(f"sequences that are {what}, unlike the others", printable(walk.folder))
        frames, loaded.unchanged = None, 0
    note = _note(loaded, walk, report)
    if frames is None:
        writer.skip(note)
        return
    writer.add(
        frames,
        subject=walk.subject,
        condition=walk.condition,
        view=walk.view,
        sequence=walk.sequence,
        split="train",
        note=note,
    )


def _note(loaded: Loaded, walk: SourceSequence, report: Report) -> dict[str, Any]:
    """Put into the report what happened to a walk, and return it for whoever goes on with the import."""
    if len(loaded.frames) == 0 and loaded.encoded is None:
        loaded.skipped.add("sequences without a usable frame", printable(walk.folder or "."))
    note = {
        "unchanged": loaded.unchanged,
        "changed": loaded.changed.to_json(),
        "skipped": loaded.skipped.to_json(),
        "suspicious": loaded.suspicious.to_json(),
    }
    _recall(note, report)
    return note


def _recall(note: dict[str, Any], report: Report) -> None:
    report.unchanged += note["unchanged"]
    report.changed.merge(Counts(**note["changed"]))
    report.skipped.merge(Counts(**note["skipped"]))
    report.suspicious.merge(Counts(**note["suspicious"]))
