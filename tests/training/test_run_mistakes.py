"""What can go wrong with a run and its folder: one clear sentence, nothing lost or half-written."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gaitdiff.config.recipe import parse_config
from gaitdiff.config.schema import FinetuneConfig, PretrainConfig
from gaitdiff.data.store import StoreWriter
from gaitdiff.diffusion.objective import DiffusionObjective
from gaitdiff.recognition.objective import RecognitionObjective
from gaitdiff.training.finetune import finetune
from gaitdiff.training.pretrain import pretrain
from gaitdiff.training.run_folder import read_metrics
from gaitdiff.training.step import Step
from refusals import refused
from worlds import TINY_PRETRAIN, TINY_SCRATCH, gaitdiff, make_store, one_sentence, without_digests


def test_output_that_cannot_be_written(store: Path, tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("here first")
    assert "choose another --out" in refused("pretrain", "--data.store", store, "--out", blocker)
    assert "choose another --out" in refused("pretrain", "--data.store", store, "--out", blocker / "below")
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("precious")
    assert "choose another --out" in refused("pretrain", "--data.store", store, "--out", other)
    assert [path.name for path in other.iterdir()] == ["thesis.tex"]


def test_other_settings_do_not_continue_a_run(store: Path, out: Path) -> None:
    words = ["pretrain", *TINY_PRETRAIN, "--data.store", store, "--out", out, "--optim.iterations", "2"]
    assert gaitdiff(*words).returncode == 0
    config = (out / "config.yaml").read_text()
    sentence = refused("pretrain", "--data.store", store, "--out", out, "--optim.iterations", "3")
    assert "optim.iterations = 2, not 3" in sentence
    assert (out / "config.yaml").read_text() == config


def test_loss_that_is_no_number_stops_and_keeps_the_batch(store: Path, out: Path) -> None:
    sentence = refused(
        "pretrain",
        *("--data.store", store, "--out", out, "--optim.iterations", "20", "--optim.lr", "1e18"),
        *("--optim.clip_grad", "0", "--run.evaluate_every", "0", "--run.save_every", "1"),
    )
    assert "no weight was changed" in sentence
    (kept,) = out.glob("nonfinite-step-*")
    assert str(kept) in sentence
    with np.load(kept / "batch-process-0.npz") as batch:
        assert batch["latent"].shape == (4, 2, 64, 64)
        assert batch["gait"].dtype == np.uint8
        assert batch["gait_plan.homography"].shape == (4, 3, 3)
    assert_weights_are_finite(out)
    # What is kept is a run that stands before the step: the same settings repeat it at once.
    flags = ("--optim.iterations", "20", "--optim.lr", "1e18", "--optim.clip_grad", "0", "--run.evaluate_every", "0")
    again = refused("pretrain", "--data.store", store, "--out", kept, *flags)
    assert again.split(", no weight")[0] == sentence.split(", no weight")[0]


def assert_weights_are_finite(run: Path) -> None:
    for checkpoint in (run / "checkpoints").glob("step-*"):
        for file in checkpoint.glob("*.safetensors"):
            assert all(tensor.isfinite().all() for tensor in load_file(file).values()), file


def poison(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Give the gradient of a step, counted from 1, no number; its loss has one."""
    real, calls = DiffusionObjective.forward, []

    def poisoned(self: DiffusionObjective, *inputs: Any) -> torch.Tensor:
        loss = real(self, *inputs)
        calls.append(loss)
        if len(calls) == step:
            loss.register_hook(lambda grad: grad * float("nan"))
        return loss

    monkeypatch.setattr(DiffusionObjective, "forward", poisoned)


