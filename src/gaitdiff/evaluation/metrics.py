"""Distances between gait features and what ranking by them gives: rank-k, mAP, mINP."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gaitdiff.errors import NotFiniteError, UserError, nearest
from gaitdiff.recognition.losses import DISTANCES

METRICS = DISTANCES

#: Distances that are ranked at a time: few enough to stay in a processor's cache.
_RANKED_AT_A_TIME = 1 << 19

#: Rows that the common shift of Euclidean distances is taken from, at most.
_SHIFT_ROWS = 63


@dataclass(frozen=True)
class Prepared:
    """Features in the form that distances are computed from.

    Attributes:
        values: (n, P, C) for Euclidean distances; (n, 1, C·P) of unit length part by part, for cosine.
        squares: (P, n) squared lengths of the values; none for cosine.
    """

    values: Tensor
    squares: Tensor


@dataclass(frozen=True)
class ProbeRanks:
    """Where n probes find their own person in the gallery.

    Attributes:
        first: (n,) int64, rank of the nearest match, 1 for the nearest of all; 0 where the gallery has none.
        precision: (n,) average precision in 0..1; 0 where there is no match.
        inverse: (n,) INP: number of matches / rank of the last one; 0 where there is no match.
    """

    first: np.ndarray
    precision: np.ndarray
    inverse: np.ndarray

    @staticmethod
    def joined(pieces: Sequence[ProbeRanks]) -> ProbeRanks:
        """The ranks of several groups of probes as one."""
        return ProbeRanks(
            np.concatenate([piece.first for piece in pieces]),
            np.concatenate([piece.precision for piece in pieces]),
            np.concatenate([piece.inverse for piece in pieces]),
        )

    def summary(self, ranks: Sequence[int]) -> dict[str, float]:
        """``rank1`` …, ``mAP``, ``mINP`` in percent over the probes with a match, and ``probes``, their number.

        Raises:
            UserError: no probe has a match.
        """
        counted = self.first > 0
        require_match(self.first)
        result = {f"rank{k}": 100.0 * float((self.first[counted] <= k).mean()) for k in ranks}
        result["mAP"] = 100.0 * float(self.precision[counted].mean())
        result["mINP"] = 100.0 * float(self.inverse[counted].mean())
        result["probes"] = int(counted.sum())
        return result


def require_match(first: np.ndarray) -> None:
    """Raise a UserError if no probe has a match (ranks of first matches, 0 for none)."""
    if not first.any():
        raise UserError("no probe's person is in the gallery: check the labels, or which sequences are probes")


def check_metric(metric: str) -> str:
    """The metric's name in lower case; a UserError names the nearest one, unless there is this one."""
    name = str(metric).lower()
    if name not in METRICS:
        raise UserError(f"there is no metric {metric!r}{nearest(name, METRICS)}; known: {', '.join(METRICS)}")
    return name


def prepare(features: Tensor, metric: str, shift: Tensor | None = None) -> Prepared:
    """Bring features (n, C, P) into the form for ``distances``.

    Args:
        shift: (C, P), for Euclidean distances: taken off all features, which changes no distance, but keeps the digits
            of close ones; see ``common_shift``.

    Raises:
        UserError: features whose squared lengths float32 cannot hold.
    """
    values = features.float()
    if metric == "cosine":
        lengths = torch.linalg.vector_norm(values, dim=1, keepdim=True)
        largest = lengths.max()
        values = (values / lengths.clamp(min=1e-12)).flatten(1).unsqueeze(1)
        squares = values.new_empty(0)
    else:
        values = (values if shift is None else values - shift).transpose(1, 2).contiguous()
        squares = values.square().sum(2).T.contiguous()
        largest = 8 * squares.max()  # a distance squared is at most 4 times as large
    if not bool(largest.isfinite()):
        raise NotFiniteError("the features are too large for distances in float32: the model that made them is broken")
    return Prepared(values, squares)


def common_shift(features: Tensor) -> Tensor:
    """A vector amid the features, (C, P): the median of each number over some rows (k, C, P).

    A median, unlike a mean, follows no outlier, and whole numbers stay whole.
    """
    return features.float().median(dim=0).values


