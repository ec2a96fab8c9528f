"""The help of the stages: short, complete, with a recipe's values."""

from __future__ import annotations

from typing import Any

import pytest

from gaitdiff.cli import main
from gaitdiff.config.recipe import list_recipes
from gaitdiff.config.schema import FinetuneConfig, PretrainConfig
from gaitdiff.config.values import SHORT, flag_of, settings_of


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    with pytest.raises(SystemExit) as end:
        main(list(words))
    assert end.value.code == 0
    return capsys.readouterr().out.splitlines()


def row(lines: list[str], flag: str) -> str:
    """The text of a setting, in one line."""
    start = next(i for i, line in enumerate(lines) if line.split()[:1] == [flag])
    stop = next(i for i, line in enumerate(lines[start + 1 :], start + 1) if not line.startswith(" " * 9))
    return " ".join(" ".join(lines[start:stop]).split())


@pytest.mark.parametrize(("verb", "kind"), [("pretrain", PretrainConfig), ("finetune", FinetuneConfig)])
def test_help_is_short_and_names_every_setting(
    verb: str, kind: type[Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    lines = shown(capsys, verb, "--help")
    assert len(lines) <= 115
    assert max(map(len, lines)) <= 100
    assert lines[0].startswith(f"usage: gaitdiff {verb} ")
    for name, setting in settings_of(kind).items():
        assert setting.text, name
        assert row(lines, flag_of(name)).endswith(")"), name
        assert sum(line.split()[:1] == [flag_of(name)] for line in lines) == 1
    text = "\n".join(lines)
    assert not any(name in text for name in list_recipes())
    assert text.index("--optim.lr ") < text.index("--optim.weight_decay")
    assert all(f"--{short} " in text for short in SHORT)


def test_help_with_a_recipe_shows_its_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        row(shown(capsys, "pretrain", "--help"), "--optim.iterations") == "--optim.iterations training steps (120000)"
    )
    lines = shown(capsys, "pretrain", "-h", "--recipe", "walkers/pretrain")
    assert row(lines, "--optim.iterations") == "--optim.iterations training steps (2000)"
    assert row(lines, "--out").endswith("(required)")
    assert main(["pretrain", "--help", "--recipe", "walkers/nothing"]) == 2


def test_help_of_a_verb_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, "help", "pretrain") == shown(capsys, "pretrain", "--help")
    assert shown(capsys, "help", "data", "import") == shown(capsys, "data", "import", "--help")
    assert main(["help"]) == 0
    assert "label-curve" in capsys.readouterr().out
    assert main(["data", "--help"]) == 0
    some = capsys.readouterr().out
    assert "data import" in some
    assert "label-curve" not in some
