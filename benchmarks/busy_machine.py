"""Training on a machine that has something else to do: alone, and two runs side by side, by how long threads spin.

    python -m benchmarks.busy_machine [--threads 2] [--iterations 12] [--spins none 0 1000 10000]

libgomp's threads spin in a loop while they wait for each other, which saves waking them up, and takes the processor
from whoever else could use it. GOMP_SPINCOUNT is for how many turns; "none" is as many as libgomp takes by itself. Each
number is seconds of a step of walkers/pretrain, from the run's own metrics, without its first lines; side by side it is
that of the slower run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import origin, write
from gaitdiff.training.run_folder import read_metrics
from gaitdiff.walkers import generate

_OWN = "300000"  # libgomp's, for as many threads as there are processors
_GIVE_UP = 300  # seconds, after which a run has shown what there is to show


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--threads", type=int, default=2, help="of each run")
    parser.add_argument("--iterations", type=int, default=12)
    parser.add_argument("--spins", nargs="+", default=["none", "0", "1000", "10000"])
    args = parser.parse_args()
    result: dict[str, Any] = {**origin(), "seconds_a_step": {}}
    result["machine"] |= {"processors": os.cpu_count(), "threads": args.threads}
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "walks"
        generate(store, people=80, sequences=2, frames=40)
        for spins in args.spins:
            times = {}
            for name, runs in (("alone", 1), ("two side by side", 2)):
                outs = [Path(folder) / f"{spins} {name} {i}" for i in range(runs)]
                times[name] = max(seconds(outs, store, spins, args.threads, args.iterations))
            result["seconds_a_step"][spins] = times
            print(spins, times, flush=True)
    print(write("busy_machine", result))


def seconds(outs: list[Path], store: Path, spins: str, threads: int, iterations: int) -> list[float]:
    """Seconds of a step of runs that go at the same time; of one that was given up, what its last line allows."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
    environment["GOMP_SPINCOUNT"] = _OWN if spins == "none" else spins
    start = [sys.executable, "-m", "gaitdiff"]
    words = ["pretrain", "--recipe", "walkers/pretrain", "--data.store", str(store), "--run.evaluate_every", "0"]
    words += ["--run.log_every", "1", "--optim.iterations", str(iterations), "--machine.threads", str(threads)]
    words += ["--machine.device", "cpu", "--machine.precision", "float32"]
    quiet = subprocess.DEVNULL
    running = [
        subprocess.Popen([*start, *words, "--out", str(o)], env=environment, stdout=quiet, stderr=quiet) for o in outs
    ]
    end = time.monotonic() + _GIVE_UP
    while any(process.poll() is None for process in running) and time.monotonic() < end:
        time.sleep(0.2)
    for process in running:
        process.kill()
        process.wait()
    return [of_a_step(out) for out in outs]


def of_a_step(run: Path) -> float:
    """Seconds of a step after the first two, as far as the run came."""
    told = [
        (record["step"], record["seconds_per_step"]) for record in read_metrics(run) if "seconds_per_step" in record
    ]
    if len(told) < 3:
        return float(_GIVE_UP)
    (first, before), (last, mean) = told[1], told[-1]
    return round((last * mean - first * before) / (last - first), 3)


if __name__ == "__main__":
    main()
