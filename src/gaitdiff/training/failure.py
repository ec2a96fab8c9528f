"""What is kept of a training step whose loss or gradient is not finite, so that it can be repeated and looked at."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from gaitdiff.errors import UserError
from gaitdiff.training.checkpoint_files import CheckpointContents, save_checkpoint
from gaitdiff.utils.progress import say

#: What such folders are called, before the number of the step.
FAILED = "nonfinite-step-"


def failure_folder(run: Path, step: int) -> Path:
    """Where the failure of the step after ``step`` is kept: a run folder that stands before it."""
    return run / f"{FAILED}{step + 1}"


def keep_failure(
    run: Path, batch: Any, contents: Callable[[], CheckpointContents], step: int, rank: int, main: bool
) -> None:
    """Keep a batch, and the run as it stands before its step: a checkpoint, from which the same settings repeat it.

    Noise and augmentation come from the seed and the number of the step. Of the weights only statistics of
    BatchNorm have seen the batch, on a GPU later ones too, which training does not read. Where it cannot be kept, that
    is said.

    Args:
        run: folder of the run.
        contents: makes the tensors and documents of the checkpoint.
        step: the last one that went well.
        rank, main: which process this is, and whether it is the one that writes checkpoints.
    """
    if run.name.startswith(FAILED):  # kept already
        return
    kept = failure_folder(run, step)
    try:
        kept.mkdir(exist_ok=True)
        np.savez_compressed(kept / f"batch-process-{rank}.npz", **_arrays(batch))
        if main:
            shutil.copyfile(run / "config.yaml", kept / "config.yaml")
            tensors, documents = contents()
            save_checkpoint(kept, step, tensors, documents, keep=1)
    except (OSError, UserError) as error:
        with suppress(OSError):
            say(f"{kept} could not be written whole ({error})")


def _arrays(value: Any, prefix: str = "") -> dict[str, Any]:
    """All arrays of a batch by dotted name."""
    found: dict[str, Any] = {}
    for name, item in vars(value).items():
        if isinstance(item, np.ndarray):
            found[prefix + name] = item
        elif hasattr(item, "__dict__"):
            found |= _arrays(item, f"{prefix}{name}.")
    return found
