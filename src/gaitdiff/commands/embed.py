"""``gaitdiff embed``: the features of a store's walks, by name, in one file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from gaitdiff.config.schema import MachineConfig
from gaitdiff.config.shared import Precision
from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError
from gaitdiff.evaluation.ranking import feature_set
from gaitdiff.evaluation.shards import extract_shared_to
from gaitdiff.evaluation.stored import names_of
from gaitdiff.training.checkpoint import load_checkpoint, pick_features, read_checkpoint_info
from gaitdiff.training.device import make_accelerator
from gaitdiff.training.together import peers_told
from gaitdiff.utils.files import atomic_file, require_new
from gaitdiff.utils.progress import say
from gaitdiff.utils.scratch import scratch_folder
from gaitdiff.version import __version__

#: Columns of a store's manifest that name the rows of the file.
NAMES = ("subject", "condition", "view", "sequence", "split")
#: Letters that a name in the file may have.
NAME_LETTERS = 1000


def embed_store(
    checkpoint: Path,
    data: Path,
    out: Path,
    *,
    features: str = "auto",
    split: str | None = None,
    resize: bool = False,
    device: str = "auto",
    precision: Precision = "float32",
) -> Path | None:
    """Write the features of a store's walks, in the store's order, as arrays that ``numpy.load`` gives by name.

    ``features`` (N, C, P) float32, and ``subject``, ``condition``, ``view``, ``sequence`` and ``split`` (N,), as the
    manifest has them; and ``about``, JSON that says of which checkpoint they are and by which distance they are
    compared. No feature is held in memory. Processes that torchrun started share the work.

    Args:
        out: ``.npz`` file to create; it appears when it is whole.
        features: see ``gaitdiff.training.checkpoint.pick_features``.
        split: ``"train"``, ``"val"`` or ``"test"``; None: all.
        resize: convert frames of another height than the checkpoint's.
        precision: to compute in; the features are float32 either way.

    Returns:
        ``out``; None in other processes than the first.

    Raises:
        UserError: no checkpoint, no such walks, features that the checkpoint does not have, frames of another height;
            ``out`` is there already or cannot be written.
    """
    if out.suffix.lower() != ".npz":
        raise UserError(
            f"--out is {out}, but features with names are a .npz file: call it {out.stem or 'features'}.npz"
        )
    require_new(out)
    accelerator = make_accelerator(MachineConfig(device=device, precision=precision))
    place = accelerator.device
    info, store = read_checkpoint_info(checkpoint), SequenceStore(data)
    rows = store.select(split)
    if len(rows) == 0:
        raise UserError(f"{data} has no {split} sequences: choose another --split")
    info.require_features(features)
    info.require_height(store, resize)
    network, kind = pick_features(load_checkpoint(info.folder, place), features)
    chosen = [store.rows[int(row)] for row in rows]
    longest = max(len(word) for row in chosen for word in row.key)
    if longest > NAME_LETTERS:  # an array has room for the longest in every row
        raise UserError(
            f"{data} has names of {longest:,} letters, more than {NAME_LETTERS:,}: import it with shorter ones"
        )
    about = {
        "checkpoint": str(info.origin),
        "features": kind,
        "metric": info.metric,
        "store": str(data),
        "gaitdiff": __version__,
    }
    names: dict[str, Any] = {name: np.array([getattr(row, name) for row in chosen]) for name in NAMES}
    with scratch_folder() as folder:
        file = folder / "features.npy"
        with peers_told(accelerator.num_processes):
            height, half = info.height if resize else None, accelerator.mixed_precision == "bf16"
            found = extract_shared_to(file, network, store, rows, place, height, half)
        if found is None:  # the first process has all
            return None
        feature_set(found, *names_of(store, rows), "cosine").require_finite()
        require_new(out)  # since another process may have written it
        with atomic_file(out) as draft, draft.open("wb") as stream:
            np.savez(stream, features=found, **names, about=np.array(json.dumps(about)))
        people, (_, channels, parts) = len(set(names["subject"])), found.shape
        del found
    say(f"{len(rows):,} sequences of {people:,} people: {kind}, {channels} channels of {parts} parts")
    return out
