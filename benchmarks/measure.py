"""What every benchmark needs: two sides timed alternately in one process, the machine's name, and a result file."""

from __future__ import annotations

import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from gaitdiff.training.environment import processor

RESULTS = Path(__file__).parent / "results"


def alternate(sides: Mapping[str, Callable[[], object]], repeats: int, warm_up: int = 2) -> dict[str, list[float]]:
    """Seconds of each side's calls; the sides take turns, so that what else the machine does hits all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(warm_up + repeats):
        for name, call in sides.items():
            start = _now()
            call()
            if i >= warm_up:
                seconds[name].append(_now() - start)
    return seconds


def summary(seconds: dict[str, list[float]], reference: str) -> dict[str, Any]:
    """Median of each side, and the median over turns of how many times ``reference`` took a side's time."""
    return {
        name: {
            "median_s": round(statistics.median(times), 5),
            "speed_up": round(statistics.median(r / t for r, t in zip(seconds[reference], times, strict=True)), 3),
        }
        for name, times in seconds.items()
    }


def machine(device: str = "cpu") -> dict[str, Any]:
    """What the numbers were measured on."""
    found: dict[str, Any] = {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    if device.startswith("cuda"):
        found["accelerator"] = torch.cuda.get_device_name(device)
    return found


def commit() -> str:
    """The commit that the code is at, with "+" where files other than results differ from it."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=RESULTS.parent, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", f":!{RESULTS.name}")
    return git("describe", "--always", "--abbrev=12") + ("+" if changed else "")


def origin(device: str = "cpu") -> dict[str, Any]:
    """What every result begins with: commit, command and machine; of paths that lie outside only the last names."""
    words = [Path(word).name if os.path.isabs(word) else word for word in sys.argv[1:]]
    command = shlex.join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *words])
    return {"commit": commit(), "command": command, "machine": machine(device)}


def write(name: str, result: dict[str, Any], device: str = "cpu") -> Path:
    """Write a result as results/NAME.json, of another device than a CPU as results/NAME_DEVICE.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}{'' if device == 'cpu' else '_' + device.split(':')[0]}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