def test_gradient_that_is_no_number_changes_no_weight(store: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finite loss with a gradient that is not finite stops the run before the optimiser's step."""
    poison(monkeypatch, 3)
    flags = ("--optim.iterations", "6", "--run.evaluate_every", "0", "--run.save_every", "1")
    sentence = refused("pretrain", "--data.store", store, "--out", out, *flags)
    assert "step 3" in sentence
    assert_weights_are_finite(out)
    assert max(path.name for path in (out / "checkpoints").iterdir()) == "step-00000002"


def test_a_step_that_is_found_later_is_kept_as_one_found_at_once(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU losses are read at lines of metrics: then the weights are still those before the step."""
    flags = [*TINY_PRETRAIN, "--optim.iterations", "9", "--run.log_every", "7", "--run.evaluate_every", "0"]
    kept, sentences = [], []
    for eager in (True, False):
        monkeypatch.undo()
        poison(monkeypatch, 3)
        monkeypatch.setattr(Step, "eager", eager)
        out = tmp_path / ("at once" if eager else "later")
        sentences.append(refused("pretrain", "--data.store", store, "--out", out, "--optim.ema", "0.7", *flags))
        assert [record for record in read_metrics(out) if "loss" in record] == []
        kept.append(out / "nonfinite-step-3")
    assert sentences[0].replace("at once", "later") == sentences[1]
    first, second = ({file.name: file for file in folder.rglob("*") if file.is_file()} for folder in kept)
    assert first.keys() == second.keys()
    assert {"denoiser.safetensors", "optimizer.safetensors", "raw.safetensors", "state.json"} <= first.keys()
    for name in ("denoiser.safetensors", "optimizer.safetensors"):
        assert first[name].read_bytes() == second[name].read_bytes(), name
    for name in ("backbone", "raw"):  # but for what BatchNorm has seen of later batches, which training does not read
        one, other = (load_file(files[f"{name}.safetensors"]) for files in (first, second))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one if "running" not in key and "num_b" not in key)
    with np.load(first["batch-process-0.npz"]) as one, np.load(second["batch-process-0.npz"]) as other:
        assert all(np.array_equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("eager", [True, False])
def test_a_first_step_that_fails_leaves_sgd_as_if_it_had_not_begun(
    eager: bool, store: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RecognitionObjective, "forward", lambda self, clips, labels: self.model(clips).logits.sum() / 0)
    monkeypatch.setattr(Step, "eager", eager)
    flags = ["--optim.optimizer", "sgd", "--optim.iterations", "4", "--run.log_every", "3", "--run.evaluate_every", "0"]
    sentence = refused("finetune", *TINY_SCRATCH, "--data.store", store, "--out", out, *flags)
    assert "the loss of step 1 is" in sentence
    kept = load_file(next(out.glob("nonfinite-step-1/checkpoints/*/optimizer.safetensors")))
    assert not any(value.any() for value in kept.values())


def limited() -> None:
    """Files beyond 300 kB fail, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))


def test_full_disk_while_saving_keeps_the_old_checkpoint(store: Path, out: Path) -> None:
    flags = [*TINY_PRETRAIN, "--data.store", str(store), "--run.save_every", "2", "--run.evaluate_every", "0"]
    words = [sys.executable, "-m", "gaitdiff", "pretrain", *flags, "--optim.iterations", "4", "--out", str(out)]
    # A first checkpoint is written whole; then no file may grow, then all is well again.
    whole = out.parent / "whole"
    done = gaitdiff("pretrain", *flags, "--optim.iterations", "4", "--run.keep", "9", "--out", whole)
    assert done.returncode == 0, done.stderr
    out.mkdir()
    (out / "checkpoints").mkdir()
    (whole / "checkpoints" / "step-00000002").rename(out / "checkpoints" / "step-00000002")
    (out / "config.yaml").write_text((whole / "config.yaml").read_text().replace("keep: 9", "keep: 2"))
    before = {path.name: path.read_bytes() for path in (out / "checkpoints" / "step-00000002").iterdir()}
    full = subprocess.run(words, capture_output=True, text=True, preexec_fn=limited, check=False)
    assert "cannot be written" in one_sentence(full)
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-00000002"]
    assert {path.name: path.read_bytes() for path in (out / "checkpoints" / "step-00000002").iterdir()} == before
    again = subprocess.run(words, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    ours, theirs = (run / "checkpoints" / "step-00000004" / "backbone.safetensors" for run in (out, whole))
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("config.yaml", b"stage: [", "config.yaml is damaged"),
        ("config.yaml", b"\xff\xfe", "config.yaml is damaged"),
        ("config.yaml", b"stage: pretrain\noptim: 3\n", "config.yaml is damaged (it lacks optim)"),
        ("config.yaml", b"stage: pretrain\nout: here\n", "config.yaml is damaged (it lacks data.store)"),
        ("config.yaml", b"stage: sleep\n", "config.yaml is damaged (it lacks its stage)"),
        ("config.yaml", b"stage: pretrain\ndata: {latent_frames: abc}\n", "data.latent_frames cannot be 'abc'"),
        ("config.yaml", b"stage: pretrain\noptim: {lr: -1}\n", "optim.lr cannot be -1"),
        ("config.yaml", b"stage: finetune\nloss: {distance: far}\n", "loss.distance cannot be 'far'"),
        ("metrics.jsonl", b'{"step": 1}\n{"st\n', "damaged in line 2"),
        ("checkpoints/step-00000002/state.json", b"{}", "lacks 'step'"),
        ("checkpoints/step-00000002/model.json", b"{}", "lacks 'format'"),
        ("checkpoints/step-00000002/backbone.safetensors", b"nonsense", "backbone.safetensors cannot be read"),
        ("checkpoints/step-00000002/optimizer.safetensors", b"", "optimizer.safetensors cannot be read"),
    ],
)
def test_damaged_run_folders(file: str, content: bytes, sentence: str, store: Path, out: Path) -> None:
    flags = [*TINY_PRETRAIN, "--data.store", str(store), "--out", str(out), "--optim.iterations", "2"]
    pretrain(parse_config(PretrainConfig, "gaitdiff pretrain", flags))
    (out / file).write_bytes(content)
    without_digests(out / "checkpoints" / "step-00000002")
    if file.endswith("model.json"):
        where = ("--data.store", store, "--out", out.parent / "next", "--mode", "finetune", "--model.name", "")
        assert sentence in refused(
            "finetune", *where, "--model.preset", "gait3d", "--model.overrides", "{}", "--init", out
        )
    else:
        assert sentence in refused("pretrain", "--data.store", store, "--out", out, "--optim.iterations", "2")


