"""CCPG: people who change their clothes, among cameras (Li et al. 2023, "An In-Depth Exploration of Person
Re-Identification and Gait Recognition in Cloth-Changing Conditions")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gaitdiff.evaluation.conditions import Condition, split
from gaitdiff.evaluation.metrics import encoded
from gaitdiff.evaluation.ranking import Walks
from gaitdiff.evaluation.views import averaged, view_matrix, without_diagonal


def ccpg(walks: Walks, protocol: str, conditions: Sequence[Condition]) -> dict[str, Any]:
    """Score changed clothes (CL), upper (UP) and lower (DN) clothes, and a bag (BG), in two ways.

    A camera is the view up to its first "_". ``reid`` ranks among all cameras, without the gallery rows of the probe's
    person by the probe's camera; probes without a match are left out. ``gait`` gives rank-1 from each camera to each,
    rounded to 2 decimals, where a probe without a match is a miss and a pair without rows has no score (None).

    Returns:
        For each condition ``reid`` (``rank1``, ``mAP``, ``mINP`` in percent, ``cmc``: the shares of ranks 1 to 10) and
        ``gait`` (``rank1_matrix`` [probe camera][gallery camera], ``rank1_including_same_view``,
        ``rank1_excluding_same_view``, ``rank1_per_probe_view`` without the camera itself) and ``probes``; ``views``,
        the cameras in their order; ``probes``; and ``rank1``, ``mAP``, ``mINP``, the means of ``reid`` over the
        conditions.

    Raises:
        UserError: a condition without probes or gallery, or without any match.
    """
    cameras = np.array([view.split("_", 1)[0] for view in walks.views])
    same = encoded(np.char.add(np.char.add(walks.labels, "\n"), cameras))
    rows = {condition.name: split(condition, walks.types, protocol) for condition in conditions}
    views = np.unique(cameras[np.concatenate([found for pair in rows.values() for found in pair])])
    result: dict[str, Any] = {}
    for name, (probe, gallery) in rows.items():
        groups = [np.flatnonzero(cameras[gallery] == camera) for camera in views]
        reid = walks.ranks(probe, gallery, same).summary(range(1, 11))
        matrix = view_matrix(walks.first_ranks(probe, gallery, groups), cameras[probe], views, groups, 1)
        per_view = without_diagonal(matrix)
        result[name] = {
            "reid": {
                **{key: reid[key] for key in ("rank1", "mAP", "mINP")},
                "cmc": [reid[f"rank{k}"] / 100 for k in range(1, 11)],
            },
            "gait": {
                "rank1_matrix": matrix,
                "rank1_including_same_view": averaged([value for row in matrix for value in row]),
                "rank1_excluding_same_view": averaged(per_view),
                "rank1_per_probe_view": per_view,
            },
            "probes": len(probe),
        }
    headline = {key: float(np.mean([row["reid"][key] for row in result.values()])) for key in ("rank1", "mAP", "mINP")}
    probes = len(np.unique(np.concatenate([probe for probe, _ in rows.values()])))
    return {**headline, "probes": probes, "views": views.tolist(), **result}
