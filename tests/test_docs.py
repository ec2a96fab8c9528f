"""What the documentation says of the code is so."""

from __future__ import annotations

import json
import re
import runpy
import sys
import types
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from gaitdiff.cli import VERBS
from gaitdiff.config.recipe import list_recipes, parse_config
from gaitdiff.config.schema import FinetuneConfig, PretrainConfig
from gaitdiff.diffusion.weighting import WEIGHTINGS
from gaitdiff.evaluation.protocols import PROTOCOLS
from gaitdiff.models import registry
from gaitdiff.training.loggers import LOGGERS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_python_interface_is_that_of_the_code() -> None:
    made = runpy.run_path(str(ROOT / "tools" / "make_api.py"))
    assert (ROOT / "docs" / "api.md").read_text(encoding="utf-8") == made["document"](), "run python tools/make_api.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere_and_verbs_and_recipes_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert target.startswith("http") or (page.parent / target).exists(), target
    commands = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    for words in re.findall(r"^\s*(?:\S*/)?gaitdiff +((?:data )?[a-z-]+)", commands, re.MULTILINE):
        assert words in VERBS, words
    for name in re.findall(r"--recipe ([\w/.]+)", text):
        assert name in list_recipes() or name.endswith("yaml"), name


def test_the_page_on_performance_is_that_of_the_results() -> None:
    made = runpy.run_path(str(ROOT / "tools" / "make_performance.py"))
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert page == made["document"](), "run python tools/make_performance.py"


def test_results_are_json() -> None:
    for file in (ROOT / "benchmarks" / "results").rglob("*.json"):
        json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_can_be_read(page: Path) -> None:
    """Tables, commands and signatures cannot be broken; prose can."""
    prose = re.sub(
        r"^```.*?^```", lambda block: "\n" * block[0].count("\n"), page.read_text("utf-8"), flags=re.M | re.S
    )
    for number, line in enumerate(prose.splitlines(), 1):
        assert len(line) <= 120 or line.lstrip().startswith(("|", "- `")), f"{page.name}:{number}"


def test_what_extends_the_package_runs() -> None:
    """The code of docs/extending.md, block after block; what it registers is gone afterwards."""
    tables: tuple[dict[str, Any], ...] = (registry._REGISTRY, PROTOCOLS, WEIGHTINGS, LOGGERS)
    known = [{*table} for table in tables]
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    names: dict[str, object] = {"__name__": "extending"}
    sys.modules["extending"] = types.ModuleType("extending")  # where dataclasses look for their annotations
    try:
        for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            exec(block, names)
        assert [len(table) for table in tables] == [len(before) + 1 for before in known]
    finally:
        del sys.modules["extending"]
        for table, before in zip(tables, known, strict=True):
            for key in {*table} - before:
                del table[key]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_that_pages_name_are_there(page: Path) -> None:
    known: dict[str, set[str]] = {}
    for stage in (PretrainConfig, FinetuneConfig):
        for section, kind in get_type_hints(stage).items():
            if is_dataclass(kind):
                known.setdefault(section, set()).update(field.name for field in fields(kind))
    names = "|".join(known.keys() - {"model"})  # which is a variable of the examples as well
    settings = re.findall(rf"(?<![\w./])(?:--)?({names})\.(?!(?:md|json)\b)([a-z_]+)\b", page.read_text("utf-8"))
    for section, setting in settings:
        assert setting in known[section], f"{section}.{setting}"


def test_recipes_on_the_page_on_opengait_are_read(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "opengait.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (recipe := tmp_path / "mine.yaml").write_text(block, encoding="utf-8")
    config = parse_config(FinetuneConfig, "finetune", [f"--recipe={recipe}", "--data=walks", "--out=run"])
    assert (config.loss.distance, config.batch.people, config.optim.iterations) == ("euclidean", 8, 20_000)
