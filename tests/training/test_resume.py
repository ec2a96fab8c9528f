"""A run that is killed and started again goes through the same numbers as one that is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gaitdiff.training.checkpoint import load_optimizer, optimizer_tensors
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
