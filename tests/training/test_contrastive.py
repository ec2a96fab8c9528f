"""Runs of stage 1 that learn by contrast, alone or beside diffusion: data, learning, resuming, and what takes them."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gaitdiff.cli import main
from gaitdiff.config.recipe import parse_config
from gaitdiff.config.schema import NO_AUGMENT, AugmentConfig, PretrainConfig
from gaitdiff.data.batches import PretrainBatches, training_rows
from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError
from gaitdiff.training import pretexts
from gaitdiff.training.pretrain import PretrainStage, load_objective
from refusals import refused
from worlds import TINY_PRETRAIN, TINY_SCRATCH, make_store, records

CONTRAST = (*TINY_PRETRAIN, "--objective", "contrastive", "--machine.precision", "float32")
BOTH = (*TINY_PRETRAIN, "--objective", "both", "--machine.precision", "float32")
PACE = ("--run.log_every", "1", "--run.evaluate_every", "3", "--run.save_every", "3", "--optim.iterations", "6")
PROJECTOR = ("--contrastive.projector", "8")


def batches(store: SequenceStore, objective: str, same_clip: bool = False) -> PretrainBatches:
    return PretrainBatches(
        store,
        training_rows(store, 1),
        batch=4,
        latent_frames=3,
        gait_frames=2,
        sampling="unordered",
        augment=AugmentConfig(),
        same_clip=same_clip,
        seed=3,
        objective=objective,
    )


def stage(store: Path, *flags: str) -> PretrainStage:
    argv = [*flags, "--data.store", str(store), "--out", "none"]
    return PretrainStage(parse_config(PretrainConfig, "gaitdiff pretrain", argv), torch.device("cpu"), world_size=1)


# --- data ------------------------------------------------------------------------------------------------------


def test_every_objective_sees_the_same_sequences_and_gait_clips(store: Path) -> None:
    opened = SequenceStore(store)
    diffusion, contrast, both = (batches(opened, name)(5) for name in ("diffusion", "contrastive", "both"))
    for other in (contrast, both):
        assert np.array_equal(other.sequence, diffusion.sequence)
        assert np.array_equal(other.gait, diffusion.gait)
        assert np.array_equal(other.gait_plan.homography, diffusion.gait_plan.homography)
    assert np.array_equal(both.latent, diffusion.latent)
    assert np.array_equal(both.second, contrast.second)
    assert [len(clips[0]) for clips in (diffusion.second, contrast.latent, contrast.second)] == [0, 0, 2]


def test_second_clips_are_other_clips_of_the_same_sequence(store: Path) -> None:
    opened = SequenceStore(store)
    make, other = batches(opened, "contrastive"), 0
    for step in range(4):
        batch = make(step)
        for i, row in enumerate(batch.sequence):
            frames = {frame.tobytes() for frame in opened[int(row)].frames}
            assert all(frame.tobytes() in frames for frame in batch.second[i])
            other += not np.array_equal(batch.second[i], batch.gait[i])
        assert not np.array_equal(batch.second_plan.homography, batch.gait_plan.homography)
        assert np.array_equal(make(step).second, batch.second)
    assert other >= 12  # of 16; two frames of six are the same now and then


def test_one_clip_cannot_be_compared_with_itself(store: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.same_clip is true, but the objective is both"):
        batches(SequenceStore(store), "both", same_clip=True)
    flags = ("--objective", "contrastive", "--data.same_clip", "true")
    assert "same_clip" in refused("pretrain", "--data.store", store, "--out", tmp_path / "run", *flags)


# --- learning --------------------------------------------------------------------------------------------------


def test_it_learns(tmp_path: Path) -> None:
    """Features that tell nothing have the loss log(2n - 1); bars of twelve widths are soon told apart."""
    store, run = make_store(tmp_path / "store", people=14, sequences=1), tmp_path / "run"
    flags = ["--optim.lr", "0.003", "--optim.iterations", "60", "--optim.batch", "8"]
    flags += ["--run.log_every", "10", "--run.evaluate_every", "0", "--contrastive.projector", "64"]
    flags += [word for name in asdict(NO_AUGMENT) for word in (f"--augment.{name}", "0")]
    assert main(["pretrain", *CONTRAST, *flags, "--data.store", str(store), "--out", str(run)]) == 0
    logged = records(run)
    assert logged[-1]["loss"] < 0.25 * math.log(15)
    assert logged[-1]["an"] > 5 * logged[-1]["ap"]
    assert not {"gap_shuffled", "gap_dropped", "gap_loss", "gap_by_noise"} & {key for r in logged for key in r}


def test_no_denoiser_and_no_autoencoder_are_made(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("build_objective", "load_autoencoder"):
        monkeypatch.delattr(pretexts, name)
    made = stage(store, *CONTRAST, *PROJECTOR, "--diffusion.start", "nowhere", "--diffusion.autoencoder", "none")
    assert set(made.tensors()) == {"backbone", "projector"}
    assert set(stage(store, *CONTRAST).tensors()) == {"backbone"}
    inputs = made.inputs(made.make_batch(0, 0), 0, 0)
    assert [tuple(value.shape) for value in inputs] == [(4, 2, 64, 44), (4, 2, 64, 44), (4,)]


def test_a_backbone_has_no_denoiser_to_wait_for(store: Path) -> None:
    hold = ("--optim.hold_backbone", "4", "--optim.iterations", "100")
    made, other = stage(store, *CONTRAST, *hold), stage(store, *BOTH, *hold)
    assert made.lr_factors(1) == (1.0, 1.0)
    assert other.lr_factors(1) == (1.0, 0.0)


def test_both_begin_where_each_begins_alone(store: Path) -> None:
    """The same weights at first, so that what differs is the objective."""
    made = {name: stage(store, *TINY_PRETRAIN, "--objective", name) for name in ("diffusion", "contrastive", "both")}
    for stem, tensors in made["diffusion"].tensors().items():
        assert all(torch.equal(value, made["both"].tensors()[stem][key]) for key, value in tensors.items())
    backbone = made["contrastive"].tensors()["backbone"]
    assert all(torch.equal(value, made["both"].tensors()["backbone"][key]) for key, value in backbone.items())


# --- runs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [CONTRAST, (*CONTRAST, *PROJECTOR), (*BOTH, *PROJECTOR)])
def test_a_run_goes_on_to_the_bit(flags: tuple[str, ...], store: Path, tmp_path: Path) -> None:
    run, kept = tmp_path / "run", tmp_path / "kept"
    words = ["pretrain", *flags, *PACE, "--run.keep", "0", "--data.store", str(store), "--out", str(run)]
    assert main(words) == 0
    before = records(run)
    (run / "checkpoints" / "step-00000006").rename(kept)  # as if it had been killed before
    assert main(words) == 0
    assert records(run) == before
    for file in kept.glob("*.safetensors"):
        one, other = load_file(file), load_file(run / "checkpoints" / "step-00000006" / file.name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_objective_of_a_run_stays(store: Path, out: Path) -> None:
    words = ["pretrain", *PACE, "--data.store", str(store), "--out", str(out)]
    assert main([*words, *CONTRAST]) == 0
    longer = (*words[1:], "--optim.iterations", "9")
    assert "objective = 'contrastive', not 'both'" in refused("pretrain", *longer, "--objective", "both")
    changed = refused("pretrain", *longer, "--objective", "both", "--run.change", "true")
    assert "objective cannot change" in changed


def test_what_takes_a_run_takes_one_of_contrast(store: Path, tmp_path: Path) -> None:
    run, tuned = tmp_path / "run", tmp_path / "tuned"
    words = ["--data.store", str(store), *PACE]
    assert main(["pretrain", *CONTRAST, *PROJECTOR, *words, "--out", str(run)]) == 0
    with pytest.raises(UserError, match="learned by contrast alone"):
        load_objective(run, torch.device("cpu"))
    second = [*TINY_SCRATCH[8:], *words]
    assert main(["finetune", *second, "--init", str(run), "--out", str(tuned)]) == 0
    assert main(["evaluate", str(run), "--data", str(store), "--device", "cpu"]) == 0
    assert main(["report", str(run), str(tuned), "--device", "cpu"]) == 0
    page = (run / "report" / "index.html").read_text()
    assert "has no denoiser" in page
    assert "telling which two clips are of one sequence" in page
    assert 'aria-label="Condition gap' not in page
    settings = ("optim.iterations=2", "batch.people=2", "batch.sequences=2", "data.frames=2", "machine.threads=1")
    curve = ["label-curve", str(run), "--data", str(store), "--out", str(tmp_path / "curve"), "--people", "all"]
    assert main([*curve, "--seeds", "1", "--device", "cpu", *(w for s in settings for w in ("--set", s))]) == 0


def test_both_log_what_each_does(store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(["pretrain", *BOTH, *PACE, "--data.store", str(store), "--out", str(run)]) == 0
    logged = [record for record in records(run) if "loss" in record]
    assert all({"gap_shuffled", "contrastive_loss", "ap", "an"} <= record.keys() for record in logged)
    assert sum("gap_by_noise" in record for record in records(run)) == 3
    assert load_objective(run, torch.device("cpu")).denoiser is not None
    assert main(["report", str(run), "--device", "cpu"]) == 0
    assert "by helping the denoiser, and by telling" in (run / "report" / "index.html").read_text()
