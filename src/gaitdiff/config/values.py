"""The settings of a configuration dataclass: their names, types, defaults and texts, and values as YAML gives them."""

from __future__ import annotations

import dataclasses
import inspect
import math
import operator
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from gaitdiff.config.limits import WORD, Range
from gaitdiff.config.safe_yaml import parse_value
from gaitdiff.errors import UserError, shown

Config = TypeVar("Config")

#: The default of a setting that must be given.
REQUIRED = object()

#: Groups whose name alone stands for one of their settings.
SHORT = {"data": "data.store", "model": "model.name"}

_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        name: with dots, such as "optim.lr".
        hint: its type, with the ``Range`` of its numbers.
        default: ``REQUIRED`` where there is none.
        text: what it is.
        group: what the settings of its dataclass are.
    """

    name: str
    hint: Any
    default: Any
    text: str
    group: str

    @property
    def mapping(self) -> bool:
        """Whether its value is a mapping, whose keys are given one by one as well."""
        return get_origin(self.hint) is dict


def settings_of(kind: type[Any]) -> dict[str, Setting]:
    """All settings of a configuration dataclass by dotted name, in its order."""
    return {setting.name: setting for setting in _settings(kind)}


def flag_of(name: str) -> str:
    """The shortest flag of a setting."""
    return next((f"--{short}" for short, setting in SHORT.items() if setting == name), f"--{name}")


def _settings(kind: type[Any], prefix: str = "", made: Any = REQUIRED) -> Iterator[Setting]:
    """Settings of ``kind``; their defaults are the values of ``made``, where there is one."""
    hints, documented = get_type_hints(kind, include_extras=True), inspect.getdoc(kind) or ""
    group, texts = documented.partition("\n")[0].rstrip("."), dict(_attributes(documented))
    for field in dataclasses.fields(kind):
        name, hint = field.name, hints[field.name]
        default = _default(field) if made is REQUIRED else getattr(made, name)
        if _nested(hint):
            yield from _settings(hint, f"{prefix}{name}.", default)
        else:
            yield Setting(prefix + name, hint, default, texts.get(name, ""), group)


def _nested(hint: Any) -> bool:
    """Whether a field is a group of settings, of type ``hint``."""
    return dataclasses.is_dataclass(hint)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return REQUIRED if field.default is dataclasses.MISSING else field.default


def _attributes(documented: str) -> Iterator[tuple[str, str]]:
    """Names and texts of a docstring's attributes."""
    for name, text in re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", documented.partition("Attributes:")[2], re.M):
        yield name, " ".join(text.split())


def build(kind: type[Config], values: Mapping[str, Any], prefix: str = "") -> Config:
    """Make a configuration dataclass from the values of all its settings by dotted name."""
    return kind(
        **{
            name: build(hint, values, f"{prefix}{name}.") if _nested(hint) else values[prefix + name]
            for name, hint in get_type_hints(kind).items()
        }
    )


def known(kind: type[Config], values: Mapping[str, Any], where: str) -> Config:
    """Make a configuration dataclass of a run's settings.

    Raises:
        UserError: there are some that a later version has; the sentence begins with ``where`` they are.
    """
    if unknown := sorted(values.keys() - get_type_hints(kind).keys()):
        raise UserError(f"{where} has {shown(unknown[0])}, which this version does not know: use the one that wrote it")
    return kind(**values)


def checked(kind: type[Config], config: Config) -> Config:
    """A configuration made in Python, each value as its flag would give it: a Path as text, a list as a tuple.

    Raises:
        UserError: it is no ``kind``, or a value is of another type or out of range.
    """
    return build(kind, {name: _taken(kind, config, setting) for name, setting in settings_of(kind).items()})


def _taken(kind: type[Any], config: Any, setting: Setting) -> Any:
    try:
        return convert(setting.hint, _given(kind, config, setting.name.split(".")))
    except ValueError as error:
        raise UserError(f"setting {setting.name} cannot be {error}") from error


def _given(kind: type[Any], config: Any, path: list[str]) -> Any:
    """The value at the names of ``path`` within a configuration, as YAML would give it."""
    if not isinstance(config, kind):
        raise UserError(f"give a {kind.__name__}, not {shown(config)}: see gaitdiff.config.schema")
    value = getattr(config, path[0])
    if len(path) > 1:
        return _given(get_type_hints(kind)[path[0]], value, path[1:])
    return _as_yaml(value)


def _as_yaml(value: Any) -> Any:
    """A value as YAML gives it back: paths as text, NumPy's and torch's numbers as Python's, tuples as lists."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, Mapping):
        return {key: _as_yaml(item) for key, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [_as_yaml(item) for item in value]
    if not isinstance(value, str | int | float | NoneType):
        raise _wrong(value, "of numbers, text, lists and mappings")
    return value


def convert(hint: Any, value: Any) -> Any:
    """The value of a setting of type ``hint`` from what YAML or the text of a flag gives.

    Raises:
        ValueError: it is of another type, or out of range; the text is what to say behind "cannot be".
    """
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        made = convert(parts[0], value)
        for limits in parts[1:]:
            if isinstance(limits, Range) and not limits.holds(made):
                most = "below 2^63" if isinstance(made, int) and made >= WORD else limits
                raise ValueError(f"{shown(made)}: it must be {most}")
        return made
    if origin in (Union, UnionType):
        if value is None or value in ("null", "~"):
            return None
        return convert(next(part for part in parts if part is not NoneType), value)
    if origin is Literal:
        if value not in parts:
            raise ValueError(f"{shown(value)}: it must be {', '.join(parts[:-1])} or {parts[-1]}")
        return value
    return _CONVERTERS[origin or hint](parts, value)


def _text(parts: Any, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(value, "a text")
    return str(value)


def _truth(parts: Any, value: Any) -> bool:
    made = _WORDS.get(value.lower(), value) if isinstance(value, str) else value
    if not isinstance(made, bool):
        raise _wrong(value, "true or false")
    return made


def _whole(parts: Any, value: Any) -> int:
    try:
        made = int(value) if isinstance(value, str) else operator.index(value)
    except (TypeError, ValueError) as error:
        raise _wrong(value, "a whole number") from error
    if isinstance(value, bool):
        raise _wrong(value, "a whole number")
    return made


def _number(parts: Any, value: Any) -> float:
    try:
        made = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        made = math.nan
    if not math.isfinite(made):
        raise _wrong(value, "a number")
    return made


def _mapping(parts: Any, value: Any) -> dict[str, Any]:
    made = parsed(value)
    if not isinstance(made, dict) or not all(isinstance(key, str) for key in made):
        raise _wrong(value, "a mapping, such as {channels: [32, 64, 128]}")
    return made


def _row(parts: Any, value: Any) -> tuple[Any, ...]:
    made, many = parsed(value), parts[-1] is Ellipsis
    if not isinstance(made, list | tuple) or not (many or len(made) == len(parts)):
        raise _wrong(value, "a list, such as [3, 5]" if many else f"a list of {len(parts)}")
    return tuple(convert(parts[0], item) for item in made)


def parsed(value: Any) -> Any:
    """What a text means in YAML; other values as they are.

    Raises:
        ValueError: it cannot be read; the text is what to say behind "cannot be".
    """
    try:
        return parse_value(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"{shown(value)}: it {error}") from error


def _wrong(value: Any, expected: str) -> ValueError:
    return ValueError(f"{shown(value)}: it must be {expected}")


_CONVERTERS = {str: _text, bool: _truth, int: _whole, float: _number, dict: _mapping, tuple: _row}
