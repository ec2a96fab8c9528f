"""Which rows a protocol looks for, and where: probes and gallery of each condition, before any distance is computed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from gaitdiff.datasets.conditions import Condition, split
from gaitdiff.datasets.sequences import NAMELESS
from gaitdiff.errors import UserError
from gaitdiff.evaluation.metrics import encoded


class Names(Protocol):
    """What rows are called: three (N,) arrays of str."""

    @property
    def labels(self) -> np.ndarray:
        """Who walks."""

    @property
    def types(self) -> np.ndarray:
        """In which clothes, or in which walk."""

    @property
    def views(self) -> np.ndarray:
        """Seen from where."""


@dataclass(frozen=True)
class Selection:
    """Probes and gallery of one condition.

    Attributes:
        probe, gallery: row numbers, ascending.
        same: (N,) numbers; a gallery row with the probe's own number does not count for it. None: all count.
    """

    probe: np.ndarray
    gallery: np.ndarray
    same: np.ndarray | None = None

    def unmatched(self, labels: np.ndarray) -> np.ndarray:
        """Row numbers of the probes whose person is nowhere among the gallery rows that count for them."""
        codes = encoded(labels)
        found = np.bincount(codes[self.gallery], minlength=len(codes))[codes[self.probe]]
        if self.same is not None:  # rows with one number are of one person
            own = np.bincount(self.same[self.gallery], minlength=int(self.same.max(initial=0)) + 1)
            found = found - own[self.same[self.probe]]
        return self.probe[found <= 0]

    def problem(self, labels: np.ndarray) -> str:
        """Why there is no score, "" where there is one."""
        for what, rows in (("probe", self.probe), ("gallery", self.gallery)):
            if len(rows) == 0:
                return f"the {what} set is empty"
        people = np.unique(labels[self.gallery])
        if len(people) == 1:
            return f"the gallery holds one person alone ({people[0]}), whom every probe would find"
        if len(self.unmatched(labels)) < len(self.probe):
            return ""
        if np.isin(labels[self.probe], people).any():
            if self.same is not None and len(np.unique(self.same)) == len(self.same):
                return "each person has one sequence alone, and none counts for itself"
            return "the gallery has the probes' people only in the probe's own view or camera, which does not count"
        return "no probe's person is in the gallery: check the labels, or which sequences are probes"


@dataclass(frozen=True)
class Selected:
    """The conditions of a protocol that can be scored, by name, and why the others cannot."""

    conditions: dict[str, Selection]
    missing: dict[str, str]


def select(names: Names, protocol: str, conditions: Iterable[Condition], kind: str = "") -> Selected:
    """Find probes and gallery of each condition.

    Args:
        kind: ``"single-view"`` and ``"cross-view"``: gallery rows of the probe's person in the probe's view do not
            count; ``"camera"``: nor those of its camera, the view up to its first "_"; "": all count.

    Raises:
        UserError: there is no condition that can be scored; the sentence gives the first one's reason.
    """
    found: dict[str, Selection] = {}
    missing: dict[str, str] = {}
    places = np.array([view.split("_", 1)[0] for view in names.views]) if kind == "camera" else names.views
    same = encoded(np.char.add(np.char.add(names.labels, "\n"), places)) if kind else None
    told = names.labels != NAMELESS
    for condition in conditions:
        try:
            probe, gallery = split(condition, names.types, protocol)
        except UserError as error:
            missing[condition.name] = str(error)
            continue
        selection = Selection(probe[told[probe]], gallery[told[gallery]], same)
        both = len(selection.probe) > 0 and len(selection.gallery) > 0
        pairless = _no_pair(names, selection) if both and kind == "single-view" else ""
        reason = pairless or selection.problem(names.labels)
        if reason:
            missing[condition.name] = f"protocol {protocol!r} gives no score for {condition.name}: {reason}"
        else:
            found[condition.name] = selection
    if not found:
        raise UserError(next(iter(missing.values())))
    return Selected(found, missing)


def counts(selections: Sequence[Selection], labels: np.ndarray) -> dict[str, Any]:
    """People and sequences among the probes and in the gallery of some conditions together, and the probes in vain.

    Returns:
        ``probe`` and ``gallery``, each with ``people`` and ``sequences``; ``without_match``, the number of probes whose
        person is not in the gallery.
    """
    sides = {
        "probe": np.unique(np.concatenate([selection.probe for selection in selections])),
        "gallery": np.unique(np.concatenate([selection.gallery for selection in selections])),
    }
    alone = np.unique(np.concatenate([selection.unmatched(labels) for selection in selections]))
    result: dict[str, Any] = {
        side: {"people": len(np.unique(labels[rows])), "sequences": len(rows)} for side, rows in sides.items()
    }
    return {**result, "without_match": len(alone)}


def require_score(selection: Selection, labels: np.ndarray, protocol: str) -> None:
    """Raise a UserError where a selection gives no score."""
    if reason := selection.problem(labels):
        raise UserError(f"protocol {protocol!r} gives no score: {reason}")


def several_people(labels: np.ndarray, gallery: np.ndarray, groups: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Groups of the gallery; empty where a group holds one person alone, whom every probe would find.

    Args:
        labels: (N,) of all rows.
        gallery: (m,) row numbers.
        groups: positions in ``gallery`` of each group.
    """
    return [group if len(np.unique(labels[gallery[group]])) > 1 else group[:0] for group in groups]


def _no_pair(names: Names, selection: Selection) -> str:
    """Why there is no pair of different views to compare, "" where there is one."""
    ours, theirs = (np.unique(names.views[rows]) for rows in (selection.probe, selection.gallery))
    seen = names.views[selection.gallery]
    several = [view for view in theirs if len(np.unique(names.labels[selection.gallery[seen == view]])) > 1]
    if any(one != other for one in ours for other in several) or len(np.unique(names.labels[selection.gallery])) == 1:
        return ""
    if any(one != other for one in ours for other in theirs):
        return "each view of the gallery holds one person alone, whom every probe would find"
    return f"it compares different views, but probes and gallery are all seen from {ours[0] or 'one unnamed view'}"
