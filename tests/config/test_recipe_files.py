"""Recipes of users: what they may be based on, a run's config.yaml among them, and what no recipe may be."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from gaitdiff.cli import main
from gaitdiff.config.flat import plain
from gaitdiff.config.recipe import describe_recipes, list_recipes, parse_config
from gaitdiff.config.recipe_files import about_recipe
from gaitdiff.config.safe_yaml import read_mapping
from gaitdiff.config.schema import FinetuneConfig, PretrainConfig
from gaitdiff.errors import UserError

WHERE = ("--data", "walks", "--out", "run")
KINDS: dict[str, type[Any]] = {"pretrain": PretrainConfig, "finetune": FinetuneConfig}


def made(stage: str, recipe: str | Path, *words: str) -> Any:
    return parse_config(KINDS[stage], f"gaitdiff {stage}", ["--recipe", str(recipe), *WHERE, *words])


def refused(stage: str, recipe: str | Path) -> str:
    with pytest.raises(UserError) as caught:
        made(stage, recipe)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert len(sentence) < 400
    return sentence


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return tmp_path / "recipe.yaml"


def test_a_base_is_beside_its_file_or_ships(tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "walkers").mkdir()
    (tmp_path / "common.yaml").write_text("{base: walkers/pretrain, optim: {lr: 0.5, batch: 3}}")
    (tmp_path / "sub" / "walkers" / "pretrain").write_text("{base: ../../common.yaml, optim.lr: 0.25}")
    recipe = tmp_path / "sub" / "recipe.yaml"
    recipe.write_text("base: walkers/pretrain")  # its own file comes before one that ships
    monkeypatch.chdir(tmp_path)
    config = made("pretrain", "sub/recipe.yaml")
    assert (config.optim.lr, config.optim.batch, config.diffusion.denoiser) == (0.25, 3, "walkers")


def test_a_base_is_not_looked_for_where_the_command_is_given(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "common.yaml").write_text("seed: 3")
    recipe.write_text("base: common.yaml")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert "there is no recipe 'common.yaml'" in refused("pretrain", recipe)


def test_a_long_chain_of_bases(tmp_path: Path) -> None:
    for i in range(1200):  # more than Python calls functions deep
        (tmp_path / f"{i}.yaml").write_text(f"base: {i + 1}.yaml")
    (tmp_path / "1200.yaml").write_text("seed: 3")
    assert made("pretrain", tmp_path / "0.yaml").seed == 3
    (tmp_path / "1200.yaml").write_text("base: 5.yaml")
    assert "its own base" in refused("pretrain", tmp_path / "0.yaml")


@pytest.mark.parametrize("stage", KINDS)
def test_the_configuration_of_a_run_is_a_recipe(
    stage: str, tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = parse_config(KINDS[stage], "gaitdiff", ["--data", "there/walks", "--out", "old", "--optim.lr", "0.3"])
    recipe.write_text(yaml.safe_dump({"stage": stage, **plain(asdict(before)), "made_from": {"manifest_sha256": "0"}}))
    monkeypatch.chdir(tmp_path)
    after = parse_config(KINDS[stage], "gaitdiff", ["--recipe", "recipe.yaml", "--out", "new"])
    assert {**asdict(before), "out": "new"} == asdict(after)
    with pytest.raises(UserError, match="required, but not given: --out"):
        parse_config(KINDS[stage], "gaitdiff", ["--recipe", "recipe.yaml"])
    other = next(name for name in KINDS if name != stage)
    assert f"is of gaitdiff {stage}, not of gaitdiff {other}" in refused(other, recipe)


def test_a_recipe_of_the_other_stage_is_named_as_such(recipe: Path) -> None:
    assert "recipe walkers/scratch is of gaitdiff finetune" in refused("pretrain", "walkers/scratch")
    assert "recipe ablations/uniform is of gaitdiff pretrain" in refused("finetune", "ablations/uniform")
    recipe.write_text("{optim.momentum: 0.5, diffusion: {gamma: 1}}")  # of neither
    assert "'optim.momentum'" in refused("pretrain", recipe)
    assert "a setting of gaitdiff finetune" in refused("pretrain", recipe)


def test_groups_without_settings_and_short_names(recipe: Path) -> None:
    recipe.write_text("{optim: , run: {}, model: gaitset, model.overrides.channels: [4], seed: 3}")
    config = made("pretrain", recipe)
    assert (config.model.name, config.model.overrides, config.seed) == ("gaitset", {"channels": [4]}, 3)


LAUGHS = "a: &a [x, x]\n" + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{f'*{chr(97 + i)},' * 9}]\n" for i in range(12))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (LAUGHS, "anchor or alias in line 1"),
        ("optim: {lr: &x 1}", "anchor or alias"),
        ("model: {overrides: {a: " + "[" * 20_000, "nested more than"),
        ("model:\n" + "".join(f"{' ' * i}a:\n" for i in range(1, 300)), "nested more than"),
        ("#" * 70_000, "more than 65536 bytes"),
        ("seed: 1\nseed: 2", "the key 'seed' twice, again in line 2"),
        ("optim: {lr: 1, lr: 2}", "the key 'lr' twice"),
        ("{optim: {lr: 1}, optim.lr: 2}", "sets optim.lr twice"),
        ("base: 3", "base must be the name"),
        ("base: [walkers/pretrain]", "base must be the name"),
        ("base: ''", "base must be the name"),
        ("base: walkers/pretrian", "did you mean 'walkers/pretrain'"),
        (f"base: {'n' * 60_000}", "there is no recipe"),
        (f"? {'n' * 60_000}\n: 1", "unknown key"),
        ("recipe: walkers/pretrain", "did you mean 'base'"),
        ("optim: 5", "optim is a group of settings"),
        ("optim: [1]", "optim is a group of settings"),
        ("seed: " + "9" * 5000, "not readable YAML"),
        ("seed: 2001-02-31", "not readable YAML"),
        ("seed: 2001-02-03", "seed of recipe"),
        ("model: {overrides: {1: 2}}", "it must be a mapping"),
        ("model.overrides" + ".a" * 300 + ": 1", "unknown key"),
        ("? [a]\n: 1", "not readable YAML"),
        ("a: !!python/object/apply:os.system [exit]", "has the tag"),
        ("seed: !!timestamp x", "has the tag"),
        ("\x07", "not readable YAML"),
        ("optim: {lr: fast}", "setting optim.lr of recipe"),
        ("", "must be a mapping"),
    ],
)
def test_what_no_recipe_may_be(text: str, sentence: str, recipe: Path) -> None:
    recipe.write_text(text)
    assert sentence in refused("pretrain", recipe)


def test_what_is_no_text_and_what_is_no_file(tmp_path: Path, recipe: Path) -> None:
    recipe.write_bytes(b"\xff")
    assert "is not UTF-8 text" in refused("pretrain", recipe)
    assert "is a folder: give a file" in refused("pretrain", tmp_path)
    missing = refused("pretrain", "walkers/pretrian.yaml")
    assert "did you mean 'walkers/pretrain'" in missing
    assert "gaitdiff recipes lists" in missing
    assert "grew" not in missing
    assert "there is no recipe" in refused("pretrain", "n" * 300)


def test_a_mapping_is_read_as_it_was_written(recipe: Path) -> None:
    """The same reader serves run folders: text that looks like a number stays text, as PyYAML wrote it."""
    document = {"out": "1e3", "made_from": {"sha": "12345e678901"}, "rates": [1e-05, None, True, "é"]}
    recipe.write_text(yaml.safe_dump(document, allow_unicode=True), "utf-8")
    assert read_mapping(recipe) == document


def test_every_recipe_that_ships_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "\n".join(lines) == describe_recipes()
    for name in list_recipes():
        (line,) = (line.split(None, 2) for line in lines if line.split()[:1] == [name])
        assert made(line[1], name).out == "run"
        assert line[2] == about_recipe(name)
        assert 20 < len(line[2]) < 115
    assert [line for line in lines if line and not line.startswith((" ", "gaitdiff"))] == [
        *("ablations", "gait3d", "grew", "walkers")
    ]
