"""YAML as recipes and run folders need it: small, plain mappings, read in bounded time and memory."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from gaitdiff.errors import shown

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable  # from Python 3.11 on

#: No recipe comes near these.
_MOST_BYTES = 1 << 16
_MOST_LEVELS = 20


def read_mapping(file: Path | Traversable) -> dict[str, Any]:
    """Read a YAML file that holds one mapping; nothing in it is executed.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is too large, no YAML, no mapping, too deeply nested, has a key twice, an alias or a tag; the
            text is what to say behind the file's name.
    """
    if isinstance(file, Path) and not (file.is_file() or file.is_dir()) and file.exists():
        raise ValueError("is no regular file")
    with file.open("rb") as stream:
        content = stream.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"has more than {_MOST_BYTES} bytes")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError("is not UTF-8 text") from error
    found = _parse(text, _Loader)
    if not isinstance(found, dict):
        raise ValueError("must be a mapping of settings, such as 'optim: {lr: 0.001}'")
    return found


def parse_value(text: str) -> Any:
    """What a flag's value means: as in a file, and 1e-3 is a number too.

    Raises:
        ValueError: as of ``read_mapping``.
    """
    return _parse(text, _ValueLoader)


def _parse(text: str, loader: type[yaml.SafeLoader]) -> Any:
    try:
        return yaml.load(text, loader)
    except _Refused as error:
        raise ValueError(str(error)) from error
    except (ValueError, OverflowError, yaml.YAMLError) as error:  # the former of a date or number that cannot be
        mark = getattr(error, "problem_mark", None)
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ValueError(f"is not readable YAML ({problem}{f' in line {mark.line + 1}' if mark else ''})") from error


class _Refused(yaml.YAMLError):
    """YAML that is not wanted, though it could be read."""


class _Loader(yaml.SafeLoader):
    """Refuses what makes a small file large or deep, and what would be overwritten silently."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._level = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _Refused(f"has an anchor or alias in line {line}: write the value out")
        if (tag := getattr(event, "tag", None)) is not None:
            raise _Refused(f"has the tag {shown(tag)} in line {line}: remove it")
        if self._level >= _MOST_LEVELS:
            raise _Refused(f"is nested more than {_MOST_LEVELS} levels deep in line {line}")
        self._level += 1
        node = super().compose_node(parent, index)
        self._level -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise _Refused(f"has the key {shown(key.value)} twice, again in line {key.start_mark.line + 1}")
                seen.add(key.value)
        return super().construct_mapping(node, deep)


class _ValueLoader(_Loader):
    """Also reads numbers as people write them on a command line, which YAML 1.1 takes for text."""


_ValueLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
