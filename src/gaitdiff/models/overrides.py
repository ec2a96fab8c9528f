"""A model's settings with some of them changed, each to a value of the kind that it has."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from numbers import Integral, Real
from typing import Any

from gaitdiff.errors import UserError, nearest


def changed(config: Any, overrides: Mapping[str, Any], whose: str) -> Any:
    """A configuration dataclass with other values, which may be as JSON gives them back: lists become tuples.

    Each is of the kind that the known value is: a bool, a number, text, a list of these, a mapping, or a configuration
    within it. The known value itself is right whatever it is, and so is anything in the place of None.

    Args:
        whose: settings these are, for the sentence.

    Raises:
        UserError: an unknown name, or a value of another kind; the sentence names it.
    """
    known = [field.name for field in fields(config)]
    for key in overrides:
        if key not in known:
            raise UserError(f"{whose} has no setting {key!r}{nearest(str(key), known)}; it has {', '.join(known)}")
    return replace(
        config, **{key: _like(getattr(config, key), value, f"{whose}'s {key}") for key, value in overrides.items()}
    )


def _like(known: Any, value: Any, what: str) -> Any:
    if known is None or _in_json(known) == _in_json(value):
        return value if known is None else known
    if is_dataclass(known) and not isinstance(known, type):
        return changed(known, _mapping(known, value, what), what)
    if isinstance(known, dict):
        return dict(_mapping(known, value, what))
    if isinstance(known, tuple | list):
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise UserError(f"{what} must be a list such as {list(known)}, not {value!r}")
        alike = len({type(item) for item in known}) == 1
        made = [_like(known[0], item, what) if alike else item for item in value]
        return made if isinstance(known, list) else tuple(made)
    if isinstance(known, int | float):
        return _number(known, value, what)
    if not isinstance(value, type(known)):
        raise UserError(f"{what} must be text such as {known!r}, not {value!r}")
    return value


def _mapping(known: Any, value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{what} must be a mapping such as {known!r}, not {value!r}")
    return value


def _number(known: float, value: Any, what: str) -> float:
    """A bool, a whole number of at least 1, or as far down as the known one, or any number; as Python has it."""
    if isinstance(known, bool):
        if not isinstance(value, bool):
            raise UserError(f"{what} must be true or false, not {value!r}")
        return value
    kind = Integral if isinstance(known, int) else Real
    if isinstance(value, bool) or not isinstance(value, kind):
        number = "a whole number" if kind is Integral else f"a number such as {known!r}"
        raise UserError(f"{what} must be {number}, not {value!r}")
    if isinstance(known, int) and value < min(1, known):
        raise UserError(f"{what} must be {'positive' if known > 0 else f'at least {known}'}, not {value!r}")
    return type(known)(value)


def _in_json(value: Any) -> str:
    return json.dumps(
        value, default=lambda one: asdict(one) if is_dataclass(one) and not isinstance(one, type) else repr(one)
    )
