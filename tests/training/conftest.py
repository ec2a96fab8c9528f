"""What several tests of training begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from worlds import make_store


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "run"
