"""Features of a test set: ours, several sequences at a time, beside one sequence at a time.

    python -m benchmarks.embed [--cases smplgait/walkers gaitbase/gait3d] [--device cuda] [--threads 2]

One at a time are the networks written layer by layer (``benchmarks/plain_models.py``), as the field does it, and ours.
All read the same store and compute with the same weights, ours in float32 and, where the machine is fast at it, in
bfloat16 (``gaitdiff embed --precision``); each turn is the whole set of walks of 20 to 100 frames. Reported are
sequences a second, how many times the plain networks take a side's time, the median over turns, how far features are
from theirs, and the operations a second of convolutions and matrix products over those of a matrix product alone.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import alternate, origin, summary, write
from benchmarks.plain_models import plain_model, take_weights
from benchmarks.stepping import ceilings_of, count_flops
from gaitdiff.data.clips import crop_sides
from gaitdiff.data.store import SequenceStore, StoreWriter
from gaitdiff.evaluation.features import extract
from gaitdiff.models import create_model, list_models
from gaitdiff.training.device import keep_freed_memory
from gaitdiff.utils.modes import evaluating
from gaitdiff.utils.precision import has_fast_bfloat16
from gaitdiff.walkers import render_sequence

SHORTEST, LONGEST = 20, 100  # frames
PEER = "plain network, one at a time"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    cases = [f"{name}/{preset}" for name in list_models() for preset in ("walkers", "gait3d")]
    parser.add_argument("--cases", nargs="+", choices=cases, default=cases, metavar="MODEL/PRESET")
    parser.add_argument("--sequences", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    result: dict[str, Any] = origin(args.device)
    result["matrix_product_gflops"] = ceilings = ceilings_of(args.device)
    result |= {"sequences": args.sequences, "frames": [SHORTEST, LONGEST], "models": {}}
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder) / "walks", args.sequences)
        for case in args.cases:
            name, preset = case.split("/")
            result["models"][case] = told = compare(name, preset, store, args.device, args.repeats, ceilings)
            print(f"{case:20s}", told, flush=True)
    print(write("embed", result, args.device))


def make_store(path: Path, sequences: int) -> SequenceStore:
    """Walks of unequal lengths."""
    rng = np.random.default_rng(0)
    with StoreWriter(path, width=64, crop="full", source="benchmark") as writer:
        for number in range(sequences):
            frames = render_sequence(0, number, 0, frames=int(rng.integers(SHORTEST, LONGEST + 1)))
            writer.add(frames, subject=f"p{number}", condition="", view="", sequence="0", split="test", role="")
    return SequenceStore(path)


def compare(
    name: str, preset: str, store: SequenceStore, device: str, repeats: int, ceilings: Mapping[str, int]
) -> dict[str, Any]:
    """What is told of each side."""
    torch.manual_seed(0)
    model, rows, place = create_model(name, preset).to(device).eval(), np.arange(len(store.rows)), torch.device(device)
    plain = plain_model(name, preset, 0).to(device).eval()
    take_weights(plain, model)

    def one_at_a_time(network: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        found = []
        with torch.no_grad():
            for row in rows:
                frames = crop_sides(store.clip(int(row), np.arange(store.rows[row].frames)))
                clip = torch.from_numpy(np.ascontiguousarray(frames)).to(place).float().div(255)
                found.append(network(clip[None]).cpu())
        return torch.cat(found)

    sides: dict[str, Callable[[], torch.Tensor]] = {
        PEER: partial(one_at_a_time, lambda clip: plain(clip)[0]),
        "one at a time": partial(one_at_a_time, lambda clip: model(clip).embedding),
        "ours": partial(extract, model, store, rows, place),
    }
    if has_fast_bfloat16(place.type):
        sides["ours, bfloat16"] = partial(extract, model, store, rows, place, half=True)
    with evaluating(model):
        right = sides[PEER]()
        apart = {side: float((call() - right).norm() / right.norm()) for side, call in sides.items()}
        times = summary(alternate(sides, repeats, warm_up=1), PEER)
        gflop = {side: count_flops(call) / 1e9 for side, call in sides.items()}
    kinds = {side: "bfloat16" if "bfloat16" in side else "float32" for side in sides}
    return {
        side: {
            "sequences_a_second": round(len(rows) / told["median_s"], 2),
            "speed_up": told["speed_up"],
            "differ_by": round(apart[side], 8),
            "of_matrix_product": round(gflop[side] / told["median_s"] / ceilings[kinds[side]], 3),
        }
        for side, told in times.items()
    }


if __name__ == "__main__":
    main()
