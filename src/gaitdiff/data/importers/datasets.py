"""All importers, as ``--as`` names them, and telling from names alone which of them a source is for.

Every card in ``gaitdiff.datasets`` has one: a new data set is a file there, and its test.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable, Iterator
from importlib import import_module

from gaitdiff import datasets
from gaitdiff.data.formats.images import SUFFIXES
from gaitdiff.data.formats.pickles import SUFFIX as PICKLE
from gaitdiff.data.formats.sources import OF_A_VIDEO, VIDEOS, Source
from gaitdiff.data.importers.importer import Importer
from gaitdiff.data.importers.layout import FRAMES
from gaitdiff.data.importers.opengait import OPENGAIT
from gaitdiff.datasets.card import DatasetCard
from gaitdiff.errors import UserError


def _cards() -> Iterator[DatasetCard]:
    for module in pkgutil.iter_modules(datasets.__path__, f"{datasets.__name__}."):
        yield from (value for value in vars(import_module(module.name)).values() if isinstance(value, DatasetCard))


IMPORTERS: tuple[Importer, ...] = (*map(Importer.of, _cards()), OPENGAIT, FRAMES)
NAMES = tuple(importer.card.name for importer in IMPORTERS)


def detect(source: Source, importers: Iterable[Importer]) -> tuple[Importer, str]:
    """Return the importer that a source is for, and why, in words.

    Args:
        source: the files.
        importers: those to choose from; "frames" and "opengait" must be among them, for images and pickles whose names
            tell nothing.

    Raises:
        UserError: it looks like two data sets, or holds neither images nor pickles.
    """
    known = {importer.card.name: importer for importer in importers}
    reasons = {name: reason for name, importer in known.items() if (reason := importer.recognise(source))}
    if len(reasons) > 1:
        both = " and ".join(f"{known[name].card.title} ({reason})" for name, reason in reasons.items())
        choice = " or ".join(f"--as {name}" for name in reasons)
        raise UserError(f"{source.path} looks like {both}: say {choice}")
    for name, reason in reasons.items():
        return known[name], f"{reason}: {known[name].card.title}"
    if _holds(source, SUFFIXES):
        return known["frames"], "images in folders that are named as in no known data set"
    if _holds(source, (PICKLE,)):
        return known["opengait"], "pickles in folders that are named as in no known data set"
    masks = f", and {OF_A_VIDEO}" if _holds(source, VIDEOS) else ""
    raise UserError(
        f"{source.path} holds neither images ({', '.join(SUFFIXES)}) nor pickles ({PICKLE}): give the folder or "
        f"archive with the silhouettes{masks}"
    )


def _holds(source: Source, suffixes: tuple[str, ...]) -> bool:
    return any(name.lower().endswith(suffixes) for name in source.files)
