"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from gaitdiff.errors import UserError


def write_whole(path: Path, data: bytes, remedy: str) -> None:
    """Write a file beside its place and move it there.

    Raises:
        UserError: it cannot be written; the sentence ends with ``remedy``.
    """
    draft = path.with_name(f".{path.name}.partial")
    try:
        draft.write_bytes(data)
        os.replace(draft, path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise UserError(f"{path} cannot be written ({error.strerror}): {remedy}") from error
