"""Evaluation protocols: which sequences are probes, which are the gallery, and what is reported."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gaitdiff.datasets.conditions import CONDITIONS, conditions_of, setting_name
from gaitdiff.errors import UserError, nearest
from gaitdiff.evaluation.metrics import as_features, check_metric
from gaitdiff.evaluation.protocols.ccpg import ccpg
from gaitdiff.evaluation.protocols.selection import NAMELESS, Names, Selected, Selection, counts, require_score, select
from gaitdiff.evaluation.protocols.views import cross_view, percentage, single_view
from gaitdiff.evaluation.ranking import Features, FeatureSet
from gaitdiff.evaluation.rerank import rerank as rerank_distances

#: What ``evaluate`` ranks by, and everything else that compares features, unless told otherwise: the paper's distance.
DEFAULT_METRIC = "cosine"

#: In place of a protocol: that of the store's data set.
AUTO = "auto"

#: What a protocol takes beside the names.
_TAKES: dict[str, tuple[str, ...]] = {
    "gait3d": ("probe_set", "probe_mask", "gallery_mask"),
    "casia-b": ("setting",),
    "oumvlp": ("setting",),
    "sustech1k": ("setting",),
    "hid": ("rerank",),
}


def evaluate(
    protocol: str,
    features: Features,
    labels: Sequence[str],
    types: Sequence[str],
    views: Sequence[str],
    metric: str = DEFAULT_METRIC,
    *,
    device: str | torch.device | None = None,
    **protocol_data: object,
) -> dict[str, Any]:
    """Score features by a protocol, in bounded memory: features may be a ``numpy.memmap`` larger than memory.

    ================  =================================================================================================
    protocol          probes and gallery; scores, all in percent
    ================  =================================================================================================
    gait3d            rows named in ``probe_set`` ("label-type-view"), or true in ``probe_mask``, are probes, all
                      others, or those true in ``gallery_mask``, the gallery; no camera is left out, probes without a
                      match are: ``rank1``, ``rank5``, ``rank10``, ``mAP``, ``mINP``
    leave-one-out     every row is a probe once, against all others: the same scores
    casia-b, oumvlp   ``rank1``, ``rank5`` and ``mAP``; ``setting="single-view"`` (default): of each pair of views;
                      ``"cross-view"``: of each view among all; both in one shape, see ``….protocols.views``
    sustech1k         single view, ``rank1`` to ``rank5``, ``mAP``
    ccpg              ``rank1``, ``mAP``, ``mINP`` in two ways, see ``….protocols.ccpg``
    grew              the local check, types 02 against 01: ``rank1``, ``rank5``, ``rank10``, ``rank20``, rounded to 2
                      decimals; a probe without a match is a miss
    hid               no score, its probes (label "probe") have no names: ``videos``, the probes' views, and ``labels``,
                      the label of each one's nearest row; ``rerank=False`` leaves the re-ranking out
    ================  =================================================================================================

    Args:
        protocol: one of these, in any case, with or without "-" and "_".
        features: (N, C, P), a tensor, an array or a list of rows.
        labels, types, views: N strings each; numbers, also of an array or a tensor, count as their digits.
        metric: ``"cosine"`` (the default everywhere) or ``"euclidean"``, in any case.
        device: where to compute distances; the features' own by default.
        **protocol_data: what the protocol takes besides: ``probe_set`` or ``probe_mask`` and ``gallery_mask``,
            ``setting``, ``rerank``.

    Rows with the label "probe" have no known person: they are in no gallery, and no protocol but HID's looks for them.

    Returns:
        The headline scores as floats, ``probes``, how many were counted; ``counts``, people and sequences among the
        probes and in the gallery, and probes ``without_match``; ``missing``, why a condition has no score, by name;
        and where a protocol has conditions or views the details: for each condition a dict, and ``views``, the order
        of rows and columns.

    Raises:
        UserError: unknown protocol, metric or setting, missing data, lists of other lengths, features that are not
            (N, C, P) or not finite, no probes, no gallery or one of a single person, or no probe whose person is in
            the gallery.
    """
    name = check_protocol(protocol)
    walks = gather_walks(features, labels, types, views, check_metric(metric), device)
    score, known = PROTOCOLS[name], _TAKES.get(name, ())
    for key in protocol_data:
        if key not in known:
            takes = f"takes {', '.join(known)}" if known else "takes no other data"
            raise UserError(f"protocol {name!r} has no {key!r}{nearest(key, known)}: it {takes}")
    walks.require_finite()
    return score(walks, name, **protocol_data)


def check_protocol(protocol: str) -> str:
    """The protocol's name as ``evaluate`` writes it; a UserError names the nearest one, unless there is this one."""
    names = {_bare(name): name for name in PROTOCOLS}
    if _bare(protocol) not in names:
        known = ", ".join(PROTOCOLS)
        raise UserError(f"there is no protocol {protocol!r}{nearest(str(protocol).lower(), PROTOCOLS)}; known: {known}")
    return names[_bare(protocol)]


