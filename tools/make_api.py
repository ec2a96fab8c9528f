"""Write docs/api.md from the signatures and docstrings of what is public: ``python tools/make_api.py``."""

from __future__ import annotations

import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

TARGET = Path(__file__).resolve().parents[1] / "docs" / "api.md"

#: Public modules and what they are for; what ``gaitdiff`` itself has under a shorter name stands there alone.
MODULES = {
    "gaitdiff": "What most programs need.",
    "gaitdiff.models": "Backbones, heads, and registering your own.",
    "gaitdiff.losses": "Losses of stage 2.",
    "gaitdiff.diffusion": "The pieces of stage 1.",
    "gaitdiff.evaluation": "Scores of features from anywhere.",
    "gaitdiff.evaluation.protocols": "Protocols, and registering your own.",
    "gaitdiff.evaluation.features": "Features of stored sequences.",
    "gaitdiff.evaluation.stored": "Their scores.",
    "gaitdiff.opengait": "Weights under OpenGait's names, both ways.",
    "gaitdiff.data.store": "The sequence store.",
    "gaitdiff.data.importers": "Other people's data.",
    "gaitdiff.walkers": "Synthetic walking people.",
    "gaitdiff.data.clips": "Clips of sequences.",
    "gaitdiff.training.pretrain": "Stage 1 as a call.",
    "gaitdiff.training.finetune": "Stage 2 as a call.",
    "gaitdiff.config.schema": "Settings of both stages; `gaitdiff pretrain --help` says what each is.",
}


def document() -> str:
    """The whole page."""
    parts = [
        "# Python interface",
        "Made from the code by `python tools/make_api.py`; `help(name)` tells shapes, units, errors and sources.\n"
        "What is not here may change without notice.",
    ]
    seen: set[int] = set()
    for name, purpose in MODULES.items():
        module = importlib.import_module(name)
        entries = [entry for entry in _public(module) if not isinstance(entry[1], ModuleType | str)]
        fresh = [(word, value) for word, value in entries if id(value) not in seen]
        seen |= {id(value) for _, value in fresh}
        parts += [f"## {name}", purpose, *(_entry(word, value) for word, value in fresh)]
    return "\n\n".join(parts) + "\n"


def _public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    own = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and inspect.isfunction(value) and value.__module__ == module.__name__
    ]
    for name in sorted(getattr(module, "__all__", own)):
        yield name, getattr(module, name)


def _entry(name: str, value: Any) -> str:
    if not callable(value) or not inspect.getdoc(value):
        return f"- `{name}`"
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        return f"- `{name}`"
    lines = [f"- `{name}{_signature(value)}`  ", *_wrapped(_first(value), "  ")]
    if inspect.isclass(value):
        for key, member in vars(value).items():
            if not key.startswith("_") and (inspect.isfunction(member) or isinstance(member, property | classmethod)):
                what = member.__func__ if isinstance(member, classmethod) else member
                shown = "" if isinstance(member, property) else _signature(what)
                lines += [f"    - `.{key}{shown}`  ", *_wrapped(_first(member), "      ")]
    return "\n".join(lines)


def _wrapped(text: str, margin: str) -> list[str]:
    return textwrap.wrap(text, 118, initial_indent=margin, subsequent_indent=margin)


def _signature(value: Any) -> str:
    try:
        signature = inspect.signature(value)
    except ValueError:
        return ""
    parameters = [parameter for parameter in signature.parameters.values() if parameter.name not in ("self", "cls")]
    text = str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))
    result = signature.return_annotation
    returned = "" if inspect.isclass(value) or result in (inspect.Signature.empty, "None", None) else f" → {result}"
    return "" if "*args: 'Any'" in text else re.sub(r": '([^']*)'", r": \1", text) + returned


def _first(value: Any) -> str:
    return (inspect.getdoc(value) or "").split("\n\n")[0].replace("\n", " ")


if __name__ == "__main__":
    TARGET.write_text(document(), encoding="utf-8")
