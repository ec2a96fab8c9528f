"""What several tests of the commands begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from gaitdiff.cli import main
from worlds import TINY_SCRATCH, make_store


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps of training, a checkpoint at the second and the last."""
    folder = tmp_path_factory.mktemp("run")
    store = make_store(folder / "train", test_people=0)
    flags = [*TINY_SCRATCH, "--optim.iterations", "4", "--run.save_every", "2", "--run.evaluate_every", "0"]
    assert main(["finetune", *flags, "--data.store", str(store), "--out", str(folder / "run")]) == 0
    return folder / "run"