def _bare(name: str) -> str:
    return str(name).lower().replace("-", "").replace("_", "")


def headline(scores: dict[str, Any]) -> dict[str, float]:
    """The numbers that ``evaluate`` gives at the top, without the details."""
    return {key: value for key, value in scores.items() if isinstance(value, (int, float))}


def gather_walks(
    features: Features,
    labels: Sequence[str],
    types: Sequence[str],
    views: Sequence[str],
    metric: str,
    device: str | torch.device | None = None,
) -> FeatureSet:
    """Features and names together, checked against each other.

    Raises:
        UserError: features that are not (N, C, P), lists of other lengths.
    """
    rows = as_features(features)
    if rows.ndim != 3 or 0 in rows.shape:
        raise UserError(f"features must have the shape (N, C, P), one row a sequence, not {tuple(rows.shape)}")
    who, what, where = (
        _strings(name, column, len(rows)) for name, column in (("labels", labels), ("types", types), ("views", views))
    )
    return FeatureSet(rows, who, what, where, metric, _usable(device, rows))


def _strings(name: str, column: Any, count: int) -> np.ndarray:
    """A column of names as (N,) str, from strings, bytes or numbers in a list, an array or a tensor."""
    if column is None or isinstance(column, (str, bytes)):
        raise UserError(f"{name} must be a list with one name a row, not {column!r}")
    words = column.tolist() if isinstance(column, (Tensor, np.ndarray)) else list(column)
    if len(words) != count:
        raise UserError(f"there are {count} features but {len(words)} {name}: give one a row")
    words = [word.item() if isinstance(word, Tensor) else word for word in words]
    return np.array(
        [word.decode(errors="backslashreplace") if isinstance(word, bytes) else str(word) for word in words]
    )


