"""Folders of images in any tree: the innermost folder is a walk, those above it say whose."""

from __future__ import annotations

from gaitdiff.data.importers.dataset import Dataset
from gaitdiff.data.importers.layout import AUTO, find_walks
from gaitdiff.data.importers.tally import Tally
from gaitdiff.data.importers.walks import Tree
from gaitdiff.data.sources import Source


def _find(source: Source, skipped: Tally) -> Tree:
    return find_walks(source, AUTO, skipped)


FRAMES = Dataset(name="frames", title="folders of images", find=_find, recognise=lambda source: "", published=False)
