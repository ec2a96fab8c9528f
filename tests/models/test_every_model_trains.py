"""Every model through both stages: pretraining, fine-tuning from it, evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import gaitdiff
from gaitdiff.config.recipe import parse_config
from gaitdiff.config.schema import NO_AUGMENT, FinetuneConfig, LossConfig, ModelConfig, PretrainConfig
from gaitdiff.data.batches import IdentityBatches
from gaitdiff.errors import UserError
from gaitdiff.training.finetune import FinetuneStage, cross_entropy_weight, finetune
from gaitdiff.training.pretrain import pretrain
from worlds import make_store

#: The paper's clips of each model, and DeepGaitV2's.
SAMPLING = {"gaitpart": "ordered", "gaitgl": "consecutive", "deepgaitv2": "ordered"}
MACHINE = ["--machine.device", "cpu", "--run.evaluate_every", "2", "--run.save_every", "2", "--optim.iterations", "2"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("data") / "store", frames=5)


def model_flags(name: str) -> list[str]:
    return ["--model.name", name, "--model.preset", "tiny"]


@pytest.mark.parametrize("name", gaitdiff.list_models())
def test_both_stages(name: str, store: Path, tmp_path: Path) -> None:
    data = ["--data.store", str(store)]
    first = ["--data.latent_frames", "2", "--data.gait_frames", "4", "--optim.batch", "4", "--optim.warmup", "1"]
    denoiser = ["--diffusion.denoiser", "walkers", "--diffusion.autoencoder", "student"]
    words = ["--out", str(tmp_path / "one"), *data, *first, *denoiser, *model_flags(name), *MACHINE]
    pretrained = pretrain(parse_config(PretrainConfig, "gaitdiff", words))
    second = ["--data.frames", "3", "--data.frames_max", "5", "--batch.people", "3", "--batch.sequences", "2"]
    words = ["--out", str(tmp_path / "two"), *data, *second, "--init", str(pretrained), *MACHINE]
    tuned = finetune(parse_config(FinetuneConfig, "gaitdiff", words))
    for run in (pretrained, tuned):
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert all(np.isfinite(record["loss"]) for record in records if "loss" in record)
        assert [record["step"] for record in records if "evaluation" in record] == [0, 2]
    model = gaitdiff.load_checkpoint(tuned)
    assert model.backbone.sampling == SAMPLING.get(name, "unordered")
    with torch.no_grad():
        output = model(torch.rand(2, 4, 64, 44))
    assert output.embedding.isfinite().all()
    classified = name in ("smplgait", "gaitbase", "deepgaitv2")
    assert (output.logits is not None) == classified
    before = gaitdiff.load_checkpoint(pretrained).backbone.state_dict()
    assert any(not torch.equal(value, before[key]) for key, value in model.backbone.state_dict().items())


def test_weight_of_the_cross_entropy() -> None:
    def weight(name: str, given: float | None, **overrides: object) -> float:
        return cross_entropy_weight(LossConfig(cross_entropy=given), ModelConfig(name, "gait3d", overrides))

    assert [weight(name, None) for name in ("gaitset", "gaitpart", "gaitgl")] == [0, 0, 0]
    assert [weight(name, None) for name in ("smplgait", "gaitbase", "deepgaitv2")] == [0.1, 0.1, 0.1]
    assert weight("gaitgl", 1.0) == 1.0
    assert weight("smplgait", 0.0) == 0.0
    with pytest.raises(UserError, match="gaitset has no classifier"):
        weight("gaitset", 0.1)


def test_clips_of_a_step_have_one_drawn_length(store: Path) -> None:
    opened = gaitdiff.SequenceStore(store)
    rows = opened.select(split="train")

    def batches(**frames: int) -> IdentityBatches:
        return IdentityBatches(opened, rows, people=2, sequences=2, sampling="unordered", augment=NO_AUGMENT, **frames)

    lengths = [batches(frames=3, frames_max=6)(step).clips.shape[1] for step in range(60)]
    assert set(lengths) == {3, 4, 5, 6}
    assert lengths == [batches(frames=3, frames_max=6)(step).clips.shape[1] for step in range(60)]
    assert batches(frames=3)(0).clips.shape[1] == 3
    with pytest.raises(UserError, match=r"less than data\.frames"):
        batches(frames=6, frames_max=3)


def test_no_advice_leads_to_one_sequence_a_person(store: Path, tmp_path: Path) -> None:
    """With one sequence a person the triplet loss has no positive pair: nothing is learned, whatever the loss says."""
    opened = gaitdiff.SequenceStore(store)
    usual = {"people": 2, "frames": 3, "sampling": "unordered", "augment": NO_AUGMENT}
    rows = opened.select(split="train")
    with pytest.raises(UserError, match=r"batch\.sequences 2 or more"):
        IdentityBatches(opened, rows, sequences=1, **usual)
    with pytest.raises(UserError, match=r"give --batch\.sequences 3 or less"):
        IdentityBatches(opened, rows, sequences=4, **usual)
    seen: set[str] = set()
    alone = [row for row in rows if not (opened.rows[row].subject in seen or seen.add(opened.rows[row].subject))]
    with pytest.raises(UserError, match="gaitdiff pretrain") as caught:
        IdentityBatches(opened, np.array(alone), sequences=2, **usual)
    assert "--batch.sequences" not in str(caught.value)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_distances_of_pairs_are_logged(distance: str, store: Path) -> None:
    """Those of two sequences of one person and of two people, by plain loops; both are 0 after a collapse."""
    flags = ["--mode", "scratch", *model_flags("smplgait"), "--data.store", str(store), "--data.frames", "3"]
    flags += ["--batch.people", "3", "--batch.sequences", "2", "--loss.distance", distance, "--out", "none"]
    stage = FinetuneStage(parse_config(FinetuneConfig, "gaitdiff", [*flags, *MACHINE]), torch.device("cpu"), 1)
    batch = stage.make_batch(0, 0)
    logged = stage.diagnostics(batch, stage.inputs(batch, 0, 0))
    clips, labels = stage._inputs(batch)
    with torch.no_grad():
        x = stage.module.model.eval()(clips).embedding.double().numpy()
    found: dict[bool, list[float]] = {True: [], False: []}
    for i in range(len(x)):
        for j in range(len(x)):
            if i == j:
                continue
            parts = range(x.shape[2])
            if distance == "euclidean":
                each = [np.linalg.norm(x[i, :, p] - x[j, :, p]) for p in parts]
            else:
                norms = [np.linalg.norm(x[i, :, p]) * np.linalg.norm(x[j, :, p]) for p in parts]
                each = [1 - x[i, :, p] @ x[j, :, p] / norms[p] for p in parts]
            found[bool(labels[i] == labels[j])].append(float(np.mean(each)))
    assert logged["ap"] == pytest.approx(np.mean(found[True]), rel=1e-4)
    assert logged["an"] == pytest.approx(np.mean(found[False]), rel=1e-4)
    if distance == "euclidean":
        torch.nn.init.zeros_(stage.module.model.head.fc.weight)
        collapsed = stage.diagnostics(batch, stage.inputs(batch, 0, 0))
        assert collapsed["ap"] == collapsed["an"] == 0
