"""An unknown setting is answered with what was meant: by meaning, by place, of the other stage, by spelling."""

from __future__ import annotations

import pytest

from gaitdiff.cli import VERBS, main
from gaitdiff.config.hints import _MEANINGS, _VERBS, suggest
from gaitdiff.config.schema import FinetuneConfig, PretrainConfig
from gaitdiff.config.values import settings_of

KNOWN = ("optim.lr", "optim.batch", "data.store", "data.same_clip", "out", "--test-people")
OTHER = ("init", "batch.people", "data.people", "out")


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("learning_rate", " (did you mean 'optim.lr'?)"),
        ("optim.batch-size", " (did you mean 'optim.batch'?)"),
        ("diffusion.same_clip", " (did you mean 'data.same_clip'?)"),
        ("test_people", " (did you mean '--test-people'?)"),
        ("checkpoint", " ('init' is a setting of a verb)"),
        ("batch.people", " ('batch.people' is a setting of a verb)"),
        ("people", " ('batch.people' or 'data.people' is a setting of a verb)"),
        ("resume", " (the same command with the same --out continues a run)"),
        ("optim.lrr", " (did you mean 'optim.lr'?)"),
        ("ou", " (did you mean 'out'?)"),
        ("same-clap", " (did you mean 'data.same_clip'?)"),
        ("frobnicate", ""),
    ],
)
def test_hints(key: str, hint: str) -> None:
    assert suggest(key, KNOWN, OTHER, "a verb") == hint


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("pretrain --diffusion.same_clip", "did you mean 'data.same_clip'"),
        ("pretrain --same-clip", "did you mean 'data.same_clip'"),
        ("pretrain --batch-size", "did you mean 'optim.batch'"),
        ("pretrain --optim.learning-rate", "did you mean 'optim.lr'"),
        ("pretrain --lr", "did you mean 'optim.lr'"),
        ("pretrain -lr", "unknown setting -lr (did you mean 'optim.lr'"),
        ("pretrain --config", "did you mean 'recipe'"),
        ("pretrain optim.learning_rate=3", "unknown setting --optim.learning_rate (did you mean 'optim.lr'"),
        ("pretrain optim.lr=3", "is no flag: give it as --optim.lr 3"),
        ("pretrain --frames", "did you mean 'data.gait_frames' and 'data.latent_frames'"),
        ("pretrain --dat", "did you mean 'data.store'"),
        ("embed a b --data", "what it names is given without a flag"),
        ("finetune --resume", "the same command with the same --out continues a run"),
        ("pretrain --steps", "did you mean 'optim.iterations'"),
        ("finetune --epochs", "did you mean 'optim.iterations'"),
        ("pretrain --workers", "did you mean 'machine.threads'"),
        ("pretrain --overwrite", "no run is written over: choose another --out"),
        ("finetune --optim.scheduler", "did you mean 'optim.milestones'"),
        ("pretrain --scheduler", "did you mean 'optim.warmup'"),
        ("pretrain --mode", "a setting of gaitdiff finetune"),
        ("pretrain --batch.people", "a setting of gaitdiff finetune"),
        ("finetune --checkpoint", "did you mean 'init'"),
        ("finetune --pretrained", "did you mean 'init'"),
        ("finetune --optim.batch", "did you mean 'batch.people' and 'batch.sequences'"),
        ("finetune --data.same_clip", "a setting of gaitdiff pretrain"),
        ("pretrain --data.sto", "did you mean 'data.store'"),
        ("finetune --optim.iter", "did you mean 'optim.iterations'"),
        ("pretrain --ou", "did you mean 'out'"),
        ("finetune --rec", "did you mean 'recipe'"),
        ("finetune --diffusion.drop", "'diffusion.p_uncond' is a setting of gaitdiff pretrain"),
        ("evaluate --machine.device", "did you mean '--device'"),
        ("evaluate --checkpoint", "given without a flag"),
        ("data walkers --test_people", "did you mean '--test-people'"),
        ("data walkers --peo", "did you mean '--people'"),
        ("evaluate --frobnicate", "unknown option --frobnicate: gaitdiff evaluate --help lists all"),
    ],
)
def test_unknown_flags_are_named_before_missing_ones(
    words: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words.split(), "3"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert meant in line
    assert "required" not in line


@pytest.mark.parametrize(
    ("verb", "meant"),
    [
        ("test", "did you mean 'evaluate'"),
        ("similarity", "did you mean 'compare-walks'"),
        ("features", "did you mean 'embed'"),
        ("synthesize", "did you mean 'generate'"),
        ("data make", "did you mean 'data walkers'"),
        ("data info", "did you mean 'data inspect'"),
        ("fine_tune", "did you mean 'finetune'"),
        ("pretrian", "did you mean 'pretrain'"),
        ("resume", "the command that began a run continues it, with the same --out"),
        ("frobnicate", "there is no verb 'frobnicate': gaitdiff --help lists them"),
    ],
)
def test_unknown_verbs(verb: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(verb.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert meant in line


def test_all_that_is_meant_is_there() -> None:
    """Hints name verbs and settings that exist, and no word of theirs is one of the other."""
    known = {*settings_of(PretrainConfig), *settings_of(FinetuneConfig), "recipe", "base", "data", "device"}
    assert {part for settings in _MEANINGS for part in settings.split("+")} <= known
    assert set(_VERBS) <= set(VERBS)
    assert not {word for words in _VERBS.values() for word in words} & set(VERBS)
