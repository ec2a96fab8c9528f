"""Gait3D's protocol, one probe a person among all others; and leave-one-out, every sequence a probe once.

Source: Zheng et al. 2022, "Gait Recognition in the Wild with Dense 3D Representations and A Benchmark".
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from gaitdiff.datasets.sequences import NAMELESS
from gaitdiff.errors import UserError
from gaitdiff.evaluation.protocols.protocol import Protocol, register_protocol
from gaitdiff.evaluation.protocols.selection import Names, Selected, Selection, counts, require_score
from gaitdiff.evaluation.ranking import FeatureSet


def _gait3d(
    names: Names,
    probe_set: Collection[str] | None = None,
    probe_mask: Sequence[bool] | None = None,
    gallery_mask: Sequence[bool] | None = None,
) -> Selected:
    is_probe = _named(names, probe_set) if probe_mask is None else _masked(names, probe_mask, "probe_mask")
    if probe_set is not None and probe_mask is not None:
        raise UserError("protocol 'gait3d' has both probe_set and probe_mask: give one of them")
    in_gallery = ~is_probe if gallery_mask is None else _masked(names, gallery_mask, "gallery_mask") & ~is_probe
    told = names.labels != NAMELESS
    selection = Selection(np.flatnonzero(is_probe & told), np.flatnonzero(in_gallery & told))
    require_score(selection, names.labels, "gait3d")
    return Selected({"": selection}, {})


def _named(names: Names, probe_set: Collection[str] | None) -> np.ndarray:
    if probe_set is None or isinstance(probe_set, (str, bytes)):
        raise UserError(
            f"protocol 'gait3d' needs probe_set, a list of label-type-view, or probe_mask, not {probe_set!r}"
        )
    keys = ["-".join(key) for key in zip(names.labels, names.types, names.views, strict=True)]
    named = set(probe_set)
    if unknown := named.difference(keys):
        raise UserError(
            f"{len(unknown)} of the {len(named)} sequences that probe_set names are not there, such as "
            f"{min(map(str, unknown))!r}: give those that are, as label-type-view"
        )
    return np.array([key in named for key in keys])


def _masked(names: Names, mask: Sequence[bool], name: str) -> np.ndarray:
    values = np.asarray(mask.tolist() if isinstance(mask, Tensor) else mask)
    if values.shape != (len(names.labels),):
        raise UserError(f"there are {len(names.labels)} features but {name} has {values.size} rows: give one a row")
    if values.dtype != bool:
        raise UserError(f"{name} must hold True or False for each row, not numbers of rows")
    return values


def _leave_one_out(names: Names) -> Selected:
    rows = np.flatnonzero(names.labels != NAMELESS)
    selection = Selection(rows, rows, same=np.arange(len(names.labels)))
    require_score(selection, names.labels, "leave-one-out")
    return Selected({"": selection}, {})


def _ranked(select: Callable[..., Selected]) -> Callable[..., dict[str, Any]]:
    """Rank-k, mAP and mINP of the one condition that ``select`` finds."""

    def score(walks: FeatureSet, **data: Any) -> dict[str, Any]:
        selection = select(walks, **data).conditions[""]
        scores: dict[str, Any] = walks.ranks(selection.probe, selection.gallery, selection.same).summary((1, 5, 10))
        return {**scores, "counts": counts([selection], walks.labels), "missing": {}}

    return score


GAIT3D = register_protocol(
    Protocol("gait3d", _gait3d, _ranked(_gait3d), takes=("probe_set", "probe_mask", "gallery_mask"), by_role=True)
)
LEAVE_ONE_OUT = register_protocol(Protocol("leave-one-out", _leave_one_out, _ranked(_leave_one_out)))
