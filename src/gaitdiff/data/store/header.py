"""What ``store.json`` says of a store: format, frame size, and the checksum that ties the manifest to it."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields

from gaitdiff.data.store.codec import CODECS
from gaitdiff.data.store.manifest import CROPS
from gaitdiff.utils.files import parse_json

HEADER_FILE, MANIFEST_FILE, FRAMES_FILE = "store.json", "manifest.csv", "frames.bin"
FORMAT, VERSION = "gaitdiff-store", 1
_TOO_MANY = 10**15  # pixels, frames or sequences


@dataclass(frozen=True)
class Header:
    """The content of ``store.json``."""

    height: int  # pixels
    width: int  # pixels
    crop: str  # see Row.crop; the same for every sequence of a store
    sequences: int
    frames: int
    source: str  # where the frames come from, in words
    manifest_sha256: str  # hexadecimal
    codec: str = "raw"  # how the sequences in frames.bin are coded, see gaitdiff.data.store.codec
    dataset: str = ""  # "gait3d", "walkers", …, as `gaitdiff data import --as` names it; "" for one that has no name
    format: str = FORMAT
    version: int = VERSION

    def encode(self) -> bytes:
        """Return the JSON text of the file."""
        return (json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n").encode("utf-8")

    @classmethod
    def decode(cls, data: bytes) -> Header:
        """Read what :meth:`encode` wrote; keys that this version does not know are passed over.

        Raises:
            ValueError: not JSON, not a store's, of a newer version, with an unknown codec, or with a missing or
                impossible value.
        """
        try:
            content = parse_json(data)
        except ValueError as error:
            raise ValueError(f"it is not JSON ({error})") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT!r}")
        version = content.get("version")
        if version != VERSION:
            raise ValueError(
                f"it has format version {version!r} and this gaitdiff reads version {VERSION}; "
                "use the gaitdiff that wrote it, or import the data anew"
            )
        content.setdefault("dataset", _dataset_of(content.get("source")))  # older stores lack it
        values = {}
        for field in fields(cls):
            kind = int if field.type == "int" else str
            if type(content.get(field.name)) is not kind:
                raise ValueError(f"the value of {field.name!r} is missing or not of type {kind.__name__}")
            if kind is int and not 0 <= content[field.name] < _TOO_MANY:
                raise ValueError(f"the value of {field.name!r} is impossible")
            values[field.name] = content[field.name]
        header = cls(**values)
        if header.codec not in CODECS:
            raise ValueError(
                f"its codec is {header.codec!r} and this gaitdiff knows {', '.join(map(repr, CODECS))}; "
                "use the gaitdiff that wrote it, or import the data anew"
            )
        if header.height < 1 or header.width < 1 or header.crop not in CROPS:
            raise ValueError("its frame size or crop is impossible")
        return header


def _dataset_of(source: object) -> str:
    """Return the data set that ``source`` of an older store begins with ("grew of GREW, import …"), or ""."""
    found = re.match(r"([a-z0-9-]+) of .*, import [0-9a-f]{16}$|(walkers), preset ", str(source), re.DOTALL)
    return next(filter(None, found.groups()), "") if found else ""
