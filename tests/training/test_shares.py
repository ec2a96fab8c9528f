"""Two processes train as one does on the same whole batches: losses, metrics, weights."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import gaitdiff
from gaitdiff.config.recipe import parse_config
from gaitdiff.config.schema import FinetuneConfig, PretrainConfig
from gaitdiff.diffusion.objective import DiffusionObjective
from gaitdiff.errors import UserError
from gaitdiff.training.finetune import FinetuneStage, finetune
from gaitdiff.training.pretrain import PretrainStage, pretrain
from gaitdiff.training.step import Step
from gaitdiff.walkers import generate
from worlds import records, torchrun

PACE = (
    *("--run.log_every", "1", "--run.evaluate_every", "2", "--run.save_every", "2", "--run.keep", "0"),
    *("--machine.device", "cpu", "--machine.threads", "1", "--machine.precision", "float32"),
)
PRETRAIN = (
    *("--data.latent_frames", "2", "--data.gait_frames", "3", "--optim.batch", "4", "--optim.warmup", "1"),
    *("--diffusion.denoiser", "walkers", "--diffusion.pooling", "mean", "--optim.iterations", "4", *PACE),
    *("--optim.backbone_eps", "0.0001"),  # AdamW would make steps of gradients that are nothing but rounding
)
SCRATCH = (
    *("--mode", "scratch", "--data.frames", "3", "--batch.people", "3", "--batch.sequences", "2"),
    *("--optim.lr", "0.001", "--optim.iterations", "4", *PACE),
)
#: What BatchNorm takes away again: their gradients are nothing but rounding, of which AdamW makes steps.
NOTHING = ("projector.0.bias", "projector.1.running_mean", "projector.3.bias", "projector.4.running_mean")
#: A step in micro-batches, of a backbone that couples no samples.
IN_PARTS = ("--optim.accumulate", "2", "--model.overrides.batch_norm", "false")
GO_ON = ("pretrain smplgait", "finetune gaitset")
#: In place of the run that a case starts from, which lies beside the store.
START = "START"
#: A case whose third loss is infinite in the second process alone, which each sees at once, or when it looks.
BROKEN = {"broken at once": True, "broken and seen later": False}
LEVERS = ("--diffusion.projector", "8", "--diffusion.contrast", "1", "--diffusion.frames_apart", "true")


def cases() -> dict[str, list[str]]:
    """Commands by name: a verb and flags, without data and place."""
    found: dict[str, list[str]] = {}
    for model in gaitdiff.list_models():
        named = ("--model.name", model, "--model.preset", "tiny")
        found[f"pretrain {model}"] = ["pretrain", *PRETRAIN, *named]
        found[f"finetune {model}"] = ["finetune", *SCRATCH, *named]
    named = ("--model.name", "smplgait", "--model.preset", "tiny")
    found["in parts"] = ["pretrain", *PRETRAIN, *named, *IN_PARTS]
    found["averaged"] = ["finetune", *SCRATCH, *named, "--optim.ema", "0.5"]
    found["frozen"] = ["finetune", *SCRATCH, "--mode", "frozen", "--init", START]
    found["levers"] = ["pretrain", *PRETRAIN, *named, *LEVERS]
    for objective in ("contrastive", "both"):
        found[objective] = ["pretrain", *PRETRAIN, *named, "--objective", objective]
    return found


def train(words: list[str], store: Path, out: Path) -> Path:
    verb, *flags = [str(store.resolve().parent / "start") if word == START else word for word in words]
    flags += ["--data.store", str(store), "--out", str(out)]
    if verb == "pretrain":
        return pretrain(parse_config(PretrainConfig, "gaitdiff pretrain", flags))
    return finetune(parse_config(FinetuneConfig, "gaitdiff finetune", flags))


def worker(folder: Path, *names: str) -> None:
    torch.set_num_threads(1)
    for name in names or cases():
        if name in BROKEN:
            broken(folder, name)
        else:
            train(cases()[name], folder / "store", folder / "two" / name)


def broken(folder: Path, name: str) -> None:
    real, calls = DiffusionObjective.forward, 0

    def forward(self: DiffusionObjective, *inputs: Any) -> torch.Tensor:
        nonlocal calls
        calls += self.training
        loss: torch.Tensor = real(self, *inputs)
        return loss / 0 if calls == 3 and self.training and os.environ["RANK"] == "1" else loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DiffusionObjective, "forward", forward)
        patch.setattr(Step, "eager", BROKEN[name])
        words = [*cases()["pretrain smplgait"], "--run.log_every", "4", "--run.evaluate_every", "0"]
        with pytest.raises(UserError) as refused:
            train(words, folder / "store", folder / "two" / name)
    print(refused.value, file=sys.stderr)


def numbers(record: Any, prefix: str = "") -> dict[str, float]:
    """All numbers of a line of metrics by dotted name, but for what scores are of."""
    if isinstance(record, dict):
        items = [(key, value) for key, value in record.items() if key != "about"]
        return {name: value for key, item in items for name, value in numbers(item, f"{prefix}{key}.").items()}
    if isinstance(record, list):
        return {name: value for i, item in enumerate(record) for name, value in numbers(item, f"{prefix}{i}.").items()}
    return {prefix: record} if isinstance(record, int | float) else {}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shares")
    generate(folder / "store", people=9, sequences=3, frames=8, test_people=3, workers=1)  # bars are too much alike
    train(cases()["pretrain smplgait"], folder / "store", folder / "start")
    return folder


def assert_alike(one: Path, two: Path) -> None:
    assert one.exists()
    first, second = ([numbers(record) for record in records(run)] for run in (one, two))
    assert [sorted(record) for record in first] == [sorted(record) for record in second]
    for mine, theirs in zip(first, second, strict=True):
        for key, value in mine.items():
            close = 1e-3 if key.startswith("gap_by") else 1e-5  # these are percent, of small differences of losses
            assert theirs[key] == pytest.approx(value, rel=1e-5, abs=close), (two.name, key, mine["step."])
    checkpoints = sorted(path.name for path in (one / "checkpoints").iterdir())
    assert checkpoints == sorted(path.name for path in (two / "checkpoints").iterdir())
    for checkpoint in checkpoints:
        for file in sorted((one / "checkpoints" / checkpoint).glob("*.safetensors")):
            if file.name == "optimizer.safetensors":
                continue
            mine, theirs = load_file(file), load_file(two / "checkpoints" / checkpoint / file.name)
            assert mine.keys() == theirs.keys()
            for key, value in mine.items():
                if key in NOTHING:
                    continue
                apart = float((value.double() - theirs[key].double()).norm())
                assert apart <= 1e-5 * max(1.0, float(value.double().norm())), (two.name, checkpoint, file.name, key)


def test_both_stages_of_every_model(folder: Path) -> None:
    torchrun(__file__, folder)
    for name, words in cases().items():
        assert_alike(train(words, folder / "store", folder / "one" / name), folder / "two" / name)


def test_a_run_goes_on_in_another_number_of_processes(folder: Path, tmp_path: Path) -> None:
    """From its second step on in two processes, and then in one again: as in one from the first."""
    for name in GO_ON:
        train(cases()[name], folder / "store", tmp_path / "whole" / name)
        train(cases()[name], folder / "store", tmp_path / "two" / name)
        shutil.rmtree(tmp_path / "two" / name / "checkpoints" / "step-00000004")
    (tmp_path / "store").symlink_to(folder / "store")
    torchrun(__file__, tmp_path, *GO_ON)
    for name in GO_ON:
        assert_alike(tmp_path / "whole" / name, tmp_path / "two" / name)
        shutil.rmtree(tmp_path / "two" / name / "checkpoints" / "step-00000004")
        train(cases()[name], folder / "store", tmp_path / "two" / name)
        assert_alike(tmp_path / "whole" / name, tmp_path / "two" / name)


def test_a_step_that_fails_in_one_process_changes_no_weight_of_any(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "store").symlink_to(folder / "store")
    said = torchrun(__file__, tmp_path, *BROKEN)
    whole = folder / "start" / "checkpoints" / "step-00000002"
    for name in BROKEN:
        kept = tmp_path / "two" / name / "nonfinite-step-3"
        assert said.count(f"are kept in {kept}") == 2
        assert sorted(path.name for path in kept.glob("*.npz")) == ["batch-process-0.npz", "batch-process-1.npz"]
        [checkpoint] = (kept / "checkpoints").iterdir()
        mine, theirs = (load_file(place / "denoiser.safetensors") for place in (checkpoint, whole))
        for key, value in theirs.items():
            torch.testing.assert_close(mine[key], value, rtol=1e-5, atol=1e-5)


def test_micro_batches_are_of_a_share(folder: Path, tmp_path: Path) -> None:
    words = [*PRETRAIN, "--model.name", "smplgait", "--data.store", str(folder / "store"), "--out", str(tmp_path)]
    words += ["--optim.batch", "12", "--optim.accumulate", "4"]
    with pytest.raises(UserError, match="each of 2 processes has 6 sequences"):
        PretrainStage(parse_config(PretrainConfig, "gaitdiff", words), torch.device("cpu"), 2)


def test_a_batch_that_cannot_be_shared_is_refused(folder: Path, tmp_path: Path) -> None:
    for stage, kind, flags in ((PretrainStage, PretrainConfig, PRETRAIN), (FinetuneStage, FinetuneConfig, SCRATCH)):
        words = [
            *flags,
            "--model.name",
            "smplgait",
            "--data.store",
            str(folder / "store"),
            "--out",
            str(tmp_path / "r"),
        ]
        config = parse_config(kind, "gaitdiff", words)
        with pytest.raises(UserError, match=r"a step has [46] sequences .* 5 processes cannot share evenly"):
            stage(config, torch.device("cpu"), 5)


if __name__ == "__main__":
    worker(Path(sys.argv[1]), *sys.argv[2:])
