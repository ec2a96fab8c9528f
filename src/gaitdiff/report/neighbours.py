"""Who stands next to whom: the gallery ranked for each probe, and which probes a report shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from gaitdiff.data.store import SequenceStore
from gaitdiff.evaluation.metrics import distance_matrix
from gaitdiff.evaluation.stored import select_in_store, store_protocol


@dataclass(frozen=True)
class Ranking:
    """The k nearest gallery sequences of n probes, by ascending distance.

    Attributes:
        probes: (n,) row numbers of the store, those whose person is in the gallery.
        nearest: (n, k) row numbers.
        distances: (n, k).
        right: (n, k) bool, whether it is the probe's person.
    """

    probes: np.ndarray
    nearest: np.ndarray
    distances: np.ndarray
    right: np.ndarray


def rank_gallery(
    features: Tensor, rows: np.ndarray, store: SequenceStore, protocol: str, metric: str, k: int = 5
) -> Ranking:
    """Rank the gallery as ``gaitdiff.evaluation.evaluate`` does, and keep who it is.

    Args:
        features: (N, C, P) of the rows.
        rows: (N,) row numbers of the store.
        protocol: one with a single set of probes, such as ``"gait3d"`` or ``"leave-one-out"``; of others the first
            condition counts.
        metric: ``"cosine"`` or ``"euclidean"``.

    Raises:
        UserError: the protocol gives no score, such as where no probe's person is in the gallery.
    """
    subjects = np.array([store.rows[int(row)].subject for row in rows])
    store_protocol(store, protocol).require_names()
    selection = next(iter(select_in_store(store, rows, protocol).conditions.values()))
    probe, gallery, same = selection.probe, selection.gallery, selection.same
    left_out = np.zeros((len(probe), len(gallery)), bool) if same is None else same[probe][:, None] == same[gallery]
    match = (subjects[probe][:, None] == subjects[gallery][None, :]) & ~left_out
    counted = match.any(1)
    distance = distance_matrix(features[probe[counted]], features[gallery], metric).cpu().numpy()
    distance = np.where(left_out[counted], np.inf, distance)
    others = int((~left_out[counted]).sum(axis=1).min())
    order = np.argsort(distance, axis=1, kind="stable")[:, : min(k, others)]
    return Ranking(
        probes=rows[probe[counted]],
        nearest=rows[gallery[order]],
        distances=np.take_along_axis(distance, order, axis=1),
        right=np.take_along_axis(match[counted], order, axis=1),
    )


def pick_probes(ranking: Ranking, other: Ranking, name: str) -> list[tuple[int, str]]:
    """Choose the probes to show, by a rule and not by their looks.

    Args:
        ranking, other: of two models; the same one twice where there is one alone.
        name: of the first.

    Returns:
        Up to three (position in ``ranking.probes``, why it was chosen): in the store's order the first whose nearest
        is right, the first whose nearest is wrong, and the first of the rest on which the two rankings disagree.
    """
    hit, other_hit = ranking.right[:, 0], other.right[:, 0]
    chosen: list[tuple[int, str]] = []
    for mask, why in (
        (hit, f"the first probe that the model {name} gets right"),
        (~hit, f"the first probe that the model {name} gets wrong"),
        (hit != other_hit, "the first other probe on which the two models disagree"),
    ):
        taken = {place for place, _ in chosen}
        place = next((int(i) for i in np.flatnonzero(mask) if int(i) not in taken), None)
        if place is not None:
            chosen.append((place, why))
    return chosen
