"""Raw features by the directions that they differ in: what distances between them go by, and what they hold besides.

    python -m benchmarks.directions --store STORE --pretrained CHECKPOINT…

Of pretrained and of fresh networks: scores of the test people by the features as they are; less the mean of unlabelled
training walks; without the directions in which those differ most; by so many directions, all of which count alike;
whitened; and by the best linear map, which is learned from labelled training people. Then how the directions divide up
what training walks differ in, and how much of it is between people and between cameras; and scores of features that are
the mean over windows of frames, where the network takes maxima over the whole walk. The result is
benchmarks/results/learning/directions.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.frames import networks
from benchmarks.measure import origin, write
from gaitdiff.data.batches import training_rows
from gaitdiff.data.clips import crop_sides
from gaitdiff.data.store import SequenceStore
from gaitdiff.evaluation.features import extract
from gaitdiff.evaluation.held_out import held_out_rows
from gaitdiff.evaluation.linear import LinearMap, discriminant, less_means, unit_rows, whitening
from gaitdiff.evaluation.outcomes import Outcome, difference, outcome_of_features
from gaitdiff.models import Backbone
from gaitdiff.utils.progress import console

CPU = torch.device("cpu")
LEFT_OUT = (1, 8)
EQUAL = (8, 16, 32, 64, 128)
WINDOWS = (1, 8)
#: Directions whose share of all variance is told.
FIRST = (1, 4, 16)

Principal = tuple[LinearMap, Tensor]


def principal_of(features: Tensor) -> Principal:
    """The map to the principal directions of features (N, C, P), all d of them, and the variances along these (d,)."""
    rows = unit_rows(features)
    _, spread, axes = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    return LinearMap(rows.mean(0), axes.T), spread.square() / (len(rows) - 1)


def between(places: Tensor, labels: Sequence[str]) -> Tensor:
    """Share of the variance along each direction that is between groups, (d,): one-way analysis of variance."""
    within = less_means(places, labels).square().sum(0) / (len(places) - len(set(labels)))
    return 1.0 - within / places.var(0)


def scores(
    raw: Tensor, learned: Tensor, principal: Principal, store: SequenceStore, rows: np.ndarray, train: np.ndarray
) -> dict[str, Any]:
    """Outcomes of test features by kind."""
    directions, variance = principal
    places = directions(raw)
    people = [store.rows[int(row)].subject for row in train]
    kinds: dict[str, tuple[Tensor, str]] = {"cosine": (raw, "cosine"), "euclidean": (raw, "euclidean")}
    kinds["less the mean"] = (places, "cosine")
    for first in LEFT_OUT:
        kinds[f"without the first {first}"] = (places[:, first:], "cosine")
    for first in EQUAL:
        alike = places[:, :first] / variance[:first, None].sqrt().float()
        kinds[f"the first {first}, all alike"] = (alike, "cosine")
    kinds["whitened"] = (whitening(learned)(raw), "cosine")
    kinds["best linear map"] = (discriminant(learned, people)(raw), "cosine")
    return {kind: outcome(*chosen, store, rows) for kind, chosen in kinds.items()}


def outcome(features: Tensor, metric: str, store: SequenceStore, rows: np.ndarray) -> Outcome:
    """Every test walk looked for among all others."""
    return outcome_of_features(features, store, rows, "leave-one-out", metric, CPU)


def spectrum(learned: Tensor, principal: Principal, store: SequenceStore, train: np.ndarray) -> dict[str, Any]:
    """How many directions there are in effect, what share the first have, and how much is between people, cameras."""
    directions, variance = principal
    places, share = directions(learned).squeeze(2).double(), variance / variance.sum()
    found: dict[str, Any] = {"effective directions": round(float(1 / share.square().sum()), 1)}
    found["percent in the first"] = {str(first): percent(share[:first].sum()) for first in FIRST}
    for name, labels in (
        ("people", [store.rows[int(row)].subject for row in train]),
        ("cameras", [store.rows[int(row)].view for row in train]),
    ):
        part = between(places, labels)
        found[f"percent between {name}"] = percent((part * share).sum())
        found[f"percent between {name} in the first"] = percent(part[0])
    return found


def percent(value: Tensor) -> float:
    """A share in percent."""
    return round(100.0 * float(value), 1)


@torch.no_grad()
def windowed(backbone: Backbone, store: SequenceStore, rows: np.ndarray, window: int) -> Tensor:
    """Features (N, C, P) that are means over windows of so many frames, each of which is pooled by the network."""
    found = []
    for row in rows:
        clip = crop_sides(torch.from_numpy(np.array(store[int(row)].frames)).float().div(255)[None])
        frames = clip.shape[1]
        lengths = [min(window, frames - begin) for begin in range(0, frames, window)]
        found.append(backbone(clip, lengths).mean(0))
    return torch.stack(found)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--pretrained", type=Path, nargs="+", required=True, help="runs or checkpoints of one model")
    parser.add_argument("--seeds", type=int, default=5, help="fresh networks to compare with")
    args = parser.parse_args()
    backbones = networks(args.pretrained, args.seeds)
    pretrained = [one.name for one in args.pretrained]
    fresh = [name for name in backbones if name not in pretrained]
    store = SequenceStore(args.store)
    rows, train = held_out_rows(store), training_rows(store, 1)
    outcomes: dict[str, dict[str, Outcome]] = {}
    spectra: dict[str, Any] = {}
    for name, backbone in backbones.items():
        features = extract(backbone, store, np.concatenate([rows, train]), CPU)
        raw, learned = features[: len(rows)], features[len(rows) :]
        principal = principal_of(learned)
        outcomes[name] = scores(raw, learned, principal, store, rows, train)
        for window in WINDOWS:
            mean = windowed(backbone, store, rows, window)
            for metric in ("cosine", "euclidean"):
                outcomes[name][f"windows of {window}, {metric}"] = outcome(mean, metric, store, rows)
        spectra[name] = spectrum(learned, principal, store, train)
        told = {kind: [one.percent("rank1"), one.percent("mAP")] for kind, one in outcomes[name].items()}
        console.print(name, told, spectra[name])
    result: dict[str, Any] = {
        **origin(),
        "store": store.header.source,
        "probes": len(rows),
        "training walks": len(train),
        "protocol": "leave-one-out",
    }
    result["scores"] = {
        name: {kind: {score: one.percent(score) for score in ("rank1", "mAP")} for kind, one in kinds.items()}
        for name, kinds in outcomes.items()
    }
    result["over fresh networks"] = {
        name: {
            kind: {
                score: [round(value, 2) for value in difference([(outcomes[f][kind], found) for f in fresh], score)]
                for score in ("rank1", "mAP")
            }
            for kind, found in outcomes[name].items()
        }
        for name in pretrained
    }
    result["directions"] = spectra
    console.print(write("learning/directions", result))


if __name__ == "__main__":
    main()
