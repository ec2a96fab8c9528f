"""The help of a stage: what is set most often, then everything else by group."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from gaitdiff.config.flat import plain
from gaitdiff.config.values import REQUIRED, Setting, flag_of, settings_of

_COMMON = (
    *("data.store", "out", "mode", "init", "model.name", "model.preset", "objective", "optim.iterations"),
    *("optim.batch", "batch.people", "batch.sequences", "optim.lr", "machine.device", "seed"),
)
_RECIPE = ("--recipe", "a YAML file, a run's config.yaml or one of gaitdiff recipes, to start from")
_DRY_RUN = ("--dry-run", "say what would be trained and what it costs")
_WIDTH = (80, 120)  # columns, at least and at most


def describe(kind: type[Any], prog: str, values: Mapping[str, Any]) -> str:
    """The text of ``--help``.

    Args:
        kind: the configuration dataclass of the stage.
        prog: program and verb.
        values: what each setting is where no flag sets it; ``REQUIRED`` where one must.
    """
    known = settings_of(kind)
    common = [known[name] for name in _COMMON if name in known]
    rows = {"set most often": [_RECIPE, _DRY_RUN, *(_row(setting, values) for setting in common)]}
    for setting in known.values():
        if setting not in common:
            rows.setdefault(setting.group, []).append(_row(setting, values))
    about = (inspect.getdoc(kind) or "").partition("\n")[0]
    usage = f"usage: {prog} --data STORE --out FOLDER [--recipe RECIPE] [--SETTING VALUE ...]"
    note = "Each setting is a key of a recipe too; in parentheses is what it is where it is not given."
    return "\n\n".join([usage, about, *_tables(rows), note])


def _tables(rows: Mapping[str, Iterable[tuple[str, str]]]) -> Iterable[str]:
    column = 2 + max(len(flag) for group in rows.values() for flag, _ in group)
    width = min(max(shutil.get_terminal_size((120, 24)).columns, _WIDTH[0]), _WIDTH[1])
    for title, group in rows.items():
        lines = [f"{title}:"]
        for flag, text in group:
            wrapped = textwrap.wrap(text, width - column - 2, break_on_hyphens=False)
            lines += [f"  {flag if i == 0 else '':{column}}{line}" for i, line in enumerate(wrapped)]
        yield "\n".join(lines)


def _row(setting: Setting, values: Mapping[str, Any]) -> tuple[str, str]:
    value = values[setting.name]
    shown = "required" if value is REQUIRED else value if isinstance(value, str) and value else _written(value)
    return flag_of(setting.name), f"{_short(setting.text)} ({shown})"


def _short(text: str) -> str:
    """The first clause of a setting's text, and those of its first sentence that say what 0 or null means."""
    first, *others = first_sentence(text.replace("``", "")).split("; ")
    return "; ".join([first, *(clause for clause in others if re.match(r"(0|null|\"\") ", clause))])


def _written(value: Any) -> str:
    """A value as a flag or a recipe gives it."""
    return f"{value:g}" if isinstance(value, float) else json.dumps(plain(value), ensure_ascii=False)


def first_sentence(text: str) -> str:
    """The first sentence without its full stop."""
    return re.split(r"\. (?=[A-Z])|\.$", text)[0]
