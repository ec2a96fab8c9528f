"""What several tests of the store begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from noise_stores import make_store


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store")
