"""Runs that an earlier version began go on: new settings have their defaults, and numbers stay what they were."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from gaitdiff.cli import main
from gaitdiff.config.recipe import STAGES, parse_config
from gaitdiff.training.run_folder import read_config
from reference import GOLDEN
from refusals import refused
from worlds import TINY_PRETRAIN, TINY_SCRATCH, make_store

#: Begun at commit 979b9ce, on the store that ``make_store`` makes, 4 steps each, saved at the second.
RUNS = GOLDEN.parent / "runs"
PACE = ("--run.log_every", "1", "--run.evaluate_every", "2", "--run.save_every", "2", "--machine.precision", "float32")


def losses(file: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def gone_on(run: Path, store: Path) -> dict[int, float]:
    """The losses of an older run that is continued, of which some were there before."""
    flags = [*TINY_SCRATCH, *PACE, "--optim.iterations", "4", "--data.store", str(store), "--out", str(run)]
    assert main(["finetune", *flags]) == 0
    return losses(run / "metrics.jsonl")


def test_an_older_run_goes_on_through_the_same_numbers(tmp_path: Path) -> None:
    """As near as float32 has them: bars give a fresh network nearly parallel embeddings, whose differences count.

    What would be lost if it did not go on, but began without its optimiser's state, is several times as much.
    """
    store, run, forgetful = make_store(tmp_path / "store"), tmp_path / "run", tmp_path / "forgetful"
    for folder in (run, forgetful):
        shutil.copytree(RUNS / "finetune", folder)
    whole = losses(run / "metrics.jsonl")
    assert sorted(whole) == [1, 2, 3, 4]
    assert gone_on(run, store) == pytest.approx(whole, rel=1e-2)
    assert [path.name for path in (run / "checkpoints").iterdir()].count("step-00000004") == 1
    state = forgetful / "checkpoints" / "step-00000002" / "optimizer.safetensors"
    save_file({key: torch.zeros_like(value) for key, value in load_file(state).items()}, state)
    assert abs(gone_on(forgetful, store)[4] / whole[4] - 1) > 5e-2


@pytest.mark.parametrize(("verb", "flags"), [("pretrain", TINY_PRETRAIN), ("finetune", TINY_SCRATCH)])
def test_a_setting_that_a_run_does_not_know_has_its_default(
    verb: str, flags: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As if the run had been begun before the setting came; but not where it is set to something else."""
    store = make_store(tmp_path / "store")
    words = [verb, *flags, *PACE, "--optim.iterations", "4", "--data.store", str(store)]
    for value, code in (([], 0), (["--seed", "1"], 2)):
        run = tmp_path / f"run{code}"
        run.mkdir()
        config = yaml.safe_load((RUNS / verb / "config.yaml").read_text())
        del config["seed"], config["optim"]["clip_grad"], config["run"]
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        assert main([*words, *value, "--out", str(run)]) == code
    assert "seed = 0, not 1" in capsys.readouterr().err


def test_a_setting_that_had_another_name_is_known() -> None:
    assert "drop:" in (RUNS / "pretrain" / "config.yaml").read_text()
    assert read_config(RUNS / "pretrain")["diffusion"]["p_uncond"] == 0.15


def test_a_run_of_processes_with_batches_of_their_own_is_refused(tmp_path: Path) -> None:
    store, run = make_store(tmp_path / "store"), tmp_path / "run"
    shutil.copytree(RUNS / "finetune", run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["made_from"]["processes"] = 2
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    before = (run / "config.yaml").read_bytes()
    sentence = refused("finetune", *TINY_SCRATCH, "--data.store", str(store), "--out", str(run))
    assert "was begun by 2 processes" in sentence
    assert (run / "config.yaml").read_bytes() == before


@pytest.mark.parametrize("verb", ["pretrain", "finetune"])
def test_an_older_run_is_a_recipe(verb: str, tmp_path: Path) -> None:
    """Settings that have another name now, or are there no more, among them."""
    config = yaml.safe_load((RUNS / verb / "config.yaml").read_text())
    config["optim"]["sync_batchnorm"] = False
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    words = ["--recipe", str(tmp_path / "config.yaml"), "--data.store", "store", "--out", "out"]
    made = parse_config(STAGES[verb], "gaitdiff", words)
    assert made.optim.iterations == config["optim"]["iterations"]


def test_logging_and_saving_may_change_on_the_way(tmp_path: Path) -> None:
    store, run = make_store(tmp_path / "store"), tmp_path / "run"
    shutil.copytree(RUNS / "finetune", run)
    flags = [*TINY_SCRATCH, "--machine.precision", "float32", "--optim.iterations", "4", "--data.store", str(store)]
    other = ["--run.log_every", "4", "--run.evaluate_every", "0", "--run.save_every", "1", "--run.keep", "0"]
    assert main(["finetune", *flags, *other, "--out", str(run)]) == 0
    assert len(list((run / "checkpoints").iterdir())) == 3
    assert yaml.safe_load((run / "config.yaml").read_text())["run"]["log_every"] == 4


def test_a_finetuning_run_may_be_made_longer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its learning rate goes by milestones, so it becomes the run that was long from the start."""
    store, run, whole = make_store(tmp_path / "store"), tmp_path / "run", tmp_path / "whole"
    words = ["finetune", *TINY_SCRATCH, *PACE, "--optim.milestones", "[3, 5]", "--data.store", str(store)]
    assert main([*words, "--optim.iterations", "6", "--out", str(whole)]) == 0
    assert main([*words, "--optim.iterations", "4", "--out", str(run)]) == 0
    capsys.readouterr()
    assert main([*words, "--optim.iterations", "6", "--out", str(run)]) == 0
    assert "optim.iterations is 6 instead of 4" in " ".join(capsys.readouterr().err.split())
    assert losses(run / "metrics.jsonl") == losses(whole / "metrics.jsonl")
    weights = "checkpoints/step-00000006/backbone.safetensors"
    assert (run / weights).read_bytes() == (whole / weights).read_bytes()
    assert main([*words, "--optim.iterations", "5", "--out", str(run)]) == 2
    assert "optim.iterations = 6, not 5" in capsys.readouterr().err


def test_a_pretraining_run_keeps_its_length(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its learning rate falls to zero at the end."""
    store = make_store(tmp_path / "store")
    words = ["pretrain", *TINY_PRETRAIN, *PACE, "--data.store", str(store), "--out", str(tmp_path / "run")]
    assert main([*words, "--optim.iterations", "1"]) == 0
    assert main([*words, "--optim.iterations", "2"]) == 2
    assert "optim.iterations = 1, not 2" in capsys.readouterr().err
