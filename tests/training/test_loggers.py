"""Trackers get what metrics.jsonl gets, once, whatever happened to the run, and change nothing of it."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gaitdiff.cli import main
from gaitdiff.training.loggers import side_by_side
from gaitdiff.training.run_folder import read_metrics
from worlds import TINY_PRETRAIN, TINY_SCRATCH, make_store

PACE = ("--run.log_every", "1", "--run.evaluate_every", "2", "--run.save_every", "2", "--optim.iterations", "4")
TRACKED = ("--run.track", "tensorboard")


def events(run: Path) -> EventAccumulator:
    found = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    found.Reload()
    return found


def numbers(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Every number of metrics.jsonl as TensorBoard names it, by step, found anew."""
    found: dict[str, list[tuple[int, float]]] = {}

    def walk(step: int, name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key in value:
                walk(step, f"{name}/{key}".strip("/"), value[key])
        elif isinstance(value, list):
            for place in range(len(value)):
                walk(step, f"{name}/{place}", value[place])
        elif isinstance(value, bool | int | float):
            found.setdefault(name, []).append((step, float(value)))

    for record in read_metrics(run):
        walk(record.pop("step"), "", record)
    return found


def same_numbers(run: Path) -> None:
    scalars, expected = events(run), numbers(run)
    assert set(scalars.Tags()["scalars"]) == set(expected)
    for name, values in expected.items():
        got = [(event.step, event.value) for event in scalars.Scalars(name)]
        assert [step for step, _ in got] == [step for step, _ in values]
        assert [value for _, value in got] == pytest.approx([value for _, value in values], rel=1e-5)


def losses(run: Path) -> list[float]:
    return [record["loss"] for record in read_metrics(run) if "loss" in record]


@pytest.mark.parametrize(("verb", "flags"), [("pretrain", TINY_PRETRAIN), ("finetune", TINY_SCRATCH)])
def test_tensorboard_has_the_metrics_and_pictures(verb: str, flags: tuple[str, ...], tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    words = [verb, *flags, *PACE, "--data.store", str(store)]
    assert main([*words, "--out", str(tmp_path / "plain")]) == 0
    assert not (tmp_path / "plain" / "tensorboard").exists()
    run = tmp_path / "tracked"
    assert main([*words, *TRACKED, "--out", str(run)]) == 0
    assert losses(run) == losses(tmp_path / "plain")
    same_numbers(run)
    found = events(run)
    assert {"loss", "evaluation/probes"} <= set(found.Tags()["scalars"])
    assert "about/protocol/text_summary" in found.Tags()["tensors"]
    assert set(found.Tags()["images"]) == ({"clip", "decoded"} if verb == "pretrain" else {"clip"})
    for name in found.Tags()["images"]:
        assert [event.step for event in found.Images(name)] == [2, 4]
        data = np.frombuffer(found.Images(name)[-1].encoded_image_string, np.uint8)
        picture = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
        assert picture.shape[0] == 64
        assert 0.02 < (picture > 127).mean() < 0.6  # a walker, neither empty nor full


def test_a_stopped_run_is_tracked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after step 3, saved at 2: step 3 is measured again; before, its event is void."""
    store, run = make_store(tmp_path / "store"), tmp_path / "run"
    words = ["finetune", *TINY_SCRATCH, *PACE, *TRACKED, "--data.store", str(store), "--out", str(run)]
    from gaitdiff.training.finetune import FinetuneStage

    whole, calls = FinetuneStage.inputs, []

    def stops(self: FinetuneStage, batch: Any, step: int, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(step)
        if step == 3:
            raise KeyboardInterrupt
        return whole(self, batch, step, rank)

    monkeypatch.setattr(FinetuneStage, "inputs", stops)
    main(words)
    assert calls == [0, 1, 2, 3]
    monkeypatch.setattr(FinetuneStage, "inputs", whole)
    assert main(words) == 0
    assert len(losses(run)) == 4
    same_numbers(run)


def test_tracking_that_begins_later_has_what_was_before(tmp_path: Path) -> None:
    store, run = make_store(tmp_path / "store"), tmp_path / "run"
    words = ["finetune", *TINY_SCRATCH, *PACE, "--data.store", str(store), "--out", str(run)]
    assert main(words) == 0
    last = sorted((run / "checkpoints").iterdir())[-1]
    assert last.name == "step-00000004"
    for file in last.iterdir():
        file.unlink()
    last.rmdir()  # as if it had been stopped before
    assert main([*words, *TRACKED]) == 0
    same_numbers(run)


def test_a_complete_run_can_be_tracked(tmp_path: Path) -> None:
    store, run = make_store(tmp_path / "store"), tmp_path / "run"
    words = ["finetune", *TINY_SCRATCH, *PACE, "--data.store", str(store), "--out", str(run)]
    assert main(words) == 0
    for _ in range(2):
        assert main([*words, *TRACKED]) == 0
        same_numbers(run)


def test_a_missing_package_is_told_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = make_store(tmp_path / "store")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    words = ["finetune", *TINY_SCRATCH, *PACE, *TRACKED, "--data.store", str(store), "--out", str(tmp_path / "run")]
    assert main(words) == 2
    assert "which is not installed: pip install tensorboard" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_store(tmp_path / "store")
    words = [
        "finetune",
        *TINY_SCRATCH,
        "--run.track",
        "abacus",
        "--data.store",
        str(store),
        "--out",
        str(tmp_path / "r"),
    ]
    assert main(words) == 2
    assert "run.track" in capsys.readouterr().err


def test_frames_stand_side_by_side() -> None:
    clip = torch.rand(3, 4, 5)
    picture = side_by_side(clip, gap=1)
    assert picture.shape == (4, 18)
    for i in range(3):
        np.testing.assert_array_equal(picture[:, 6 * i : 6 * i + 5], (clip[i].numpy() * 255).round().astype(np.uint8))
        assert not picture[:, 6 * i + 5].any()


def trackio_points(folder: Path) -> list[tuple[str, int, dict[str, Any]]]:
    """Run, step and content of every line that trackio keeps."""
    points = []
    for file in folder.glob("*.db"):
        with closing(sqlite3.connect(file)) as database:
            rows = database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id")
            points += [(name, step, json.loads(content)) for name, step, content in rows]
    return points


def test_trackio_has_the_metrics_and_pictures(tmp_path: Path) -> None:
    """In a process of its own, as trackio reads where it writes to when it is imported."""
    store, run, kept = make_store(tmp_path / "store"), tmp_path / "runs" / "tracked", tmp_path / "kept"
    words = ["pretrain", *TINY_PRETRAIN, *PACE, "--run.track", "trackio", "--data.store", str(store), "--out", str(run)]
    assert main([*words, "--run.track", "none"]) == 0
    (run / "checkpoints" / "step-00000004").rename(tmp_path / "away")  # as if it had been stopped before
    code = f"from gaitdiff.cli import main; raise SystemExit(main({words!r}))"
    environment = {**os.environ, "TRACKIO_DIR": str(kept), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(run)
    points = trackio_points(kept)
    assert {name for name, _, _ in points} == {"runs-tracked"}
    losses_kept = [(step, values["loss"]) for _, step, values in points if "loss" in values]
    assert losses_kept == [(record["step"], record["loss"]) for record in read_metrics(run) if "loss" in record]
    scores = [step for _, step, values in points if "evaluation/probes" in values]
    assert scores == [record["step"] for record in read_metrics(run) if "evaluation" in record]
    assert [step for _, step, values in points if "clip" in values and "decoded" in values] == [4]
