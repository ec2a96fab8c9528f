"""An importer: what ``--as`` names, with the way of finding its sequences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gaitdiff.data.formats.sources import Source
from gaitdiff.data.importers.folders import FolderLayout
from gaitdiff.datasets.card import DatasetCard
from gaitdiff.datasets.sequences import Tree
from gaitdiff.utils.counts import Counts


@dataclass(frozen=True)
class Importer:
    """A data set and how it is read.

    Attributes:
        card: the data set.
        find: (source, skipped) to the sequences; ``skipped`` gets a line for everything that is passed over. Raises
            UserError where the source is not this data set, naming what was expected and what lies there.
        recognise: why a source looks like this data set, in words, or "". Looks at names only.
    """

    card: DatasetCard
    find: Callable[[Source, Counts], Tree]
    recognise: Callable[[Source], str]

    @staticmethod
    def of(card: DatasetCard) -> Importer:
        """The importer of a data set whose folders have names of its own."""
        layout = FolderLayout(card)
        return Importer(card, layout.find, layout.recognise)
