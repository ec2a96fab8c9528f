"""Pretraining that starts from another run's weights."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from gaitdiff.cli import main
from gaitdiff.config.schema import ModelConfig
from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError
from gaitdiff.evaluation.outcomes import outcome_of
from gaitdiff.training.checkpoint import load_checkpoint
from gaitdiff.training.checkpoint_files import backbone_sha256, latest_checkpoint, read_tensors
from gaitdiff.training.environment import read_starts
from gaitdiff.training.pretrain import load_objective
from gaitdiff.training.run_folder import RunFolder, read_metrics
from gaitdiff.training.starting import find_start
from worlds import TINY_PRETRAIN, TINY_SCRATCH, make_store

OPTIM = ("--optim.iterations", "3", "--run.save_every", "1", "--run.log_every", "1", "--run.keep", "0")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps, and one that starts from its second."""
    folder = tmp_path_factory.mktemp("starting")
    make_store(folder / "store")
    assert main(command(folder, "first")) == 0
    start = str(folder / "first" / "checkpoints" / "step-00000002")
    assert main(command(folder, "second", "--init", start)) == 0
    return folder


def command(folder: Path, name: str, *words: str) -> list[str]:
    where = ["--data", str(folder / "store"), "--out", str(folder / name)]
    return ["pretrain", *TINY_PRETRAIN, *OPTIM, *where, *words]


def test_it_scores_at_first_what_the_checkpoint_does(made: Path) -> None:
    """And the optimiser is fresh, and steps are counted anew."""
    first, second = (read_metrics(made / name) for name in ("first", "second"))
    begun = next(record["evaluation"] for record in second if "evaluation" in record)
    store = SequenceStore(made / "store")
    model = load_checkpoint(made / "first" / "checkpoints" / "step-00000002")
    outcome = outcome_of(model.backbone, store, "auto", "cosine", torch.device("cpu"))
    assert begun["mAP_cosine"] == pytest.approx(outcome.percent("mAP"), abs=0.01)
    assert [record["step"] for record in second if "loss" in record] == [1, 2, 3]
    rates = [record["lr"] for record in second if "loss" in record]
    assert rates == [record["lr"] for record in first if "loss" in record]
    moments = read_tensors(made / "second" / "checkpoints" / "step-00000001", "optimizer")
    assert {float(value) for name, value in moments.items() if name.endswith("step")} == {1.0}


def test_a_step_without_a_rate_keeps_what_it_started_from(made: Path, tmp_path: Path) -> None:
    start = made / "first" / "checkpoints" / "step-00000002"
    words = ["--init", str(start), "--optim.lr", "1e-18", "--optim.iterations", "1", "--optim.weight_decay", "0"]
    assert (
        main(["pretrain", *TINY_PRETRAIN, "--data", str(made / "store"), "--out", str(tmp_path / "run"), *words]) == 0
    )
    kept = latest_checkpoint(tmp_path / "run")
    for part in ("backbone", "denoiser"):
        for name, value in read_tensors(start, part).items():
            if value.is_floating_point() and "running" not in name:
                torch.testing.assert_close(read_tensors(kept, part)[name], value, rtol=0, atol=0)


def test_stopped_it_needs_the_other_no_longer(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "copy")
    copy = tmp_path / "copy"
    start = str(made / "first" / "checkpoints" / "step-00000002")
    losses = [record["loss"] for record in read_metrics(made / "second") if "loss" in record]
    for step in (2, 3):
        shutil.rmtree(copy / "second" / "checkpoints" / f"step-{step:08d}")
    shutil.move(made / "first", made / "away")
    try:
        assert main(command(copy, "second", "--init", start)) == 0
    finally:
        shutil.move(made / "away", made / "first")
    assert [record["loss"] for record in read_metrics(copy / "second") if "loss" in record] == losses
    # What it started from is known all the same.
    digest = hashlib.sha256((Path(start) / "backbone.safetensors").read_bytes()).hexdigest()
    first, again = read_starts(copy / "second")
    assert first["init"] == {"checkpoint": start, "backbone_sha256": digest}
    assert "init" not in again
    assert "init" not in read_starts(made / "first")[0]


