"""Configuration from a recipe (YAML) and flags: recipe first, flags on top, unknown keys refused by name."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

import yaml
from jsonargparse import ArgumentParser

from gaitdiff.config.flat import flat
from gaitdiff.config.schema import Range
from gaitdiff.errors import UserError, nearest

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable  # from Python 3.11 on

Config = TypeVar("Config")


def parse_config(kind: type[Config], prog: str, argv: Sequence[str]) -> Config:
    """Build ``kind``, a configuration dataclass, from command-line arguments.

    ``--recipe`` names a YAML file, or one of ``list_recipes()``; its key ``base`` may name another to start from. Every
    other flag is a field, nested ones with dots (``--optim.lr 1e-3``).

    Raises:
        UserError: unknown keys (the nearest known one is named), values of a wrong type, missing ones.
    """
    parser = ArgumentParser(prog=prog, description=(kind.__doc__ or "").split("\n")[0], exit_on_error=False)
    parser.add_argument("--recipe", type=str, default="", help=f"YAML file, or one of: {', '.join(list_recipes())}")
    parser.add_class_arguments(kind)
    recipe, rest = _split_recipe(argv)
    known = list(_fields(kind))
    settings = _read_recipe(recipe, known) if recipe else {}
    # As flags in front of the user's own, a recipe's values are checked like theirs.
    written = [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items()]
    try:
        values = parser.parse_args([*written, *rest])
    except (argparse.ArgumentError, TypeError, ValueError) as error:
        raise UserError(_explain(str(error), known)) from error
    made = parser.instantiate(values).as_dict()
    made.pop("recipe")
    config = kind(**made)
    _check_numbers(config)
    return config


def list_recipes() -> list[str]:
    """Names of the recipes that ship with the package."""
    return sorted(_names(resources.files("gaitdiff") / "recipes"))


def _names(folder: Traversable, prefix: str = "") -> Iterator[str]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _names(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".yaml"):
            yield prefix + entry.name.removesuffix(".yaml")


def _split_recipe(argv: Sequence[str]) -> tuple[str, list[str]]:
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--recipe", nargs="?", default="", const="")
    found, rest = finder.parse_known_args(list(argv))
    return found.recipe, rest


def _read_recipe(recipe: str, known: list[str], seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """Settings of a recipe by dotted name, those of its base first."""
    if recipe in seen:
        raise UserError(f"recipe {recipe} is its own base: remove the key 'base' from one of {list(seen)}")
    shipped = resources.files("gaitdiff") / "recipes" / f"{recipe}.yaml"
    source: Traversable | Path = shipped if shipped.is_file() else Path(recipe)
    if not source.is_file():
        names = list_recipes()
        raise UserError(f"there is no recipe {recipe!r}{nearest(recipe, names)}: give a YAML file or one of {names}")
    try:
        content = yaml.safe_load(source.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"recipe {recipe} is not readable YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise UserError(f"recipe {recipe} must be a mapping of settings, such as 'optim: {{lr: 0.001}}'")
    base = content.pop("base", None)
    settings = _read_recipe(str(base), known, (*seen, recipe)) if base is not None else {}
    for key, value in flat(content, known):
        if key not in known:
            raise UserError(f"recipe {recipe} has the unknown key {key!r}{nearest(key, known)}")
        settings[key] = value
    return settings


def _fields(kind: type[Any], prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings of a configuration dataclass."""
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from _fields(hints[field.name], f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def _explain(message: str, known: list[str]) -> str:
    """One sentence from an error of the parser, naming the nearest flag."""
    message = " ".join(message.split())
    unknown = re.search(r"unrecognized arguments: --?([\w.]+)", message)
    if unknown:
        return f"unknown setting --{unknown[1]}{nearest(unknown[1], known)}"
    missing = re.search(r"arguments are required: (.+)", message)
    if missing:
        return f"required, but not given: {', '.join('--' + name.strip() for name in missing[1].split(','))}"
    wrong = re.search(r'Parser key "([\w.]+)": (.+)', message)
    if wrong:
        return f"setting --{wrong[1]} has a wrong value: {wrong[2]}"
    return message


def _check_numbers(config: Any, prefix: str = "") -> None:
    """Refuse numbers outside the ranges that the fields' types give."""
    hints = get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            _check_numbers(value, f"{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            for limits in _ranges(hints[field.name]):
                if not limits.holds(value):
                    raise UserError(f"setting --{name} cannot be {value}: it must be {limits}")


def _ranges(hint: Any) -> Iterator[Range]:
    """The ranges in a field's type, also in one that may be None."""
    for part in (hint, *get_args(hint)):
        yield from (extra for extra in getattr(part, "__metadata__", ()) if isinstance(extra, Range))
