"""Write the card of weights that ship: ``python tools/make_card.py walkers smplgait facts.json``.

``facts.json`` says what nobody can measure afterwards: data, steps, commit, machine, command, scores of long
comparisons. The scores of raw features on a small set of walkers, which the tests check, are added here.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from gaitdiff.data.store import SequenceStore
from gaitdiff.evaluation.features import extract
from gaitdiff.evaluation.held_out import held_out_rows
from gaitdiff.evaluation.stored import evaluate_store
from gaitdiff.models import create_model
from gaitdiff.models.pretrained import pretrained_folder, pretrained_model
from gaitdiff.walkers import generate

#: The set of walkers that raw features are scored on.
PROBED = {"people": 40, "sequences": 6, "preset": "market", "seed": 7700, "frames": 30, "test_people": 40}


def raw_scores(model: str, pretrained: str, store: SequenceStore, fresh: int | None = None) -> dict[str, float]:
    """Rank-1 and mAP of raw features, by both distances, every sequence a probe.

    Args:
        fresh: seed of a fresh network that stands in for the pretrained one.
    """
    if fresh is None:
        network = create_model(model, pretrained=pretrained)
    else:
        torch.manual_seed(fresh)
        theirs = pretrained_model(pretrained, model)
        network = create_model(model, theirs["preset"], **theirs["config"])
    backbone = network.eval().backbone
    rows = held_out_rows(store)
    features = extract(backbone, store, rows, torch.device("cpu"))
    found: dict[str, float] = {}
    for metric in ("cosine", "euclidean"):
        scores = evaluate_store(features, store, rows, "leave-one-out", metric)
        found |= {f"{score}_{metric}": round(scores[score], 2) for score in ("rank1", "mAP")}
    return found


def main(name: str, model: str, facts: str) -> None:
    """Write ``card.json`` beside the weights."""
    folder = pretrained_folder(name, model)
    with tempfile.TemporaryDirectory() as draft:
        store = SequenceStore(generate(Path(draft) / "walks", **PROBED))  # type: ignore[arg-type]
        card: dict[str, Any] = {
            "name": name,
            "model": model,
            "preset": pretrained_model(name, model)["preset"],
            **json.loads(Path(facts).read_text(encoding="utf-8")),
            "raw_features": {
                "walkers": PROBED,
                "pretrained": raw_scores(model, name, store),
                "fresh": [raw_scores(model, name, store, seed) for seed in range(3)],
            },
        }
    (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
