"""The best checkpoint, by validation people or without labels: the right one, through a kill too; and patience."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gaitdiff import load_checkpoint
from gaitdiff.cli import main
from gaitdiff.config.recipe import parse_config
from gaitdiff.config.schema import PretrainConfig
from gaitdiff.data.clips import crop_sides
from gaitdiff.data.split import split_store
from gaitdiff.diffusion.objective import pair_distances
from gaitdiff.training.checkpoint_files import find_damage
from gaitdiff.training.finetune import FinetuneStage
from gaitdiff.training.pretrain import PretrainStage
from gaitdiff.training.run_folder import read_metrics
from worlds import TINY_PRETRAIN, TINY_SCRATCH, in_two, make_store

PACE = ("--optim.iterations", "5", "--run.evaluate_every", "1", "--run.save_every", "1", "--run.keep", "9")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("split")
    return split_store(make_store(folder / "whole", people=12, test_people=3), folder / "store", 4)


def weights(checkpoint: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in checkpoint.glob("*.safetensors")}


def first_best(run: Path, key: str) -> int:
    """The first step with the highest score."""
    scores = {r["step"]: r["evaluation"][key] for r in read_metrics(run) if "evaluation" in r and r["step"] > 0}
    return max(scores, key=lambda step: (scores[step], -step))


@pytest.mark.parametrize("verb", ["pretrain", "finetune"])
def test_the_best_one_is_kept(verb: str, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny, key = (TINY_PRETRAIN, "mAP_cosine") if verb == "pretrain" else (TINY_SCRATCH, "mAP")
    words = [verb, *tiny, *PACE, "--run.best", "mAP", "--data.store", str(store), "--optim.lr", "0.01"]
    run = tmp_path / "run"
    assert main([*words, "--out", str(run)]) == 0
    best = first_best(run, key)
    assert weights(run / "best") == weights(run / "checkpoints" / f"step-{best:08d}")
    assert find_damage(run / "best") == ""
    assert f"step {best} is the best so far, mAP" in capsys.readouterr().err
    # Scores are of validation people, and evaluate gives the same.
    file = tmp_path / "scores.json"
    flags = ["--data", str(store), "--split", "val", "--device", "cpu", "--json", str(file)]
    assert main(["evaluate", str(run / "best"), *flags]) == 0
    assert "validation people: probes: 4 sequences" in capsys.readouterr().out
    (scores,) = [row for name, row in json.loads(file.read_text()).items() if name in ("embeddings", "raw features")]
    (kept,) = [r["evaluation"][key] for r in read_metrics(run) if "evaluation" in r and r["step"] == best]
    assert scores["mAP"] == pytest.approx(kept, abs=0.01)
    # Stopped after each step, it keeps the same one.
    for stop in range(1, 5):
        other = tmp_path / f"stopped-{stop}"
        shutil.copytree(run, other)
        for step in range(stop + 1, 6):
            shutil.rmtree(other / "checkpoints" / f"step-{step:08d}")
        if first_best(run, key) > stop:  # it was not there yet
            shutil.rmtree(other / "best")
        assert main([*words, "--out", str(other)]) == 0
        assert weights(other / "best") == weights(run / "best")


def test_test_people_choose_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, run = make_store(tmp_path / "store"), tmp_path / "run"
    assert main(["finetune", *TINY_SCRATCH, *PACE, "--data.store", str(whole), "--out", str(run)]) == 0
    assert not (run / "best").exists()
    assert main(["evaluate", str(run), "--data", str(whole), "--split", "val", "--device", "cpu"]) == 2
    assert "gaitdiff data split sets people aside" in capsys.readouterr().err


def test_a_score_that_there_is_not(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["finetune", *TINY_SCRATCH, *PACE, "--data.store", str(store), "--out", str(tmp_path / "run")]
    assert main([*words, "--run.best", "rank2"]) == 2
    assert "run.best is 'rank2', but goes by one of rank1, " in capsys.readouterr().err
    assert main([*words, "--run.best", "rank1_whitened"]) == 2  # which pretraining has
    assert "run.best is 'rank1_whitened', but goes by one of rank1, " in capsys.readouterr().err
    pretrain = ["pretrain", *TINY_PRETRAIN, *PACE, "--data.store", str(store), "--out", str(tmp_path / "pretrain")]
    assert main([*pretrain, "--run.best", "mAP_linear"]) == 2  # without run.linear_probe
    assert "the scores also with one of _cosine, _euclidean, _whitened" in capsys.readouterr().err


def test_a_score_that_the_protocol_has_not(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is refused by the scores before the first step."""
    monkeypatch.setattr(FinetuneStage, "evaluate", lambda stage: {"rank1": 50.0})
    words = ["finetune", *TINY_SCRATCH, *PACE, "--data.store", str(store), "--out", str(tmp_path / "run")]
    assert main([*words, "--run.best", "mAP"]) == 2
    assert "run.best is 'mAP', but the scores of" in capsys.readouterr().err
    assert [record["step"] for record in read_metrics(tmp_path / "run")] == [0]


