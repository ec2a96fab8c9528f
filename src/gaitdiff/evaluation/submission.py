"""The CSV files that GREW's and HID's servers score."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from gaitdiff.errors import UserError
from gaitdiff.evaluation.conditions import Condition, split
from gaitdiff.evaluation.metrics import check_metric
from gaitdiff.evaluation.protocols import evaluate, gather_walks
from gaitdiff.evaluation.ranking import Features

_GREW = Condition("the submission", ("03",), ("01", "02"))
_GREW_RANKS = 20


def grew_submission(
    path: str | Path,
    features: Features,
    labels: Sequence[str],
    types: Sequence[str],
    views: Sequence[str],
    metric: str = "euclidean",
    device: str | torch.device | None = None,
) -> Path:
    """Write GREW's file: for each probe (type 03) its video and the people of the 20 nearest gallery rows (01, 02).

    One person may stand in a row more than once: the file ranks sequences, not people.

    Args:
        path: the CSV, with the header ``videoId,rank1,…,rank20``; rows in the order of the features.
        features: (N, C, P); see ``evaluate`` for the rest.
        labels: whole numbers for the gallery, such as "00013", which is written as 13.
        views: the video's name for probes.

    Returns:
        The path.

    Raises:
        UserError: no probes, fewer than 20 gallery rows, a label that is no whole number, or what ``evaluate`` raises.
    """
    walks = gather_walks(features, labels, types, views, check_metric(metric), device)
    probe, gallery, people = grew_rows(walks.labels, walks.types)
    walks.require_finite()
    nearest = walks.nearest(probe, gallery, _GREW_RANKS)
    header = ["videoId", *(f"rank{k}" for k in range(1, _GREW_RANKS + 1))]
    lines = [[str(walks.views[i]), *(people[int(j)] for j in near)] for i, near in zip(probe, nearest, strict=True)]
    return write_csv(path, [header, *lines])


def grew_rows(labels: np.ndarray, types: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """Row numbers of GREW's probes and gallery, and each gallery row's label as the file writes it.

    Raises:
        UserError: no probes, fewer than 20 gallery rows, or a label that is no whole number.
    """
    probe, gallery = split(_GREW, types, "grew")
    if len(gallery) < _GREW_RANKS:
        raise UserError(
            f"GREW's file needs the {_GREW_RANKS} nearest gallery rows, but the types 01 and 02 have {len(gallery)}"
        )
    people = {}
    for row in gallery:
        label = str(labels[row])
        if not (label.isascii() and label.isdigit()):
            raise UserError(f"GREW's file needs whole numbers as labels, but gallery row {row} has {label!r}")
        people[int(row)] = str(int(label))
    return probe, gallery, people


def hid_submission(
    path: str | Path,
    features: Features,
    labels: Sequence[str],
    types: Sequence[str],
    views: Sequence[str],
    metric: str = "euclidean",
    rerank: bool = True,
    device: str | torch.device | None = None,
) -> Path:
    """Write HID's file: for each probe (label "probe") its video and the label of its nearest gallery row.

    Args:
        path: the CSV, with the header ``videoID,label``; rows in the order of the features.
        features: (N, C, P); see ``evaluate`` for the rest.
        rerank: rank by k-reciprocal distances (k₁ = 6, k₂ = 6, λ = 0.3).

    Returns:
        The path.

    Raises:
        UserError: what ``evaluate`` raises, or the file cannot be written.
    """
    found = evaluate("hid", features, labels, types, views, metric, device=device, rerank=rerank)
    return write_csv(path, [["videoID", "label"], *zip(found["videos"], found["labels"], strict=True)])


def write_csv(path: str | Path, rows: Iterable[Sequence[str]]) -> Path:
    """Write rows of words, all or nothing.

    Raises:
        UserError: the file cannot be written, or a word would need quotes, which the servers do not take.
    """
    target = Path(path)
    lines = []
    for row in rows:
        for word in row:
            if any(mark in word for mark in ',"\r\n'):
                raise UserError(f"{target} cannot be written: {word!r} holds a comma, a quote or a line break")
        lines.append(",".join(row) + "\n")
    draft = target.with_name(f".{target.name}.partial")
    try:
        draft.write_bytes("".join(lines).encode("utf-8"))
        os.replace(draft, target)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise UserError(f"{target} cannot be written ({error.strerror}): choose another path") from error
    return target
