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
        protocol: one of these, in any case, with "-" or "_".
        features: (N, C, P).
        labels, types, views: N strings each.
        metric: ``"euclidean"`` or ``"cosine"``.
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
    check_metric(metric)
    walks = gather_walks(features, labels, types, views, metric, device)
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
    name = protocol.lower().replace("_", "-")
    name = {"ou-mvlp": "oumvlp", "casiab": "casia-b"}.get(name, name)
    if name not in _PROTOCOLS:
        raise UserError(
            f"there is no protocol {protocol!r}{nearest(protocol, _PROTOCOLS)}; known: {', '.join(_PROTOCOLS)}"
        )
    return name


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
    for name, column in (("labels", labels), ("types", types), ("views", views)):
        if len(column) != len(rows):
            raise UserError(f"there are {len(rows)} features but {len(column)} {name}: give one a row")
    who, what, where = (np.array([str(word) for word in column]) for column in (labels, types, views))
    own = rows.device if isinstance(rows, Tensor) else torch.device("cpu")
    return Walks(rows, who, what, where, metric, own if device is None else torch.device(device))


def _gait3d(
    walks: Walks, protocol: str, probe_set: Collection[str] = (), probe_mask: Sequence[bool] | None = None
) -> dict[str, Any]:
    named = set(probe_set)
    if probe_mask is not None and len(probe_mask) != len(walks):
        raise UserError(f"there are {len(walks)} features but probe_mask has {len(probe_mask)} rows: give one a row")
    mask = [walks.key(row) in named for row in range(len(walks))] if probe_mask is None else probe_mask
    is_probe = np.asarray(mask, bool)
    for what, count in (("probe", is_probe.sum()), ("gallery", (~is_probe).sum())):
        if count == 0:
            raise UserError(f"the {what} set is empty: probe_set must name some, but not all, rows as label-type-view")
    return walks.ranks(np.flatnonzero(is_probe), np.flatnonzero(~is_probe)).summary((1, 5, 10))


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
