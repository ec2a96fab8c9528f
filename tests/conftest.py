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
