"""A run's scores at its end, as a table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gaitdiff.training.told import in_words, tell_scores


def test_scores_stand_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "a [b]"
    run.mkdir()
    lines: list[dict[str, object]] = [
        {"step": step, "evaluation": {"rank1_cosine": step / 2, "mAP_cosine": step / 4, "rank1_whitened": 7.0}}
        for step in range(0, 100, 2)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [{"step": 0, "loss": 1.0}, *lines]))
    tell_scores(run)
    title, head, *rows = capsys.readouterr().err.strip().splitlines()
    assert title.strip() == "a [b]: rank-1 / mAP by step"
    assert head.split() == ["step", "cosine", "whitened"]
    assert len(rows) == 12
    assert rows[0].split() == ["0", "0.0", "/", "0.0", "7.0", "/", "-"]
    assert rows[-1].split() == ["98", "49.0", "/", "24.5", "7.0", "/", "-"]


def test_one_evaluation_has_been_said_already(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 5, "evaluation": {"rank1": 50.0, "mAP": 25.0}}\n')
    tell_scores(tmp_path)
    assert capsys.readouterr().err == ""
    assert in_words({"rank1": 50.0, "mAP": 25.0, "rank1_cosine": 1.0, "EER": 3.0}) == (
        "rank-1 50.0, mAP 25.0, rank-1 cosine 1.0"
    )
