"""On a GPU: the numbers of a CPU in double precision, and every verb from one checkpoint to the next."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import gaitdiff
from gaitdiff.cli import main
from gaitdiff.config.recipe import parse_config
from gaitdiff.config.schema import AugmentConfig, PretrainConfig
from gaitdiff.data.augment import augment, draw_plan
from gaitdiff.diffusion.autoencoder import load_autoencoder
from gaitdiff.diffusion.objective import Noised
from gaitdiff.evaluation.metrics import distance_matrix
from gaitdiff.models.layers.convolution import FirstConv2d
from gaitdiff.recognition.losses import cross_entropy, triplet_loss
from gaitdiff.training.graph import GraphedBackward
from gaitdiff.training.pretrain import PretrainStage
from worlds import TINY_PRETRAIN, make_store, records

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
ON_GPU = ("--machine.device", "cuda")


@pytest.fixture(autouse=True)
def whole_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions of float32 are not rounded to TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def difference(ours: Tensor, exact: Tensor) -> float:
    """Norm of the difference as a share of the norm."""
    exact = exact.detach().double().cpu()
    return float((ours.detach().double().cpu() - exact).norm() / exact.norm())


def walks(count: int, frames: int, width: int = 44) -> Tensor:
    """Blobs that sway, (count, frames, 64, width)."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :width]
    centre = rng.uniform(width / 3, 2 * width / 3, (count, frames, 1, 1))
    reach = rng.uniform(6, 12, (count, 1, 1, 1)) * (1 + 0.3 * np.sin(y / rng.uniform(4, 9, (count, frames, 1, 1))))
    return torch.from_numpy((abs(x - centre) < reach).astype(np.float32))


@pytest.mark.parametrize("lengths", [None, [5, 9]], ids=["equal", "packed"])
@pytest.mark.parametrize("name", gaitdiff.list_models())
def test_models_compute_what_they_compute_on_a_cpu(name: str, lengths: list[int] | None) -> None:
    exact = gaitdiff.create_model(name, "walkers", num_classes=7).double().train()
    clip = walks(3, 8) if lengths is None else walks(1, sum(lengths))
    found = []
    for model, frames in ((exact, clip.double()), (copy.deepcopy(exact).float().cuda(), clip.cuda())):
        output = model(frames, lengths)
        weights = torch.linspace(-1, 1, output.embedding.numel(), dtype=output.embedding.dtype)
        (output.embedding.flatten() * weights.to(output.embedding.device)).sum().backward()
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        found.append((output.feature, output.embedding, torch.cat(gradients)))
    for ours, theirs, limit in zip(found[1], found[0], (1e-4, 1e-3, 2e-2), strict=True):
        assert difference(ours, theirs) < limit  # float32; a near tie of two frames moves a gradient


def test_a_pretraining_loss_and_its_gradients(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    words = [*TINY_PRETRAIN, "--data.store", str(store), "--out", str(tmp_path / "no"), *ON_GPU]
    config = parse_config(PretrainConfig, "gaitdiff", words)
    stages = [PretrainStage(config, torch.device(device), 1) for device in ("cpu", "cuda")]
    batch, grads, losses = stages[0].make_batch(0, 0), [], []
    for stage in stages:
        latents, gait, _ = stage.inputs(batch, 0, 0)
        noised = stages[0].pretext._noised(torch.zeros(latents.shape), 0, 0)
        module = stage.module.to(stage.device).train()
        moved = Noised(*(value.to(stage.device) for value in (noised.t, noised.noise, noised.drop)))
        loss = module(latents, gait, moved)
        loss.backward()
        losses.append(loss.item())
        grads.append(torch.cat([p.grad.flatten().cpu() for p in module.parameters() if p.grad is not None]))
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)  # the autoencoder is bfloat16 there
    assert difference(grads[1], grads[0]) < 0.1


def test_autoencoder_in_half_precision() -> None:
    clips = walks(2, 5, width=64)
    latents = [load_autoencoder("student", device).encode(clips.to(device)) for device in ("cpu", "cuda")]
    assert latents[1].dtype == torch.float32
    assert difference(latents[1], latents[0]) < 1e-2
    decoded = [load_autoencoder("student", d).decode(latents[0].to(d)) for d in ("cpu", "cuda")]
    assert (decoded[1].cpu() - decoded[0]).abs().mean() < 1e-2


@pytest.mark.parametrize("size", [3, 5])
def test_first_convolution_in_half_precision(size: int) -> None:
    conv, frames, found = FirstConv2d(16, size), walks(40, 1), []
    for module, clip in ((copy.deepcopy(conv).double(), frames.double()), (conv.cuda(), frames.cuda())):
        with torch.autocast("cuda", torch.bfloat16, enabled=clip.is_cuda):
            output = module(clip)
        assert output.is_contiguous(memory_format=torch.channels_last) or not clip.is_cuda
        output.to(module.weight.dtype).square().sum().backward()
        found.append((output, module.weight.grad))
    assert found[1][0].dtype == torch.bfloat16
    for ours, exact in zip(found[1], found[0], strict=True):
        assert difference(ours, exact) < 1e-2


def test_augmentation() -> None:
    clips = walks(32, 3, width=64)
    plan = draw_plan(AugmentConfig(0.5, 0.5, 0.5, 0.5, 0.5), 32, 64, 64, np.random.default_rng(1))
    here, there = augment(clips, plan), augment(clips.cuda(), plan).cpu()
    assert ((here - there).abs() > 1e-3).float().mean() < 1e-3  # a blur's threshold may fall the other way
    assert not torch.equal(here, clips)


