"""Reading folders whose names a data set lays down: which hold a sequence, and which of their files it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter

from gaitdiff.data.formats.images import SUFFIXES
from gaitdiff.data.formats.pickles import SUFFIX as PICKLE
from gaitdiff.data.formats.sources import Source
from gaitdiff.datasets.card import DatasetCard, FolderPattern
from gaitdiff.datasets.sequences import SourceSequence, Tree, silhouette_rank
from gaitdiff.errors import UserError
from gaitdiff.utils.counts import Counts
from gaitdiff.utils.text import printable

#: What choosing among the pickles of a folder passes over.
NOT_SILHOUETTES = "pickles that are not the silhouettes"

#: How many files tell what a source is.
SAMPLE = 20_000

_OTHER_IMAGES = (".gif", ".jp2", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
_STRAYS = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
#: Names of images that sum a sequence up.
_SUMMARY = re.compile(r"(?<![a-z])(?:gei|geni|aei|energy|mean|average|avg)(?![a-z])[^/]*$", re.IGNORECASE)
_NO_SILHOUETTES = ("rgb", "ratio", "pcd", "depth", "pose", "smpl", "skeleton", "parsing", "flow")


@dataclass
class Files:
    """What one folder holds, in natural order."""

    images: list[str] = field(default_factory=list)
    pickles: list[str] = field(default_factory=list)


class FolderLayout:
    """Reading the folders of one data set, as its card names them."""

    def __init__(self, card: DatasetCard) -> None:
        self.card = card

    def find(self, source: Source, skipped: Counts) -> Tree:
        """Find the sequences, sorted by name.

        The folder or archive itself counts as the outermost folder; any number of folders may lie around the forms.

        Raises:
            UserError: nothing fits, or two folders would become the same sequence.
        """
        root = root_name(source)
        walks: list[SourceSequence] = []
        used: dict[str, str] = {}
        other = ""
        for folder, files in gather(source, skipped).items():
            full = f"{root}/{folder}" if folder else root
            if self._ignores(full):
                skipped.add("folders that hold other data", printable(folder or "."))
                continue
            found = self._fit(full)
            if found is None:
                other = other or folder or "."
                skipped.add(f"folders that are not named as in {self.card.title}", printable(folder or "."))
                continue
            pattern, match = found
            chosen = choose(folder, files, skipped)
            if chosen:
                name = pattern.name(match)
                walks.append(
                    SourceSequence(*name, folder=folder, files=chosen, split=pattern.split, prepare=self.card.prepare)
                )
                used.setdefault(pattern.path, printable(folder or root))
        walks = self.card.settle(walks, skipped)
        if not walks:
            raise self._nothing(source, other)
        walks.sort(key=attrgetter("key"))
        refuse_namesakes(walks)
        return Tree(tuple(walks), f"{self.card.title}: " + "; ".join(f"{path} ({used[path]})" for path in used))

    def recognise(self, source: Source) -> str:
        """Say in words why a source looks like this data set, or ""; half of its folders must be named so."""
        if self.card.recognise is not None:
            return self.card.recognise(sample(source))
        fitting = total = 0
        example = ""
        for folder in sample(source):
            if self._ignores(folder):
                continue
            total += 1
            found = self._fit(folder)
            if found is not None:
                fitting += 1
                pattern, match = found
                if not example and re.search(pattern.telling, folder):
                    example = f"folders {pattern.path}, such as {match[0].lstrip('/')}"
        return example if 2 * fitting >= total else ""

    def _ignores(self, folder: str) -> bool:
        """Tell whether a folder holds other data; the outermost, which the user chose, does not count."""
        return re.search(rf"/(?:{self.card.ignored})(?:/|$)", folder, re.IGNORECASE | re.ASCII) is not None

    def _fit(self, folder: str) -> tuple[FolderPattern, re.Match[str]] | None:
        for pattern in self.card.patterns:
            match = pattern.match(folder)
            if match:
                return pattern, match
        return None

    def _nothing(self, source: Source, other: str) -> UserError:
        """Return the error for a source without a sequence."""
        expected = " or ".join(pattern.path for pattern in self.card.patterns)
        message = (
            f"no sequence of {self.card.title} in {source.path}: its folders are {expected}, such as "
            f"{self.card.example}"
        )
        if other:
            return UserError(f"{message}, but here lies {printable(other)}: leave --as out to have the data set told")
        return UserError(f"{message}, with images ({', '.join(SUFFIXES)}) or pickles of silhouettes ({PICKLE}) in them")


def root_name(source: Source) -> str:
    """Return the name of the folder, or of the archive without its suffix."""
    name = source.path.name
    return printable(re.sub(r"(?i)(\.tar)?\.[^.]+$", "", name) if source.packed else name)


def gather(source: Source, skipped: Counts) -> dict[str, Files]:
    """Return the images and pickles of each folder that has some; strays, other files and empty folders are counted."""
    result: dict[str, Files] = {}
    strange: dict[str, bool] = {}  # folder → whether it belongs to the operating system
    last, found, usual = None, Files(), True  # names come folder by folder, more or less
    for name in source.files:
        folder, _, file = name.rpartition("/")
        if folder != last:
            usual = not strange.setdefault(folder, any(map(_is_stray, folder.split("/"))))
            last, found = folder, result.get(folder) or Files()
        suffix = file[file.rfind(".") :].lower()
        if not usual or _is_stray(file):
            skipped.add("stray files of the operating system", printable(name))
        elif suffix in SUFFIXES:
            found.images.append(name)
            result[folder] = found
        elif suffix == PICKLE:
            found.pickles.append(name)
            result[folder] = found
        elif suffix in _OTHER_IMAGES:
            skipped.add(f"images that are not read (convert them to {SUFFIXES[0]})", printable(name))
        else:
            skipped.add("files that are neither images nor pickles", printable(name))
    for folder, files in result.items():
        _without_summaries(folder, files, skipped)
    occupied: set[str] = set()
    for folder in chain(strange, (folder.rpartition("/")[0] for folder in source.folders)):
        while folder and folder not in occupied:
            occupied.add(folder)
            folder = folder.rpartition("/")[0]
    for folder in source.folders:
        if folder not in occupied:
            skipped.add("empty folders", printable(folder))
    return result


def _without_summaries(folder: str, files: Files, skipped: Counts) -> None:
    """Leave out images of a whole sequence, unless most images of the folder are called so."""
    frames = [name for name in files.images if not _SUMMARY.search(name, len(folder))]
    if frames and 0 < len(files.images) - len(frames) < max(2, len(frames)):
        for name in set(files.images).difference(frames):
            skipped.add("images of whole sequences (such as gait energy images) beside frames", printable(name))
        files.images = frames


def sample(source: Source) -> list[str]:
    """Return the folders of up to SAMPLE evenly spread images and pickles, below the source's own name."""
    root = root_name(source)
    folders: dict[str, None] = {}
    for name in source.files[:: len(source.files) // SAMPLE + 1]:
        parts = name.split("/")
        if name.lower().endswith((*SUFFIXES, PICKLE)) and not any(map(_is_stray, parts)):
            folders["/".join([root, *parts[:-1]])] = None
    return list(folders)


def choose(folder: str, files: Files, skipped: Counts) -> tuple[str, ...]:
    """Return the files of one sequence: its images, in the order of their names as the field reads them, or one pickle.

    Where masks (PNG) and photographs (JPEG) lie together, the masks; images before pickles; of several pickles,
    which are views of the same walk by different sensors, the silhouettes.
    """
    if files.images:
        for name in files.pickles:
            skipped.add("pickles beside images", printable(name))
        return tuple(sorted(masks_of(files.images, skipped)))
    chosen = choose_pickle(folder, files.pickles)
    for name in files.pickles:
        if name != chosen:
            skipped.add(NOT_SILHOUETTES, printable(name))
    return (chosen,) if chosen else ()


def masks_of(images: Sequence[str], skipped: Counts) -> list[str]:
    """The masks (PNG) where photographs (JPEG, …) lie beside them, else all images; in their order."""
    masks = [name for name in images if name.lower().endswith(".png")]
    for name in images if 0 < len(masks) < len(images) else ():
        if not name.lower().endswith(".png"):
            skipped.add("photographs beside masks", printable(name))
    return masks or list(images)


def choose_pickle(folder: str, pickles: Iterable[str]) -> str:
    """Return the pickle with the silhouettes, or "" where none is.

    By the words in their names: those of the camera before those of the LiDAR, of the camera's own rate before those
    in step with another sensor, aligned before raw. A pickle that is named like its folder, or is the only one and
    named after nothing else, holds silhouettes, too.
    """
    stems = {name: _stem(name) for name in pickles}
    named = {name: rank for name, stem in stems.items() if (rank := silhouette_rank(stem))}
    if named:
        return min(named, key=lambda name: (named[name], name))
    own = folder.rpartition("/")[2].lower()
    for name, stem in stems.items():
        if stem == own:
            return name
    if len(stems) == 1 and not any(word in stem for stem in stems.values() for word in _NO_SILHOUETTES):
        return next(iter(stems))
    return ""


def refuse_namesakes(walks: Iterable[SourceSequence], remedy: str = "import one of them") -> None:
    """Raise UserError where two folders, or two files of one, would become the same sequence."""
    seen: dict[tuple[str, str, str, str], SourceSequence] = {}
    for walk in walks:
        other = seen.setdefault(walk.key, walk)
        if other is not walk:
            name = "/".join(filter(None, walk.key))
            places = (other.folder, walk.folder) if other.folder != walk.folder else (other.files[0], walk.files[0])
            raise UserError(f"{' and '.join(map(printable, places))} would both become {name}: {remedy}")


def _is_stray(part: str) -> bool:
    return part.startswith(".") or part.lower() in _STRAYS


def _stem(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[0].lower()
