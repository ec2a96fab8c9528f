"""Distances between gait features and what ranking by them gives: rank-k, mAP, mINP."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gaitdiff.errors import UserError, nearest

METRICS = ("euclidean", "cosine")


def distance_matrix(probe: Tensor, gallery: Tensor, metric: str = "euclidean") -> Tensor:
    """Mean over parts of the distances between part vectors.

    Args:
        probe: (n, C, P).
        gallery: (m, C, P).
        metric: ``"euclidean"``, or ``"cosine"``: 1 - mean over parts of the cosine similarity.

    Returns:
        (n, m) float32, on the probes' device.

    Raises:
        UserError: unknown metric, shapes that do not fit, or features that are not finite.
    """
    if metric not in METRICS:
        raise UserError(f"there is no metric {metric!r}{nearest(metric, METRICS)}; known: {', '.join(METRICS)}")
    if probe.ndim != 3 or gallery.ndim != 3 or probe.shape[1:] != gallery.shape[1:]:
        raise UserError(
            f"probe and gallery features must have the shapes (n, C, P) and (m, C, P), "
            f"not {tuple(probe.shape)} and {tuple(gallery.shape)}"
        )
    for name, features in (("probe", probe), ("gallery", gallery)):
        bad = ~features.isfinite().flatten(1).all(1)
        if bool(bad.any()):
            raise UserError(f"{name} feature {int(bad.nonzero()[0])} is not finite: the model that made it is broken")
    total = probe.new_zeros((len(probe), len(gallery)), dtype=torch.float32)
    for part in range(probe.shape[2]):
        a, b = probe[:, :, part].float(), gallery[:, :, part].float()
        if metric == "cosine":
            total += 1.0 - F.normalize(a, dim=1) @ F.normalize(b, dim=1).T
        else:
            squared = a.square().sum(1)[:, None] + b.square().sum(1)[None] - 2.0 * a @ b.T
            total += squared.clamp(min=0).sqrt()
    return total / probe.shape[2]


def rank_metrics(
    distance: np.ndarray,
    probe_labels: np.ndarray,
    gallery_labels: np.ndarray,
    ranks: tuple[int, ...] = (1, 5, 10),
    ignore: np.ndarray | None = None,
) -> dict[str, float]:
    """Rank-k, mAP and mINP in percent, over the probes whose person is in the gallery.

    Args:
        distance: (n, m).
        probe_labels, gallery_labels: (n,), (m,) of any comparable kind.
        ranks: the k of rank-k; one beyond the gallery's size counts the whole gallery.
        ignore: (n, m) bool, gallery rows that do not count for a probe (its own sequence, say).

    Returns:
        ``rank1`` …, ``mAP``, ``mINP`` (matches divided by the rank of the last one), and ``probes``, the number of
        probes counted.

    Raises:
        UserError: no probe has its person in the gallery.
    """
    match = probe_labels[:, None] == gallery_labels[None, :]
    if ignore is not None:
        distance = np.where(ignore, np.inf, distance)
        match = match & ~ignore
    counted = match.any(1)
    if not counted.any():
        raise UserError("no probe's person is in the gallery: check the labels, or which sequences are probes")
    order = np.argsort(distance[counted], axis=1, kind="stable")
    hits = np.take_along_axis(match[counted], order, axis=1)  # (n', m) by rank
    found = hits.cumsum(1)
    total = found[:, -1]
    position = np.arange(1, hits.shape[1] + 1)
    precision = (found / position * hits).sum(1) / total
    last = hits.shape[1] - np.argmax(hits[:, ::-1], axis=1)
    result = {f"rank{k}": 100.0 * float((found[:, min(k, hits.shape[1]) - 1] > 0).mean()) for k in ranks}
    result["mAP"] = 100.0 * float(precision.mean())
    result["mINP"] = 100.0 * float((total / last).mean())
    result["probes"] = int(counted.sum())
    return result
