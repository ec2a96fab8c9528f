"""Nested settings as dotted keys, and as YAML and JSON give them back."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any


def plain(value: Any) -> Any:
    """Tuples as lists, throughout: what YAML and JSON give back."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def flat(value: dict[Any, Any], leaves: Collection[str] = (), prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of nested mappings; what lies below a key of ``leaves``, or is empty, is a value."""
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, dict) and item and name not in leaves:
            yield from flat(item, leaves, f"{name}.")
        else:
            yield name, item
