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
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import commit, machine, write
from gaitdiff.data.batches import training_rows
from gaitdiff.data.clips import crop_sides
from gaitdiff.data.store import SequenceStore
from gaitdiff.evaluation.features import extract
from gaitdiff.evaluation.held_out import held_out_rows
from gaitdiff.evaluation.linear import discriminant, whitening
from gaitdiff.evaluation.outcomes import Outcome, difference, outcome_of_features
from gaitdiff.models import Backbone, create_model
from gaitdiff.training.checkpoint import load_checkpoint, read_checkpoint_info, read_model_document
from gaitdiff.utils.progress import console

CPU = torch.device("cpu")
LEFT_OUT = (1, 8)
EQUAL = (8, 16, 32, 64, 128)
WINDOWS = (1, 8)
#: Directions whose share of all variance is told.
FIRST = (1, 4, 16)


@dataclass(frozen=True)
class Directions:
    """Principal directions of training walks: their mean (k,), the directions (k, d), and variances along them (d,)."""

    mean: Tensor
    axes: Tensor
    variance: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Directions:
        """Of features (N, C, P)."""
        rows = flat(features)
        _, spread, axes = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
        return cls(rows.mean(0), axes.T, spread.square() / (len(rows) - 1))

    def __call__(self, features: Tensor) -> Tensor:
        """Where features (N, C, P) lie along each direction, (N, d)."""
        return (flat(features) - self.mean) @ self.axes


def flat(features: Tensor) -> Tensor:
    """(N, C, P), each part made of unit length as cosine distances have it, as rows (N, C·P)."""
    return F.normalize(features.double(), dim=1).flatten(1)


def between(places: Tensor, labels: Sequence[str]) -> Tensor:
    """Share of the variance along each direction that is between groups, (d,): one-way analysis of variance."""
    _, group = np.unique(np.asarray(labels), return_inverse=True)
    member = F.one_hot(torch.from_numpy(group)).double()
    count = member.sum(0)
    within = (places - member @ ((member.T @ places) / count[:, None])).square().sum(0) / (len(places) - len(count))
    return 1.0 - within / places.var(0)


def scores(raw: Tensor, learned: Tensor, store: SequenceStore, rows: np.ndarray, train: np.ndarray) -> dict[str, Any]:
    """Outcomes of test features by kind."""
    directions = Directions.of(learned)
    places = directions(raw)
    people = [store.rows[int(row)].subject for row in train]
    kinds: dict[str, tuple[Tensor, str]] = {"cosine": (raw, "cosine"), "euclidean": (raw, "euclidean")}
    kinds["less the mean"] = (places.float().unsqueeze(2), "cosine")
    for first in LEFT_OUT:
        kinds[f"without the first {first}"] = (places[:, first:].float().unsqueeze(2), "cosine")
    for first in EQUAL:
        alike = places[:, :first] / directions.variance[:first].sqrt()
        kinds[f"the first {first}, all alike"] = (alike.float().unsqueeze(2), "cosine")
    kinds["whitened"] = (whitening(learned)(raw), "cosine")
    kinds["best linear map"] = (discriminant(learned, people)(raw), "cosine")
    return {kind: outcome(*chosen, store, rows) for kind, chosen in kinds.items()}


def outcome(features: Tensor, metric: str, store: SequenceStore, rows: np.ndarray) -> Outcome:
    """Every test walk looked for among all others."""
    return outcome_of_features(features, store, rows, "leave-one-out", metric, CPU)


def spectrum(learned: Tensor, store: SequenceStore, train: np.ndarray) -> dict[str, Any]:
    """How many directions there are in effect, what share the first have, and how much is between people, cameras."""
    directions = Directions.of(learned)
    places, share = directions(learned), directions.variance / directions.variance.sum()
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
    document = read_model_document(read_checkpoint_info(args.pretrained[0]).folder)
    backbones: dict[str, Backbone] = {one.name: load_checkpoint(one).backbone.eval() for one in args.pretrained}
    fresh = [f"fresh, seed {seed}" for seed in range(args.seeds)]
    for seed, name in enumerate(fresh):
        torch.manual_seed(seed)
        backbones[name] = create_model(document["model"], document["preset"], **document["config"]).eval().backbone
    store = SequenceStore(args.store)
    rows, train = held_out_rows(store), training_rows(store, 1)
    outcomes: dict[str, dict[str, Outcome]] = {}
    spectra: dict[str, Any] = {}
    for name, backbone in backbones.items():
        features = extract(backbone, store, np.concatenate([rows, train]), CPU)
        raw, learned = features[: len(rows)], features[len(rows) :]
        outcomes[name] = scores(raw, learned, store, rows, train)
        for window in WINDOWS:
            mean = windowed(backbone, store, rows, window)
            for metric in ("cosine", "euclidean"):
                outcomes[name][f"windows of {window}, {metric}"] = outcome(mean, metric, store, rows)
        spectra[name] = spectrum(learned, store, train)
        told = {kind: [one.percent("rank1"), one.percent("mAP")] for kind, one in outcomes[name].items()}
        console.print(name, told, spectra[name])
    result: dict[str, Any] = {
        "commit": commit(),
        "command": shlex.join(["python", "-m", "benchmarks.directions", *sys.argv[1:]]),
        "machine": machine(),
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
        one.name: {
            kind: {
                score: [round(value, 2) for value in difference([(outcomes[f][kind], found) for f in fresh], score)]
                for score in ("rank1", "mAP")
            }
            for kind, found in outcomes[one.name].items()
        }
        for one in args.pretrained
    }
    result["directions"] = spectra
    console.print(write("learning/directions", result))


if __name__ == "__main__":
    main()
