"""Recipes: YAML files of settings, those that ship and those of users, each of which may begin with another."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gaitdiff.config.earlier import as_now
from gaitdiff.config.help import first_sentence
from gaitdiff.config.safe_yaml import read_mapping
from gaitdiff.errors import UserError, nearest, shown

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable  # from Python 3.11 on

#: What a run's config.yaml holds besides settings.
OF_A_RUN = ("stage", "made_from", "made_with", "identity")


@dataclass(frozen=True)
class Recipe:
    """What one recipe's file holds.

    Attributes:
        name: as it was given.
        stage: the one it is of, where it is the config.yaml of a run.
        settings: nested, as in the file.
        manifest_sha256: of the data that the run learned from; "" where it is no run's.
    """

    name: str
    stage: str | None
    settings: dict[str, Any]
    manifest_sha256: str = ""


def list_recipes() -> list[str]:
    """Names of the recipes that ship with the package."""
    return sorted(_names(resources.files("gaitdiff") / "recipes"))


def _names(folder: Traversable, prefix: str = "") -> Iterator[str]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _names(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".yaml"):
            yield prefix + entry.name.removesuffix(".yaml")


def read_recipe(name: str) -> list[Recipe]:
    """Read a recipe and what it is based on, the base first.

    A recipe is one of ``list_recipes()`` or a file; its key ``base`` names another, a file beside it before one that
    ships. The config.yaml of a run is a recipe too: its ``out``, and what it was made from and with, are not taken.

    Raises:
        UserError: there is none, it cannot be read, or it is its own base.
    """
    found: list[Recipe] = []
    source, seen = _find(name), set()
    while True:
        if str(source) in seen:
            raise UserError(f"recipe {name} is its own base: remove the key 'base' from one of its files")
        seen.add(str(source))
        recipe, base = _read(name, source)
        found.insert(0, recipe)
        if base is None:
            return found
        source, name = _find_base(base, source, name), base


def _find(name: str) -> Traversable | Path:
    shipped = _shipped(name)
    if shipped is not None:
        return shipped
    if not name:
        raise UserError("--recipe is empty: give a YAML file or one that gaitdiff recipes lists")
    file = Path(name)
    if os.path.isdir(file):  # unlike Path.is_dir, also of a name that no file can have
        raise UserError(f"recipe {name} is a folder: give a file, such as the config.yaml of a run")
    if not os.path.isfile(file):
        what = f"recipe {name} is no regular file" if os.path.exists(file) else _no_recipe(name)
        raise UserError(f"{what}: give a YAML file or one that gaitdiff recipes lists")
    return file.resolve()


def _find_base(base: str, source: Traversable | Path, name: str) -> Traversable | Path:
    """The base of the recipe ``name``, which is the file ``source``."""
    beside = source.parent / base if isinstance(source, Path) else None
    if beside is not None and os.path.isfile(beside):
        return beside.resolve()
    shipped = _shipped(base)
    if shipped is None:
        raise UserError(f"{_no_recipe(base)}, which recipe {name} has as base: give a file beside it or one that ships")
    return shipped


def _no_recipe(name: str) -> str:
    return f"there is no recipe {shown(name)}{nearest(name, list_recipes(), 0.6)}"


def _shipped(name: str) -> Traversable | None:
    return resources.files("gaitdiff") / "recipes" / f"{name}.yaml" if name in list_recipes() else None


def _read(name: str, source: Traversable | Path) -> tuple[Recipe, str | None]:
    """A recipe and the name of its base."""
    try:
        content = read_mapping(source)
    except OSError as error:
        raise UserError(f"recipe {name} cannot be read ({error.strerror}): choose another") from error
    except ValueError as error:
        raise UserError(f"recipe {name} {error}") from error
    base, stage, made = content.pop("base", None), content.get("stage"), content.get("made_from")
    if base is not None and not (isinstance(base, str) and base):
        raise UserError(f"recipe {name}: base must be the name of a recipe or of a file beside it, not {shown(base)}")
    if stage is not None:
        content = as_now({key: value for key, value in content.items() if key not in (*OF_A_RUN, "out")})
    digest = str(made.get("manifest_sha256", "")) if stage is not None and isinstance(made, dict) else ""
    return Recipe(name, None if stage is None else str(stage), content, digest), base


def about_recipe(name: str) -> str:
    """The first sentence of the comment that a shipped recipe begins with, without its full stop; "" without one."""
    source = _shipped(name)
    text = "" if source is None else source.read_text(encoding="utf-8")
    lines = re.match(r"(?:#.*\n)*", text)
    comment = " ".join(line.lstrip("# ") for line in lines[0].splitlines()) if lines else ""
    return first_sentence(comment)