def test_weights_that_ship_give_the_backbone(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["pretrain", "--model", "smplgait", "--model.preset", "walkers", "--diffusion.denoiser", "walkers"]
    words += ["--data.latent_frames", "2", "--data.gait_frames", "2", "--optim.batch", "4", "--optim.iterations", "1"]
    words += ["--data", str(made / "store"), "--out", str(made / "shipped"), "--machine.device", "cpu"]
    assert main([*words, "--init", "walkers", "--run.evaluate_every", "0"]) == 0
    assert "gives backbone; denoiser and pooling: as without it" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("--init", "nowhere"), "nowhere"),
        (("--init", "walkers"), "not smplgait (walkers) with these settings"),
    ],
)
def test_mistakes(made: Path, words: tuple[str, ...], key: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(made, "bad", *words)) == 2
    assert key in capsys.readouterr().err
    assert not (made / "bad").exists()


def test_a_folder_of_data_does_not_hide_weights_that_ship(
    tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = latest_checkpoint(Path("walkers"))
    make_store(tmp_path / "walkers")
    assert latest_checkpoint(Path("walkers")) == shipped
    shutil.rmtree("walkers")
    shutil.copytree(made / "first", "walkers")
    assert latest_checkpoint(Path("walkers")).parent == Path("walkers", "checkpoints")


def test_a_run_without_a_denoiser_gives_no_objective(made: Path, tmp_path: Path) -> None:
    words = ["finetune", *TINY_SCRATCH, "--optim.iterations", "1", "--run.evaluate_every", "0"]
    assert main([*words, "--data", str(made / "store"), "--out", str(tmp_path / "fine")]) == 0
    with pytest.raises(UserError, match="is a run of gaitdiff finetune: give one of gaitdiff pretrain"):
        load_objective(tmp_path / "fine", "cpu")
    assert load_objective(str(made / "first"), "cpu").training is False


def test_weights_of_other_models_are_not_hidden_either(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_store(tmp_path / "walkers")
    checkpoint, model = find_start("walkers", ModelConfig("gaitgl", "walkers"))
    assert (checkpoint.name, model.name) == ("gaitgl", "gaitgl")
    shutil.copytree(made / "first", "walkers/run")
    assert latest_checkpoint(Path("walkers/run")).parent == Path("walkers/run/checkpoints")


def test_ones_own_damaged_run_is_not_replaced_by_weights_that_ship(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made / "first", "walkers")
    with pytest.raises(UserError, match="holds checkpoints: give walkers, or one of step-"):
        latest_checkpoint(Path("walkers/checkpoints"))
    shutil.copytree(latest_checkpoint(Path("walkers")), "walkers-wide")
    Path("walkers-wide/model.json").unlink()
    with pytest.raises(UserError, match="walkers-wide holds no checkpoint"):
        latest_checkpoint(Path("walkers-wide"))


def test_what_a_run_starts_from_may_be_gone_by_then(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own run keeps the newest checkpoints alone. The digest is that of what was loaded."""
    shutil.copytree(made / "first", tmp_path / "first")
    start = latest_checkpoint(tmp_path / "first")
    digest, opened = backbone_sha256(start), RunFolder.open

    def late(*arguments: Any, **keywords: Any) -> RunFolder:
        shutil.rmtree(start)
        return opened(*arguments, **keywords)

    monkeypatch.setattr(RunFolder, "open", late)
    words = ["pretrain", *TINY_PRETRAIN, *OPTIM, "--data", str(made / "store"), "--out", str(tmp_path / "next")]
    assert main([*words, "--init", str(start)]) == 0
    assert read_starts(tmp_path / "next")[0]["init"] == {"checkpoint": str(start), "backbone_sha256": digest}
