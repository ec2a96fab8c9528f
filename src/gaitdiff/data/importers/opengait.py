"""Pickles of silhouettes as OpenGait lays them out: any data set by person, type and view, and trees without labels."""

from __future__ import annotations

from operator import attrgetter

from gaitdiff.data.formats.sources import Source
from gaitdiff.data.importers.folders import NOT_SILHOUETTES, PICKLE, Files, choose, gather, refuse_namesakes
from gaitdiff.data.importers.importer import Importer
from gaitdiff.datasets.card import DatasetCard
from gaitdiff.datasets.sequences import SourceSequence, Tree
from gaitdiff.errors import UserError
from gaitdiff.utils.counts import Counts
from gaitdiff.utils.text import printable

_LABELLED = "<id>/<type>/<view>/*.pkl"
_UNLABELLED = "pickles named after their folders, each a person of its own"


def _find(source: Source, skipped: Counts) -> Tree:
    """Find the sequences, sorted by name: the innermost three folders are person, type and view."""
    walks: list[SourceSequence] = []
    used: dict[str, str] = {}
    for folder, files in gather(source, skipped).items():
        parts = [printable(part) for part in folder.split("/")]
        alone = [name for name in files.pickles if is_unlabelled(name)]
        for name in alone:
            stem = name.rpartition("/")[2][: -len(PICKLE)]
            walks.append(SourceSequence(stem, "", "", stem, folder=folder, files=(name,)))
            used.setdefault(_UNLABELLED, printable(name))
        for name in files.images:
            skipped.add("images, which this layout does not have", printable(name))
        rest = [name for name in files.pickles if name not in alone] if alone else files.pickles
        if rest and len(parts) < 3:
            skipped.add(f"folders that are not {_LABELLED}", printable(folder or "."))
        elif chosen := choose(folder, Files(pickles=rest), skipped):
            subject, condition, view = parts[-3:]
            walks.append(SourceSequence(subject, condition, view, view, folder=folder, files=chosen))
            used.setdefault(_LABELLED, printable(folder))
    unclear = skipped.examples.get(NOT_SILHOUETTES)
    if not walks and unclear:
        raise UserError(
            f"no pickles of silhouettes in {source.path}: {unclear[0]} lies with others or is named after something "
            "else: name the one with the silhouettes like its folder"
        )
    if not walks:
        raise UserError(
            f"no pickles of silhouettes in {source.path}: expected {_LABELLED}, or pickles named after their folders "
            "such as 000/000/000/000_000_000.pkl; --as frames takes images"
        )
    walks.sort(key=attrgetter("key"))
    refuse_namesakes(walks)
    return Tree(tuple(walks), "; ".join(f"{layout} ({used[layout]})" for layout in used))


def is_unlabelled(name: str) -> bool:
    """Tell whether a pickle is named after the numbers of its folders, or, of three and more, all but its own.

    So are those of GaitLU-1M: ``000/000/000/000_000_000.pkl``.
    """
    folder, _, file = name.rpartition("/")
    numbers = file[: -len(PICKLE)].split("_")
    if len(numbers) < 2 or not all(number.isdigit() for number in numbers):
        return False
    parts = folder.split("/")
    return parts[-len(numbers) :] == numbers or (len(numbers) > 2 and parts[1 - len(numbers) :] == numbers[:-1])


def _recognise(source: Source) -> str:
    """Recognise trees without labels; those with labels look like those of the data set they came from."""
    names = [name for name in source.files[:: len(source.files) // 1000 + 1] if name.lower().endswith(PICKLE)]
    alone = [name for name in names if is_unlabelled(name)]
    return f"{_UNLABELLED}, such as {printable(alone[0])}" if alone and 2 * len(alone) >= len(names) else ""


OPENGAIT = Importer(DatasetCard("opengait", "OpenGait's pickles", published=False), find=_find, recognise=_recognise)