def test_losses_and_metrics() -> None:
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn(24, 16, 5, generator=generator, dtype=torch.float64)
    logits, labels = torch.randn(24, 6, 5, generator=generator, dtype=torch.float64), torch.arange(24) // 4
    for loss, value in ((triplet_loss, embedding), (cross_entropy, logits)):
        exact, ours = value.clone().requires_grad_(), value.float().cuda().requires_grad_()
        right, found = loss(exact, labels), loss(ours, labels.cuda())
        right.backward()
        found.backward()
        assert found.item() == pytest.approx(right.item(), rel=1e-5)
        assert difference(ours.grad, exact.grad) < 1e-4
    features = embedding.float()
    for metric in ("cosine", "euclidean"):
        here, there = (distance_matrix(features[::4].to(d), features.to(d), metric).cpu() for d in ("cpu", "cuda"))
        assert (here - there).abs().max() < 1e-3  # a root of what cancels, where a row meets itself


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_verb_and_a_run_that_was_stopped(tmp_path: Path, precision: str) -> None:
    store = make_store(tmp_path / "store")
    machine = ["--data.store", str(store), *ON_GPU, "--machine.precision", precision]
    words = [*TINY_PRETRAIN, *machine, "--optim.iterations", "8", "--run.save_every", "4", "--run.evaluate_every", "4"]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for out in (whole, stopped):
        assert main(["pretrain", *words, "--out", str(out)]) == 0
    shutil.rmtree(max((stopped / "checkpoints").iterdir()))  # as if the run had been killed before its last save
    assert main(["pretrain", *words, "--out", str(stopped)]) == 0
    losses = [[r["loss"] for r in records(run) if "loss" in r] for run in (whole, stopped)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
    tuned = tmp_path / "tuned"
    second = ["--batch.people", "3", "--batch.sequences", "2", "--data.frames", "2", *machine]
    steps = ["--optim.iterations", "4", "--run.evaluate_every", "2", "--optim.lr", "0.001"]
    assert main(["finetune", *second, *steps, "--init", str(whole), "--out", str(tuned)]) == 0
    scores = {}
    for device in ("cpu", "cuda"):
        report = tmp_path / f"{device}.json"
        asked = ["evaluate", str(tuned), "--data", str(store), "--device", device, "--json", str(report)]
        assert main(asked) == 0
        scores[device] = json.loads(report.read_text())
    assert scores["cpu"]["embeddings"]["rank1"] == scores["cuda"]["embeddings"]["rank1"]


def test_a_plan_of_many_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    assert main(["claims", "run", "finetuned-above-scratch", "--dry-run", "--out", out, "--device", "cuda"]) == 0
    assert "45 of 45 runs to do" in capsys.readouterr().err


@pytest.mark.parametrize("objective", ["diffusion", "contrastive", "both"])
def test_a_graph_changes_nothing_but_the_time(objective: str, tmp_path: Path) -> None:
    """Losses, weights and running statistics after some steps, one of them after a stop."""
    store = make_store(tmp_path / "store")
    found = []
    for graph in ("true", "false"):
        words = [*TINY_PRETRAIN, "--data.store", str(store), *ON_GPU, "--machine.precision", "float32"]
        words += ["--machine.cuda_graph", graph, "--optim.iterations", "6", "--run.save_every", "3"]
        words += ["--run.log_every", "1", "--run.evaluate_every", "0", "--diffusion.projector", "8"]
        words += ["--objective", objective, "--contrastive.projector", "8"]
        run = tmp_path / graph
        assert main(["pretrain", *words, "--out", str(run)]) == 0
        losses = [record["loss"] for record in records(run) if "loss" in record]
        state = {}
        for file in (run / "checkpoints" / "step-00000006").glob("*.safetensors"):
            state |= load_file(file) if file.stem != "optimizer" else {}
        found.append((losses, state))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    for key, value in found[1][1].items():
        assert difference(found[0][1][key] + 1e-6, value + 1e-6) < 1e-2, key
        assert "num_batches" not in key or int(value) == 6


class Looks(nn.Module):
    """Looks at a value, so that no graph can be made of it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x).square().mean()
        return y if float(y) > 0 else -y


def test_a_graph_adds_the_gradients_of_micro_batches(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    found = []
    for graph, accumulate in (("true", "2"), ("false", "2"), ("false", "1")):
        words = [*TINY_PRETRAIN, "--data.store", str(store), *ON_GPU, "--machine.precision", "float32"]
        words += ["--machine.cuda_graph", graph, "--optim.iterations", "4", "--optim.accumulate", accumulate]
        words += ["--model.overrides.batch_norm", "false"]  # whose statistics are those of micro-batches
        run = tmp_path / f"{graph}-{accumulate}"
        flags = ["--run.log_every", "1", "--run.evaluate_every", "0"]
        assert main(["pretrain", *words, *flags, "--out", str(run)]) == 0
        found.append([record["loss"] for record in records(run) if "loss" in record])
    assert found[0] == pytest.approx(found[2], rel=1e-4)
    assert found[1] == pytest.approx(found[2], rel=1e-4)


def test_what_cannot_be_recorded_is_computed_as_usual(capsys: pytest.CaptureFixture[str]) -> None:
    module, x = Looks().cuda(), torch.randn(5, 3, device="cuda")

    def eager(inputs: tuple[Tensor, ...]) -> Tensor:
        loss = module(*inputs)
        loss.backward()
        return loss.detach()

    step = GraphedBackward(module, eager)
    for _ in range(3):
        module.zero_grad(set_to_none=True)
        loss = step((x,))
        gradient = module.layer.weight.grad.clone()
        module.zero_grad(set_to_none=True)
        usual = module(x)
        usual.backward()
        assert torch.equal(loss, usual.detach())
        assert torch.equal(gradient, module.layer.weight.grad)
    assert "no CUDA graph" in capsys.readouterr().err
