"""What a run was started with: machine, versions of everything installed, command; a line a start."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch

from gaitdiff.training.checkpoint_files import backbone_sha256
from gaitdiff.utils.files import parse_json, require_regular
from gaitdiff.version import __version__

#: The file in a run folder.
ENVIRONMENT = "environment.jsonl"


@dataclass(frozen=True)
class Start:
    """The checkpoint that a run's weights are from, with a digest, since its path may soon lead to another."""

    checkpoint: Path
    backbone_sha256: str

    @classmethod
    def of(cls, checkpoint: Path) -> Start:
        """As the checkpoint is now."""
        return cls(checkpoint, backbone_sha256(checkpoint))


def note_start(run: Path, step: int, init: Start | None = None) -> None:
    """Add a line: what a run is started with, or goes on with, after a step.

    Args:
        init: what its weights are from.

    Raises:
        OSError: it cannot be written.
    """
    weights = {}
    if init is not None:
        weights["init"] = {"checkpoint": str(init.checkpoint), "backbone_sha256": init.backbone_sha256}
    with (run / ENVIRONMENT).open("ab+") as file:
        file.seek(max(file.tell() - 1, 0))
        torn = file.read(1) not in (b"", b"\n")  # by a kill
        file.write(f"{chr(10) if torn else ''}{json.dumps({'step': step, **environment(), **weights})}\n".encode())


def read_starts(run: Path) -> list[dict[str, Any]]:
    """``step`` and environment of each start of a run; lines that a kill has torn are left out."""
    file = run / ENVIRONMENT
    found = []
    text = require_regular(file).read_text(encoding="utf-8", errors="replace") if file.exists() else ""
    for line in text.splitlines():
        with suppress(ValueError):
            start = parse_json(line)
            if isinstance(start, dict) and isinstance(start.get("step"), int):
                found.append(start)
    return found


def environment() -> dict[str, Any]:
    """Command, time, machine and versions of this process, as JSON can hold them.

    ``commit`` is that of the source tree that the package lies in, with "+" where its files are changed; None for an
    installed package.
    """
    cuda = torch.cuda.is_available()
    return {
        "time": datetime.now(timezone.utc).isoformat(" ", "seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "gaitdiff": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())] if cuda else [],
        "cuda": torch.version.cuda if cuda else None,
        "packages": _packages(),
    }


@cache
def _packages() -> dict[str, str]:
    """Versions of all packages by name."""
    told = [metadata for one in distributions() if (metadata := one.metadata) is not None]
    return dict(sorted((str(metadata["Name"]), str(metadata["Version"])) for metadata in told))


def processor() -> str:
    """The name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str | None:
    folder = Path(__file__).resolve().parents[3]
    if not (folder / ".git").exists() or not (folder / "pyproject.toml").is_file():
        return None
    try:
        say = ["git", "-C", str(folder), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
        return subprocess.run(say, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
