"""How time grows: a pretraining step by processes, threads, batch and frames; ranking by the size of the gallery.

    python -m benchmarks.scaling [--threads 2] [--steps 6] [--galleries 1000 10000 100000 1000000]

Steps are those of walkers/pretrain, one setting changed at a time; "processes" are runs of their own under torchrun,
whose time a step is what their metrics tell, the probe at every line of them included. Batches and frames take turns in
this process. Ranking is ``evaluate`` of 100 probes by features of 64 channels and 16 parts in a file on disk, in a
process of its own, whose memory above that of an empty one is told; those of a million sequences take 4 GB there.
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

import numpy as np
import torch

from benchmarks.busy_machine import of_a_step
from benchmarks.measure import alternate, origin, write
from benchmarks.stepping import Ours, own_peak
from gaitdiff.config.recipe import parse_config
from gaitdiff.config.schema import PretrainConfig
from gaitdiff.evaluation import evaluate
from gaitdiff.training.device import keep_freed_memory, make_accelerator
from gaitdiff.training.pretrain import PretrainStage
from gaitdiff.walkers import generate

RECIPE = ("--recipe", "walkers/pretrain", "--machine.device", "cpu", "--run.evaluate_every", "0")
BATCHES, FRAMES, PROBES, SHAPE = (16, 32, 64, 128), (4, 8, 16, 30), 100, (64, 16)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--galleries", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--rank", type=Path, help=argparse.SUPPRESS)  # a file of features, to rank in this process
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.rank:
        return tell_ranking(args.rank)
    keep_freed_memory()
    result: dict[str, Any] = origin()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "walks"
        generate(store, people=100, sequences=2, frames=40)
        result["gallery"] = {str(size): ranking(Path(folder), size, args.threads) for size in args.galleries}
        print(result["gallery"], flush=True)
        settings = [("batch", "optim.batch", BATCHES), ("gait_frames", "data.gait_frames", FRAMES)]
        for name, key, values in settings:
            sides = {str(value): a_stage(store, f"--{key}", str(value)).step for value in values}
            seconds = alternate(sides, args.steps)
            result[name] = {value: round(float(np.median(times)), 4) for value, times in seconds.items()}
            print(name, result[name], flush=True)
        result["processes"] = {
            f"{processes} x {threads}": of_processes(store, Path(folder), processes, threads, args.steps)
            for processes, threads in ((1, 1), (1, args.threads), (args.threads, 1))
        }
        print("processes x threads", result["processes"])
    print(write("scaling", result))


def a_stage(store: Path, *words: str) -> Ours:
    """A stage of the recipe with other settings."""
    given = [*RECIPE, "--data.store", str(store), "--out", str(store / "no-run"), *words]
    config = parse_config(PretrainConfig, "benchmarks.scaling", given)
    accelerator = make_accelerator(config.machine)
    return Ours(PretrainStage(config, accelerator.device, 1), accelerator, {})


def of_processes(store: Path, folder: Path, processes: int, threads: int, steps: int) -> float:
    """Seconds of a step of a run of so many processes."""
    out = folder / f"{processes}-{threads}"
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    words = ["-m", "gaitdiff", "pretrain", *RECIPE, "--data.store", str(store), "--out", str(out)]
    words += ["--run.log_every", str(steps), "--optim.iterations", str(5 * steps), "--machine.threads", str(threads)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OMP_")}
    subprocess.run([sys.executable, *launch, *words], env=environment, capture_output=True, check=True)
    return of_a_step(out)


def ranking(folder: Path, gallery: int, threads: int) -> dict[str, float]:
    """Seconds and memory of ranking in a process of its own."""
    file = folder / "features.npy"
    features = np.lib.format.open_memmap(file, "w+", np.float32, (PROBES + gallery, *SHAPE))
    rng = np.random.default_rng(0)
    for start in range(0, len(features), 10_000):
        part = features[start : start + 10_000]
        part[:] = rng.standard_normal(part.shape, np.float32)
    features.flush()
    del features
    words = [sys.executable, "-m", "benchmarks.scaling", "--threads", str(threads), "--rank", str(file)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    file.unlink()
    seconds, memory = done.stdout.splitlines()[-1].split()
    return {"seconds": float(seconds), "memory_mb": float(memory)}


def tell_ranking(file: Path) -> None:
    """Rank the first rows of a file among the others; print seconds and the memory that it took."""
    features = np.load(file, mmap_mode="r")
    labels = [str(i % PROBES) for i in range(len(features))]
    blank = [""] * len(features)
    before, started = own_peak(), time.perf_counter()
    evaluate("gait3d", features, labels, blank, blank, probe_mask=[i < PROBES for i in range(len(features))])
    print(round(time.perf_counter() - started, 2), own_peak() - before)


if __name__ == "__main__":
    main()
