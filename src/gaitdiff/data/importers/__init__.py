"""One file for each way in which users keep their silhouettes; each turns it into a store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from gaitdiff.data.importers.frames import Report, import_frames

__all__ = ["IMPORTERS", "Report", "import_frames"]

#: The importers by the name that the command line knows them by; each is called as (source, out, **options).
IMPORTERS: Mapping[str, Callable[..., Report]] = MappingProxyType({"frames": import_frames})
