"""A run that goes on otherwise than it began: made longer, changed on purpose, elsewhere, with other versions."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from gaitdiff.cli import main
from gaitdiff.data.store import StoreWriter
from gaitdiff.errors import UserError
from gaitdiff.training.checkpoint import load_optimizer, optimizer_tensors
from gaitdiff.training.checkpoint_files import latest_checkpoint
from gaitdiff.training.run_folder import read_metrics
from worlds import TINY_PRETRAIN, TINY_SCRATCH, make_store

PACE = ("--run.log_every", "1", "--run.evaluate_every", "0")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store")


def words(stage: str, store: Path, run: Path, *more: str) -> list[str]:
    tiny = TINY_PRETRAIN if stage == "pretrain" else TINY_SCRATCH
    return [stage, *tiny, *PACE, "--data.store", str(store), "--out", str(run), *more]


def test_pretraining_is_made_longer_on_purpose(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its learning rate had fallen to zero and rises again, which is said and kept."""
    run = tmp_path / "run"
    assert main(words("pretrain", store, run, "--optim.iterations", "3")) == 0
    longer = words("pretrain", store, run, "--optim.iterations", "6")
    before = (run / "config.yaml").read_bytes()
    assert main(longer) == 2
    assert "optim.iterations = 3, not 6" in capsys.readouterr().err
    assert (run / "config.yaml").read_bytes() == before
    assert main([*longer, "--run.change", "true"]) == 0
    said = capsys.readouterr().err
    assert "optim.iterations is 6 instead of 3" in said
    rates = {record["step"]: record["lr"][0] for record in read_metrics(run) if "lr" in record}
    assert rates[4] > rates[3]
    assert f"from step 4 on the learning rate is {rates[4]:.3g}, {rates[3]:.3g} before" in said
    (change,) = [record for record in read_metrics(run) if "changed" in record]
    assert (change["step"], change["changed"]) == (3, {"optim.iterations": [3, 6]})
    assert yaml.safe_load((run / "config.yaml").read_text())["optim"]["iterations"] == 6
    assert latest_checkpoint(run).name == "step-00000006"


