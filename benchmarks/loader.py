"""Does a loader keep ahead of a GPU? Batches of stage 1 at paper size for someone who takes one every few milliseconds.

    python -m benchmarks.loader [--paces 50 40 30 20] [--batches 60]

The consumer sleeps, as while a GPU takes a step. A batch is both clips of 64 sequences of 30 frames with the draws of
their augmentation (recipe gait3d/pretrain_smplgait); latents and augmentation are the GPU's work. A batch that the
consumer waits a millisecond or longer for is a stall.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import origin, write
from gaitdiff.config.recipe import parse_config
from gaitdiff.config.schema import PretrainConfig
from gaitdiff.data.batches import Prefetcher
from gaitdiff.training.device import keep_freed_memory, make_accelerator
from gaitdiff.training.pretrain import PretrainStage
from gaitdiff.walkers import generate

RECIPE, WARM_UP, A_STALL = "gait3d/pretrain_smplgait", 3, 0.001


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--paces", type=int, nargs="+", default=[50, 40, 30, 20], help="milliseconds a step")
    parser.add_argument("--batches", type=int, default=60)
    args = parser.parse_args()
    keep_freed_memory()
    result: dict[str, Any] = {**origin(), "recipe": RECIPE}
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "walks"
        generate(store, people=100, sequences=2, frames=60)
        words = ["--recipe", RECIPE, "--data.store", str(store), "--out", str(Path(folder) / "no-run")]
        words += ["--machine.device", "cpu", "--diffusion.autoencoder", "student", "--run.evaluate_every", "0"]
        config = parse_config(PretrainConfig, "benchmarks.loader", words)
        stage = PretrainStage(config, make_accelerator(config.machine).device, 1)
        result["batch_alone_ms"] = alone(stage, args.batches)
        print(f"a batch alone: {result['batch_alone_ms']} ms", flush=True)
        result["paces_ms"] = {str(pace): ahead_of(stage, pace / 1000, args.batches) for pace in args.paces}
    for pace, told in result["paces_ms"].items():
        print(f"a step every {pace} ms: {told}")
    print(write("loader", result))


def alone(stage: PretrainStage, batches: int) -> float:
    """Milliseconds that making a batch takes, the median."""
    times = []
    for step in range(batches + WARM_UP):
        before = time.perf_counter()
        stage.make_batch(step, 0)
        times.append(time.perf_counter() - before)
    return round(1000 * statistics.median(times[WARM_UP:]), 1)


def ahead_of(stage: PretrainStage, pace: float, batches: int) -> dict[str, float]:
    """Stalls of a consumer, and the share of its time that it waits, in percent."""
    waited, stalls, started = 0.0, 0, time.perf_counter()
    before = started
    for step, _ in Prefetcher(lambda step: stage.make_batch(step, 0), 0, batches + WARM_UP):
        now = time.perf_counter()
        if step == WARM_UP:
            started = now
        if step >= WARM_UP:
            waited += now - before
            stalls += now - before >= A_STALL
        time.sleep(pace)
        before = time.perf_counter()
    taken = time.perf_counter() - started
    return {"batches": batches, "stalls": stalls, "waiting_percent": round(100 * waited / taken, 2)}


if __name__ == "__main__":
    main()
