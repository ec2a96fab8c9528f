"""Values within nested tuples, named ones too, such as what a module takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

V = TypeVar("V")


def leaves(values: Any, kind: type[V]) -> Iterator[V]:
    """Those of a kind, in their order."""
    if isinstance(values, kind):
        yield values
    elif isinstance(values, tuple):
        for value in values:
            yield from leaves(value, kind)


def replaced(values: Any, kind: type[V], make: Callable[[V], Any]) -> Any:
    """The same with something made of each of a kind in place of it."""
    if isinstance(values, kind):
        return make(values)
    if not isinstance(values, tuple):
        return values
    parts = [replaced(value, kind, make) for value in values]
    return type(values)(*parts) if hasattr(values, "_fields") else tuple(parts)
