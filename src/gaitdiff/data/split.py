"""Set training people aside for validation, in a store that is there already."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from gaitdiff.data.store import SequenceStore
from gaitdiff.data.store.header import FRAMES_FILE, HEADER_FILE, MANIFEST_FILE
from gaitdiff.data.store.manifest import encode_manifest
from gaitdiff.errors import UserError, require_seed
from gaitdiff.utils.files import atomic_folder, require_new

TRAIN, VALIDATION = "train", "val"


def split_store(source: Path, out: Path, people: int, seed: int = 0) -> Path:
    """Write a store in which some of the training people are there for validation instead.

    Frames are not copied where both folders lie on one file system (they are linked), and test people stay as they
    are. Of each person's walks a random one becomes the "probe", the others are "gallery".

    Args:
        source: folder of a store.
        out: folder of the new one.
        people: how many to set aside, drawn at random from those with several walks.
        seed: of the draw.

    Raises:
        UserError: there are not so many, the seed is negative, the store has some already, or ``out`` exists or cannot
            be written.
    """
    store = SequenceStore(source)
    require_seed(seed)
    require_new(out)
    if len(store.select(split=VALIDATION)):
        raise UserError(f"{source} has validation people already: split the store that it was made from")
    walks: dict[str, list[int]] = {}
    for number in store.select(split=TRAIN):
        walks.setdefault(store.rows[int(number)].subject, []).append(int(number))
    several = sorted(person for person, some in walks.items() if len(some) > 1)
    most = min(len(several), len(walks) - 1)
    if not 2 <= people <= most:
        takes = f"--val-people takes from 2 to {most}" if most >= 2 else "that takes three, two of them with several"
        raise UserError(
            f"{people} people cannot be set aside of {len(walks)} training people in {source}, {len(several)} of whom "
            f"have several walks: {takes}"
        )
    rng, rows = np.random.default_rng(seed), list(store.rows)
    for place in sorted(rng.permutation(len(several))[:people]):
        chosen = walks[several[place]]
        probe = int(rng.choice(chosen))
        for number in chosen:
            rows[number] = replace(rows[number], split=VALIDATION, role="probe" if number == probe else "gallery")
    manifest = encode_manifest(rows)
    header = replace(store.header, manifest_sha256=sha256(manifest).hexdigest())
    with atomic_folder(out) as draft:
        try:
            os.link(source / FRAMES_FILE, draft / FRAMES_FILE)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source / FRAMES_FILE, draft / FRAMES_FILE)
        (draft / MANIFEST_FILE).write_bytes(manifest)
        (draft / HEADER_FILE).write_bytes(header.encode())
    return out
