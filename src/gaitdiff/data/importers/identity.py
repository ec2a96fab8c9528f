"""Which import a store is of, and whether it is there already."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gaitdiff.data.importers.report import Report
from gaitdiff.data.store import SequenceStore
from gaitdiff.data.store.header import HEADER_FILE
from gaitdiff.data.store.writer import clear_tools
from gaitdiff.errors import UserError


@dataclass(frozen=True)
class Identity:
    """What tells an import from others.

    Attributes:
        words: its name for ``store.json``, which follows from the names of all files and from the options.
        files: a digest of the files' sizes and times.
        resume: what a writer must have in common to go on with it.
    """

    words: str
    files: str
    resume: str

    @property
    def origin(self) -> str:
        """What stands in ``store.json``."""
        return f"{self.words}, files {self.files}"


def is_done(out: Path, identity: Identity) -> bool:
    """Whether this very import has ended before; older stores do not say of which state of the files they are.

    Raises:
        UserError: it has, but the files are others by now, or it was another import of a source of this name.
    """
    if not (out / HEADER_FILE).is_file():
        return False
    found = SequenceStore(out).header.source
    if found.startswith(f"{identity.words}, files ") and found != identity.origin:
        raise UserError(
            f"{out} holds this import, but files have changed since: choose another --out, or remove it to import anew"
        )
    same, _, _ = identity.words.rpartition(", import ")
    if found.startswith(f"{same}, import ") and not found.startswith(identity.words):
        raise UserError(
            f"{out} holds an import of a {same.partition(' of ')[2]} with other files or options: choose another "
            "--out, or remove it to import anew"
        )
    return found in (identity.origin, identity.words)


def finished(report: Report) -> Report:
    """Tell of an import that has ended before, as its end told of it."""
    store = SequenceStore(report.out)
    with suppress(OSError):  # it may lie where nothing can be written
        clear_tools(report.out)
    report.count(store.rows, store.height, store.width, store.header.crop)
    print(f"{report.out} holds this import already: nothing to do")
    return report
