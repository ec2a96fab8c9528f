"""Silhouettes of your own: folders of masks become a store, the store becomes features, and these say who is like whom.

    python examples/own_silhouettes.py masks      # masks/<person>/<walk>/*.png, white on black
    python examples/own_silhouettes.py            # draws some masks first

The model is one that was trained (a run folder or an imported checkpoint), or else one that ships, which learned from
synthetic people without labels.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch

import gaitdiff
from gaitdiff.data.importers import import_data
from gaitdiff.data.store import SequenceStore
from gaitdiff.evaluation import distance_matrix
from gaitdiff.walkers import generate


def draw_masks(folder: Path) -> Path:
    """Three synthetic people, two walks each, as a camera and a segmentation would leave them: large, off centre."""
    store = SequenceStore(generate(folder / "drawn", people=3, sequences=2, preset="market", seed=1))
    for row, walk in enumerate(store.rows):
        place = folder / "masks" / walk.subject / walk.sequence
        place.mkdir(parents=True)
        for number, frame in enumerate(store[row].frames):
            mask = np.pad(cv2.resize(frame, (128, 128), interpolation=cv2.INTER_NEAREST), ((20, 12), (40, 90)))
            cv2.imwrite(str(place / f"{number:03}.png"), mask)
    return folder / "masks"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("masks", nargs="?", type=Path)
    parser.add_argument("--model", default="walkers", help="run folder or checkpoint, or weights that ship")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        masks = args.masks or draw_masks(Path(folder))
        report = import_data(masks, Path(folder) / "store", kind="frames", split="test", workers=1)
        store = SequenceStore(report.out)
        model = gaitdiff.load_checkpoint(args.model)
        features = gaitdiff.embed(model, [store[row] for row in range(len(store.rows))])  # (N, C, P)
        distances = distance_matrix(features, features, model.metric).fill_diagonal_(torch.inf)
        for row, nearest in enumerate(distances.argmin(dim=1).tolist()):
            here, there = store.rows[row], store.rows[nearest]
            print(f"{here.subject}/{here.sequence} is nearest to {there.subject}/{there.sequence}")


if __name__ == "__main__":
    main()
