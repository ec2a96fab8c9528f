"""The student autoencoder's speed against TAESD's, on walkers.

    python -m benchmarks.autoencoder [--taesd SOURCE] [--device cuda]

TAESD's weights are taken from SOURCE: a path, a hub id, or what the environment variable GAITDIFF_TAESD says.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.measure import alternate, origin, summary, write
from gaitdiff.diffusion import load_autoencoder
from gaitdiff.walkers import render_sequence


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--taesd", default="taesd")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sequences", type=int, default=8, help="of 8 frames each")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    both = {"taesd": load_autoencoder(args.taesd, args.device), "student": load_autoencoder("student", args.device)}
    walks = np.stack([render_sequence(0, person, 0, frames=8) for person in range(args.sequences)])
    clips = torch.from_numpy(walks).to(args.device).float() / 255
    latents = both["taesd"].encode(clips)
    result: dict[str, Any] = {**origin(args.device), "frames": clips.shape[0] * clips.shape[1]}
    for what, argument in (("encode", clips), ("decode", latents)):
        sides = {name: partial(getattr(a, what), argument) for name, a in both.items()}
        times = summary(alternate(sides, args.repeats), reference="taesd")
        for side in times.values():
            side["ms_per_frame"] = round(1e3 * side["median_s"] / result["frames"], 4)
        result[what] = times
        print(what, times)
    print(write("autoencoder", result, args.device))


if __name__ == "__main__":
    main()
