"""What flags and recipes make of settings: short names, types, lists and mappings, limits."""

from __future__ import annotations

from typing import Any

import pytest

from gaitdiff.cli import make_parser
from gaitdiff.commands import verbs, verbs_training
from gaitdiff.config.recipe import parse_config
from gaitdiff.config.schema import FinetuneConfig, FinetuneOptim, PretrainConfig
from gaitdiff.errors import UserError

WHERE = ("--data", "walks", "--out", "run")


def finetuning(*words: str) -> FinetuneConfig:
    return parse_config(FinetuneConfig, "gaitdiff finetune", [*WHERE, *words])


def refused(*words: str, kind: type[Any] = FinetuneConfig) -> str:
    with pytest.raises(UserError) as caught:
        parse_config(kind, "gaitdiff", [*WHERE, *words])
    return str(caught.value)


@pytest.mark.parametrize("kind", [PretrainConfig, FinetuneConfig])
def test_the_store_and_the_model_have_short_names(kind: type[Any]) -> None:
    config = parse_config(kind, "gaitdiff", [*WHERE, "--model", "gaitset"])
    assert (config.data.store, config.model.name) == ("walks", "gaitset")
    words = ["--data.store", "walks", "--out=run", "--model.name=gaitset"]
    assert config == parse_config(kind, "gaitdiff", words)
    nested = parse_config(kind, "gaitdiff", [*words, "--data", "{store: others, min_frames: 3}"])
    assert (nested.data.store, nested.data.min_frames) == ("others", 3)


@pytest.mark.parametrize("verb", [verbs.evaluate, verbs.submit, verbs_training.label_curve])
def test_other_verbs_know_the_long_name_too(verb: Any) -> None:
    parser = make_parser("gaitdiff verb", verb)
    assert parser.known(["run", "--data.store=a", "--data.store", "b"]) == ["run", "--data=a", "--data", "b"]


def test_values() -> None:
    config = finetuning(
        *("--optim.lr", "1e-3", "--optim.milestones", "[3, 5]", "--optim.iterations", "1_000", "--init", "5"),
        *("--run.linear_probe", "true", "--loss.cross_entropy", "null", "--model.overrides", "{rate: 1e-3}"),
        *("--model.overrides.channels", "[4, 8]", "--model.overrides.block.kind", "p3d", "--seed", "1", "--seed", "2"),
    )
    assert (config.optim.lr, config.optim.milestones, config.optim.iterations) == (1e-3, (3, 5), 1000)
    assert (config.init, config.run.linear_probe, config.loss.cross_entropy, config.seed) == ("5", True, None, 2)
    assert config.model.overrides == {"rate": 1e-3, "channels": [4, 8], "block": {"kind": "p3d"}}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--optim.lr", "fast"], "setting --optim.lr cannot be 'fast': it must be a number"),
        (["--optim.lr", "nan"], "it must be a number"),
        (["--optim.iterations", "1.5"], "it must be a whole number"),
        (["--optim.iterations", "0"], "--optim.iterations cannot be 0: it must be at least 1"),
        (["--run.linear_probe", "maybe"], "it must be true or false"),
        (["--optim.milestones", "3"], "it must be a list, such as [3, 5]"),
        (["--optim.milestones", "[3, x]"], "cannot be 'x': it must be a whole number"),
        (["--model.overrides", "[3]"], "it must be a mapping"),
        (["--model.overrides", "{a"], "is not readable YAML"),
        (["--model.overrides.a", "&a [*a]"], "has an anchor or alias"),
        (["--data", "{a"], "setting --data cannot be '{a': it is not readable YAML"),
        (["--model", "{" + "n" * 5000], "setting --model cannot be '{nnn"),
        (["--mode", "tune"], "it must be finetune, frozen or scratch"),
        (["--loss.cross_entropy", "-1"], "--loss.cross_entropy cannot be -1"),
        (["--optim", "5"], "optim is a group of settings"),
        (["--seed"], "setting --seed needs a value"),
        (["--seed", "--init", "x"], "setting --seed needs a value"),
        (["--optim.milestones", "[3]", "5"], "'5' is no flag"),
        (["--machine.threads", "100000"], "at least 0 and at most 1024"),
        (["--optim.milestones", "[5, 3]"], "optim.milestones cannot be [5, 3]"),
        (["--optim.milestones", "[3, 3]"], "optim.milestones cannot be [3, 3]"),
        (["--optim.milestones", "[0, 3]"], "at least 1"),
        (["--recipe", "walkers/finetune", "--recipe", "walkers/scratch"], "--recipe is given 2 times"),
        (["--recipe="], "--recipe is empty"),
        (["--model.overrides" + ".a" * 5000, "1"], "unknown setting"),
    ],
)
def test_wrong_values(words: list[str], sentence: str) -> None:
    message = refused(*words)
    assert sentence in message
    assert "\n" not in message
    assert "Unable to load" not in message


def test_a_list_of_two_takes_two() -> None:
    assert "it must be a list of 2" in refused("--diffusion.log_snr", "[1]", kind=PretrainConfig)


def test_what_is_missing_is_named_as_it_is_given() -> None:
    with pytest.raises(UserError, match="required, but not given: --out, --data "):
        parse_config(PretrainConfig, "gaitdiff pretrain", [])


def test_milestones_that_are_never_reached_are_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    finetuning("--optim.iterations", "7")  # the defaults were nobody's choice
    finetuning("--optim.iterations", "7", "--optim.milestones", "[3, 6]")
    assert capsys.readouterr().err == ""
    for _ in range(2):
        finetuning("--optim.iterations", "7", "--optim.milestones", "[3, 7, 9]")
    (line,) = capsys.readouterr().err.splitlines()
    assert "optim.milestones [7, 9] are never reached, since optim.iterations is 7" in line
    finetuning("--recipe", "walkers/finetune", "--optim.iterations", "77")
    assert "[200]" in capsys.readouterr().err


def test_milestones_are_checked_wherever_they_come_from() -> None:
    with pytest.raises(UserError, match="milestones"):
        FinetuneOptim(milestones=(2, 1))
