"""Raw features by the number of frames they are pooled over: pretrained beside fresh ones.

    python -m benchmarks.frames --store STORE --pretrained CHECKPOINT…

The first frames of each test sequence count. The result is benchmarks/results/learning/frames.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import origin, write
from gaitdiff.data.store import SequenceStore
from gaitdiff.evaluation.features import extract
from gaitdiff.evaluation.held_out import held_out_rows
from gaitdiff.evaluation.stored import evaluate_store
from gaitdiff.models import Backbone, create_model
from gaitdiff.training.checkpoint import load_checkpoint, read_checkpoint_info, read_model_document
from gaitdiff.utils.progress import console


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--pretrained", type=Path, nargs="+", required=True, help="runs or checkpoints of one model")
    parser.add_argument("--frames", type=int, nargs="+", default=[8, 15, 30, 60])
    parser.add_argument("--seeds", type=int, default=3, help="fresh networks to compare with")
    args = parser.parse_args()
    backbones = networks(args.pretrained, args.seeds)
    store = SequenceStore(args.store)
    rows, scores = held_out_rows(store), {}
    for frames in args.frames:
        for name, backbone in backbones.items():
            features = extract(backbone, store, rows, torch.device("cpu"), max_frames=frames)
            found: dict[str, Any] = {}
            for metric in ("cosine", "euclidean"):
                result = evaluate_store(features, store, rows, "leave-one-out", metric)
                found |= {f"{score}_{metric}": round(result[score], 2) for score in ("rank1", "mAP")}
            scores[f"{frames} frames, {name}"] = found
            console.print(frames, name, found)
    about = {
        **origin(),
        "store": store.header.source,
        "probes": len(rows),
        "protocol": "leave-one-out",
    }
    console.print(write("learning/frames", {**about, "scores": scores}))


def networks(pretrained: Sequence[Path], seeds: int) -> dict[str, Backbone]:
    """Pretrained backbones by the names of their folders, and as many fresh ones of the same model."""
    document = read_model_document(read_checkpoint_info(pretrained[0]).folder)
    backbones: dict[str, Backbone] = {one.name: load_checkpoint(one).backbone for one in pretrained}
    for seed in range(seeds):
        torch.manual_seed(seed)
        fresh = create_model(document["model"], document["preset"], **document["config"])
        backbones[f"fresh, seed {seed}"] = fresh.backbone
    return {name: backbone.eval() for name, backbone in backbones.items()}


if __name__ == "__main__":
    main()
