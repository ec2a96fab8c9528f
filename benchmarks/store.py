"""How small silhouettes become without loss, and how quickly clips are read back: codecs, and stores beside pickles.

    python -m benchmarks.store [--store STORE]

Candidates whose library is missing (zstandard, blosc2) are left out. A clip is 30 frames of one sequence. The pickles
are one file a sequence, loaded whole, as most gait code does; all files are in the page cache.
"""

from __future__ import annotations

import argparse
import os
import pickle
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.table import Table

from benchmarks.codecs import LENGTH, Candidate, library, make_candidates
from benchmarks.measure import alternate, origin, summary, write
from gaitdiff.data.align import align_sequence
from gaitdiff.data.clips import crop_sides, sample_clip
from gaitdiff.data.store import SequenceStore, StoreWriter
from gaitdiff.data.store.codec import CODECS
from gaitdiff.utils.progress import console, track
from gaitdiff.walkers import render_sequence

CLIP = 30
WALKS = 6  # of a set that codecs are tried on
SHORTEST, LONGEST, SEQUENCES = 30, 200, 600  # of the data set that clips are read from
CLIPS, TURNS = 200, 15
PROCESSES = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--store", type=Path, help="a store of other silhouettes to code besides the walkers")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    about = origin()
    about["machine"] |= {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
    libraries = [name for name in ("lz4", "zstandard", "blosc2") if library(name)]
    about["machine"] |= {name: version(name) for name in ("numpy", *libraries)}
    sets = make_sets(args.store)
    coded = try_codecs(sets)
    with tempfile.TemporaryDirectory() as folder:
        clips = read_clips(sets["walkers"], Path(folder))
    path = write("store", {**about, "sets": describe(sets), "codecs": coded, "clips": clips})
    console.print(path)


# What is coded


def make_sets(other: Path | None) -> dict[str, np.ndarray]:
    """Return aligned silhouettes of several origins, uint8 (N, 64, 64) each, N a multiple of ``LENGTH``."""
    walks = [
        render_sequence(0, walk, 0, "lite" if walk % 2 else "wild", LENGTH) for walk in track(range(WALKS), "walking")
    ]
    sets = {"walkers": np.concatenate(walks)}
    for size in (100, 300):
        sets[f"masks of {size} px"] = align_sequence(enlarged(frame, size) for frame in sets["walkers"])
    if other is not None:
        store = SequenceStore(other)
        sets[store.header.source] = np.concatenate([one.frames for one in store])
    return {name: frames[: len(frames) // LENGTH * LENGTH] for name, frames in sets.items()}


def enlarged(frame: np.ndarray, size: int) -> np.ndarray:
    """A black and white mask of a walker, with smooth edges, as a segmentation network gives it."""
    large = cv2.resize(frame, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.where(cv2.GaussianBlur(large, (0, 0), size / 100) > 127, 255, 0).astype(np.uint8)


def describe(sets: dict[str, np.ndarray]) -> dict[str, Any]:
    return {
        name: {
            "frames": len(frames),
            "grey_pixels_a_frame": round(np.count_nonzero((frames > 0) & (frames < 255)) / len(frames)),
        }
        for name, frames in sets.items()
    }


# Codecs


def try_codecs(sets: dict[str, np.ndarray]) -> dict[str, Any]:
    """How many times smaller each candidate makes each set, and how long a clip of the first takes to decode."""
    training = np.concatenate([render_sequence(1, walk, 0, "lite", 50) for walk in track(range(10), "walking")])
    candidates = make_candidates(training)
    walks = sets["walkers"].reshape(-1, LENGTH, 64, 64)
    indices = {sampling: draw([LENGTH] * len(walks), sampling) for sampling in ("consecutive", "unordered")}
    results: dict[str, Any] = {}
    sides: dict[str, dict[str, Callable[[], object]]] = {sampling: {} for sampling in indices}
    for name, candidate in candidates.items():
        start = time.process_time()
        blocks = [candidate.blocks(walk) for walk in walks]
        spent = time.process_time() - start
        for walk, its in zip(walks, blocks, strict=True):
            assert np.array_equal(candidate.clip(its, LENGTH, np.arange(LENGTH)), walk)
        results[name] = {"smaller": {of: round(smaller(candidate, frames), 2) for of, frames in sets.items()}}
        results[name]["encode_us_a_frame"] = round(1e6 * spent / (len(walks) * LENGTH))
        for sampling, drawn in indices.items():
            sides[sampling][name] = partial(candidate.clips, blocks, drawn)
    for sampling in indices:
        for name, seconds in alternate(sides[sampling], 5, warm_up=1).items():
            results[name][f"{sampling}_us_a_clip"] = round(1e6 * float(np.median(seconds)) / CLIPS, 1)
    show_codecs(results)
    return results


def smaller(candidate: Candidate, frames: np.ndarray) -> float:
    """Bytes of the frames over those of the blocks and of their positions, 4 bytes each."""
    walks = frames.reshape(-1, LENGTH, 64, 64)
    return frames.nbytes / sum(len(block) + 4 for walk in walks for block in candidate.blocks(walk))


def show_codecs(results: dict[str, Any]) -> None:
    names = list(results["raw"]["smaller"])
    table = Table("codec", *names, "encode µs/frame", "consecutive µs/clip", "unordered µs/clip")
    for name, result in results.items():
        numbers = [*result["smaller"].values(), *list(result.values())[1:]]
        table.add_row(name, *map(str, numbers))
    console.print(table)


# Clips


def draw(lengths: Sequence[int], sampling: str) -> list[tuple[int, np.ndarray]]:
    """Draw clips: sequence and frame numbers."""
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, len(lengths), CLIPS) if len(lengths) < CLIPS else rng.permutation(len(lengths))[:CLIPS]
    return [(int(i), sample_clip(sampling, lengths[i], CLIP, rng)) for i in chosen]


def read_clips(frames: np.ndarray, folder: Path) -> dict[str, Any]:
    """Clips a second out of stores and out of pickles, and the bytes that a clip takes from the disk."""
    lengths = np.random.default_rng(0).integers(SHORTEST, LONGEST + 1, SEQUENCES).tolist()
    write_data_set(frames, lengths, folder)
    results: dict[str, Any] = {"megabytes": {name: round(size_of(folder / name) / 1e6, 1) for name in READERS}}
    with ProcessPoolExecutor(PROCESSES, get_context("spawn")) as pool:
        for sampling in ("consecutive", "unordered"):
            drawn = draw(lengths, sampling)
            results[f"{sampling}, bytes a clip"] = {name: touched(name, folder, drawn) for name in READERS}
            again = {name: partial(read_all, READERS[name](folder / name), drawn) for name in READERS}
            results[sampling] = rates(again, CLIPS)
            unread = {name: iter([READERS[name](folder / name) for _ in range(TURNS + 2)]) for name in READERS}
            first = {name: partial(read_next, readers, drawn) for name, readers in unread.items()}
            results[f"{sampling}, first of their sequences"] = rates(first, CLIPS)
            many = {name: partial(read_in_pool, pool, name, folder, drawn) for name in READERS}
            results[f"{sampling}, {PROCESSES} processes"] = rates(many, PROCESSES * CLIPS)
    show_clips(results)
    return results


def write_data_set(frames: np.ndarray, lengths: list[int], folder: Path) -> None:
    """Write walks of these lengths as stores and as pickles, each kind in a folder of its own."""
    cut, whole = folder / "pickles 64x44", folder / "pickles 64x64"
    cut.mkdir()
    whole.mkdir()
    stores = [StoreWriter(folder / f"store, {codec}", source="a benchmark", codec=codec) for codec in CODECS]
    with stores[0], stores[1]:
        for i, length in enumerate(track(lengths, "writing")):
            walk = frames[(37 * i + np.arange(length)) % len(frames)]
            (whole / f"{i}.pkl").write_bytes(pickle.dumps(walk))
            (cut / f"{i}.pkl").write_bytes(pickle.dumps(np.ascontiguousarray(crop_sides(walk))))
            for store in stores:
                store.add(walk, subject="p", condition="", view="", sequence=str(i), split="train")


class Pickles:
    """A folder of pickles, one a sequence."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def clip(self, i: int, index: np.ndarray) -> np.ndarray:
        with open(self.path / f"{i}.pkl", "rb") as file:
            frames: np.ndarray = pickle.load(file)
        return frames[index]


READERS: dict[str, type[Pickles] | type[SequenceStore]] = {
    "pickles 64x64": Pickles,
    "pickles 64x44": Pickles,
    **{f"store, {codec}": SequenceStore for codec in CODECS},
}


def read_all(reader: Pickles | SequenceStore, drawn: list[tuple[int, np.ndarray]]) -> None:
    for i, index in drawn:
        reader.clip(i, index)


def read_next(readers: Iterator[Pickles | SequenceStore], drawn: list[tuple[int, np.ndarray]]) -> None:
    read_all(next(readers), drawn)


@cache
def reader_here(name: str, path: Path) -> Pickles | SequenceStore:
    """Return the reader of a worker process, opened once."""
    return READERS[name](path)


def read_here(name: str, path: Path, drawn: list[tuple[int, np.ndarray]]) -> None:
    read_all(reader_here(name, path), drawn)


def read_in_pool(pool: ProcessPoolExecutor, name: str, folder: Path, drawn: list[tuple[int, np.ndarray]]) -> None:
    for done in [pool.submit(read_here, name, folder / name, drawn) for _ in range(PROCESSES)]:
        done.result()


def rates(sides: Mapping[str, Callable[[], None]], clips: int) -> dict[str, Any]:
    """Clips a second of each side, and how many times those of the pickles of whole frames."""
    result = summary(alternate(sides, TURNS), "pickles 64x64")
    return {
        name: {"clips_per_second": round(clips / of["median_s"]), "speed_up": of["speed_up"]}
        for name, of in result.items()
    }


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def touched(name: str, folder: Path, drawn: list[tuple[int, np.ndarray]]) -> int:
    """Bytes of the file that a clip needs, on average."""
    if READERS[name] is Pickles:
        return round(float(np.mean([(folder / name / f"{i}.pkl").stat().st_size for i, _ in drawn])))
    store = SequenceStore(folder / name)
    if store.header.codec == "raw":
        return CLIP * 64 * 64
    data = np.memmap(folder / name / "frames.bin", mode="r")
    ends = np.cumsum([row.bytes for row in store.rows])
    total = 0
    for i, index in drawn:
        row = store.rows[i]
        positions = np.frombuffer(data[ends[i] - row.bytes : ends[i]], "<u4", row.frames + 1).astype(np.int64)
        total += positions.nbytes // 2 + int(np.diff(positions)[np.unique(index)].sum())
    return round(total / len(drawn))


def show_clips(results: dict[str, Any]) -> None:
    table = Table("clips", *READERS)
    for what, result in results.items():
        shown = [
            f"{of['clips_per_second']} ({of['speed_up']} x)" if isinstance(of, dict) else of for of in result.values()
        ]
        table.add_row(what, *map(str, shown))
    console.print(table)


if __name__ == "__main__":
    main()
