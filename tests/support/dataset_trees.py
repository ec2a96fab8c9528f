"""The published data sets as trees of empty files, of which names alone matter, that tests of importing share."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

from gaitdiff.data.formats.sources import open_source
from gaitdiff.data.importers.datasets import IMPORTERS, NAMES, detect
from gaitdiff.data.importers.importer import Importer
from gaitdiff.datasets.sequences import SourceSequence
from gaitdiff.utils.counts import Counts

GAIT3D, GREW, CASIA_B, OUMVLP, CCPG, SUSTECH1K = (
    IMPORTERS[NAMES.index(name)] for name in ("gait3d", "grew", "casia-b", "oumvlp", "ccpg", "sustech1k")
)

#: Folders of each layout, and the sequence that each is: subject, condition, view, split.
Expected = dict[str, tuple[str, str, str, str]]


def make(root: Path, names: Iterable[str], folders: Iterable[str] = ()) -> Path:
    """Empty files below a folder; names alone matter here."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for folder in folders:
        (root / folder).mkdir(parents=True)
    return root


def pack(path: Path, names: Iterable[str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    return path


def find(dataset: Importer, path: Path) -> tuple[tuple[SourceSequence, ...], Counts]:
    skipped = Counts()
    with open_source(path) as source:
        return dataset.find(source, skipped).walks, skipped


def told(path: Path) -> tuple[str, str]:
    with open_source(path) as source:
        dataset, reason = detect(source, IMPORTERS)
    return dataset.card.name, reason


def images(folders: Iterable[str], names: tuple[str, ...] = ("10.png", "9.png", "0.png")) -> list[str]:
    return [f"{folder}/{name}" for folder in folders for name in names]


def pickles(folders: Iterable[str]) -> list[str]:
    return [f"{folder}/{folder.rpartition('/')[2]}.pkl" for folder in folders]


def as_rows(walks: Iterable[SourceSequence], prefix: str = "") -> Expected:
    """What the sequences are, by their folders; the name within its view is the view's own."""
    rows = {}
    for walk in walks:
        assert walk.sequence == walk.view
        assert walk.folder.startswith(prefix)
        rows[walk.folder[len(prefix) :]] = (walk.subject, walk.condition, walk.view, walk.split)
    return rows
