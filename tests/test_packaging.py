"""What a newcomer meets: the README's commands, the assets that ship, a package that imports quickly."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import gaitdiff

ROOT = Path(__file__).resolve().parents[1]


def test_continuous_integration_calls_the_readmes_test_command() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = [line for line in readme.splitlines() if line.startswith("python3 -m venv")]
    assert len(commands) == 2
    assert commands[0].endswith("gaitdiff quickstart")
    assert commands[1].endswith("-m pytest -n logical")
    assert commands[1] in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_every_dependency_is_pinned() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    needed = re.findall(r'^    "([A-Za-z0-9_-]+)(?:\[\w+\])?>=', project, re.MULTILINE)
    assert {"torch", "numpy", "accelerate", "diffusers"} <= set(needed)
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower().replace("-", "_")
    for name in needed:
        assert f"\n{name.lower().replace('-', '_')}==" in pins, name
    assert "\ntorch==2.13.0\n" in pins


def test_weights_that_ship_are_small() -> None:
    package = resources.files("gaitdiff")
    assert len((package / "walkers" / "assets" / "body.npz").read_bytes()) <= 300_000
    assert len((package / "diffusion" / "assets" / "student.safetensors").read_bytes()) < 1_000_000


def test_public_names_are_there_and_importing_the_package_loads_no_torch() -> None:
    for name in gaitdiff.__all__:
        assert getattr(gaitdiff, name) is not None
    code = "import sys, gaitdiff, gaitdiff.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