def test_all_that_is_other_is_named(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(words("finetune", store, run, "--optim.iterations", "2")) == 0
    assert main(words("finetune", store, run, "--optim.lr", "0.5", "--seed", "7")) == 2
    sentence = capsys.readouterr().err
    assert "optim.lr" in sentence
    assert "seed = 0, not 7" in sentence
    assert "--run.change true" in sentence
    assert main(words("pretrain", store, run)) == 2
    assert "holds a run of gaitdiff finetune, not pretrain" in capsys.readouterr().err


def test_a_finished_run_stays_as_it_is(store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(words("finetune", store, run, "--optim.iterations", "2")) == 0
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    assert main(words("finetune", store, run, "--optim.iterations", "2", "--run.log_every", "9")) == 0
    assert {path: path.read_bytes() for path in files} == files


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (("--optim.iterations", "3"), "has taken 4 steps already, so that optim.iterations changes nothing"),
        (("--optim.iterations", "4", "--optim.batch", "5"), "so that optim.batch changes nothing"),
        (("--optim.iterations", "6", "--model.overrides.channels", "[4, 4, 4]"), "model.overrides.channels cannot"),
        (("--optim.iterations", "6", "--diffusion.projector", "8"), "diffusion.projector cannot change"),
    ],
)
def test_a_change_that_is_none_is_refused(
    changed: tuple[str, ...], sentence: str, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(words("pretrain", store, run, "--optim.iterations", "4")) == 0
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    assert main(words("pretrain", store, run, *changed, "--run.change", "true")) == 2
    assert sentence in capsys.readouterr().err
    assert {path: path.read_bytes() for path in files} == files


@pytest.mark.parametrize("changed", [("optim.optimizer", "sgd"), ("optim.freeze_blocks", "1"), ("mode", "frozen")])
def test_what_the_optimiser_is_made_for_cannot_change(
    changed: tuple[str, str], store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start, run = tmp_path / "start", tmp_path / "run"
    assert main(words("pretrain", store, start, "--optim.iterations", "1")) == 0
    tuned = [*words("finetune", store, run, "--optim.iterations", "2"), "--mode", "finetune", "--init", str(start)]
    assert main(tuned) == 0
    key, value = changed
    assert main([*tuned, "--optim.iterations", "3", f"--{key}", value, "--run.change", "true"]) == 2
    assert f"so that {key} cannot change" in capsys.readouterr().err


def test_moments_of_other_parameters_are_refused() -> None:
    optimizers = []
    for sizes in ((3, 5, 4), (5, 4)):
        parameters = [torch.nn.Parameter(torch.ones(size)) for size in sizes]
        optimizers.append(torch.optim.AdamW(parameters))
        sum(parameter.square().sum() for parameter in parameters).backward()
        optimizers[-1].step()
    more, fewer = map(optimizer_tensors, optimizers)
    for optimizer, tensors in ((optimizers[0], fewer), (optimizers[1], more)):
        with pytest.raises(UserError, match="the optimiser's state does not fit"):
            load_optimizer(optimizer, tensors)


def test_its_own_settings_go_on_where_nobody_is_scored(tmp_path: Path) -> None:
    """ "auto" finds GREW's protocol, to whose gallery none of these walks belongs."""
    run = tmp_path / "run"
    with StoreWriter(tmp_path / "grew", height=64, width=64, source="test", dataset="grew") as writer:
        for person in range(8):
            names = {
                "subject": f"p{person}",
                "condition": "01",
                "view": "c",
                "split": "test" if person > 5 else "train",
            }
            for sequence in ("a", "b"):
                writer.add(np.full((4, 64, 64), 255, np.uint8), **names, sequence=sequence)
    assert main([*words("pretrain", tmp_path / "grew", run, "--optim.iterations", "1")]) == 0
    own = ["pretrain", "--recipe", str(run / "config.yaml"), "--out", str(run)]
    assert main([*own, "--optim.iterations", "2", "--run.change", "true"]) == 0


def test_what_is_done_is_said(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(words("finetune", store, run, "--optim.iterations", "2")) == 0
    assert main(words("finetune", store, run, "--optim.iterations", "2")) == 0
    assert "is complete after 2 iterations: a larger --optim.iterations makes it longer" in capsys.readouterr().err
    assert main(words("finetune", store, run, "--optim.iterations", "3")) == 0
    assert "run goes on after step 2" in capsys.readouterr().err


def test_other_data_of_the_same_name_are_not_taken_for_a_runs_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run's config.yaml names its data as the command did, which elsewhere may be another folder."""
    for place, people in (("here", 6), ("there", 7)):
        make_store(tmp_path / place / "walks", people=people)
    flags = (*TINY_PRETRAIN, "--optim.iterations", "1", "--run.evaluate_every", "0")
    monkeypatch.chdir(tmp_path / "here")
    assert main(["pretrain", *flags, "--data", "walks", "--out", "run"]) == 0
    monkeypatch.chdir(tmp_path / "there")
    words = ["pretrain", "--recipe", "../here/run/config.yaml", "--out", "run"]
    capsys.readouterr()
    assert main(words) == 2
    assert "walks is not the data of this name that the run of recipe" in capsys.readouterr().err
    assert not Path("run").exists()
    with pytest.raises(SystemExit, match="0"):
        main([*words, "--help"])
    assert main([*words, "--data", "walks"]) == 0
    (tmp_path / "there" / "mine.yaml").write_text("base: ../here/run/config.yaml\ndata: {store: walks}\n")
    assert main(["pretrain", "--recipe", "mine.yaml", "--out", "other"]) == 0


def test_a_run_needs_no_longer_what_it_started_from(store: Path, tmp_path: Path) -> None:
    first, run = tmp_path / "first", tmp_path / "run"
    assert main(words("pretrain", store, first, "--optim.iterations", "1")) == 0
    flags = (
        "--mode",
        "finetune",
        "--init",
        str(first),
        "--model.name",
        "",
        "--model.preset",
        "gait3d",
        "--model.overrides",
        "{}",
    )
    start = words("finetune", store, run, *flags, "--optim.iterations", "2")
    assert main(start) == 0
    shutil.rmtree(first)
    longer = words("finetune", store, run, *flags, "--optim.iterations", "3")
    assert main(longer) == 0
    assert latest_checkpoint(run).name == "step-00000003"


def test_the_same_place_is_the_same_however_it_is_written(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, run = tmp_path / "first", tmp_path / "run"
    assert main(words("pretrain", store, first, "--optim.iterations", "1")) == 0
    flags = ("--mode", "finetune", "--model.name", "", "--model.preset", "gait3d", "--model.overrides", "{}")
    assert main(words("finetune", store, run, *flags, "--optim.iterations", "1", "--init", str(first))) == 0
    monkeypatch.chdir(tmp_path)
    assert (
        main(words("finetune", Path("store"), Path("run"), *flags, "--optim.iterations", "1", "--init", "./first")) == 0
    )


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_least_length_that_leaves_out_nobody_else_is_no_change(
    stage: str, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All walks have six frames."""
    run = tmp_path / "run"
    assert main(words(stage, store, run, "--optim.iterations", "2")) == 0
    assert main(words(stage, store, run, "--optim.iterations", "2", "--data.min_frames", "5")) == 0
    with StoreWriter(tmp_path / "mixed", source="test") as writer:
        for person in range(6):
            for walk in range(3):
                clip = np.full((6 if walk else 4, 64, 64), 255, np.uint8)
                writer.add(clip, subject=f"{person}", condition="", view="", sequence=f"{walk}", split="train")
    run = tmp_path / "other"
    assert main(words(stage, tmp_path / "mixed", run, "--optim.iterations", "2")) == 0
    capsys.readouterr()
    assert main(words(stage, tmp_path / "mixed", run, "--optim.iterations", "2", "--data.min_frames", "5")) == 2
    assert "data.min_frames = 2, not 5" in capsys.readouterr().err


def test_other_versions_are_said(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(words("finetune", store, run, "--optim.iterations", "1")) == 0
    file = run / "config.yaml"
    config = yaml.safe_load(file.read_text())
    assert set(config["made_with"]) == {"gaitdiff", "python", "torch", "device"}
    file.write_text(yaml.safe_dump(config | {"made_with": config["made_with"] | {"torch": "1.0"}}))
    assert main(words("finetune", store, run, "--optim.iterations", "2")) == 0
    assert re.search(r"instead of 1\.0: its numbers may differ in their last digits", capsys.readouterr().err)
    assert yaml.safe_load(file.read_text())["made_with"] == config["made_with"]
    (changed,) = (record["changed"] for record in read_metrics(run) if "changed" in record)
    assert changed["made_with.torch"] == ["1.0", config["made_with"]["torch"]]


def test_another_device_is_said(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It draws other noise, and may compute in another precision."""
    run = tmp_path / "run"
    for iterations, precision in (("1", "float32"), ("2", "bfloat16"), ("3", "bfloat16")):
        flags = ("--optim.iterations", iterations, "--machine.precision", precision)
        assert main(words("finetune", store, run, *flags)) == 0
        told = "goes on with device cpu in bfloat16 instead of cpu in float32: its numbers may differ\n"
        assert (told in capsys.readouterr().err) == (iterations == "2")