def test_other_data_does_not_continue_a_run(store: Path, tmp_path: Path, out: Path) -> None:
    flags = ["--optim.iterations", "2", "--run.evaluate_every", "0"]
    argv = [*TINY_PRETRAIN, *flags, "--data.store", str(store), "--out", str(out)]
    pretrain(parse_config(PretrainConfig, "gaitdiff pretrain", argv))
    moved = store.rename(tmp_path / "moved")
    pretrain(parse_config(PretrainConfig, "gaitdiff pretrain", [*argv, "--data.store", str(moved)]))
    other = make_store(tmp_path / "other", frames=7)
    assert f"other data ({store}, not {other}" in refused("pretrain", "--data.store", other, "--out", out, *flags)


def test_draft_of_a_killed_start_is_no_obstacle(store: Path, out: Path) -> None:
    out.mkdir()
    (out / ".config.yaml.partial").write_text("stage: pre")
    (out / "checkpoints").mkdir(parents=True)
    (out / "checkpoints").rmdir()
    argv = [*TINY_PRETRAIN, "--optim.iterations", "2", "--data.store", str(store), "--out", str(out)]
    assert pretrain(parse_config(PretrainConfig, "gaitdiff pretrain", argv)) == out.resolve()


def test_scores_that_cannot_be_written(store: Path, out: Path) -> None:
    argv = [*TINY_SCRATCH, "--optim.iterations", "1", "--data.store", str(store), "--out", str(out)]
    finetune(parse_config(FinetuneConfig, "gaitdiff finetune", argv))
    where = ("--data", store, "--device", "cpu", "--json")
    assert "its folder does not exist" in one_sentence(gaitdiff("evaluate", out, *where, out / "no" / "x.json"))
    done = gaitdiff("evaluate", out, *where, out / "x.json", "--features", "raw", "--metric", "euclidean")
    assert done.returncode == 0, done.stderr
    assert set(json.loads((out / "x.json").read_text())) == {"gait energy image", "raw features"}
    one = gaitdiff("evaluate", out, *where, out / "y.json", "--protocol", "leave-one-out")
    assert one.returncode == 0, one.stderr
    assert json.loads((out / "y.json").read_text())["embeddings"]["probes"] == 6


