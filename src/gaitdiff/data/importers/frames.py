"""Folders of images in any tree: the innermost folder is a walk, those above it say whose."""

from __future__ import annotations

from gaitdiff.data.importers.dataset import Dataset
from gaitdiff.data.importers.layout import AUTO, find_walks
from gaitdiff.data.sources import Source
from gaitdiff.data.tally import Tally
from gaitdiff.data.walks import Tree


def _find(source: Source, skipped: Tally) -> Tree:
    return find_walks(source, AUTO, skipped)


FRAMES = Dataset(name="frames", title="folders of images", find=_find, recognise=lambda source: "", published=False)
