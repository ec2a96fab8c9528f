"""What verbs have in common: texts of their options, and how a process is set up."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from gaitdiff.config import shared
from gaitdiff.errors import UserError

#: Texts of options that several verbs have.
Checkpoint = Annotated[Path, "run folder, checkpoint, or weights that ship, such as walkers"]
Store = Annotated[Path, "folder of a sequence store"]
Device = Annotated[str, "auto, cpu, cuda or mps"]
Workers = Annotated[int | None, "processes (default: one per core)"]
Features = Annotated[
    Literal["auto", "raw", "embedding", "neck"],
    "the backbone's raw features, the head's embeddings, or what its BN neck makes of them, which published DeepGaitV2 "
    "numbers are of (default: embeddings where a head was trained)",
]
Metric = Annotated[
    Literal["cosine", "euclidean"] | None,
    "distance (default: the one that the checkpoint was trained with, cosine for one from pretraining)",
]
Precision = Annotated[
    shared.Precision,
    "to compute features in: bfloat16 is faster on a GPU, or a CPU with AMX or AVX-512-BF16; auto looks for these",
]
Resize = Annotated[bool, "convert frames of another height than the checkpoint was trained on"]


def prepare() -> None:
    """Set this process up for a verb that computes."""
    from gaitdiff.training.device import keep_freed_memory

    keep_freed_memory()


def require_distinct(runs: Sequence[Path]) -> None:
    """Refuse a run folder that is given twice, by whatever paths."""
    places = [folder.resolve() for folder in runs]
    if twice := [folder for folder, place in zip(runs, places, strict=True) if places.count(place) > 1]:
        raise UserError(f"{twice[-1]} is given twice: name each run once")


def tell_repeated(flags: Iterable[str]) -> None:
    """Say of a flag that is given several times, as where a script adds to a command, that the last one counts."""
    from gaitdiff.utils.progress import say

    for flag, count in Counter(flags).items():
        if count > 1 and os.environ.get("RANK", "0") == "0":  # the first of several processes
            say(f"{flag} is given {count} times: the last one counts")
