"""Notes in pictures, by which a file that we wrote is known from others."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

#: Formats by the suffix of a file's name.
PICTURES = {".png": "PNG", ".gif": "GIF"}

_NOTE = "comment"


def png_note(note: str) -> PngInfo:
    """What a PNG is saved with, so that ``note_of`` gives the note back."""
    info = PngInfo()
    info.add_itxt(_NOTE, note)
    return info


def note_of(path: Path) -> str:
    """The note of a picture of ours; "" for one from elsewhere.

    Raises:
        OSError, ValueError: it is no picture.
    """
    try:
        with Image.open(path, formats=list(PICTURES.values())) as image:
            note = image.info.get(_NOTE, "")
    except Image.DecompressionBombError as error:
        raise ValueError("it is larger than any that we write") from error
    return note.decode("utf-8", "replace") if isinstance(note, bytes) else str(note)
