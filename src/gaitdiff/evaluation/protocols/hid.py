"""HID: no scores, since nobody is told who its probes are; and the file that the competition's site scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gaitdiff.datasets.sequences import NAMELESS
from gaitdiff.errors import UserError
from gaitdiff.evaluation.metrics import check_metric
from gaitdiff.evaluation.protocols.protocol import Protocol, Submission, register_protocol
from gaitdiff.evaluation.protocols.selection import Names, Selected, Selection
from gaitdiff.evaluation.protocols.submission import needs_quotes, some, write_csv
from gaitdiff.evaluation.ranking import Features, FeatureSet, feature_set
from gaitdiff.evaluation.rerank import rerank as rerank_distances

_HEADER = ("videoID", "label")


def _select(names: Names) -> Selected:
    is_probe = names.labels == NAMELESS
    selection = Selection(np.flatnonzero(is_probe), np.flatnonzero(~is_probe))
    for what, rows in (("probes", selection.probe), ("gallery", selection.gallery)):
        if len(rows) == 0:
            found = f"all {len(is_probe)} rows have {'other labels' if what == 'probes' else 'that label'}"
            raise UserError(f"protocol 'hid' finds no {what}: probes carry the label {NAMELESS!r}, but {found}")
    return Selected({"": selection}, {})


def _nearest(walks: FeatureSet, rerank: bool = True) -> dict[str, Any]:
    selection = _select(walks).conditions[""]
    probe, gallery = selection.probe, selection.gallery
    if rerank:
        order = np.concatenate([probe, gallery])
        both = np.concatenate([part for _, part in walks.distances(order, order)])
        best = gallery[rerank_distances(both, len(probe), k1=6, k2=6, weight=0.3).argmin(axis=1)]
    else:
        best = walks.nearest(probe, gallery, 1)[:, 0]
    return {"probes": len(probe), "videos": walks.views[probe].tolist(), "labels": walks.labels[best].tolist()}


def hid_submission(
    path: str | Path,
    features: Features,
    labels: Sequence[str],
    types: Sequence[str],
    views: Sequence[str],
    metric: str = "cosine",
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
        UserError: a probe without a video's name, two of one name, what ``evaluate`` raises, or the file cannot be
            written.
    """
    walks = feature_set(features, labels, types, views, check_metric(metric), device)
    _asked(walks)
    walks.require_finite()
    found = _nearest(walks, rerank)
    return write_csv(path, [list(_HEADER), *zip(found["videos"], found["labels"], strict=True)])


def _asked(names: Names) -> tuple[list[str], set[str]]:
    """The videos of the probes, and the people of the gallery; a UserError where the file cannot name them."""
    selection = _select(names).conditions[""]
    videos, people = names.views[selection.probe].tolist(), set(names.labels[selection.gallery].tolist())
    if nameless := sum(not video or video == "default" for video in videos):
        raise UserError(
            f"{nameless} of {len(videos)} probes have no video's name as view: import HID's test set with --as hid"
        )
    if odd := list(filter(needs_quotes, (*videos, *sorted(people)))):
        raise UserError(f"HID's file cannot name {odd[0]!r}: it holds a comma, a quote or a line break")
    if twice := [video for video, count in Counter(videos).items() if count > 1]:
        raise UserError(f"HID's file has each video once, but {len(twice)} are there more than once ({some(twice)})")
    return videos, people


HID = register_protocol(
    Protocol(
        "hid",
        _select,
        _nearest,
        takes=("rerank",),
        secret=True,
        submission=Submission(_asked, hid_submission, "HID's file", _HEADER),
    )
)
