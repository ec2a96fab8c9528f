"""What holds for the whole test run."""

from __future__ import annotations

import os
import signal

# Where tests run side by side, each computes with one thread. Before torch is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A run in the background of a shell script inherits that Ctrl-C is ignored, and so would the processes it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
