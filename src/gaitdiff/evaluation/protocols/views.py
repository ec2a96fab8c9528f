"""Protocols by view: CASIA-B, OU-MVLP and SUSTech1K, from one view to another or among all views."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from gaitdiff.datasets.conditions import conditions_of, setting_name
from gaitdiff.evaluation.protocols.protocol import Protocol, register_protocol
from gaitdiff.evaluation.protocols.selection import Names, Selected, counts, select, several_people
from gaitdiff.evaluation.ranking import FeatureSet

Table = list[list[float | None]]


def _select(names: Names, protocol: str, setting: str = "single-view") -> Selected:
    return select(names, protocol, conditions_of(protocol, setting), setting_name(setting))


def _score(walks: FeatureSet, protocol: str, ranks: Sequence[int], setting: str = "single-view") -> dict[str, Any]:
    scores = cross_view if setting_name(setting) == "cross-view" else single_view
    return scores(walks, _select(walks, protocol, setting), ranks)


def single_view(walks: FeatureSet, selected: Selected, ranks: Sequence[int]) -> dict[str, Any]:
    """Rank-k and mAP from each probe view to each gallery view.

    As the field reports it: each pair of views is rounded to 2 decimals, then averaged for a probe view without the
    pair of the view with itself, then over the probe views; a probe whose person the gallery view does not have is a
    miss for rank-k and left out of mAP. A pair without probes or without gallery, or with one of a single person,
    has no score (None) and is left out of the averages.

    Args:
        selected: conditions, all with one gallery.
        ranks: the k of rank-k.

    Returns:
        See ``_results``; ``matrix`` [probe view][gallery view].
    """
    gallery = next(iter(selected.conditions.values())).gallery  # of all conditions
    probe = np.unique(np.concatenate([one.probe for one in selected.conditions.values()]))
    views = np.unique(walks.views[np.concatenate([probe, gallery])])
    groups = [np.flatnonzero(walks.views[gallery] == view) for view in views]
    groups = several_people(walks.labels, gallery, groups)
    first, precision = walks.ranks_by_group(probe, gallery, groups)
    found: dict[str, dict[str, Any]] = {}
    for name, selection in selected.conditions.items():
        mine = np.searchsorted(probe, selection.probe)
        seen = walks.views[selection.probe]
        matrices = {f"rank{k}": view_matrix(first[mine], seen, views, groups, k) for k in ranks}
        matrices["mAP"] = _precision_matrix(first[mine], precision[mine], seen, views)
        found[name] = {
            "per_probe_view": {key: without_diagonal(matrix) for key, matrix in matrices.items()},
            "matrix": matrices,
        }
    return _results(walks, selected, found, views)


def cross_view(walks: FeatureSet, selected: Selected, ranks: Sequence[int]) -> dict[str, Any]:
    """Rank-k and mAP of each probe view against all views.

    As the field reports it: gallery rows of the probe's person in the probe's view do not count; the scores of a probe
    view are rounded to 2 decimals, then averaged over the views; a probe without a match is a miss for rank-k and left
    out of mAP. A view without probes, or whose probes all lack a match, has no score (None).

    Args:
        selected: conditions.
        ranks: the k of rank-k.

    Returns:
        See ``_results``; ``matrix`` is None, since a probe view meets all gallery views at once.
    """
    both = [np.concatenate([one.probe, one.gallery]) for one in selected.conditions.values()]
    views = np.unique(walks.views[np.concatenate(both)])
    found: dict[str, dict[str, Any]] = {}
    for name, selection in selected.conditions.items():
        place = walks.ranks(selection.probe, selection.gallery, selection.same)
        seen = [walks.views[selection.probe] == view for view in views]
        hit = {f"rank{k}": (place.first > 0) & (place.first <= k) for k in ranks}
        per_view = {key: [percentage(values[mask]) for mask in seen] for key, values in hit.items()}
        per_view["mAP"] = [percentage(place.precision[mask & (place.first > 0)]) for mask in seen]
        found[name] = {"per_probe_view": per_view, "matrix": None}
    return _results(walks, selected, found, views)


def _results(
    walks: FeatureSet, selected: Selected, found: dict[str, dict[str, Any]], views: np.ndarray
) -> dict[str, Any]:
    """Put the scores of conditions into one shape, whatever the setting.

    Returns:
        Over all conditions, or of "Overall" alone where there is one: ``rank1`` …, ``mAP``, the means, and ``probes``;
        for each condition ``mean`` and ``per_probe_view``, each by ``rank1`` …, ``mAP``; the same numbers as ``rank1``,
        ``rank1_per_probe_view`` …, as the field names those of its cross-view setting; ``matrix``, ``probes`` and
        ``counts``; ``views``, the views in their order; ``counts`` and ``missing``, why a condition has no score.
    """
    result: dict[str, Any] = {}
    for name, scores in found.items():
        per_view = scores["per_probe_view"]
        mean = {key: averaged(values) for key, values in per_view.items()}
        flat = {f"{key}_per_probe_view": values for key, values in per_view.items()}
        selection = selected.conditions[name]
        own = {"probes": len(selection.probe), "counts": counts([selection], walks.labels)}
        result[name] = {"mean": mean, **scores, **mean, **flat, **own}
    summed = [result["Overall"]] if "Overall" in result else list(result.values())
    headline = {}
    for key in summed[0]["mean"]:
        values = [row["mean"][key] for row in summed if row["mean"][key] is not None]
        if values:
            headline[key] = float(np.mean(values))
    selections = list(selected.conditions.values())
    together = counts(selections, walks.labels)
    probes = result["Overall"]["probes"] if "Overall" in result else together["probe"]["sequences"]
    names = {"views": views.tolist(), "counts": together, "missing": selected.missing}
    return {**headline, "probes": probes, **names, **result}


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


def _precision_matrix(first: np.ndarray, precision: np.ndarray, seen: np.ndarray, views: np.ndarray) -> Table:
    """Mean average precision in percent over the probes of each view whose person the gallery view has, else None.

    Args:
        first, precision: (n, V) ranks of the first matches in each gallery view, 0 for none, and average precisions.
    """
    table: Table = []
    for view in views:
        mine = seen == view
        table.append([percentage(precision[mine, g][first[mine, g] > 0]) for g in range(len(views))])
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


def _protocol(name: str, ranks: Sequence[int]) -> Protocol:
    score = partial(_score, protocol=name, ranks=ranks)
    return register_protocol(Protocol(name, partial(_select, protocol=name), score, takes=("setting",)))


CASIA_B = _protocol("casia-b", (1, 5))
OUMVLP = _protocol("oumvlp", (1, 5))
SUSTECH1K = _protocol("sustech1k", (1, 2, 3, 4, 5))