def sample(rows: np.ndarray) -> np.ndarray:
    """Some of the rows, evenly spread, for ``common_shift``: the same however many are read at a time."""
    return rows[:: -(-len(rows) // _SHIFT_ROWS)]


def distances(probe: Prepared, gallery: Prepared, metric: str, parts: int) -> Tensor:
    """(n, m) float32: mean over the parts of the distances between the part vectors.

    The cosine similarities of all parts are one product of matrices; Euclidean distances take one product a part, in a
    buffer that is used again.
    """
    if metric == "cosine":
        return (probe.values[:, 0] @ gallery.values[:, 0].T).div_(-parts).add_(1.0)
    shape = (len(probe.values), len(gallery.values))
    total, product = probe.values.new_zeros(shape), probe.values.new_empty(shape)
    for part in range(parts):
        torch.mm(-2.0 * probe.values[:, part], gallery.values[:, part].T, out=product)
        product.add_(probe.squares[part][:, None]).add_(gallery.squares[part])
        total += product.clamp_(min=0).sqrt_()
    return total.div_(parts)


def as_features(given: Tensor | np.ndarray | Sequence[Any]) -> Tensor | np.ndarray:
    """Features as a tensor without gradient, or as the array they are; a list of rows as a tensor.

    Raises:
        UserError: rows of different shapes, or of anything but numbers.
    """
    if isinstance(given, Tensor | np.ndarray):
        if torch.is_complex(given) if isinstance(given, Tensor) else np.iscomplexobj(given):
            raise UserError(f"features must be real numbers, not {given.dtype}")
        return given.detach() if isinstance(given, Tensor) else given
    try:
        if len(given) and isinstance(given[0], Tensor):
            return torch.stack([row.detach() for row in given])
        return torch.from_numpy(np.array(given, np.float32))
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise UserError("features must be rows of numbers, all of one shape (C, P)") from error


def distance_matrix(
    probe: Tensor | np.ndarray | Sequence[Any], gallery: Tensor | np.ndarray | Sequence[Any], metric: str = "cosine"
) -> Tensor:
    """Mean over parts of the distances between part vectors.

    Args:
        probe: (n, C, P), a tensor, an array or a list of rows; no gradient flows through the distances.
        gallery: (m, C, P).
        metric: ``"cosine"``, 1 - mean over parts of the cosine similarity, or ``"euclidean"``.

    Returns:
        (n, m) float32, on the probes' device.

    Raises:
        UserError: unknown metric, shapes that do not fit, or features that are not finite or too large for float32.
    """
    metric = check_metric(metric)
    probe, gallery = (torch.as_tensor(as_features(given)) for given in (probe, gallery))
    if probe.ndim != 3 or gallery.ndim != 3 or probe.shape[1:] != gallery.shape[1:]:
        raise UserError(
            f"probe and gallery features must have the shapes (n, C, P) and (m, C, P), "
            f"not {tuple(probe.shape)} and {tuple(gallery.shape)}"
        )
    for name, features in (("probe", probe), ("gallery", gallery)):
        row = first_not_finite(features)
        if row is not None:
            raise NotFiniteError(f"{name} feature {row} is not finite: the model that made it is broken")
    if 0 in (*probe.shape, *gallery.shape):
        return probe.new_zeros((len(probe), len(gallery)), dtype=torch.float32)
    shift = common_shift(gallery[torch.from_numpy(sample(np.arange(len(gallery)))).to(gallery.device)])
    return distances(prepare(probe, metric, shift), prepare(gallery, metric, shift), metric, probe.shape[2])


def first_not_finite(features: Tensor) -> int | None:
    """Number of the first row that holds NaN or infinity."""
    doubtful = ~features.flatten(1).sum(1, dtype=torch.float32).isfinite()  # a sum is quick, but may overflow
    for row in doubtful.nonzero().flatten().tolist():
        if not bool(features[row].isfinite().all()):
            return int(row)
    return None


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
        UserError: shapes that do not fit, a distance that is not finite, a rank below 1, or no probe has its person in
            the gallery.
    """
    distance = np.asarray(distance)
    if distance.shape != (len(probe_labels), len(gallery_labels)):
        raise UserError(
            f"{len(probe_labels)} probe labels and {len(gallery_labels)} gallery labels do not fit distances of the "
            f"shape {distance.shape}"
        )
    if ignore is not None and np.shape(ignore) != distance.shape:
        raise UserError(f"ignore must have the shape of the distances, {distance.shape}, not {np.shape(ignore)}")
    if distance.size == 0:
        raise UserError(f"there are {len(distance)} probes and a gallery of {distance.shape[1]}: give some of both")
    ranks = tuple(ranks)
    if min(ranks, default=1) < 1:
        raise UserError(f"the k of rank-k are numbers from 1 on, not {ranks}")
    require_finite(distance)
    codes = encoded(np.concatenate([probe_labels, gallery_labels]))
    ignored = None if ignore is None else ignore.__getitem__
    return rank_probes(distance, codes[: len(distance)], codes[len(distance) :], ignored).summary(ranks)


def require_finite(distance: np.ndarray) -> None:
    """Refuse distances that hold NaN or infinity.

    Raises:
        NotFiniteError: some do.
    """
    if not np.isfinite(distance).all():
        raise NotFiniteError("some distances are not numbers (NaN) or are infinite: the model behind them is broken")


def encoded(labels: np.ndarray) -> np.ndarray:
    """Labels as numbers, int64, equal where the labels are."""
    return np.unique(labels, return_inverse=True)[1].reshape(-1)


def rank_probes(
    distance: np.ndarray,
    probe_codes: np.ndarray,
    gallery_codes: np.ndarray,
    ignored: Callable[[slice], np.ndarray] | None = None,
) -> ProbeRanks:
    """Find the ranks of every probe's matches, as a stable sort of the gallery by distance would give them.

    Nothing is sorted but the distances themselves: the rank of a match is 1 + the number of gallery rows nearer, and
    of those as near that come before it.

    Args:
        distance: (n, m).
        probe_codes, gallery_codes: (n,), (m,) numbers, equal for the same person.
        ignored: gives, for a slice of the probes, the gallery rows that do not count for them, (k, m) bool.
    """
    pieces = []
    for rows in row_batches(*distance.shape):
        near, match = distance[rows], probe_codes[rows, None] == gallery_codes
        if ignored is not None:
            passed_over = ignored(rows)
            near, match = np.where(passed_over, np.inf, near), match & ~passed_over
        pieces.append(_rank_some(near, match))
    return ProbeRanks.joined(pieces)


def row_batches(rows: int, columns: int) -> Iterator[slice]:
    """Slices of the rows of a matrix that fit a processor's cache."""
    size = max(1, _RANKED_AT_A_TIME // max(1, columns))
    return (slice(first, min(first + size, rows)) for first in range(0, rows, size))


def _rank_some(distance: np.ndarray, match: np.ndarray) -> ProbeRanks:
    """Ranks of the matches of a few probes: (n, m), (n, m) bool."""
    probe, column = np.nonzero(match)
    value = distance[probe, column]
    order = np.lexsort((value, probe))  # by probe, then distance, then gallery order
    probe, column, value = probe[order], column[order], value[order]
    start = np.searchsorted(probe, np.arange(len(distance) + 1))
    nearer, as_near = np.empty_like(probe), np.empty_like(probe)
    for row, ascending in enumerate(np.sort(distance, axis=1)):
        mine = slice(start[row], start[row + 1])
        nearer[mine] = ascending.searchsorted(value[mine])
        as_near[mine] = ascending.searchsorted(value[mine], side="right") - nearer[mine]
    for tied in np.flatnonzero(as_near > 1):
        nearer[tied] += np.count_nonzero(distance[probe[tied], : column[tied]] == value[tied])
    rank, count, found = nearer + 1, np.diff(start), np.diff(start) > 0
    first, inverse = np.zeros(len(distance), np.int64), np.zeros(len(distance))
    first[found] = rank[start[:-1][found]]
    inverse[found] = count[found] / rank[start[1:][found] - 1]
    precision = (np.arange(len(probe)) - start[probe] + 1) / rank
    summed = np.bincount(probe, weights=precision, minlength=len(distance))
    return ProbeRanks(first, summed / np.maximum(count, 1), inverse)
