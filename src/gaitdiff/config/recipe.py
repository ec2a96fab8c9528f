"""Configuration from a recipe (YAML) and flags: recipe first, flags on top, unknown keys refused by name."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from gaitdiff.config.flat import flat
from gaitdiff.config.help import describe
from gaitdiff.config.hints import suggest
from gaitdiff.config.recipe_files import about_recipe, read_recipe
from gaitdiff.config.recipe_files import list_recipes as list_recipes
from gaitdiff.config.safe_yaml import read_mapping
from gaitdiff.config.schema import FinetuneConfig, PretrainConfig
from gaitdiff.config.values import REQUIRED, SHORT, build, convert, flag_of, parsed, settings_of
from gaitdiff.errors import UserError, shown

Config = TypeVar("Config")

STAGES: dict[str, type[Any]] = {"pretrain": PretrainConfig, "finetune": FinetuneConfig}
_HELP = ("-h", "--help")
_MOST_LEVELS = 20  # of a key
_MOST_LETTERS = 60  # of one in a sentence


def parse_config(kind: type[Config], prog: str, argv: Sequence[str]) -> Config:
    """Build ``kind``, the configuration of a stage, from command-line arguments.

    ``--recipe`` names a YAML file, or one of ``list_recipes()``; its key ``base`` may name another to start from. Every
    other flag is a field, nested ones with dots (``--optim.lr 1e-3``). ``--help`` prints all of them and exits.

    Raises:
        UserError: unknown keys (what was meant is named), values of a wrong type or out of range, missing ones.
    """
    stage = next(name for name, config in STAGES.items() if config is kind)
    settings, words = _Settings(stage), [word for word in argv if word not in _HELP]
    flags = list(_flags(words, settings))
    recipes = [value for key, value in flags if key == "recipe"]
    if len(recipes) > 1:
        raise UserError(f"--recipe is given {len(recipes)} times: give one, whose key 'base' may name another")
    if recipes:
        settings.take_recipe(recipes[0])
    if len(words) < len(argv):
        print(describe(kind, prog, settings.values))
        raise SystemExit(0)
    for key, value in flags:
        if key != "recipe":
            settings.take(key, value)
    settings.require_data()
    if missing := [flag_of(key) for key, value in settings.values.items() if value is REQUIRED]:
        raise UserError(f"required, but not given: {', '.join(missing)} (see {prog} --help)")
    config = build(kind, settings.values)
    if isinstance(config, FinetuneConfig) and "optim.milestones" in settings.given:
        _tell_late(config)
    return config


def settings_in(stage: str, words: Sequence[str]) -> list[str]:
    """The flags of a command line that set one setting, each by its shortest name, as often as it is given.

    Raises:
        UserError: as ``parse_config`` does of flags.
    """
    flags = _flags([word for word in words if word not in _HELP], _Settings(stage))
    return [flag_of(SHORT.get(key, key)) for key, value in flags if key != "recipe" and not value.startswith("{")]


def describe_recipes() -> str:
    """All recipes that ship, by folder: name, the verb that takes it, and what it is."""
    names, lines = list_recipes(), []
    for i, name in enumerate(names):
        folder = name.partition("/")[0]
        if i == 0 or folder != names[i - 1].partition("/")[0]:
            lines += ["", folder]
        lines.append(f"  {name:{max(map(len, names))}}  {stage_of_recipe(name)}  {about_recipe(name)}")
    return "\n".join([*lines[1:], "", "gaitdiff pretrain or finetune --recipe NAME takes one."])


def stage_of_recipe(name: str) -> str:
    """The stage that has all settings of a recipe, "pretrain" or "finetune".

    Raises:
        UserError: there is no such recipe, or none of them has.
    """
    recipes = read_recipe(name)
    told = [recipe.stage for recipe in recipes if recipe.stage is not None]
    keys = [key for recipe in recipes for key, _ in flat(recipe.settings)]
    for stage in told or STAGES:
        if stage in STAGES and all(map(_Settings(stage).knows, keys)):
            return stage
    raise UserError(f"recipe {name} is of no stage: gaitdiff pretrain or finetune --recipe says what is wrong with it")


class _Settings:
    """What recipes and flags make of the settings of a stage, later ones on top.

    Attributes:
        known: all there are, by dotted name.
        values: of all of them; ``REQUIRED`` where none is given.
        given: which ones are not left at their defaults.
    """

    def __init__(self, stage: str) -> None:
        self.stage, self.known = stage, settings_of(STAGES[stage])
        self.values = {name: setting.default for name, setting in self.known.items()}
        self.given: set[str] = set()
        self._data_of: tuple[str, str] | None = None

    def require_data(self) -> None:
        """Refuse other data of the same name than a run learned from, whose config.yaml is the recipe that names them.

        What is no store is left to who opens it, who says more.
        """
        if self._data_of is None:
            return
        (recipe, digest), store = self._data_of, str(self.values["data.store"])
        try:
            other = read_mapping(Path(store, "store.json")).get("manifest_sha256", digest) != digest
        except (OSError, ValueError):
            return
        if other:
            raise UserError(
                f"{store} is not the data of this name that the run of recipe {recipe} learned from: say by --data "
                "what to learn from"
            )

    def knows(self, key: str) -> bool:
        """Whether a key is that of a setting, of a group of them, or below a mapping."""
        return key in self.known or self._is_group(key) or self._mapping(key) is not None

    def take_recipe(self, name: str) -> None:
        """Take the settings of a recipe, those of its base first."""
        recipes, other = read_recipe(name), _Settings(_other(self.stage))
        for recipe in recipes:
            if recipe.stage not in (None, self.stage):
                raise UserError(f"recipe {recipe.name} is of gaitdiff {recipe.stage}, not of gaitdiff {self.stage}")
        found = [(recipe.name, list(flat(recipe.settings, self.known))) for recipe in recipes]
        keys = [key for _, pairs in found for key, _ in pairs]
        unknown = [key for key in keys if not self.knows(key)]
        if unknown and all(map(other.knows, keys)):
            raise UserError(f"recipe {name} is of gaitdiff {other.stage}: it sets {unknown[0]}")
        digests = {recipe.name: recipe.manifest_sha256 for recipe in recipes}
        for source, pairs in found:
            if twice := [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]:
                raise UserError(f"recipe {source} sets {twice[0]} twice, nested and with dots: remove one")
            for key, value in pairs:
                self.take(key, value, source)
                if key == "data.store":
                    self._data_of = (source, digests[source]) if digests[source] else None

    def take(self, key: str, value: Any, recipe: str = "") -> None:
        """Set one setting, or those of a group, to what a flag or the recipe of a name gives."""
        if key not in self.known and self._is_group(key):
            return self._take_group(key, value, recipe)
        self.require(key, recipe)
        name = self._mapping(key)
        try:
            if name is None:
                name, made = key, convert(self.known[key].hint, value)
            else:
                made = _with(self.values[name], key.removeprefix(f"{name}.").split("."), parsed(value))
        except ValueError as error:
            place = f"{key} of recipe {recipe}" if recipe else f"--{key}"
            raise UserError(f"setting {place} cannot be {error}") from error
        self.values[name] = made
        self.given.add(name)
        if name == "data.store":
            self._data_of = None

    def require(self, key: str, recipe: str = "") -> None:
        """Refuse a key that is none, or a flag without its "--", with what it was meant to be."""
        if self.knows(key):
            return
        other = _other(self.stage)
        known = [*self.known, "base" if recipe else "recipe"]
        hint = suggest(key, known, settings_of(STAGES[other]), f"gaitdiff {other}")
        if recipe:
            raise UserError(f"recipe {recipe} has the unknown key {shown(key)}{hint}")
        raise UserError(f"unknown setting {(key if key.startswith('-') else f'--{key}')[:_MOST_LETTERS]}{hint}")

    def _take_group(self, key: str, value: Any, recipe: str) -> None:
        nested = value
        if isinstance(value, str) and value.startswith("{") and not os.path.exists(value):
            try:
                nested = parsed(value)
            except ValueError as error:
                raise UserError(f"setting --{key} cannot be {error}") from error
        if isinstance(nested, dict):
            for name, item in flat(nested, self.known, f"{key}."):
                self.take(name, item, recipe)
        elif key in SHORT:
            self.take(SHORT[key], value, recipe)
        elif value is not None:
            some = next(name for name in self.known if name.startswith(f"{key}."))
            raise UserError(f"{key} is a group of settings, not one: give them one by one, such as {some}")

    def _is_group(self, key: str) -> bool:
        return any(name.startswith(f"{key}.") for name in self.known)

    def _mapping(self, key: str) -> str | None:
        """The setting whose value is a mapping that ``key`` is a key of."""
        found = (name for name, setting in self.known.items() if setting.mapping and key.startswith(f"{name}."))
        return next(found, None) if key.count(".") < _MOST_LEVELS else None


def _flags(words: Sequence[str], settings: _Settings) -> Iterator[tuple[str, str]]:
    """Names and values of flags, as ``--name value`` or ``--name=value``."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            key, equals, value = word.partition("=")
            if equals and re.fullmatch(r"[a-z_.]+", key):
                settings.require(key)
                raise UserError(f"{word!r} is no flag: give it as --{key} {value}")
            raise UserError(f"{word!r} is no flag: settings are given as --name value, and a list as '[3, 5]'")
        flag, equals, value = word.partition("=")
        key = flag.removeprefix("--")
        if key != "recipe":
            settings.require(key)
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise UserError(f"setting {flag} needs a value: give it as {flag} VALUE")
            value = rest.pop(0)
        yield key, value


def _other(stage: str) -> str:
    return next(name for name in STAGES if name != stage)


def _with(mapping: dict[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """The same mapping with a value at nested keys."""
    if len(path) > 1:
        inner = mapping.get(path[0])
        value = _with(inner if isinstance(inner, dict) else {}, path[1:], value)
    return {**mapping, path[0]: value}


def _tell_late(config: FinetuneConfig) -> None:
    late = [step for step in config.optim.milestones if step >= config.optim.iterations]
    if late:
        _tell(f"optim.milestones {late} are never reached, since optim.iterations is {config.optim.iterations}")


@cache  # a comparison makes the same settings many times
def _tell(sentence: str) -> None:
    """Write a note to stderr, from the first of several processes."""
    if os.environ.get("RANK", "0") == "0":
        print(f"gaitdiff: {sentence}", file=sys.stderr)
