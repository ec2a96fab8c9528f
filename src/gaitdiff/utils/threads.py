"""How long threads of OpenMP spin while they wait for each other."""

from __future__ import annotations

import os

#: Turns of libgomp's loop. Its own are about thirty times as many: a run beside another then takes up to thirteen times
#: as long a step as its share of the machine would give it; with these, twice, and alone as long as before.
SPINS = 10_000
_CHOSEN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def spin_briefly() -> None:
    """Have this process's threads spin for ``SPINS`` turns, unless the environment says otherwise.

    libgomp reads the environment when torch is loaded; what is set later counts for processes started from here.
    Measured by ``benchmarks.busy_machine``, on two machines: docs/performance.md.
    """
    if not any(os.environ.get(variable) for variable in _CHOSEN):
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)
