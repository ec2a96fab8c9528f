"""Scores by view: CASIA-B, OU-MVLP and SUSTech1K, from one view to another or among all views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gaitdiff.errors import UserError
from gaitdiff.evaluation.conditions import Condition, split
from gaitdiff.evaluation.metrics import encoded, require_match
from gaitdiff.evaluation.ranking import Walks

Table = list[list[float | None]]


def single_view(
    walks: Walks, protocol: str, conditions: Sequence[Condition], ranks: Sequence[int] = (1,)
) -> dict[str, Any]:
    """Rank-k from each probe view to each gallery view.

    As the field reports it: each pair of views is rounded to 2 decimals, then averaged for a probe view without the
    pair of the view with itself, then over the probe views; a probe whose person the gallery view does not have is a
    miss. A pair without probes or without gallery has no score (None) and is left out of the averages.

    Returns:
        For each condition ``matrix`` [probe view][gallery view], ``per_probe_view`` and ``mean``, each by ``rank1`` …,
        and ``probes``; ``views``, the views in their order; and over all conditions, or of "Overall" alone where there
        is one: ``rank1`` …, the mean, and ``probes``.

    Raises:
        UserError: a condition without probes or gallery, no probe with its person in the gallery, or no pair of
            different views.
    """
    rows = {condition.name: split(condition, walks.types, protocol) for condition in conditions}
    gallery = rows[conditions[0].name][1]
    probe = np.unique(np.concatenate([found for found, _ in rows.values()]))
    views = np.unique(walks.views[np.concatenate([probe, gallery])])
    groups = [np.flatnonzero(walks.views[gallery] == view) for view in views]
    first = walks.first_ranks(probe, gallery, groups)
    require_match(first)
    result: dict[str, Any] = {}
    for name, (found, _) in rows.items():
        mine = np.searchsorted(probe, found)
        scores = [view_matrix(first[mine], walks.views[found], views, groups, k) for k in ranks]
        per_view = [without_diagonal(matrix) for matrix in scores]
        result[name] = {
            "mean": {f"rank{k}": averaged(row) for k, row in zip(ranks, per_view, strict=True)},
            "per_probe_view": {f"rank{k}": row for k, row in zip(ranks, per_view, strict=True)},
            "matrix": {f"rank{k}": matrix for k, matrix in zip(ranks, scores, strict=True)},
            "probes": len(found),
        }
        if result[name]["mean"]["rank1"] is None:
            raise UserError(
                f"protocol {protocol!r} compares different views, but {name} has none to compare: probes are seen from "
                f"{', '.join(np.unique(walks.views[found]))}, the gallery from "
                f"{', '.join(np.unique(walks.views[gallery]))}"
            )
    summed = [result["Overall"]] if "Overall" in result else list(result.values())
    headline = {f"rank{k}": float(np.mean([row["mean"][f"rank{k}"] for row in summed])) for k in ranks}
    probes = result["Overall"]["probes"] if "Overall" in result else len(probe)
    return {**headline, "probes": probes, "views": views.tolist(), **result}


def cross_view(walks: Walks, protocol: str, conditions: Sequence[Condition]) -> dict[str, Any]:
    """Rank-1 and mAP of each probe view against all views.

    As the field reports it: gallery rows of the probe's person in the probe's view do not count; the scores of a probe
    view are rounded to 2 decimals, then averaged over the views; a probe without a match is a miss for rank-1 and left
    out of mAP. A view without probes, or whose probes all lack a match, has no score (None).

    Returns:
        For each condition ``rank1``, ``mAP``, ``rank1_per_probe_view``, ``mAP_per_probe_view`` and ``probes``;
        ``views``, the views in their order; ``probes``; and ``rank1`` and ``mAP``, the means over the conditions.

    Raises:
        UserError: a condition without probes or gallery, or without any match.
    """
    same = encoded(np.char.add(np.char.add(walks.labels, "\n"), walks.views))
    rows = {condition.name: split(condition, walks.types, protocol) for condition in conditions}
    views = np.unique(walks.views[np.concatenate([found for pair in rows.values() for found in pair])])
    result: dict[str, Any] = {}
    for name, (probe, gallery) in rows.items():
        ranks = walks.ranks(probe, gallery, same)
        require_match(ranks.first)
        seen = [walks.views[probe] == view for view in views]
        matched = [mask & (ranks.first > 0) for mask in seen]
        rank1 = [percentage(ranks.first[mask] == 1) for mask in seen]
        mean_precision = [percentage(ranks.precision[mask]) for mask in matched]
        result[name] = {
            "rank1": averaged(rank1),
            "mAP": averaged(mean_precision),
            "rank1_per_probe_view": rank1,
            "mAP_per_probe_view": mean_precision,
            "probes": len(probe),
        }
    headline = {key: float(np.mean([row[key] for row in result.values()])) for key in ("rank1", "mAP")}
    probes = len(np.unique(np.concatenate([probe for probe, _ in rows.values()])))
    return {**headline, "probes": probes, "views": views.tolist(), **result}


def view_matrix(first: np.ndarray, seen: np.ndarray, views: np.ndarray, groups: list[np.ndarray], k: int) -> Table:
    """Rank-k in percent, rounded, of each probe view in each gallery view; None where either has no row.

    Args:
        first: (n, V) ranks of the first matches in each gallery view, 0 for none.
        seen: (n,) the probes' views.
        views: (V,) all views.
        groups: gallery rows of each view.
    """
    hit = (first > 0) & (first <= k)
    table: Table = []
    for view in views:
        mine = hit[seen == view]
        table.append([percentage(mine[:, g]) if len(groups[g]) else None for g in range(len(views))])
    return table


def percentage(values: np.ndarray) -> float | None:
    """Mean in percent, rounded to 2 decimals (a half to the even one); None of nothing."""
    return float(np.round(100.0 * values.sum() / len(values), 2)) if len(values) else None


def without_diagonal(matrix: Table) -> list[float | None]:
    """Mean of each row without the diagonal's value; None where nothing is left."""
    return [averaged([value for g, value in enumerate(row) if g != p]) for p, row in enumerate(matrix)]


def averaged(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are there; None of nothing."""
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None
