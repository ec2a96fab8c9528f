"""A training step is fit for an accelerator: one transfer a batch, no number asked back, no device mixed up.

Seen on a device that computes nothing, see ``phantom``. On a real one: ``tests/test_cuda.py``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import gaitdiff
from worlds import make_store

SUPPORT = Path(__file__).parents[1] / "support"
ON_CPU = ("--machine.device", "cpu", "--machine.threads", "1", "--machine.precision", "float32")  # it has no autocast
PRETRAIN = (
    *("--data.latent_frames", "2", "--data.gait_frames", "2", "--optim.batch", "4", "--diffusion.denoiser", "walkers"),
    *("--augment.affine", "0.5", "--augment.dilate", "0.5", "--augment.blur", "0.5", *ON_CPU),
)
SCRATCH = ("--mode", "scratch", "--data.frames", "2", "--batch.people", "3", "--batch.sequences", "2", *ON_CPU)
SMPLGAIT = ("--model.name", "smplgait", "--model.preset", "tiny")


def case(stage: str, *words: str) -> str:
    return ",".join((stage, *words))


def phantom(program: list[str], store: Path, out: Path, *cases: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SUPPORT)}
    command = [sys.executable, *program, str(store), str(out), *cases]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=900)


def observed(tmp_path: Path, *cases: str) -> dict[str, dict[str, Any]]:
    done = phantom([str(SUPPORT / "phantom.py")], make_store(tmp_path / "store"), tmp_path / "run", *cases)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, dict[str, Any]] = {}
    for line in done.stdout.splitlines():
        found |= json.loads(line)
    return found


def assert_fit(found: dict[str, dict[str, Any]], count: int) -> None:
    assert len(found) == count
    for name, told in found.items():
        assert told["transfers"] == [1, 0], name
        assert told["operators"] > 100, name


def test_stage_1_of_every_model(tmp_path: Path) -> None:
    models = gaitdiff.list_models()
    cases = [case("pretrain", *PRETRAIN, "--model.name", name, "--model.preset", "tiny") for name in models]
    assert_fit(observed(tmp_path, *cases), len(models))


def test_stage_2_of_every_model(tmp_path: Path) -> None:
    models = gaitdiff.list_models()
    cases = [case("finetune", *SCRATCH, "--model.name", name, "--model.preset", "tiny") for name in models]
    assert_fit(observed(tmp_path, *cases), len(models))


def test_what_a_step_can_be_besides(tmp_path: Path) -> None:
    """Other objectives, averaged weights, micro-batches, levers of the learning study."""
    levers = ("--diffusion.projector", "8", "--diffusion.frames_apart", "true", "--diffusion.contrast", "1")
    several = [
        case("pretrain", *PRETRAIN, *SMPLGAIT, "--objective", "contrastive"),
        case("pretrain", *PRETRAIN, *SMPLGAIT, "--objective", "both"),
        case("pretrain", *PRETRAIN, *SMPLGAIT, "--optim.ema", "0.9", "--optim.accumulate", "2"),
        case("pretrain", *PRETRAIN, *SMPLGAIT, *levers),
        case("pretrain", *PRETRAIN, *SMPLGAIT, "--data.same_clip", "true"),
        case("finetune", *SCRATCH, *SMPLGAIT, "--optim.ema", "0.9", "--loss.distance", "cosine"),
        case("finetune", *SCRATCH, *SMPLGAIT, "--optim.optimizer", "adamw", "--augment.flip", "0.5"),
    ]
    assert_fit(observed(tmp_path, *several), len(several))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("float(loss)", "DataDependentOutputException"),
        ("torch.nonzero(loss)", "DynamicOutputShapeException"),
        ("loss + torch.ones(1)", "FakeTensorDeviceMismatchError"),
    ],
)
def test_a_step_that_is_not_fit_is_found(fault: str, said: str, tmp_path: Path) -> None:
    """The device that computes nothing raises what a real one would wait for, or refuse."""
    store = make_store(tmp_path / "store")
    script = (
        "import sys, torch, phantom\n"
        "from gaitdiff.diffusion.objective import DiffusionObjective as Objective\n"
        "real = Objective.forward\n"
        "def forward(self, *inputs):\n"
        "    loss = real(self, *inputs)\n"
        f"    {fault}\n"
        "    return loss\n"
        "Objective.forward = forward\n"
        "phantom.main(*sys.argv[1:])\n"
    )
    done = phantom(["-c", script], store, tmp_path / "run", case("pretrain", *PRETRAIN, *SMPLGAIT))
    assert done.returncode == 1
    assert said in done.stderr