def test_short_walks_are_left_out_and_counted(tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One walk of one frame does not stop a run; a data set of such walks does."""
    store = tmp_path / "mixed"
    walk = np.full((6, 64, 64), 255, np.uint8)
    with StoreWriter(store, source="test") as writer:
        for person in range(4):
            for number in range(3):
                frames = walk[:1] if person == number == 0 else walk
                name = {"subject": f"p{person}", "condition": "", "view": "", "sequence": f"s{number}"}
                writer.add(frames, **name, split="train")
    flags = [*TINY_PRETRAIN, "--data.store", str(store), "--optim.iterations", "1", "--run.evaluate_every", "0"]
    pretrain(parse_config(PretrainConfig, "gaitdiff pretrain", [*flags, "--out", str(out)]))
    assert "1 of 12 training sequences" in capsys.readouterr().err
    sentence = refused("pretrain", "--data.store", store, "--out", out.parent / "next", "--data.min_frames", "7")
    assert "the longest has 6" in sentence


def test_frames_of_another_shape_are_refused(tmp_path: Path, out: Path) -> None:
    with StoreWriter(tmp_path / "wide", source="test", width=128) as writer:
        for person in range(4):
            for number in range(2):
                name = {"subject": f"p{person}", "condition": "", "view": "", "sequence": f"s{number}"}
                writer.add(np.full((6, 64, 128), 255, np.uint8), **name, split="train")
    for stage in ("pretrain", "finetune"):
        sentence = refused(stage, "--data.store", tmp_path / "wide", "--out", out)
        assert "holds frames 64 px high and 128 wide, but gait models take 64 or 128 by as many or 44 or 88" in sentence


def test_memory_that_is_not_there(store: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(self: DiffusionObjective, *inputs: Any) -> torch.Tensor:
        return torch.empty(1 << 50)

    monkeypatch.setattr(DiffusionObjective, "forward", greedy)
    sentence = refused("pretrain", "--data.store", store, "--out", out, "--run.evaluate_every", "0")
    flags = "--optim.batch 4 --data.latent_frames 2 --data.gait_frames 2"
    assert f"a step with {flags} takes more memory than there is" in sentence


#: What runs out of memory, and what is said then.
MEMORY = {
    "gaitdiff.training.pretrain.PretrainStage.make_batch": "a step with --optim.batch 4",
    "gaitdiff.models.smplgait.PlainBackbone.forward": "computing features",
    "gaitdiff.training.pretrain.evaluate_store": "scoring",
    "gaitdiff.training.pretrain.PretrainStage.measure": "measuring",
    "gaitdiff.training.loop.save_checkpoint": "saving a checkpoint",
}


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError("no place")])
@pytest.mark.parametrize(("where", "what"), MEMORY.items())
def test_memory_that_is_not_there_beside_a_step(
    where: str, what: str, error: Exception, store: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def greedy(*inputs: Any, **named: Any) -> Any:
        raise error

    monkeypatch.setattr(where, greedy)
    evaluate = ("--run.evaluate_every", "0" if what.startswith("a step") or what.startswith("saving") else "1")
    sentence = refused("pretrain", "--data.store", store, "--out", out, *evaluate, "--run.save_every", "1")
    assert what in sentence
    assert "takes more memory than there is" in sentence


def test_batches_beyond_all_memory_are_refused_at_once(store: Path, out: Path) -> None:
    for stage, setting in (
        ("pretrain", "optim.batch"),
        ("pretrain", "data.latent_frames"),
        ("finetune", "batch.people"),
        ("finetune", "data.frames"),
    ):
        sentence = refused(stage, "--data.store", store, "--out", out, f"--{setting}", "1000000000000")
        assert f"a batch with --{'optim' if stage == 'pretrain' else 'batch'}" in sentence
        assert "takes more memory than there is" in sentence
        assert not out.exists()


def test_features_beyond_numbers_name_the_remedy(store: Path, out: Path) -> None:
    """The weights are numbers, what they make is none."""
    flags = ("--optim.lr", "1e15", "--optim.iterations", "2", "--run.evaluate_every", "1")
    sentence = refused("finetune", "--data.store", store, "--out", out, *flags)
    assert "the evaluation after step 1" in sentence
    assert "lower the learning rate" in sentence


def test_scores_of_a_broken_model(store: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.optim.AdamW.step

    def broken(self: torch.optim.AdamW, *given: Any) -> None:
        real(self, *given)
        with torch.no_grad():
            self.param_groups[1]["params"][0].fill_(torch.nan)

    monkeypatch.setattr(torch.optim.AdamW, "step", broken)
    flags = ("--optim.iterations", "4", "--run.evaluate_every", "1")
    sentence = refused("pretrain", "--data.store", store, "--out", out, *flags)
    assert "the evaluation after step 1" in sentence
    assert "lower the learning rate" in sentence
