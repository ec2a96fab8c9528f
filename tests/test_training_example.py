"""docs/training.md: its worked example runs as it stands there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from gaitdiff.data.store import SequenceStore

PAGE = Path(__file__).resolve().parents[1] / "docs" / "training.md"


def test_the_worked_example(tmp_path: Path) -> None:
    (script,) = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        ["bash", "-e", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    metrics = [json.loads(line) for line in (tmp_path / "pre" / "metrics.jsonl").read_text().splitlines()]
    assert [record["changed"] for record in metrics if "changed" in record] == [{"optim.iterations": [60, 80]}]
    assert [record["step"] for record in metrics if "loss" in record] == list(range(5, 85, 5))
    assert "optim.iterations is 80 instead of 60" in done.stderr
    assert (tmp_path / "pre" / "report" / "index.html").stat().st_size > 10_000
    scores = [json.loads(line) for line in (tmp_path / "fine" / "metrics.jsonl").read_text().splitlines()]
    assert {record["about"]["split"] for record in scores if "evaluation" in record} == {"val"}
    assert (tmp_path / "fine" / "best" / "model.json").is_file()
    with np.load(tmp_path / "features.npz") as features:
        assert len(features["features"]) == len(features["subject"])
    assert "probes: 8 sequences of 8 people" in done.stdout
    assert (tmp_path / "like.png").stat().st_size > 10_000
    assert len(SequenceStore(tmp_path / "synthetic")) == 8
    assert "looked up among 8 people" in done.stdout
