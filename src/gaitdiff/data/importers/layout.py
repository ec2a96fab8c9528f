"""From a tree of image files to named sequences: which folder is the person, which the walk."""

from __future__ import annotations

from gaitdiff.data.formats.images import SUFFIXES
from gaitdiff.data.formats.sources import Source
from gaitdiff.data.importers.folders import gather, masks_of, refuse_namesakes
from gaitdiff.data.importers.importer import Importer
from gaitdiff.datasets.card import DatasetCard
from gaitdiff.datasets.sequences import SourceSequence, Tree
from gaitdiff.errors import UserError, nearest
from gaitdiff.utils.counts import Counts
from gaitdiff.utils.text import natural, printable

AUTO = "auto"

#: What the folders mean, by how many of them lie above the images; the last one is always the walk.
BY_DEPTH = {
    1: "subject",
    2: "subject/sequence",
    3: "subject/condition/view",
    4: "subject/condition/view/sequence",
}
_LEVELS = ("subject", "condition", "view", "sequence", "*")


def find_walks(source: Source, layout: str, skipped: Counts) -> Tree:
    """Find the innermost folders with images, and name what they hold.

    Args:
        source: the files.
        layout: "auto", or the meaning of the folders above the images, the innermost last: the words subject,
            condition, view, sequence, or * for a folder that means nothing, with "/" between them.
        skipped: gets a line for everything that is passed over.

    Raises:
        UserError: no image anywhere, an impossible layout, or folders too shallow for it.
    """
    levels = _parse_layout(layout)
    folders = _image_folders(source, skipped)
    if not folders:
        raise UserError(f"no images ({', '.join(SUFFIXES)}) in {source.path}: give a folder of folders of images")
    shared = _wrapper(list(folders)) if source.packed and layout == AUTO else 0
    used: dict[str, str] = {}
    walks = []
    for folder, files in folders.items():
        parts = folder.split("/")[shared:] if folder else [source.path.stem]
        if not levels and len(parts) > len(BY_DEPTH):
            parts[3:] = ["/".join(parts[3:])]
        meaning = levels or BY_DEPTH[len(parts)].split("/")
        names = _name(parts, meaning, folder)
        used.setdefault("/".join(meaning), f"{folder or '.'} is subject {names['subject']!r}")
        walks.append(SourceSequence(**names, folder=folder, files=tuple(files)))
    refuse_namesakes(walks, "rename one, or say with --layout what the folders mean")
    described = "; ".join(f"{meaning} ({example})" for meaning, example in used.items())
    if shared:
        around = printable("/".join(next(iter(folders)).split("/")[:shared]))
        described += f"; {around}, in which everything lies, is taken to wrap the archive: --layout names it as others"
    return Tree(tuple(walks), described)


def _parse_layout(layout: str) -> list[str]:
    """Return the levels, outermost first; none for "auto"."""
    if layout == AUTO:
        return []
    levels = layout.split("/")
    for level in levels:
        if level not in _LEVELS:
            known = ", ".join(_LEVELS)
            raise UserError(f"--layout: {level!r} is none of {known}{nearest(level, _LEVELS)}")
    named = [level for level in levels if level != "*"]
    if "subject" not in named or len(named) != len(set(named)):
        raise UserError(f"--layout {layout!r} must name the subject, and nothing twice")
    return levels


def _name(parts: list[str], meaning: list[str], folder: str) -> dict[str, str]:
    """Give the folders their meaning, counted from the innermost; those further out mean nothing."""
    if len(parts) < len(meaning):
        raise UserError(f"--layout has {len(meaning)} levels, but {folder or 'an image'} lies {len(parts)} deep")
    names = {"condition": "", "view": "", "sequence": parts[-1]}
    inner = parts[len(parts) - len(meaning) :]
    names.update({level: part for level, part in zip(meaning, inner, strict=True) if level != "*"})
    return {level: printable(name) for level, name in names.items()}


def _image_folders(source: Source, skipped: Counts) -> dict[str, list[str]]:
    """Return the images of each innermost folder that has some, folders and images in natural order."""
    images: dict[str, list[str]] = {}
    for folder, files in gather(source, skipped).items():
        if files.images:
            images[folder] = masks_of(files.images, skipped)
        for name in files.pickles:
            skipped.add("pickles among folders of images", printable(name))
    above = {folder[:i] for folder in images for i, letter in enumerate(folder) if letter == "/"} | {""}
    for folder in [folder for folder in images if folder in above and len(images) > 1]:
        for name in images.pop(folder):
            skipped.add("images beside folders of images", printable(name))
    return {folder: images[folder] for folder in sorted(images, key=natural)}


def _wrapper(folders: list[str]) -> int:
    """Return how many outermost folders all images of an archive share and which therefore mean nothing."""
    split = [folder.split("/") for folder in folders]
    shared = 0
    while len({parts[shared] for parts in split}) == 1 and all(len(parts) > shared + 1 for parts in split):
        shared += 1
    return shared


FRAMES = Importer(
    DatasetCard("frames", "folders of images", published=False),
    find=lambda source, skipped: find_walks(source, AUTO, skipped),
    recognise=lambda source: "",
)
