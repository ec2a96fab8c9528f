"""CCPG: people who change their clothes, among cameras.

Source: Li et al. 2023, "An In-Depth Exploration of Person Re-Identification and Gait Recognition in Cloth-Changing
Conditions".
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gaitdiff.datasets.conditions import conditions_of
from gaitdiff.evaluation.protocols.protocol import Protocol, register_protocol
from gaitdiff.evaluation.protocols.selection import Names, Selected, counts, select, several_people
from gaitdiff.evaluation.protocols.views import averaged, view_matrix, without_diagonal
from gaitdiff.evaluation.ranking import FeatureSet


def _select(names: Names) -> Selected:
    return select(names, "ccpg", conditions_of("ccpg"), "camera")


def _score(walks: FeatureSet) -> dict[str, Any]:
    """Score changed clothes (CL), upper (UP) and lower (DN) clothes, and a bag (BG), in two ways.

    A camera is the view up to its first "_". ``reid`` ranks among all cameras, without the gallery rows of the probe's
    person by the probe's camera; probes without a match are left out. ``gait`` gives rank-1 from each camera to each,
    rounded to 2 decimals, where a probe without a match is a miss and a pair without rows has no score (None).

    Returns:
        For each condition ``reid`` (``rank1``, ``mAP``, ``mINP`` in percent, ``cmc``: the shares of ranks 1 to 10) and
        ``gait`` (``rank1_matrix`` [probe camera][gallery camera], ``rank1_including_same_view``,
        ``rank1_excluding_same_view``, ``rank1_per_probe_view`` without the camera itself), ``probes`` and ``counts``;
        ``views``, the cameras in their order; ``probes``; ``rank1``, ``mAP``, ``mINP``, the means of ``reid`` over
        the conditions; ``counts`` and ``missing``, why a condition has no score.

    Raises:
        UserError: no condition has probes, a gallery of several people, and a match.
    """
    cameras = np.array([view.split("_", 1)[0] for view in walks.views])
    selected = _select(walks)
    both = [np.concatenate([one.probe, one.gallery]) for one in selected.conditions.values()]
    views = np.unique(cameras[np.concatenate(both)])
    result: dict[str, Any] = {}
    for name, selection in selected.conditions.items():
        probe, gallery = selection.probe, selection.gallery
        groups = [np.flatnonzero(cameras[gallery] == camera) for camera in views]
        groups = several_people(walks.labels, gallery, groups)
        reid = walks.ranks(probe, gallery, selection.same).summary(range(1, 11))
        matrix = view_matrix(walks.ranks_by_group(probe, gallery, groups)[0], cameras[probe], views, groups, 1)
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
            "counts": counts([selection], walks.labels),
        }
    headline = {key: float(np.mean([row["reid"][key] for row in result.values()])) for key in ("rank1", "mAP", "mINP")}
    together = counts(list(selected.conditions.values()), walks.labels)
    names = {"views": views.tolist(), "counts": together, "missing": selected.missing}
    return {**headline, "probes": together["probe"]["sequences"], **names, **result}


CCPG = register_protocol(Protocol("ccpg", _select, _score))
