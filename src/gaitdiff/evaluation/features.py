"""Features of stored sequences: from a model, or the gait-energy image that any method must beat."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from gaitdiff.data.clips import crop_sides
from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError
from gaitdiff.evaluation.protocols import check_protocol, evaluate
from gaitdiff.progress import console, progress_bar

#: Frames that go through the network at a time.
_FRAMES_A_BATCH = 1024


def extract(
    network: Callable[[Tensor], Tensor], store: SequenceStore, rows: np.ndarray, device: torch.device
) -> Tensor:
    """Run whole sequences through a network, several of one length at a time.

    Args:
        network: (B, T, 64, 44) in [0, 1] → (B, C, P); call it in evaluation mode.
        rows: row numbers in the store.

    Returns:
        (N, C, P) float32 on the CPU, in the order of ``rows``.
    """
    found: dict[int, Tensor] = {}
    with torch.no_grad(), progress_bar("features", total=len(rows)) as bar:
        for group in _length_groups(store, rows):
            clips = torch.from_numpy(np.stack([_whole(store, row) for row in group])).to(device)
            features = network(clips.float().div_(255)).float().cpu()
            found.update(zip(group, features, strict=True))
            bar.advance(len(group))
    return torch.stack([found[int(row)] for row in rows])


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode for a while, then back into the mode it was in."""
    was_training = module.training
    module.eval()
    yield
    module.train(was_training)


def gait_energy_images(store: SequenceStore, rows: np.ndarray) -> Tensor:
    """Mean frame of each sequence as a feature: (N, 64·44, 1), values in [0, 1].

    Source: Han & Bhanu 2006, "Individual Recognition Using Gait Energy Image".
    """
    images = np.stack([_whole(store, int(row)).mean(0, dtype=np.float32) for row in rows])
    return torch.from_numpy(images).flatten(1).unsqueeze(2) / 255


def evaluate_store(
    features: Tensor, store: SequenceStore, rows: np.ndarray, protocol: str = "gait3d", metric: str = "cosine"
) -> dict[str, float]:
    """Score features of stored sequences; probes of the Gait3D protocol are the rows whose role says so.

    Raises:
        UserError: see ``evaluate``.
    """
    chosen = [store.rows[int(row)] for row in rows]
    data = {"probe_mask": [row.role == "probe" for row in chosen]} if protocol == "gait3d" else {}
    return evaluate(
        protocol,
        features,
        [row.subject for row in chosen],
        [row.condition for row in chosen],
        [row.view for row in chosen],
        metric,
        **data,
    )


def rows_to_score(store: SequenceStore, protocol: str) -> np.ndarray:
    """Row numbers of the test split; none, and a note that says why, where the protocol finds nothing to score.

    Raises:
        UserError: unknown protocol.
    """
    check_protocol(protocol)
    rows = store.select(split="test")
    probes, gallery = (store.select(split="test", role=role) for role in ("probe", "gallery"))
    if protocol == "gait3d" and (len(probes) == 0 or len(gallery) == 0):
        console.print(
            f"{store.path} has no probes with a gallery to look in: this run is not scored",
            markup=False,
            soft_wrap=True,
        )
        return rows[:0]
    return rows


def held_out_rows(store: SequenceStore) -> np.ndarray:
    """Row numbers of the test split.

    Raises:
        UserError: there are none.
    """
    rows = store.select(split="test")
    if len(rows) == 0:
        raise UserError(f"{store.path} has no test sequences to evaluate on: import the data with a test split")
    return rows


def _whole(store: SequenceStore, row: int) -> np.ndarray:
    frames = store[row].frames
    return crop_sides(frames) if store.width == store.height else frames


def _length_groups(store: SequenceStore, rows: np.ndarray) -> Iterator[list[int]]:
    """Rows of equal length, as many as make about ``_FRAMES_A_BATCH`` frames."""
    by_length: dict[int, list[int]] = {}
    for row in rows:
        by_length.setdefault(store.rows[int(row)].frames, []).append(int(row))
    for length, group in sorted(by_length.items()):
        size = max(1, _FRAMES_A_BATCH // length)
        for first in range(0, len(group), size):
            yield group[first : first + size]
