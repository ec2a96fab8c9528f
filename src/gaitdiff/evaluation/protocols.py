"""Evaluation protocols: which sequences are probes, which are the gallery, and what is reported."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gaitdiff.errors import UserError, nearest
from gaitdiff.evaluation.ccpg import ccpg
from gaitdiff.evaluation.conditions import CONDITIONS, conditions_of, setting_name, split
from gaitdiff.evaluation.metrics import as_features, check_metric, require_match
from gaitdiff.evaluation.ranking import Features, Walks
from gaitdiff.evaluation.rerank import rerank as rerank_distances
from gaitdiff.evaluation.views import cross_view, percentage, single_view

#: Label of a sequence of HID's test set whose person is asked for.
HID_PROBE = "probe"


def evaluate(
    protocol: str,
    features: Features,
    labels: Sequence[str],
    types: Sequence[str],
    views: Sequence[str],
    metric: str = "euclidean",
    *,
    device: str | torch.device | None = None,
    **protocol_data: object,
) -> dict[str, Any]:
    """Score features by a protocol, in bounded memory: features may be a ``numpy.memmap`` larger than memory.

    ================  =================================================================================================
    protocol          probes and gallery; scores, all in percent
    ================  =================================================================================================
    gait3d            rows named in ``probe_set`` ("label-type-view"), or true in ``probe_mask``, are probes, all others
                      the gallery; no camera is left out, probes without a match are: ``rank1``, ``rank5``, ``rank10``,
                      ``mAP``, ``mINP``
    leave-one-out     every row is a probe once, against all others: the same scores
    casia-b, oumvlp   ``setting="single-view"``: ``rank1`` of each pair of views; ``"cross-view"``: ``rank1`` and
                      ``mAP``; see ``gaitdiff.evaluation.views`` for what is rounded and what is left out
    sustech1k         single view, ``rank1`` to ``rank5``
    ccpg              ``rank1``, ``mAP``, ``mINP`` in two ways, see ``gaitdiff.evaluation.ccpg``
    grew              the local check, types 02 against 01: ``rank1``, ``rank5``, ``rank10``, ``rank20``, rounded to 2
                      decimals; a probe without a match is a miss
    hid               no score, its probes (label "probe") have no names: ``videos``, the probes' views, and ``labels``,
                      the label of each one's nearest row; ``rerank=False`` leaves the re-ranking out
    ================  =================================================================================================

    Args:
        protocol: one of these, in any case, with or without "-" and "_".
        features: (N, C, P), a tensor, an array or a list of rows.
        labels, types, views: N strings each; numbers, also of an array or a tensor, count as their digits.
        metric: ``"euclidean"`` or ``"cosine"``, in any case.
        device: where to compute distances; the features' own by default.
        **protocol_data: what the protocol takes besides: ``probe_set`` or ``probe_mask``, ``setting``, ``rerank``.

    Returns:
        The headline scores as floats, ``probes``, how many were counted, and where a protocol has conditions or views
        the details: for each condition a dict, and ``views``, the order of rows and columns.

    Raises:
        UserError: unknown protocol, metric or setting, missing data, lists of other lengths, features that are not
            (N, C, P) or not finite, no probes, no gallery, or no probe whose person is in the gallery.
    """
    name = check_protocol(protocol)
    walks = gather_walks(features, labels, types, views, check_metric(metric), device)
    score = _PROTOCOLS[name]
    known = list(inspect.signature(score).parameters)[2:]
    for key in protocol_data:
        if key not in known:
            takes = f"takes {', '.join(known)}" if known else "takes no other data"
            raise UserError(f"protocol {name!r} has no {key!r}{nearest(key, known)}: it {takes}")
    walks.require_finite()
    return score(walks, name, **protocol_data)


def check_protocol(protocol: str) -> str:
    """The protocol's name as ``evaluate`` writes it; a UserError names the nearest one, unless there is this one."""
    names = {_bare(name): name for name in _PROTOCOLS}
    if _bare(protocol) not in names:
        known = ", ".join(_PROTOCOLS)
        raise UserError(
            f"there is no protocol {protocol!r}{nearest(str(protocol).lower(), _PROTOCOLS)}; known: {known}"
        )
    return names[_bare(protocol)]


def _bare(name: str) -> str:
    return str(name).lower().replace("-", "").replace("_", "")