def _usable(device: str | torch.device | None, features: Features) -> torch.device:
    """The device, or the features' own; a UserError where this machine has no such device."""
    if device is None:
        return features.device if isinstance(features, Tensor) else torch.device("cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # torch raises either
        raise UserError(f"this machine has no device {str(device)!r} for the distances: choose another") from error


def _gait3d(
    walks: Names,
    protocol: str,
    probe_set: Collection[str] | None = None,
    probe_mask: Sequence[bool] | None = None,
    gallery_mask: Sequence[bool] | None = None,
) -> Selection:
    is_probe = _named(walks, probe_set) if probe_mask is None else _masked(walks, probe_mask, "probe_mask")
    if probe_set is not None and probe_mask is not None:
        raise UserError("protocol 'gait3d' has both probe_set and probe_mask: give one of them")
    in_gallery = ~is_probe if gallery_mask is None else _masked(walks, gallery_mask, "gallery_mask") & ~is_probe
    told = walks.labels != NAMELESS
    return Selection(np.flatnonzero(is_probe & told), np.flatnonzero(in_gallery & told))


def _named(walks: Names, probe_set: Collection[str] | None) -> np.ndarray:
    if probe_set is None or isinstance(probe_set, (str, bytes)):
        raise UserError(
            f"protocol 'gait3d' needs probe_set, a list of label-type-view, or probe_mask, not {probe_set!r}"
        )
    keys = ["-".join(key) for key in zip(walks.labels, walks.types, walks.views, strict=True)]
    named = set(probe_set)
    if unknown := named.difference(keys):
        raise UserError(
            f"{len(unknown)} of the {len(named)} sequences that probe_set names are not there, such as "
            f"{min(map(str, unknown))!r}: give those that are, as label-type-view"
        )
    return np.array([key in named for key in keys])


def _masked(walks: Names, mask: Sequence[bool], name: str) -> np.ndarray:
    values = np.asarray(mask.tolist() if isinstance(mask, Tensor) else mask)
    if values.shape != (len(walks.labels),):
        raise UserError(f"there are {len(walks.labels)} features but {name} has {values.size} rows: give one a row")
    if values.dtype != bool:
        raise UserError(f"{name} must hold True or False for each row, not numbers of rows")
    return values


def _leave_one_out(walks: Names, protocol: str) -> Selection:
    rows = np.flatnonzero(walks.labels != NAMELESS)
    return Selection(rows, rows, same=np.arange(len(walks.labels)))


def _ranked(walks: FeatureSet, protocol: str, **data: Any) -> dict[str, Any]:
    """Rank-k, mAP and mINP of one set of probes in one gallery."""
    selection = (_gait3d if protocol == "gait3d" else _leave_one_out)(walks, protocol, **data)
    require_score(selection, walks.labels, protocol)
    scores: dict[str, Any] = walks.ranks(selection.probe, selection.gallery, selection.same).summary((1, 5, 10))
    return {**scores, "counts": counts([selection], walks.labels), "missing": {}}


def _by_view(walks: FeatureSet, protocol: str, setting: str = "single-view") -> dict[str, Any]:
    conditions = conditions_of(protocol, setting)
    if setting_name(setting) == "cross-view":
        return cross_view(walks, protocol, conditions)
    return single_view(walks, protocol, conditions, (1, 2, 3, 4, 5) if protocol == "sustech1k" else (1, 5))


def _ccpg(walks: FeatureSet, protocol: str) -> dict[str, Any]:
    return ccpg(walks, protocol, conditions_of(protocol))


def _grew(walks: FeatureSet, protocol: str) -> dict[str, Any]:
    selection = next(iter(select(walks, protocol, conditions_of(protocol)).conditions.values()))
    first = walks.ranks(selection.probe, selection.gallery).first
    scores: dict[str, Any] = {f"rank{k}": percentage((first > 0) & (first <= k)) for k in (1, 5, 10, 20)}
    return {**scores, "probes": len(first), "counts": counts([selection], walks.labels), "missing": {}}


def _hid(walks: FeatureSet, protocol: str, rerank: bool = True) -> dict[str, Any]:
    selection = _hid_rows(walks)
    probe, gallery = selection.probe, selection.gallery
    if rerank:
        order = np.concatenate([probe, gallery])
        both = np.concatenate([part for _, part in walks.distances(order, order)])
        best = gallery[rerank_distances(both, len(probe), k1=6, k2=6, weight=0.3).argmin(axis=1)]
    else:
        best = walks.nearest(probe, gallery, 1)[:, 0]
    return {"probes": len(probe), "videos": walks.views[probe].tolist(), "labels": walks.labels[best].tolist()}


def _hid_rows(names: Names) -> Selection:
    is_probe = names.labels == NAMELESS
    selection = Selection(np.flatnonzero(is_probe), np.flatnonzero(~is_probe))
    for what, rows in (("probes", selection.probe), ("gallery", selection.gallery)):
        if len(rows) == 0:
            found = f"all {len(is_probe)} rows have {'other labels' if what == 'probes' else 'that label'}"
            raise UserError(f"protocol 'hid' finds no {what}: probes carry the label {NAMELESS!r}, but {found}")
    return selection


def select_rows(
    protocol: str,
    labels: Sequence[str],
    types: Sequence[str],
    views: Sequence[str],
    *,
    setting: str | None = None,
    **protocol_data: Any,
) -> Selected:
    """Find the probes and the gallery of each condition by names alone, as ``evaluate`` does.

    Args:
        protocol_data: as for ``evaluate``.

    Returns:
        The conditions by name, "" for the only one of a protocol that has none, and why others are missing.

    Raises:
        UserError: what ``evaluate`` would say, whatever the features.
    """
    name = check_protocol(protocol)
    if setting is not None and name not in CONDITIONS:
        raise UserError(f"protocol {name!r} has no settings: leave {setting!r} out")
    names = _Names(*(_strings("names", column, len(labels)) for column in (labels, types, views)))
    if name == "hid":
        return Selected({"": _hid_rows(names)}, {})
    if name in CONDITIONS:
        kinds = {"ccpg": "camera", "grew": ""}
        chosen = setting_name(setting) if setting is not None else "single-view"
        return select(names, name, conditions_of(name, setting), kinds.get(name, chosen))
    selection = (_gait3d if name == "gait3d" else _leave_one_out)(names, name, **protocol_data)
    require_score(selection, names.labels, name)
    return Selected({"": selection}, {})


@dataclass(frozen=True)
class _Names:
    labels: np.ndarray
    types: np.ndarray
    views: np.ndarray


#: Every protocol by the name of the data set that it is of.
PROTOCOLS: dict[str, Callable[..., dict[str, Any]]] = {
    "gait3d": _ranked,
    "leave-one-out": _ranked,
    "casia-b": _by_view,
    "oumvlp": _by_view,
    "sustech1k": _by_view,
    "ccpg": _ccpg,
    "grew": _grew,
    "hid": _hid,
}
