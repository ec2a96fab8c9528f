"""Scratch folders go with their block, and with the next one where a process was killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from gaitdiff.utils.scratch import remedy, scratch_folder

HOLD = """
import time
from gaitdiff.utils.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "features.npy").write_bytes(b"x" * 100)
    print(folder, flush=True)
    time.sleep(600)
"""


def made_older(folder: Path) -> None:
    os.utime(folder / ".lock", (1_000_000_000, 1_000_000_000))


def test_what_was_killed_goes_and_what_is_in_use_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    processes = [subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        killed, living = (Path((process.stdout or sys.stdin).readline().strip()) for process in processes)
        stranger = tmp_path / "gaitdiff-scratch-of-somebody"
        stranger.mkdir()
        processes[0].kill()
        processes[0].wait()
        made_older(killed)
        made_older(living)
        with scratch_folder() as mine:
            assert {path for path in tmp_path.iterdir() if path.is_dir()} == {living, stranger, mine}
            assert "TMPDIR" in remedy(mine / "features.npy")
        assert not mine.exists()
        assert (living / "features.npy").exists()
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert "TMPDIR" not in remedy(tmp_path / "features.npy")
