"""The best checkpoint by a score on validation people: the right one, through a kill too, and evaluated like others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gaitdiff.cli import main
from gaitdiff.data.split import split_store
from gaitdiff.training.checkpoint_files import find_damage
from gaitdiff.training.run_folder import read_metrics
from worlds import TINY_PRETRAIN, TINY_SCRATCH, make_store

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
