"""``evaluate``: score features by a protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gaitdiff.errors import UserError
from gaitdiff.evaluation.metrics import check_metric
from gaitdiff.evaluation.protocols.protocol import get_protocol
from gaitdiff.evaluation.protocols.selection import Selected
from gaitdiff.evaluation.ranking import Features, feature_set, strings

#: What ``evaluate`` ranks by, and everything else that compares features, unless told otherwise: the paper's distance.
DEFAULT_METRIC = "cosine"


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
    how = get_protocol(protocol)
    walks = feature_set(features, labels, types, views, check_metric(metric), device)
    how.check(protocol_data)
    walks.require_finite()
    return how.score(walks, **protocol_data)


def headline_metrics(scores: dict[str, Any]) -> dict[str, float]:
    """The numbers that ``evaluate`` gives at the top, without the details."""
    return {key: value for key, value in scores.items() if isinstance(value, (int, float))}


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
    how = get_protocol(protocol)
    if setting is not None:
        if not how.settings:
            raise UserError(f"protocol {how.name!r} has no setting {setting!r}, nor any other: leave it out")
        protocol_data["setting"] = setting
    return how.select(as_names(labels, types, views), **protocol_data)


@dataclass(frozen=True)
class _Names:
    labels: np.ndarray
    types: np.ndarray
    views: np.ndarray


def as_names(labels: Sequence[str], types: Sequence[str], views: Sequence[str]) -> _Names:
    """Put the names of rows together, as a protocol selects by them."""
    return _Names(*(strings("names", column, len(labels)) for column in (labels, types, views)))