def test_what_is_kept_is_the_best_by_what_is_asked_for_now(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Best by rank-1 is step 1, by mAP step 2 of three; then step 4, the only one after that."""
    scores = iter([(0, 0), (9, 1), (5, 3), (5, 2), (6, 1), (0, 0), (9, 1), (5, 3), (5, 2), (6, 1)])
    monkeypatch.setattr(FinetuneStage, "evaluate", lambda stage: dict(zip(("rank1", "mAP"), next(scores), strict=True)))
    for gone, step in ((False, 2), (True, 4)):
        run = tmp_path / f"run-{gone}"
        words = ["finetune", *TINY_SCRATCH, *PACE, "--data.store", str(store), "--out", str(run)]
        assert main([*words, "--optim.iterations", "3", "--optim.milestones", "[2]"]) == 0
        assert json.loads((run / "best" / "state.json").read_text())["step"] == 1
        if gone:
            shutil.rmtree(run / "checkpoints" / "step-00000002")
        assert main([*words, "--optim.iterations", "4", "--optim.milestones", "[2]", "--run.best", "mAP"]) == 0
        assert json.loads((run / "best" / "state.json").read_text())["step"] == step
        assert find_damage(run / "best") == ""
        assert ("its checkpoint is not there" in capsys.readouterr().err) == gone


# --- without labels, and stopping early -------------------------------------------------------------------------


def gaps(run: Path) -> dict[int, float]:
    return {r["step"]: r["pairs"]["ap_an"] for r in read_metrics(run) if "pairs" in r and r["step"] > 0}


@pytest.mark.parametrize("objective", ["diffusion", "contrastive", "both"])
def test_the_best_one_without_labels(objective: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a store that has no test people either, with averaged weights; a run that was stopped keeps the same one."""
    unlabelled, run = make_store(tmp_path / "store", test_people=0), tmp_path / "run"
    words = ["pretrain", *TINY_PRETRAIN, *PACE, "--objective", objective, "--run.best", "ap_an", "--optim.ema", "0.5"]
    words += ["--data.store", str(unlabelled), "--optim.lr", "0.01", "--machine.precision", "float32"]
    assert main([*words, "--out", str(run)]) == 0
    found = gaps(run)
    assert list(found) == [1, 2, 3, 4, 5]
    best = max(found, key=lambda step: (found[step], -step))
    assert weights(run / "best") == weights(run / "checkpoints" / f"step-{best:08d}")
    assert f"step {best} is the best so far, ap_an {found[best]:.4f}" in capsys.readouterr().err
    other = tmp_path / "stopped"
    shutil.copytree(run, other)
    for step in (3, 4, 5):
        shutil.rmtree(other / "checkpoints" / f"step-{step:08d}")
    if best > 2:
        shutil.rmtree(other / "best")
    assert main([*words, "--out", str(other)]) == 0
    assert weights(other / "best") == weights(run / "best")
    assert gaps(other) == found


def test_the_gap_is_of_what_is_kept_and_of_a_batch_that_stays(tmp_path: Path) -> None:
    """By hand from the checkpoint: other clips of training sequences, the same ones each time."""
    store, run = make_store(tmp_path / "store", test_people=0), tmp_path / "run"
    words = [*TINY_PRETRAIN, *PACE, "--optim.ema", "0.5", "--data.store", str(store), "--out", str(run)]
    words += ["--machine.precision", "float32"]
    assert main(["pretrain", *words]) == 0
    stage = PretrainStage(parse_config(PretrainConfig, "gaitdiff pretrain", words), torch.device("cpu"), 1)
    batch = stage.make_batch(10**9, 0)
    clips = stage.pretext.clips
    for step, gap in gaps(run).items():
        backbone = load_checkpoint(run / "checkpoints" / f"step-{step:08d}").backbone
        with torch.no_grad():
            latent, gait, owner = clips(batch, "latent", "gait", "owner")
            first, second = backbone(gait), backbone(crop_sides(latent))
        pairs = pair_distances(first, second, owner)
        assert gap == pytest.approx(pairs["an"] - pairs["ap"], abs=1e-6)


def test_the_best_one_is_where_another_stage_starts(store: Path, tmp_path: Path) -> None:
    run, tuned = tmp_path / "run", tmp_path / "tuned"
    words = ["--data.store", str(store), "--run.best", "mAP"]
    assert main(["pretrain", *TINY_PRETRAIN, *PACE, *words, "--out", str(run)]) == 0
    second = ["finetune", *TINY_SCRATCH[8:], *PACE, *words, "--mode", "frozen", "--init", str(run / "best")]
    assert main([*second, "--out", str(tuned)]) == 0
    held = load_file(run / "best" / "backbone.safetensors")
    kept = load_file(tuned / "best" / "backbone.safetensors")
    assert all(torch.equal(value, held[key]) for key, value in kept.items())


@pytest.mark.parametrize("verb", ["pretrain", "finetune"])
def test_patience_comes_to_an_end(
    verb: str, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By scores that are told: the third evaluation after the best one is the last, also for who starts it again."""
    tiny, kind = (TINY_PRETRAIN, PretrainStage) if verb == "pretrain" else (TINY_SCRATCH, FinetuneStage)
    told = {0: 50.0, 1: 10.0, 2: 30.0, 3: 30.0, 4: 20.0, 5: 25.0, 6: 90.0}
    asked: list[int] = []

    def evaluate(self: PretrainStage | FinetuneStage) -> dict[str, float]:
        asked.append(asked[-1] + 1 if asked else 0)
        return {"rank1": told[asked[-1]], "mAP": 1.0, "probes": 4}

    monkeypatch.setattr(kind, "evaluate", evaluate)
    run = tmp_path / "run"
    words = [verb, *tiny, *PACE, "--optim.iterations", "9", "--run.save_every", "9", "--data.store", str(store)]
    words += ["--out", str(run), "--run.patience"]
    assert main([*words, "3"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "ends after step 5 of 9: 3 evaluations were no better than that of step 2" in said
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000005"]
    assert main([*words, "3"]) == 0
    assert "ends after step 5 of 9" in " ".join(capsys.readouterr().err.split())
    assert asked[-1] == 5
    with pytest.raises(KeyError):  # a larger one goes on, beyond the scores that are told
        main([*words, "4"])
    assert asked[-1] == 7


def test_patience_with_nothing_to_go_by(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = make_store(tmp_path / "whole")  # nobody is set aside
    for verb, tiny, more in (
        ("finetune", TINY_SCRATCH, ("--data.store", str(whole))),
        ("pretrain", TINY_PRETRAIN, ("--data.store", str(whole))),
        ("pretrain", TINY_PRETRAIN, ("--data.store", str(store), "--run.evaluate_every", "0")),
    ):
        assert main([verb, *tiny, *PACE, *more, "--run.patience", "2", "--out", str(tmp_path / "run")]) == 2
        assert not (tmp_path / "run").exists()
        said = " ".join(capsys.readouterr().err.split())
        assert "run.patience is 2, but nothing tells" in said
        assert ("--run.best ap_an" in said) == (verb == "pretrain")
    words = ["finetune", *TINY_SCRATCH, *PACE, "--data.store", str(store), "--out", str(tmp_path / "run")]
    assert main([*words, "--run.best", "ap_an"]) == 2
    assert "run.best is 'ap_an', but goes by one of rank1, " in capsys.readouterr().err


def test_two_processes_end_together(store: Path, tmp_path: Path) -> None:
    """Weights that hardly move have the same gap at each evaluation: the third one ends the run, for both."""
    run = tmp_path / "run"
    words = [*TINY_PRETRAIN, *PACE, "--objective", "contrastive", "--optim.lr", "1e-18", "--optim.weight_decay", "0"]
    words += ["--model.overrides.batch_norm", "false", "--run.best", "ap_an", "--run.patience", "2"]
    words += ["--optim.ema", "0.5", "--optim.accumulate", "2", "--data.store", str(store), "--out", str(run)]
    said = " ".join(in_two("pretrain", *words).split())
    assert "ends after step 3 of 5: 2 evaluations were no better than that of step 1" in said
    assert max(path.name for path in (run / "checkpoints").iterdir()) == "step-00000003"
