"""What holds for the whole test run."""

from __future__ import annotations

import os
import signal

import pytest

# Where tests run side by side, each computes with one thread. Before torch is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A run in the background of a shell script inherits that Ctrl-C is ignored, and so would the processes it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """How much the tests in attacks/ do: at random, but the same each time."""
    parser.addoption("--attacks", type=int, default=1, help="times as many random kills and damages (default: 1)")


#: Files of the longest tests, of which no process is to get several, and none at its end.
_LONGEST = ("test_training_example.py", "test_quickstart.py", "test_every_cpu.py", "test_shares.py", "test_kills.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest tests first, or, where several processes each begin with a part of the list, first in each."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    longest = [item for item in items if item.path.name in _LONGEST]
    others = [item for item in items if item.path.name not in _LONGEST]
    size = -(-len(others) // processes)
    parts = [[*longest[i::processes], *others[i * size : (i + 1) * size]] for i in range(processes)]
    items[:] = [item for part in parts for item in part]
