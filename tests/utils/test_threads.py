"""Threads that wait spin briefly: set before torch is loaded, and what the user has set stays."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gaitdiff.utils.threads import SPINS

_CODE = """
import os, sys
from gaitdiff.cli import main
assert "torch" not in sys.modules
main(["--version"])
print(os.environ.get("GOMP_SPINCOUNT"))
import torch
"""


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, str(SPINS)), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")],
)
def test_libgomp_is_told_how_long_to_spin(given: dict[str, str], expected: str) -> None:
    """OMP_DISPLAY_ENV has libgomp print what it goes by."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
    environment = {**kept, "OMP_DISPLAY_ENV": "verbose", **given}
    done = subprocess.run([sys.executable, "-c", _CODE], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == expected
    told = [line.split("=")[1].strip(" '") for line in done.stderr.splitlines() if "GOMP_SPINCOUNT" in line]
    if sys.platform == "linux" and expected != "None":
        assert told == [expected]
