"""Fine-tuning by depth: rates of the backbone's blocks, and blocks that keep their weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import gaitdiff
from gaitdiff.cli import main
from gaitdiff.config.recipe import parse_config
from gaitdiff.config.schema import FinetuneConfig
from gaitdiff.errors import UserError
from gaitdiff.models.pretrained import pretrained_folder
from gaitdiff.training.finetune import FinetuneStage
from worlds import make_store

FLAGS = ("--batch.people", "3", "--batch.sequences", "2", "--data.frames", "2", "--machine.device", "cpu")


def stage(store: Path, *flags: str) -> FinetuneStage:
    words = [*FLAGS, "--init", "walkers", "--data.store", str(store), "--out", "none", *flags]
    return FinetuneStage(parse_config(FinetuneConfig, "gaitdiff finetune", words), torch.device("cpu"), 1)


@pytest.mark.parametrize("name", gaitdiff.list_models())
def test_blocks_are_all_parameters_in_their_order(name: str) -> None:
    backbone = gaitdiff.create_model(name, "tiny").backbone
    blocks = backbone.blocks()
    assert [id(p) for block in blocks for p in block] == [id(p) for p in backbone.parameters()]
    assert len(blocks) == sum(any(p.ndim > 1 for p in block) for block in blocks) >= 4


def test_rates_fall_with_depth(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    made = stage(store, "--optim.lr", "1", "--optim.backbone_lr_ratio", "0.5", "--optim.layer_decay", "0.1")
    rates = [1, 5e-6, 5e-5, 5e-4, 5e-3, 5e-2, 0.5]  # the head's, then of six convolutions
    assert [group["lr"] for group in made.optimizer.param_groups] == pytest.approx(rates)
    counted = sum(p.numel() for group in made.optimizer.param_groups for p in group["params"])
    assert counted == sum(p.numel() for p in made.module.model.parameters())
    assert len(stage(store).optimizer.param_groups) == 2
    scratch = ["--mode", "scratch", "--model.name", "smplgait", "--model.preset", "walkers", "--init", ""]
    assert len(stage(store, "--optim.layer_decay", "0.1", *scratch).optimizer.param_groups) == 2


def test_frozen_blocks_keep_their_weights(tmp_path: Path) -> None:
    store, run = make_store(tmp_path / "store"), tmp_path / "run"
    words = [*FLAGS, "--init", "walkers", "--data.store", str(store), "--out", str(run), "--optim.iterations", "2"]
    words += ["--optim.freeze_blocks", "2", "--optim.lr", "0.01", "--run.save_every", "1", "--run.keep", "0"]
    assert main(["finetune", *words, "--run.evaluate_every", "0"]) == 0
    before = load_file(pretrained_folder("walkers", "smplgait") / "backbone.safetensors")
    after = gaitdiff.load_checkpoint(run).backbone
    frozen = {id(p) for block in after.blocks()[:2] for p in block}
    for name, parameter in after.named_parameters():
        assert torch.equal(parameter, before[name]) == (id(parameter) in frozen), name
    kept = (run / "checkpoints" / "step-00000002").rename(tmp_path / "kept")
    assert main(["finetune", *words, "--run.evaluate_every", "0"]) == 0  # goes on from the first step
    one, other = (load_file(path / "backbone.safetensors") for path in (kept, run / "checkpoints" / "step-00000002"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_everything_frozen_is_another_mode(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--mode frozen"):
        stage(make_store(tmp_path / "store"), "--optim.freeze_blocks", "6")
