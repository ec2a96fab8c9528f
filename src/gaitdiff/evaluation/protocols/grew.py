"""GREW: the local check, types 02 among 01; and the file that its site scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gaitdiff.datasets.conditions import Condition, conditions_of, split
from gaitdiff.errors import UserError
from gaitdiff.evaluation.metrics import check_metric
from gaitdiff.evaluation.protocols.protocol import Protocol, Submission, register_protocol
from gaitdiff.evaluation.protocols.selection import Names, Selected, counts, select
from gaitdiff.evaluation.protocols.submission import needs_quotes, write_csv
from gaitdiff.evaluation.protocols.views import percentage
from gaitdiff.evaluation.ranking import Features, FeatureSet, feature_set

_SUBMISSION = Condition("the submission", ("03",), ("01", "02"))
_RANKS = 20
_HEADER = ("videoId", *(f"rank{k}" for k in range(1, _RANKS + 1)))


def _select(names: Names) -> Selected:
    return select(names, "grew", conditions_of("grew"))


def _score(walks: FeatureSet) -> dict[str, Any]:
    (selection,) = _select(walks).conditions.values()
    first = walks.ranks(selection.probe, selection.gallery).first
    scores: dict[str, Any] = {f"rank{k}": percentage((first > 0) & (first <= k)) for k in (1, 5, 10, 20)}
    return {**scores, "probes": len(first), "counts": counts([selection], walks.labels), "missing": {}}


def grew_submission(
    path: str | Path,
    features: Features,
    labels: Sequence[str],
    types: Sequence[str],
    views: Sequence[str],
    metric: str = "cosine",
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
    walks = feature_set(features, labels, types, views, check_metric(metric), device)
    probe, gallery, people = _rows(walks)
    walks.require_finite()
    near = walks.nearest(probe, gallery, _RANKS)
    lines = [[str(walks.views[i]), *(people[int(j)] for j in row)] for i, row in zip(probe, near, strict=True)]
    return write_csv(path, [_HEADER, *lines])


def _rows(names: Names) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """Row numbers of the probes and the gallery, and each gallery row's label as the file writes it."""
    probe, gallery = split(_SUBMISSION, names.types, "grew")
    if len(gallery) < _RANKS:
        raise UserError(f"GREW's file needs the {_RANKS} nearest gallery rows, but types 01 and 02 have {len(gallery)}")
    people = {}
    for row in gallery:
        label = str(names.labels[row])
        if not (label.isascii() and label.isdigit()):
            raise UserError(f"GREW's file needs whole numbers as labels, but gallery row {row} has {label!r}")
        people[int(row)] = str(int(label))
    return probe, gallery, people


def _asked(names: Names) -> tuple[list[str], set[str]]:
    probe, _, people = _rows(names)
    videos = [str(names.views[row]) for row in probe]
    if odd := list(filter(needs_quotes, videos)):
        raise UserError(f"GREW's file cannot name {odd[0]!r}: it holds a comma, a quote or a line break")
    return videos, set(people.values())


GREW = register_protocol(
    Protocol(
        "grew",
        _select,
        _score,
        remark="local check (types 02 among 01)",
        submission=Submission(_asked, grew_submission, "GREW's file", _HEADER),
    )
)
