"""Telling from names alone which data set a source is."""

from __future__ import annotations

from collections.abc import Iterable

from gaitdiff.data.images import SUFFIXES
from gaitdiff.data.importers.dataset import Dataset
from gaitdiff.data.importers.tree import PICKLE
from gaitdiff.data.sources import Source
from gaitdiff.errors import UserError


def detect(source: Source, datasets: Iterable[Dataset]) -> tuple[Dataset, str]:
    """Return the data set that a source is, and why, in words.

    Args:
        source: the files.
        datasets: those to choose from; "frames" and "opengait" must be among them, for images and pickles whose names
            tell nothing.

    Raises:
        UserError: it looks like two data sets, or holds neither images nor pickles.
    """
    known = {dataset.name: dataset for dataset in datasets}
    reasons = {name: reason for name, dataset in known.items() if (reason := dataset.recognise(source))}
    if len(reasons) > 1:
        both = " and ".join(f"{known[name].title} ({reason})" for name, reason in reasons.items())
        choice = " or ".join(f"--as {name}" for name in reasons)
        raise UserError(f"{source.path} looks like {both}: say {choice}")
    for name, reason in reasons.items():
        return known[name], f"{reason}: {known[name].title}"
    if _holds(source, SUFFIXES):
        return known["frames"], "images in folders that are named as in no known data set"
    if _holds(source, (PICKLE,)):
        return known["opengait"], "pickles in folders that are named as in no known data set"
    raise UserError(
        f"{source.path} holds neither images ({', '.join(SUFFIXES)}) nor pickles ({PICKLE}): give the folder or "
        "archive with the silhouettes"
    )


def _holds(source: Source, suffixes: tuple[str, ...]) -> bool:
    return any(name.lower().endswith(suffixes) for name in source.files)
