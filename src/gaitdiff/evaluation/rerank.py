"""k-reciprocal re-ranking (Zhong et al. 2017, "Re-ranking Person Re-identification with k-reciprocal Encoding")."""

from __future__ import annotations

import numpy as np

from gaitdiff.errors import UserError
from gaitdiff.evaluation.metrics import require_finite, row_batches

_TINY = np.finfo(np.float32).tiny


def rerank(distance: np.ndarray, queries: int, k1: int = 20, k2: int = 6, weight: float = 0.3) -> np.ndarray:
    """Distances from queries to the gallery that know who is whose mutual neighbour.

    Distances are divided by the largest of their row before anything else: the Gaussian weights (eq. 7) and the final
    distance (eq. 12) are taken of these. They are not squared, which is how the field's reference does it. Memory:
    about five times that of ``distance``.

    Args:
        distance: (n, n) among all sequences, the queries first.
        queries: q, how many of them are queries; the rest is the gallery.
        k1: neighbours that must be mutual (the paper's k₁, eq. 2).
        k2: neighbours whose encodings are averaged (local query expansion, eq. 9); 1 leaves that out.
        weight: λ of eq. 12, the share of the original distance.

    Returns:
        (q, n - q) float32.

    Raises:
        UserError: the matrix is not square, holds NaN or less than 0, or nothing is left for queries or gallery; a k
            below 1, or a weight that is no share.
    """
    distance = np.asarray(distance)
    n = len(distance)
    if distance.shape != (n, n) or not 0 < queries < n:
        raise UserError(
            f"re-ranking needs the distances among all sequences, queries first: {queries} queries do not fit a matrix "
            f"of the shape {distance.shape}"
        )
    if k1 < 1 or k2 < 1:
        raise UserError(f"re-ranking needs k1 and k2 of at least 1, not {k1} and {k2}")
    if not 0 <= weight <= 1:
        raise UserError(f"re-ranking needs a weight from 0 to 1, not {weight}")
    require_finite(distance)
    if distance.min() < -1e-4 * max(distance.max(), 1.0):  # further below 0 than rounding brings it
        raise UserError(f"re-ranking needs distances of at least 0, not {distance.min():g}")
    largest = distance.max(axis=1, keepdims=True).clip(min=_TINY)
    original = (distance / largest).astype(np.float32, copy=False)
    order = _nearest(original, max(k1 + 1, k2))
    encoding = _encoding(original, order, k1)
    if k2 > 1:
        encoding = np.stack([encoding[near].mean(axis=0) for near in order[:, :k2]])
    return (1 - weight) * _jaccard(encoding, queries) + weight * original[:queries, queries:]


def _nearest(distance: np.ndarray, k: int) -> np.ndarray:
    """(n, k) numbers of the k nearest, itself among them, ascending by distance; ties in their order."""
    rows = row_batches(*distance.shape)
    return np.concatenate([np.argsort(distance[some], axis=1, kind="stable")[:, :k] for some in rows])


def _encoding(original: np.ndarray, order: np.ndarray, k1: int) -> np.ndarray:
    """Row i: Gaussian weights of the members of the expanded mutual neighbours R*(i, k₁), of sum 1 (eq. 7)."""
    mutual, half = _mutual(order, k1), _mutual(order, int(np.around(k1 / 2)))
    shared = half.astype(np.float32) @ mutual.T.astype(np.float32)  # [q, i]: |R(q, k₁/2) ∩ R(i, k₁)|
    joins = mutual & (shared > 2 / 3 * half.sum(axis=1)[:, None]).T  # eq. 5: q of R(i, k₁) brings its own along
    expanded = mutual | (joins.astype(np.float32) @ half.astype(np.float32) > 0)
    weights = np.where(expanded, np.exp(-original), np.float32(0))
    return weights / weights.sum(axis=1, keepdims=True).clip(min=_TINY)  # 0 only among more than k₁ equal rows


def _mutual(order: np.ndarray, k: int) -> np.ndarray:
    """(n, n) bool: whether each of two is itself or among the k nearest others of the other (R(i, k), eq. 3)."""
    near = np.zeros((len(order), len(order)), bool)
    np.put_along_axis(near, order[:, : k + 1], True, axis=1)
    return near & near.T


def _jaccard(encoding: np.ndarray, queries: int) -> np.ndarray:
    """Jaccard distances (q, n - q) of encodings of sum 1 (eq. 10), over what a query's encoding is not 0 at."""
    columns = np.ascontiguousarray(encoding[queries:].T)
    result = np.empty((queries, len(encoding) - queries), np.float32)
    for query in range(queries):
        members = np.flatnonzero(encoding[query])
        shared = np.minimum(columns[members], encoding[query, members, None]).sum(axis=0)
        result[query] = 1 - shared / (2 - shared)
    return result
