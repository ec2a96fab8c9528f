"""Ranking a gallery for probes whose features may be larger than memory."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gaitdiff.errors import NotFiniteError, UserError
from gaitdiff.evaluation.metrics import (
    ProbeRanks,
    as_features,
    common_shift,
    distances,
    encoded,
    first_not_finite,
    prepare,
    rank_probes,
    row_batches,
    sample,
)

Features = Tensor | np.ndarray

#: Bytes that ranking may hold at a time, whatever the number of sequences.
MEMORY = 384 << 20


@dataclass(frozen=True)
class FeatureSet:
    """Sequences by their features and names.

    Attributes:
        features: (N, C, P), a tensor on any device or an array, which may be a ``numpy.memmap`` larger than memory.
        labels, types, views: (N,) arrays of str.
        metric: distance to rank by.
        device: where distances are computed.
    """

    features: Features
    labels: np.ndarray
    types: np.ndarray
    views: np.ndarray
    metric: str
    device: torch.device

    def __len__(self) -> int:
        return len(self.features)

    def key(self, row: int) -> str:
        """``label-type-view`` of a row."""
        return f"{self.labels[row]}-{self.types[row]}-{self.views[row]}"

    def require_finite(self) -> None:
        """Read all features once.

        Raises:
            UserError: one holds NaN or infinity; the sentence names its row.
        """
        for rows in self._blocks(np.arange(len(self)), MEMORY // 8):
            bad = first_not_finite(self._read(rows))
            if bad is not None:
                row = int(rows[bad])
                raise NotFiniteError(f"feature {row} ({self.key(row)}) is not finite: the model that made it is broken")

    def distances(self, probe: np.ndarray, gallery: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Distances of some probes at a time to the whole gallery.

        Probes pass in chunks, and for each chunk the gallery in blocks.

        Args:
            probe, gallery: (n,), (m,) row numbers.

        Yields:
            Which of the probes, and their distances (k, m) float32.
        """
        parts = self.features.shape[2]
        longest = max(1, MEMORY // 2 // (4 * max(1, len(gallery))))  # half of the memory for distances
        shift = common_shift(self._read(sample(gallery))) if len(gallery) and self.metric == "euclidean" else None
        done = 0
        for chunk in self._blocks(probe, MEMORY // 8, longest):
            ours = prepare(self._read(chunk), self.metric, shift)
            whole = np.empty((len(chunk), len(gallery)), np.float32)
            filled = 0
            for block in self._blocks(gallery, MEMORY // 16, max(1, MEMORY // 16 // (4 * len(chunk)))):
                theirs = prepare(self._read(block), self.metric, shift)
                part = distances(ours, theirs, self.metric, parts)
                whole[:, filled : filled + len(block)] = part.cpu().numpy()
                filled += len(block)
                del theirs, part
            yield slice(done, done + len(chunk)), whole
            done += len(chunk)
            del ours, whole

    def ranks(self, probe: np.ndarray, gallery: np.ndarray, same: np.ndarray | None = None) -> ProbeRanks:
        """Where each probe finds its person.

        Args:
            probe, gallery: (n,), (m,) row numbers.
            same: (N,) numbers; a gallery row with the probe's own number does not count for it.
        """
        codes = encoded(self.labels)
        pieces = []
        for rows, distance in self.distances(probe, gallery):
            ignored = None if same is None else partial(_equal, same[probe[rows]], same[gallery])
            pieces.append(rank_probes(distance, codes[probe[rows]], codes[gallery], ignored))
        return ProbeRanks.joined(pieces)

    def ranks_by_group(
        self, probe: np.ndarray, gallery: np.ndarray, groups: list[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where each probe finds its person within each group of the gallery.

        Args:
            probe, gallery: (n,), (m,) row numbers.
            groups: positions in ``gallery``, ascending, for each of V groups.

        Returns:
            (n, V) int64 ranks of the nearest match, 0 where the group does not have the person; (n, V) average
            precisions in 0..1.
        """
        codes = encoded(self.labels)
        first, precision = (np.zeros((len(probe), len(groups)), kind) for kind in (np.int64, np.float64))
        for rows, distance in self.distances(probe, gallery):
            for number, columns in enumerate(groups):
                for some in row_batches(*distance.shape):
                    ours = slice(rows.start + some.start, rows.start + some.stop)
                    near = distance[some][:, columns]
                    found = rank_probes(near, codes[probe[ours]], codes[gallery[columns]])
                    first[ours, number], precision[ours, number] = found.first, found.precision
        return first, precision

    def nearest(self, probe: np.ndarray, gallery: np.ndarray, k: int) -> np.ndarray:
        """(n, k) row numbers of the nearest gallery rows, ascending by distance; ties in the gallery's order."""
        found = np.empty((len(probe), k), np.int64)
        for rows, distance in self.distances(probe, gallery):
            for some in row_batches(*distance.shape):
                order = np.argsort(distance[some], axis=1, kind="stable")[:, :k]
                found[rows.start + some.start : rows.start + some.stop] = gallery[order]
        return found

    def _blocks(self, rows: np.ndarray, size: int, longest: int | None = None) -> Iterator[np.ndarray]:
        """Row numbers in blocks whose features take at most ``size`` bytes as float32."""
        count = max(1, size // (4 * int(np.prod(self.features.shape[1:]))))
        count = count if longest is None else min(count, longest)
        return (rows[first : first + count] for first in range(0, len(rows), count))

    def _read(self, rows: np.ndarray) -> Tensor:
        """(k, C, P) on the device."""
        if isinstance(self.features, Tensor):
            return self.features[torch.from_numpy(rows).to(self.features.device)].to(self.device)
        block = torch.from_numpy(np.asarray(self.features[rows]))
        drop_pages(self.features)
        return block.to(self.device)


def _equal(probe: np.ndarray, gallery: np.ndarray, rows: slice) -> np.ndarray:
    """(k, m) bool: which of the gallery's numbers are those of some of the probes."""
    return probe[rows, None] == gallery


def drop_pages(array: np.ndarray) -> None:
    """Give the pages of a memory-mapped array back to the system, which keeps what was written to them.

    A mapped file counts as a process's memory for as long as its pages were touched and nobody else needs the room.
    """
    mapping = getattr(array, "_mmap", None)
    if mapping is not None and getattr(array, "mode", "c") != "c" and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)


def feature_set(
    features: Features,
    labels: Sequence[str],
    types: Sequence[str],
    views: Sequence[str],
    metric: str,
    device: str | torch.device | None = None,
) -> FeatureSet:
    """Put features and names together, checked against each other.

    Raises:
        UserError: features that are not (N, C, P), lists of other lengths.
    """
    rows = as_features(features)
    if rows.ndim != 3 or 0 in rows.shape:
        raise UserError(f"features must have the shape (N, C, P), one row a sequence, not {tuple(rows.shape)}")
    who, what, where = (
        strings(name, column, len(rows)) for name, column in (("labels", labels), ("types", types), ("views", views))
    )
    return FeatureSet(rows, who, what, where, metric, _usable(device, rows))


def strings(name: str, column: Any, count: int) -> np.ndarray:
    """A column of names as (N,) str, from strings, bytes or numbers in a list, an array or a tensor.

    Raises:
        UserError: not ``count`` of them.
    """
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
