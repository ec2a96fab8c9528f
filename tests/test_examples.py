"""Examples run as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
#: What each prints, and the arguments that make it short.
RUNS = {
    "method.py": (["--people", "12", "--steps", "2"], "step 2: loss"),
    "own_backbone.py": (["--people", "12", "--steps", "2"], "rank-1"),
    "own_silhouettes.py": ([], "is nearest to"),
    "score_features.py": ([], "rank-1"),
}


def test_every_example_is_run() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(RUNS)


@pytest.mark.parametrize("name", RUNS)
def test_example(name: str) -> None:
    words, printed = RUNS[name]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(EXAMPLES / name), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert printed in done.stdout
    assert len((EXAMPLES / name).read_text().splitlines()) <= 100
