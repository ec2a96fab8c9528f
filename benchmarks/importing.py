"""Frames a second of ``gaitdiff data import``: images of raw masks, and pickles of aligned frames.

    python -m benchmarks.importing [--frames 100000] [--workers 1 2] [--folder FOLDER]

Walkers are rendered, enlarged and put somewhere into images of 160 x 120, one PNG a frame, as segmentation leaves them;
and written once more as OpenGait's pickles. Each is imported by the command, processes and all, once for each number
of workers. Beside it stands the plain way: one process that decodes each image by OpenCV, aligns it and pickles each
sequence, which is what a preprocessing script does.
"""

from __future__ import annotations

import argparse
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.measure import origin, write
from gaitdiff.data.align import align_sequence
from gaitdiff.data.store import SequenceStore
from gaitdiff.walkers import generate

LENGTH = 100  # frames of a sequence


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--frames", type=int, default=100_000, help="images in all (default: %(default)s)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="processes (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=None, help="where to work (default: a temporary folder)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        root = Path(folder)
        make_sources(root, args.frames)
        result: dict[str, Any] = {**origin(), "frames": args.frames, "frames_per_s": {}}
        for kind in ("images", "pickles"):
            rates = {f"{workers} workers": rate(root, kind, workers, args.frames) for workers in args.workers}
            if kind == "images":
                rates["plain script"] = args.frames / seconds(lambda: plain_script(root))
            for name, value in rates.items():
                print(f"{kind:8s} {name:14s} {value:9,.0f} frames/s", flush=True)
            result["frames_per_s"][kind] = {name: round(value) for name, value in rates.items()}
    print(write("importing", result))


def make_sources(root: Path, frames: int) -> None:
    """Draw the same walks as images and as pickles."""
    few = 20
    walkers = SequenceStore(generate(root / "walkers", people=few, sequences=2, frames=LENGTH, seed=7))
    rng = np.random.default_rng(0)
    for number in range(frames // LENGTH):
        place = f"{number // 10:04d}/camid{number % 10}_videoid0/seq0"
        aligned = walkers[number % len(walkers)].frames
        (root / "images" / place).mkdir(parents=True)
        (root / "pickles" / place).mkdir(parents=True)
        (root / "pickles" / place / "seq0.pkl").write_bytes(pickle.dumps(np.ascontiguousarray(aligned)))
        for i, frame in enumerate(aligned):
            image = np.zeros((160, 120), np.uint8)
            top, left = int(rng.integers(0, 30)), int(rng.integers(0, 40))
            image[top : top + 128, left : left + 80] = cv2.resize(frame, (128, 128))[:, 24:104]
            cv2.imwrite(str(root / "images" / place / f"{i:04d}.png"), (image > 127).astype(np.uint8) * 255)


def rate(root: Path, kind: str, workers: int, frames: int) -> float:
    """Frames a second of the command."""
    out = root / "store"
    words = ["data", "import", str(root / kind), "--out", str(out), "--split", "train", "--workers", str(workers)]
    command = [sys.executable, "-m", "gaitdiff.cli", *words]
    taken = seconds(lambda: subprocess.run(command, check=True, capture_output=True))
    assert SequenceStore(out).header.frames == frames
    shutil.rmtree(out)
    return frames / taken


def plain_script(root: Path) -> None:
    """Decode, align and pickle, one sequence after the other."""
    for folder in sorted((root / "images").glob("*/*/*")):
        files = sorted(folder.iterdir())
        frames = align_sequence(np.asarray(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)) for file in files)
        (root / "out.pkl").write_bytes(pickle.dumps(frames))


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
