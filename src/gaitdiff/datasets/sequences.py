"""What every importer finds: the walks of a source."""

from __future__ import annotations

from dataclasses import dataclass

#: How the field makes frames of a data set's images: aligned, scaled by bicubic interpolation; aligned, scaled by area
#: and whatever their mass; or taken as they are given out, the empty ones too, where they have the wanted size.
PREPARE = ALIGN, AREA, GIVEN = "align", "area", "given"

#: The label of sequences whose person is not told, as GREW and HID give out their probes. They are nobody's match:
#: no protocol has them in its gallery or counts them as people.
NAMELESS = "probe"


@dataclass(frozen=True)
class SourceSequence:
    """One sequence that is to be imported."""

    subject: str
    condition: str
    view: str
    sequence: str
    folder: str  # relative to the source
    files: tuple[str, ...]  # relative to the source: images in natural order, or one pickle
    split: str = ""  # "train" or "test" where the folders say so, else ""
    role: str = ""  # "probe" or "gallery" where the folders say so, else ""
    prepare: str = ALIGN  # what its frames are made of its images by, see PREPARE

    @property
    def key(self) -> tuple[str, str, str, str]:
        """The key of its row in a store."""
        return self.subject, self.condition, self.view, self.sequence


@dataclass(frozen=True)
class Tree:
    """All sequences of a source."""

    walks: tuple[SourceSequence, ...]
    layout: str  # in words, for the report


def silhouette_rank(name: str) -> tuple[bool, bool, bool] | None:
    """Return a key that sorts the best silhouettes first; None for what is named otherwise."""
    name = name.lower()
    return ("lidar" in name or "pcd" in name, "sync" in name, "aligned" not in name) if "sil" in name else None
