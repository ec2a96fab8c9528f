"""What holds for the whole test run."""

from __future__ import annotations

import signal

# A run in the background of a shell script inherits that Ctrl-C is ignored, and so would the processes it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