def check_types(protocol: str, types: Sequence[str], setting: str | None = None) -> None:
    """Raise the UserError that ``evaluate`` would for an unknown setting, and for types without probes or gallery."""
    name = check_protocol(protocol)
    if name in CONDITIONS:
        for condition in conditions_of(name, setting):
            split(condition, np.array([str(kind) for kind in types]), name)
    elif setting is not None:
        raise UserError(f"protocol {name!r} has no settings: leave {setting!r} out")


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
) -> Walks:
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
    return Walks(rows, who, what, where, metric, _usable(device, rows))


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
    walks: Walks, protocol: str, probe_set: Collection[str] | None = None, probe_mask: Sequence[bool] | None = None
) -> dict[str, Any]:
    is_probe = _named(walks, probe_set) if probe_mask is None else _masked(walks, probe_mask)
    for what, count in (("probe", is_probe.sum()), ("gallery", (~is_probe).sum())):
        if count == 0:
            raise UserError(f"the {what} set is empty: probe_set must name some, but not all, rows as label-type-view")
    return walks.ranks(np.flatnonzero(is_probe), np.flatnonzero(~is_probe)).summary((1, 5, 10))


def _named(walks: Walks, probe_set: Collection[str] | None) -> np.ndarray:
    if probe_set is None or isinstance(probe_set, (str, bytes)):
        raise UserError(
            f"protocol 'gait3d' needs probe_set, a list of label-type-view, or probe_mask, not {probe_set!r}"
        )
    named = set(probe_set)
    return np.array([walks.key(row) in named for row in range(len(walks))])


def _masked(walks: Walks, probe_mask: Sequence[bool]) -> np.ndarray:
    mask = np.asarray(probe_mask.tolist() if isinstance(probe_mask, Tensor) else probe_mask)
    if mask.shape != (len(walks),):
        raise UserError(f"there are {len(walks)} features but probe_mask has {mask.size} rows: give one a row")
    if mask.dtype != bool:
        raise UserError("probe_mask must hold True or False for each row, not numbers of rows: probes are True")
    return mask


def _leave_one_out(walks: Walks, protocol: str) -> dict[str, Any]:
    rows = np.arange(len(walks))
    return walks.ranks(rows, rows, same=rows).summary((1, 5, 10))


def _by_view(walks: Walks, protocol: str, setting: str = "single-view") -> dict[str, Any]:
    conditions = conditions_of(protocol, setting)
    if setting_name(setting) == "cross-view":
        return cross_view(walks, protocol, conditions)
    return single_view(walks, protocol, conditions, (1, 2, 3, 4, 5) if protocol == "sustech1k" else (1,))


def _ccpg(walks: Walks, protocol: str) -> dict[str, Any]:
    return ccpg(walks, protocol, conditions_of(protocol))


def _grew(walks: Walks, protocol: str) -> dict[str, Any]:
    probe, gallery = split(conditions_of(protocol)[0], walks.types, protocol)
    first = walks.ranks(probe, gallery).first
    require_match(first)
    scores: dict[str, Any] = {f"rank{k}": percentage((first > 0) & (first <= k)) for k in (1, 5, 10, 20)}
    return {**scores, "probes": len(probe)}


def _hid(walks: Walks, protocol: str, rerank: bool = True) -> dict[str, Any]:
    is_probe = walks.labels == HID_PROBE
    probe, gallery = np.flatnonzero(is_probe), np.flatnonzero(~is_probe)
    for what, rows in (("probes", probe), ("gallery", gallery)):
        if len(rows) == 0:
            found = f"all {len(walks)} rows have {'other labels' if what == 'probes' else 'that label'}"
            raise UserError(f"protocol 'hid' finds no {what}: probes carry the label {HID_PROBE!r}, but {found}")
    if rerank:
        order = np.concatenate([probe, gallery])
        both = np.concatenate([part for _, part in walks.distances(order, order)])
        best = gallery[rerank_distances(both, len(probe), k1=6, k2=6, weight=0.3).argmin(axis=1)]
    else:
        best = walks.nearest(probe, gallery, 1)[:, 0]
    return {"probes": len(probe), "videos": walks.views[probe].tolist(), "labels": walks.labels[best].tolist()}


_PROTOCOLS: dict[str, Callable[..., dict[str, Any]]] = {
    "gait3d": _gait3d,
    "leave-one-out": _leave_one_out,
    "casia-b": _by_view,
    "oumvlp": _by_view,
    "sustech1k": _by_view,
    "ccpg": _ccpg,
    "grew": _grew,
    "hid": _hid,
}
