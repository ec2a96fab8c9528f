"""Evaluation protocols: which sequences are probes, which are the gallery, and what is reported."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from gaitdiff.errors import UserError, nearest
from gaitdiff.evaluation.metrics import distance_matrix, rank_metrics


def evaluate(
    protocol: str,
    features: Tensor | np.ndarray,
    labels: Sequence[str],
    types: Sequence[str],
    views: Sequence[str],
    metric: str = "euclidean",
    **protocol_data: object,
) -> dict[str, float]:
    """Score features by a protocol.

    Args:
        protocol: ``"gait3d"``: rows named in ``probe_set`` ("label-type-view"), or true in ``probe_mask``, are probes,
            all others the gallery, no camera is left out; ``"leave-one-out"``: every row is a probe once, against all
            others.
        features: (N, C, P).
        labels, types, views: N strings each.
        metric: ``"euclidean"`` or ``"cosine"``.
        **protocol_data: what the protocol needs besides, such as ``probe_set``.

    Returns:
        Percentages ``rank1``, ``rank5``, ``rank10``, ``mAP``, ``mINP``, and ``probes``, how many were counted.

    Raises:
        UserError: unknown protocol or missing data, lists of other lengths, an empty probe set or gallery.
    """
    check_protocol(protocol)
    rows = torch.as_tensor(features)
    for name, column in (("labels", labels), ("types", types), ("views", views)):
        if len(column) != len(rows):
            raise UserError(f"there are {len(rows)} features but {len(column)} {name}: give one a row")
    keys = [f"{label}-{kind}-{view}" for label, kind, view in zip(labels, types, views, strict=True)]
    score = _PROTOCOLS[protocol]
    try:
        inspect.signature(score).bind(rows, np.asarray(labels), keys, metric, **protocol_data)
    except TypeError as error:
        raise UserError(f"protocol {protocol!r} needs other data: {error}") from error
    return score(rows, np.asarray(labels), keys, metric, **protocol_data)


def check_protocol(protocol: str) -> None:
    """Raise a UserError that names the nearest protocol, unless ``evaluate`` knows it."""
    if protocol not in _PROTOCOLS:
        raise UserError(
            f"there is no protocol {protocol!r}{nearest(protocol, _PROTOCOLS)}; known: {', '.join(_PROTOCOLS)}"
        )


def _gait3d(
    features: Tensor,
    labels: np.ndarray,
    keys: list[str],
    metric: str,
    *,
    probe_set: Collection[str] = (),
    probe_mask: Sequence[bool] | None = None,
) -> dict[str, float]:
    named = set(probe_set)
    is_probe = np.array([key in named for key in keys] if probe_mask is None else probe_mask, bool)
    for what, count in (("probe", is_probe.sum()), ("gallery", (~is_probe).sum())):
        if count == 0:
            raise UserError(f"the {what} set is empty: probe_set must name some, but not all, rows as label-type-view")
    mask = torch.from_numpy(is_probe)
    distance = distance_matrix(features[mask], features[~mask], metric).cpu().numpy()
    return rank_metrics(distance, labels[is_probe], labels[~is_probe])


def _leave_one_out(features: Tensor, labels: np.ndarray, keys: list[str], metric: str) -> dict[str, float]:
    distance = distance_matrix(features, features, metric).cpu().numpy()
    return rank_metrics(distance, labels, labels, ignore=np.eye(len(labels), dtype=bool))


_PROTOCOLS: dict[str, Callable[..., dict[str, float]]] = {"gait3d": _gait3d, "leave-one-out": _leave_one_out}
