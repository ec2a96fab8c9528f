"""The moving average of weights: its numbers, what holds it, what takes it, and resuming to the bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from gaitdiff import load_checkpoint
from gaitdiff.cli import main
from gaitdiff.training.average import Average
from gaitdiff.training.checkpoint import read_checkpoint_info
from gaitdiff.training.pretrain import load_objective
from gaitdiff.training.run_folder import read_metrics
from refusals import refused
from worlds import TINY_PRETRAIN, TINY_SCRATCH, records

DECAY = 0.8
EMA = ("--optim.ema", str(DECAY), "--machine.precision", "float32")
PACE = ("--run.log_every", "1", "--run.evaluate_every", "2", "--run.save_every", "1", "--run.keep", "0")
STAGES = {
    "pretrain": (*TINY_PRETRAIN, *PACE, "--optim.lr", "0.003"),
    "contrast": (*TINY_PRETRAIN, *PACE, "--optim.lr", "0.003", "--objective", "contrastive"),
    "finetune": (*TINY_SCRATCH, *PACE),
}


def words(stage: str, store: Path, run: Path, *more: str) -> list[str]:
    verb = "finetune" if stage == "finetune" else "pretrain"
    return [verb, *STAGES[stage], "--data.store", str(store), "--out", str(run), *more]


def weights(run: Path, step: int, stem: str) -> dict[str, Tensor]:
    return load_file(run / "checkpoints" / f"step-{step:08d}" / f"{stem}.safetensors")


def test_the_average_of_a_module_by_hand() -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    average = Average(module, DECAY, torch.device("cpu"))
    want = module[0].weight.detach().clone()
    for _ in range(5):
        module(torch.randn(8, 3))
        with torch.no_grad():
            module[0].weight += torch.randn(2, 3)
        average.step()
        want = DECAY * want + (1 - DECAY) * module[0].weight.detach()
    torch.testing.assert_close(average.network[0].weight, want)
    assert torch.equal(average.network[1].running_mean, module[1].running_mean)  # as it is
    assert int(average.network[1].num_batches_tracked) == 5
    none = Average(module, 0.0, torch.device("cpu"))
    none.step()
    assert none.network is module
    assert none.raw() == {}


@pytest.mark.parametrize("stage", STAGES)
def test_checkpoints_hold_the_average_of_what_was_trained(stage: str, store: Path, tmp_path: Path) -> None:
    """By a plain loop over the weights of a run without an average, which trains the same."""
    plain, averaged = tmp_path / "plain", tmp_path / "averaged"
    four = ("--optim.iterations", "4")
    assert main(words(stage, store, plain, *four, "--machine.precision", "float32")) == 0
    assert main(words(stage, store, averaged, *four, *EMA)) == 0
    stems = ("backbone", "head") if stage == "finetune" else ("backbone",)
    for stem in stems:
        first = weights(averaged, 1, stem)
        for step in (2, 3, 4):
            for key, value in weights(averaged, step, stem).items():
                trained = weights(plain, step, stem)[key]
                raw = weights(averaged, step, "raw")[f"{stem}.{key}" if stage == "finetune" else key]
                assert torch.equal(raw, trained)
                if "running" in key or "num_batches" in key:
                    assert torch.equal(value, trained)
                    continue
                first[key] = DECAY * first[key] + (1 - DECAY) * trained
                torch.testing.assert_close(value, first[key])
    assert [r["loss"] for r in records(plain) if "loss" in r] == [r["loss"] for r in records(averaged) if "loss" in r]


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_run_goes_on_to_the_bit(stage: str, store: Path, tmp_path: Path) -> None:
    run, kept = tmp_path / "run", tmp_path / "kept"
    more = (*EMA, "--optim.iterations", "8", *(("--optim.milestones", "[5]") if stage == "finetune" else ()))
    assert main(words(stage, store, run, *more)) == 0
    before, checkpoints = records(run), sorted((run / "checkpoints").glob("step-*"))
    for later in checkpoints[2:]:  # as if it had been killed before
        shutil.rmtree(later) if later != checkpoints[-1] else later.rename(kept)
    assert main(words(stage, store, run, *more)) == 0
    assert records(run) == before
    for file in kept.glob("*.safetensors"):
        assert file.read_bytes() == (checkpoints[-1] / file.name).read_bytes(), file.name


def test_the_average_is_what_is_scored_and_transferred(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pre, fine, file = tmp_path / "pre", tmp_path / "fine", tmp_path / "scores.json"
    four = ("--optim.iterations", "4")
    assert main(words("pretrain", store, pre, *four, *EMA)) == 0
    held = weights(pre, 4, "backbone")
    loaded = load_checkpoint(pre).backbone.state_dict()
    assert all(torch.equal(value, held[key]) for key, value in loaded.items())
    trained = load_objective(pre, torch.device("cpu")).backbone.state_dict()  # what the denoiser knows
    assert all(torch.equal(value, weights(pre, 4, "raw")[key]) for key, value in trained.items())
    frozen = ["--mode", "frozen", "--init", str(pre)]
    words_ = ["finetune", *TINY_SCRATCH[8:], *PACE, *four, *EMA, *frozen, "--data.store", str(store)]
    assert main([*words_, "--out", str(fine)]) == 0
    assert all(torch.equal(value, held[key]) for key, value in weights(fine, 4, "backbone").items())
    capsys.readouterr()
    assert main(["evaluate", str(fine), "--data", str(store), "--device", "cpu", "--json", str(file)]) == 0
    assert "step 4 of 4, weights averaged (ema 0.8) (embeddings)" in capsys.readouterr().out
    scores = json.loads(file.read_text())["embeddings"]
    (kept,) = [r for r in read_metrics(fine) if "evaluation" in r and r["step"] == 4]
    assert scores["mAP"] == pytest.approx(kept["evaluation"]["mAP"], abs=0.01)
    assert scores["about"]["ema"] == kept["about"]["ema"] == DECAY


def test_an_average_may_begin_and_end_on_purpose(store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(words("finetune", store, run, "--optim.iterations", "2")) == 0
    assert read_checkpoint_info(run).origin.ema == 0
    longer = words("finetune", store, run, "--optim.iterations", "4", *EMA)
    assert main(longer) == 2
    assert main([*longer, "--run.change", "true"]) == 0
    for stem in ("backbone", "head"):
        first = weights(run, 2, stem)
        for step in (3, 4):
            raw = weights(run, step, "raw")
            first = {key: DECAY * value + (1 - DECAY) * raw[f"{stem}.{key}"] for key, value in first.items()}
        for key, value in weights(run, 4, stem).items():
            assert "running" in key or "num_batches" in key or torch.allclose(value, first[key], atol=1e-6)
    raw = weights(run, 4, "raw")
    none = words("finetune", store, run, "--optim.iterations", "5", "--optim.lr", "1e-12", "--run.change", "true")
    assert main(none) == 0
    assert not (run / "checkpoints" / "step-00000005" / "raw.safetensors").exists()
    for key, value in weights(run, 5, "head").items():
        assert "running" in key or "num_batches" in key or torch.allclose(value, raw[f"head.{key}"], atol=1e-6)


def test_decays_that_are_none(store: Path, out: Path) -> None:
    for value in ("1", "-0.1"):
        sentence = refused("finetune", "--data.store", store, "--out", out, "--optim.ema", value)
        assert f"--optim.ema cannot be {value}" in sentence
