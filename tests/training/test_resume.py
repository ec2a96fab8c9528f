"""A run that is killed and started again goes through the same numbers as one that is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gaitdiff.config.recipe import parse_config
from gaitdiff.config.schema import PretrainConfig
from gaitdiff.training.checkpoint import load_optimizer, optimizer_tensors
from gaitdiff.training.pretrain import PretrainStage
from worlds import TINY_PRETRAIN, TINY_SCRATCH, gaitdiff, kill_after, make_store, records

PACE = ("--run.log_every", "2", "--run.evaluate_every", "5", "--run.save_every", "3", "--optim.iterations", "24")
STAGES = {"pretrain": (*TINY_PRETRAIN, *PACE), "finetune": (*TINY_SCRATCH, *PACE)}


@pytest.mark.parametrize("stage", STAGES)
def test_killed_twice_equals_uninterrupted(stage: str, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    flags = [*STAGES[stage], "--data.store", str(store)]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert gaitdiff(stage, *flags, "--out", whole).returncode == 0
    words = [stage, *flags, "--out", str(broken)]
    before = 0
    for lines in (4, 9):
        kill_after(words, broken / "metrics.jsonl", lines)
        saved = sorted(path.name for path in (broken / "checkpoints").glob("step-*"))
        assert saved, "killed before the first checkpoint"
        assert before < int(saved[-1].removeprefix("step-")) < 24
        before = int(saved[-1].removeprefix("step-"))
    # What a kill in the middle of writing leaves behind: half a checkpoint, half a line.
    half = broken / "checkpoints" / ".step-00000024.partial"
    half.mkdir(exist_ok=True)
    (half / "backbone.safetensors").write_bytes(b"half of")
    with (broken / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2')
    final = gaitdiff(*words)
    assert final.returncode == 0, final.stderr
    assert records(broken) == records(whole)
    for name in ("backbone", "optimizer"):
        one, other = (
            load_file(run / "checkpoints" / "step-00000024" / f"{name}.safetensors") for run in (whole, broken)
        )
        assert one.keys() == other.keys()
        assert all((one[key] == other[key]).all() for key in one)


def test_an_optimisers_state_lies_in_memory_as_its_parameters_do() -> None:
    """Whatever a file's order is: a fused step on a GPU takes no other."""
    layer = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.rand(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    kept = {name: value.contiguous() for name, value in optimizer_tensors(optimizer).items()}
    other = torch.optim.AdamW(layer.parameters())
    load_optimizer(other, kept)
    for parameter in layer.parameters():
        for name, value in other.state[parameter].items():
            assert torch.equal(value, optimizer.state[parameter][name])
            assert name == "step" or value.stride() == parameter.stride()


def test_complete_run_is_left_alone(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    words = [
        "finetune",
        *TINY_SCRATCH,
        "--optim.iterations",
        "2",
        "--data.store",
        str(store),
        "--out",
        tmp_path / "run",
    ]
    assert gaitdiff(*words).returncode == 0
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    again = gaitdiff(*words)
    assert again.returncode == 0
    assert "is complete" in again.stderr
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


#: A step in micro-batches, of a backbone that couples no samples.
IN_PARTS = ("--optim.accumulate", "2", "--model.overrides.batch_norm", "false")


@pytest.mark.parametrize("more", [(), IN_PARTS], ids=["whole", "in parts"])
def test_two_processes_train_one_run(more: tuple[str, ...], tmp_path: Path) -> None:
    """Under torchrun each process draws its own batches, and one of them writes."""
    store = make_store(tmp_path / "store")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "gaitdiff"]
    flags = [*STAGES["pretrain"], "--data.store", str(store), "--out", str(tmp_path / "run"), "--optim.iterations", "6"]
    flags += ["--machine.precision", "float32", *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, "pretrain", *flags], capture_output=True, text=True, env=environment, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    steps = [record["step"] for record in records(tmp_path / "run") if "loss" in record]
    assert steps == [2, 4, 6]
    # Alone, the first process's batches give other weights: the gradients of both were averaged.
    averaged = average_of_two(store, tmp_path / "run", more)
    trained = load_file(tmp_path / "run" / "checkpoints" / "step-00000006" / "backbone.safetensors")
    for name, value in averaged.items():
        assert torch.allclose(trained[name], value, atol=1e-4), name


def average_of_two(store: Path, run: Path, more: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """Trained weights by hand: both processes' gradients averaged in one process, no BatchNorm statistics compared."""
    argv = [*STAGES["pretrain"], *more, "--data.store", str(store), "--out", str(run), "--optim.iterations", "6"]
    config = parse_config(PretrainConfig, "gaitdiff pretrain", [*argv, "--machine.precision", "float32"])
    stage = PretrainStage(config, torch.device("cpu"), world_size=2)
    base = [group["lr"] for group in stage.optimizer.param_groups]
    for step in range(6):
        for group, lr, factor in zip(stage.optimizer.param_groups, base, stage.lr_factors(step), strict=True):
            group["lr"] = lr * factor
        stage.module.train()
        for rank in range(2):
            (stage.module(*stage.inputs(stage.make_batch(step, rank), step, rank)) / 2).backward()
        torch.nn.utils.clip_grad_norm_(stage.module.parameters(), stage.clip_grad)
        stage.optimizer.step()
        stage.optimizer.zero_grad()
    return {name: value.detach() for name, value in stage.module.backbone.named_parameters()}
