"""What a user can get wrong before training begins, in data, settings and words: one clear sentence, exit code 2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gaitdiff.config.recipe import list_recipes, parse_config
from gaitdiff.config.schema import FinetuneConfig, PretrainConfig
from gaitdiff.data.store import StoreWriter
from gaitdiff.errors import UserError
from gaitdiff.training.finetune import finetune
from refusals import refused
from worlds import TINY_PRETRAIN, TINY_SCRATCH, gaitdiff, make_store, one_sentence

STAGES = ("pretrain", "finetune")
#: What takes a model named before out of the flags again.
NO_MODEL = ("--model.name", "", "--model.preset", "gait3d", "--model.overrides", "{}")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"people": 6, "test_people": 6}, "no training sequences"),
        ({"frames": 1}, "the longest has 1"),
    ],
)
def test_stores_that_cannot_be_trained_on(
    stage: str, changed: dict[str, int], sentence: str, tmp_path: Path, out: Path
) -> None:
    made = make_store(tmp_path / "odd", **changed)
    assert sentence in refused(stage, "--data.store", made, "--out", out)
    assert not out.exists()


def test_one_person(tmp_path: Path, out: Path) -> None:
    made = make_store(tmp_path / "one", people=1, test_people=0)
    assert "1 person" in refused("finetune", "--data.store", made, "--out", out)
    made = make_store(tmp_path / "single", people=1, sequences=1, test_people=0)
    assert "1 training sequence" in refused("pretrain", "--data.store", made, "--out", out)
    assert not out.exists()


def test_fewer_sequences_than_k(store: Path, out: Path) -> None:
    sentence = refused("finetune", "--data.store", store, "--out", out, "--batch.sequences", "4")
    assert "--batch.sequences 3" in sentence
    assert "--batch.people 4" in refused("finetune", "--data.store", store, "--out", out, "--batch.people", "9")
    assert not out.exists()


def test_cut_frames_are_not_cut_twice(tmp_path: Path, out: Path) -> None:
    """Frames cut before they were stored are trained on and evaluated as they are."""
    cut = make_store(tmp_path / "cut", width=44)
    argv = [*TINY_SCRATCH, "--data.store", str(cut), "--out", str(out), "--optim.iterations", "2"]
    assert finetune(parse_config(FinetuneConfig, "gaitdiff", argv)) == out.resolve()


@pytest.mark.parametrize("stage", STAGES)
def test_missing_store_and_truncated_frames(stage: str, store: Path, tmp_path: Path, out: Path) -> None:
    assert str(tmp_path / "nowhere") in refused(stage, "--data.store", tmp_path / "nowhere", "--out", out)
    frames = store / "frames.bin"
    os.truncate(frames, frames.stat().st_size - 1)
    assert "frames.bin" in refused(stage, "--data.store", store, "--out", out)
    assert not out.exists()


@pytest.mark.parametrize("stage", STAGES)
def test_flipped_bit_stops_training(stage: str, store: Path, out: Path) -> None:
    frames = np.memmap(store / "frames.bin", mode="r+")
    frames[::4096] ^= 1
    frames.flush()
    sentence = refused(stage, "--data.store", store, "--out", out, "--run.evaluate_every", "0")
    assert "frames.bin" in sentence
    assert any(f"p{person}" in sentence for person in range(4))


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--optim.lrr", "1"], "did you mean 'optim.lr'"),
        (["--optim.lr", "quick"], "optim.lr"),
        (["--optim.batch", "0"], "--optim.batch cannot be 0"),
        (["--optim.lr=-0.5"], "--optim.lr cannot be -0.5"),
        (["--diffusion.p_uncond", "1.5"], "--diffusion.p_uncond cannot be 1.5"),
        (["--diffusion.schedule", "cosin"], "did you mean 'cosine'"),
        (["--diffusion.weighting", "mpn"], "did you mean 'mnp'"),
        (["--diffusion.pooling", "means"], "did you mean 'mean'"),
        (["--diffusion.denoiser", "bace"], "did you mean 'base'"),
        (["--model.name", "gaitsmpl"], "there is no model"),
        (["--model.overrides.chanels", "[1,2,3]"], "did you mean 'channels'"),
        (["--machine.device", "cuda:9"], "auto, cpu, cuda or mps"),
        (["--recipe", "walkers/pretrian"], "did you mean 'walkers/pretrain'"),
        (["--run.protocol", "gait3"], "did you mean 'gait3d'"),
    ],
)
def test_wrong_settings(flags: list[str], sentence: str, store: Path, out: Path) -> None:
    assert sentence in refused("pretrain", "--data.store", store, "--out", out, *flags)
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("optim: {iteratons: 3}", "did you mean 'optim.iterations'"),
        ("optimm: {lr: 3}", "unknown key 'optimm.lr'"),
        ("optim: [1, 2", "not readable YAML"),
        ("- 1", "must be a mapping"),
        ("optim: {lr: fast}", "optim.lr"),
        ("base: walkers/nothing", "there is no recipe"),
    ],
)
def test_wrong_recipes(text: str, sentence: str, store: Path, tmp_path: Path, out: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(text)
    assert sentence in refused("pretrain", "--recipe", recipe, "--data.store", store, "--out", out)


def test_recipe_that_is_its_own_base(store: Path, tmp_path: Path, out: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"base: {recipe}")
    assert "its own base" in refused("pretrain", "--recipe", recipe, "--data.store", store, "--out", out)


def test_every_shipped_recipe_is_sound() -> None:
    names = list_recipes()
    assert {"gait3d/pretrain_smplgait", "walkers/pretrain", "ablations/same_clip"} <= set(names)
    for name in names:
        kind = PretrainConfig if "pretrain" in name or "ablations" in name else FinetuneConfig
        config = parse_config(kind, "gaitdiff", ["--recipe", name, "--out", "x", "--data.store", "y"])
        assert config.out == "x"
    assert parse_config(
        PretrainConfig, "g", ["--recipe", "ablations/lr_ratio_1", "--out", "x", "--data.store", "y"]
    ) == (
        parse_config(
            PretrainConfig,
            "g",
            [
                "--recipe",
                "gait3d/pretrain_smplgait",
                "--optim.backbone_lr_ratio",
                "1",
                "--out",
                "x",
                "--data.store",
                "y",
            ],
        )
    )


def test_transfer_settings_that_contradict_each_other(store: Path, tmp_path: Path, out: Path) -> None:
    where = ("--data.store", store, "--out", out)
    assert "init names a checkpoint" in refused("finetune", *where, "--init", tmp_path)
    assert "init names no checkpoint" in refused("finetune", *where, "--mode", "finetune")
    assert "holds no checkpoint" in refused("finetune", *where, "--mode", "frozen", "--init", tmp_path)
    assert "model.name is not set" in refused("finetune", *where, *NO_MODEL)


def test_unreachable_hub_names_the_student(store: Path, out: Path) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(out.parent / "hub")}
    environment.pop("GAITDIFF_TAESD", None)
    words = [*TINY_PRETRAIN, "--diffusion.autoencoder", "taesd", "--data.store", str(store), "--out", str(out)]
    command = [sys.executable, "-m", "gaitdiff", "pretrain", *words]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    sentence = one_sentence(result)
    assert "student" in sentence
    assert "path" in sentence
    assert not out.exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--batch.people", "1"], "at least 2"),
        (["--loss.smoothing", "2"], "--loss.smoothing cannot be 2"),
        (["--seed", "99999999999999999999999"], "--seed cannot be"),
        (["--model.overrides", "{channels: abc}"], "must be a list"),
        (["--model.overrides", "{channels: [4]}"], "three positive numbers"),
        (["--model.overrides", "{bins: [7]}"], "divide the 16 rows"),
        (["--data.people", "9"], "fewer than data.people = 9"),
        (["--model.name", "", "--model.preset", "walkers"], "need model.name"),
    ],
)
def test_wrong_transfer_settings(flags: list[str], sentence: str, store: Path, out: Path) -> None:
    assert sentence in refused("finetune", "--data.store", store, "--out", out, *flags)
    assert not out.exists()


def test_batch_of_one_sequence(store: Path, out: Path) -> None:
    assert "at least 2 sequences" in refused("pretrain", "--data.store", store, "--out", out, "--optim.batch", "1")


def test_frames_of_another_size(tmp_path: Path, out: Path) -> None:
    with StoreWriter(tmp_path / "odd", height=48, width=48, source="test") as writer:
        for person in range(3):
            names = {"subject": f"p{person}", "condition": "nm", "view": "c", "sequence": "s", "split": "train"}
            writer.add(np.full((4, 48, 48), 255, np.uint8), **names)
    for stage in STAGES:
        assert "48 px" in refused(stage, "--data.store", tmp_path / "odd", "--out", out)


def test_test_split_without_probes_is_not_scored(tmp_path: Path, out: Path) -> None:
    """Unlabelled folders with one walk a person are pretrained on all the same."""
    made = make_store(tmp_path / "s", sequences=1, people=9)
    done = gaitdiff(
        *("pretrain", *TINY_PRETRAIN, "--optim.iterations", "2", "--run.evaluate_every", "1"),
        *("--data.store", made, "--out", out),
    )
    assert done.returncode == 0, done.stderr
    assert "not scored" in done.stderr


def test_training_without_test_people_says_so(tmp_path: Path, out: Path) -> None:
    store = make_store(tmp_path / "s", test_people=0)
    done = gaitdiff("pretrain", *TINY_PRETRAIN, "--optim.iterations", "2", "--data.store", store, "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"not scored: {store} has no test people") == 1


def test_command_line_mistakes(tmp_path: Path) -> None:
    assert "did you mean 'pretrain'" in one_sentence(gaitdiff("pretrian"))
    assert "did you mean 'data inspect'" in one_sentence(gaitdiff("data", "inspct"))
    assert "required" in one_sentence(gaitdiff("pretrain"))
    assert "no checkpoint" in one_sentence(gaitdiff("evaluate", tmp_path, "--data", tmp_path))
    assert "required" in one_sentence(gaitdiff("data", "walkers"))
    assert "expected one argument" in one_sentence(gaitdiff("data", "walkers", "--people"))
    assert gaitdiff("--help").returncode == 0
    assert gaitdiff("data").returncode == 0
    assert gaitdiff("pretrain", "--help").returncode == 0


def test_empty_sequence_is_refused_when_stored(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no frames|empty"), StoreWriter(tmp_path / "s", source="test") as writer:
        writer.add(np.zeros((0, 64, 64), np.uint8), subject="a", condition="b", view="c", sequence="d", split="train")
    assert not (tmp_path / "s").exists()
