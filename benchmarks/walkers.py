"""How fast walkers are made, and how hard they are for a gait energy image.

    python -m benchmarks.walkers

Frames a second are given by the clock and by processor time: other work on the machine slows the first.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.table import Table

from benchmarks.measure import origin, write
from gaitdiff.data.store import SequenceStore
from gaitdiff.utils.progress import console, track
from gaitdiff.walkers import generate, list_presets, render_sequence

RUNS = 7
FRAMES = 40
SEQUENCES = 40  # in one run
PEOPLE, WALKS, SEEDS = 60, 6, 4  # of the recognition experiment


def one_core(preset: str) -> dict[str, list[float]]:
    """Frames a second on one core, by the clock and by the processor time that was used."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    rates: dict[str, list[float]] = {"wall": [], "cpu": []}
    render_sequence(0, 0, 0, preset, FRAMES)
    for run in range(RUNS):
        wall, cpu = time.perf_counter(), time.process_time()
        for i in range(SEQUENCES):
            render_sequence(run, i, 0, preset, FRAMES)
        rates["wall"].append(SEQUENCES * FRAMES / (time.perf_counter() - wall))
        rates["cpu"].append(SEQUENCES * FRAMES / (time.process_time() - cpu))
    os.sched_setaffinity(0, cores)
    return rates


def make_set(preset: str, seed: int, folder: Path) -> tuple[SequenceStore, float]:
    """Make the set of the recognition experiment with every core; also say how many frames a second that were."""
    start = time.perf_counter()
    out = generate(folder, people=PEOPLE, sequences=WALKS, preset=preset, frames=FRAMES, seed=seed)
    return SequenceStore(out), PEOPLE * WALKS * FRAMES / (time.perf_counter() - start)


def rank1(store: SequenceStore) -> float:
    """Rank-1 of gait energy images by cosine, every sequence a probe once, percent."""
    energy = np.stack([store[i].frames[:, :, 10:54].mean(axis=0).ravel() for i in range(len(store))])
    energy /= np.linalg.norm(energy, axis=1, keepdims=True)
    likeness = energy @ energy.T
    np.fill_diagonal(likeness, -1)
    people = np.array([row.subject for row in store.rows])
    return 100 * float((people[likeness.argmax(axis=1)] == people).mean())


def main() -> None:
    cv2.setNumThreads(1)
    about = origin()
    about["machine"] |= {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
    about["machine"] |= {package: version(package) for package in ("numpy", "opencv-python-headless")}
    results: dict[str, Any] = {}
    table = Table("preset", "frames/s, one core", "frames/s, its CPU time", "frames/s, all cores", "GEI rank-1 %")
    for preset in list_presets():
        rates = one_core(preset)
        whole, scores = [], []
        with tempfile.TemporaryDirectory() as folder:
            for seed in track(range(SEEDS), f"{preset}: sets"):
                store, rate = make_set(preset, seed, Path(folder) / str(seed))
                whole.append(rate)
                scores.append(rank1(store))
        results[preset] = {
            "one_core_frames_per_second": round(statistics.median(rates["wall"])),
            "one_core_frames_per_cpu_second": round(statistics.median(rates["cpu"])),
            "all_cores_frames_per_second": round(statistics.median(whole)),
            "gei_rank1_percent": round(statistics.mean(scores), 1),
            "gei_rank1_percent_by_seed": [round(score, 1) for score in scores],
            "runs": RUNS,
            "sets": f"{SEEDS} x {PEOPLE} people x {WALKS} sequences x {FRAMES} frames",
        }
        table.add_row(preset, *(str(value) for value in list(results[preset].values())[:4]))
    console.print(table)
    path = write("walkers", {**about, "presets": results})
    console.print(f"chance {100 * (WALKS - 1) / (PEOPLE * WALKS - 1):.1f} %; {path}")


if __name__ == "__main__":
    main()
